//! What was seen of calls, and what follows from it.

use postern_edges::{Edge, Verdict};
use postern_intentions::{Intention, Protocol};
use postern_names::{InstanceId, PortName, ServiceName};
use serde::{Deserialize, Serialize};

/// Edges that were seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Edges {
    /// RFC 3339: the begin of what was looked at.
    pub since: String,
    /// RFC 3339: its end.
    pub until: String,
    /// By destination, then by source.
    pub edges: Vec<EdgeRow>,
    /// Calls whose edge there was no room for; they are in none of the rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One edge with its counts. With `by=pair` one row stands for all methods and shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeRow {
    /// Who called whom and how it was judged.
    #[serde(flatten)]
    pub edge: Edge,
    /// Connections, or HTTP requests.
    pub count: u64,
    /// Of those, what went through and failed.
    pub errors: u64,
    /// From the caller.
    pub bytes_in: u64,
    /// To the caller.
    pub bytes_out: u64,
    /// Half of the requests took at most so long. Absent for connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// 99 of 100 took at most so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// A second, over the last 30 seconds.
    pub rate: f64,
    /// The last 30 seconds.
    pub recent: Recent,
    /// Open now: connections, or requests under way.
    pub open: u64,
    /// Instances of the destination that told it, at most 100.
    pub instances: usize,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339.
    pub last_seen: String,
    /// The path of one of the requests, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
}

/// Counts of the last 30 seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// As of the row.
    pub count: u64,
    /// As of the row.
    pub errors: u64,
    /// As of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// As of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// One call, or several that are alike, as a sidecar decided it: the event `decision` of `GET /v1/live`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// RFC 3339.
    pub at: String,
    /// The calling service.
    pub source: ServiceName,
    /// The called service.
    pub destination: ServiceName,
    /// The instance whose sidecar tells it: of the destination, for `failed` of the source.
    pub instance: InstanceId,
    /// The called port.
    pub port: PortName,
    /// What the destination speaks.
    pub protocol: Protocol,
    /// What became of it.
    pub verdict: Verdict,
    /// What decided.
    pub because: String,
    /// Of an HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of an HTTP request, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How many are alike; 1 or more.
    pub count: u32,
}

/// The event `change` of `GET /v1/live`: intentions, the default or services changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveChange {
    /// The store revision.
    pub revision: u64,
}

/// Asks for intentions that allow what was seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuggestRequest {
    /// Seconds to look back; 86,400 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_s: Option<u64>,
    /// Methods and paths of HTTP requests, instead of whole services.
    #[serde(default)]
    pub l7: bool,
    /// Only calls of or to this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
}

/// Intentions that allow what was seen and nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Suggestion {
    /// The file, with the evidence as comments. It begins with `default: deny`.
    pub file: String,
    /// What is in it.
    pub intentions: Vec<Suggested>,
    /// Edges that it was made from.
    pub edges: usize,
    /// RFC 3339: the begin of what was looked at.
    pub since: String,
    /// RFC 3339: its end.
    pub until: String,
    /// Calls that there was no room for, since the start of the control plane: what they need is not in the file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// What to know before it is applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One suggested intention.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Suggested {
    /// What it says.
    pub intention: Intention,
    /// Why it is needed: the edges that it allows.
    pub evidence: Vec<Evidence>,
}

/// An edge that an intention is needed for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evidence {
    /// The called port.
    pub port: PortName,
    /// Of HTTP requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of HTTP requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// Calls.
    pub count: u64,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339.
    pub last_seen: String,
    /// Instances of the destination that saw it.
    pub instances: usize,
}

/// What a change of intentions would do to the calls that were seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Effects {
    /// RFC 3339: the begin of what was looked at.
    pub since: String,
    /// Edges looked at.
    pub edges: usize,
    /// Calls that there was no room for, since the start of the control plane: they are not judged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// What goes through now and would be refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newly_denied: Vec<Effect>,
    /// What is refused now and would go through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newly_allowed: Vec<Effect>,
    /// What would go through only because of audit, and does not now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newly_audited: Vec<Effect>,
    /// What is open now and would be closed.
    pub closes: WouldClose,
    /// What could not be judged for sure, such as permissions on headers, which are not counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An edge whose verdict changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Effect {
    /// The edge as it was seen.
    pub seen: EdgeRow,
    /// What decides now.
    pub before: String,
    /// What would decide.
    pub after: String,
}

/// What is open and would be closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldClose {
    /// Connections whose bytes mean nothing to the sidecar.
    pub connections: u64,
    /// HTTP requests under way.
    pub requests: u64,
    /// By pair, most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<OpenPair>,
}

/// What is open of a pair of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPair {
    /// The calling service.
    pub source: ServiceName,
    /// The called service.
    pub destination: ServiceName,
    /// As in [`WouldClose`].
    pub connections: u64,
    /// As in [`WouldClose`].
    pub requests: u64,
}
