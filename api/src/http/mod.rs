//! The bodies of the HTTP API: what the control plane answers and what the command line sends.
//!
//! | route | request → answer |
//! |---|---|
//! | `GET /v1/mesh` | → [`MeshInfo`]; needs no credential: it is how a client knows that it talks to Postern |
//! | `GET /v1/intentions` | → [`Intentions`] |
//! | `PUT /v1/intentions` | [`ApplyRequest`] → [`Applied`] |
//! | `GET /v1/intentions/{source}/{destination}` | → `Vec<`[`StoredIntention`]`>`: the permanent and the temporary one |
//! | `PUT /v1/intentions/{source}/{destination}` | [`SetRequest`] → [`Written`] |
//! | `DELETE /v1/intentions/{source}/{destination}?temporary=&reason=&wait_ms=` | → [`Written`] |
//! | `PUT /v1/default-policy` | [`DefaultRequest`] → [`Written`] |
//! | `GET /v1/history?source=&destination=&limit=&before=` | → `Vec<`[`Change`]`>`, newest first |
//! | `POST /v1/rollback` | [`RollbackRequest`] → [`Applied`] |
//! | `POST /v1/decide` | [`DecideRequest`] → [`Decided`]: `check` and `explain` |
//! | `POST /v1/tokens`, `GET /v1/tokens`, `DELETE /v1/tokens/{id}?svids=` | [`CreateTokenRequest`] → [`CreatedToken`]; `Vec<`[`Token`]`>`; [`TokenRevoked`] |
//! | `GET /v1/services`, `GET /v1/services/{name}` | → `Vec<`[`ServiceSummary`]`>`; [`ServiceDetail`] |
//! | `GET /v1/service-config` | → [`ServiceConfig`] |
//! | `PUT /v1/service-config` | [`ApplyServiceConfigRequest`] → [`AppliedServiceConfig`] |
//! | `GET /v1/service-config/{service}` | → [`StoredSettings`] |
//! | `PUT /v1/service-config/{service}` | [`ApplyServiceConfigRequest`] with this service alone → [`AppliedServiceConfig`] |
//! | `DELETE /v1/service-config/{service}?reason=&wait_ms=` | → [`Written`] |
//! | `GET /v1/jwt-providers/{name}`, `DELETE …?reason=&wait_ms=` | → [`StoredProvider`]; [`Written`] |
//! | `DELETE /v1/instances/{id}?revoke=` | → [`Deregistered`] |
//! | `GET /v1/authority` | → [`AuthorityStatus`] |
//! | `GET /v1/authority/bundle` | → PEM |
//! | `GET /v1/overview` | → [`Status`] |
//! | `GET /v1/edges?since_s=&service=&source=&destination=&verdict=&by=` | → [`Edges`] |
//! | `GET /v1/live?since_s=&service=&source=&destination=&verdict=&what=&for_s=` | → server-sent events: [`SeenDecision`], [`Edges`], [`LiveChange`] |
//! | `POST /v1/suggest` | [`SuggestRequest`] → [`Suggestion`] |
//! | `GET /v1/doctor` | → `Vec<`[`Finding`]`>` |
//! | `GET /v1/prometheus/targets` | → `Vec<`[`PrometheusTarget`]`>` |
//! | `GET /metrics` | → Prometheus text |
//!
//! `*` in a path is written as it is or as `%2A`. Times are RFC 3339, UTC. Every error is an [`ErrorBody`].

mod held;
mod history;
mod seen;
mod service_config;

use std::collections::BTreeMap;

use postern_intentions::{DefaultPolicy, Explanation, Intention, Party, Protocol, Shadowed};
use postern_names::{Datacenter, InstanceId, PortName, ServiceName, TrustDomain};
use serde::{Deserialize, Serialize};

pub use self::held::{Held, HeldBy};
pub use self::history::{Change, RollbackRequest};
pub use self::seen::{
    Decision as SeenDecision, EdgeRow, Edges, Effect, Effects, Evidence, LiveChange, OpenPair, Recent, SuggestRequest, Suggested,
    Suggestion, WouldClose,
};
pub use self::service_config::{
    AppliedServiceConfig, ApplyServiceConfigRequest, Difference, ProviderKeys, ServiceConfig, StoredProvider, StoredSettings,
};

/// Why a request failed, and what to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, naming the thing and the place.
    pub error: String,
    /// The cure, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Which mesh this control plane serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeshInfo {
    /// Always `postern`.
    pub product: String,
    /// MAJOR.MINOR.PATCH of the control plane.
    pub version: String,
    /// One id for the life of the store.
    pub cluster_id: String,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Raised by every restore from a snapshot.
    #[serde(default)]
    pub epoch: u64,
    /// The wall clock of the control plane, milliseconds since the Unix epoch.
    pub server_time_ms: u64,
}

/// An intention with its place in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredIntention {
    /// What it says.
    #[serde(flatten)]
    pub intention: Intention,
    /// 9, 8, 6 or 5.
    pub precedence: u8,
    /// The store revision that last changed it.
    pub revision: u64,
    /// When it was last set.
    pub created_at: String,
    /// Who set it: a token id or a uid.
    pub created_by: String,
    /// Why, in the words of who set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All intentions, highest precedence first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Intentions {
    /// The verdict where nothing matches.
    pub default: DefaultPolicy,
    /// The store revision of this view.
    pub revision: u64,
    /// Highest precedence first, then by source and destination.
    pub intentions: Vec<StoredIntention>,
}

/// Sets the intention of one pair; with `expires_in_s` the temporary one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    /// `allow`, `deny` or `audit`. `audit` puts the pair's permanent intention into audit mode, or makes {deny, audit}.
    pub verb: SetVerb,
    /// Seconds that it lasts: the temporary intention of the pair is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// For the audit log and `history`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds to wait for the connected sidecars concerned; 0 returns at commit.
    #[serde(default)]
    pub wait_ms: u64,
    /// Only say what would change: the answer is an [`Applied`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// As in [`ApplyRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
}

/// What [`SetRequest`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetVerb {
    /// Replace by an enforced allow.
    Allow,
    /// Replace by an enforced deny.
    Deny,
    /// Set `mode: audit`.
    Audit,
}

/// Changes the default policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultRequest {
    /// The new default.
    pub policy: DefaultPolicy,
    /// For the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As in [`SetRequest`].
    #[serde(default)]
    pub wait_ms: u64,
    /// As in [`SetRequest`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// As in [`ApplyRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
}

/// Makes the store equal to a file, atomically.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Absent: the default stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultPolicy>,
    /// Permanent intentions.
    pub intentions: Vec<Intention>,
    /// Keep permanent intentions that are not in the request.
    #[serde(default)]
    pub merge: bool,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Refuse (409) when the store has changed intentions or default since this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
    /// For the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As in [`SetRequest`].
    #[serde(default)]
    pub wait_ms: u64,
    /// Of a dry run: only calls that were seen in the last so many seconds are judged; all that are kept unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_s: Option<u64>,
}

/// What an apply did, or would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// Pairs that are new.
    pub added: Vec<Intention>,
    /// Before and after.
    pub changed: Vec<(Intention, Intention)>,
    /// Pairs that are gone.
    pub removed: Vec<Intention>,
    /// The default before and after, where it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<(DefaultPolicy, DefaultPolicy)>,
    /// The revision that the difference was computed against.
    pub base_revision: u64,
    /// Connected sidecars that would not understand it and so deny, each with the first intention and the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_understood_by: Vec<String>,
    /// Intentions and permissions of the request that decide nothing, and what stands before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadowed: Vec<Shadowed>,
    /// Pairs of the request that no call matches: a side of them names a service that nobody knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never_matched: Vec<String>,
    /// Of a dry run: what it would do to the calls that were seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Effects>,
    /// Absent for a dry run and when nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
}

/// A committed change of intentions, and on how many sidecars it is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Written {
    /// The revision of the change.
    pub revision: u64,
    /// False when the store said so already; nothing was written then.
    pub changed: bool,
    /// When it was durable: microseconds since the Unix epoch.
    pub committed_at_us: u64,
    /// What the pair says now, for a change of one pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intention: Option<Intention>,
    /// Something the caller should know, such as «this lets web reach db».
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Absent with `wait_ms: 0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
}

/// Where a change is in force.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InForce {
    /// Connected sidecars concerned.
    pub concerned: usize,
    /// Those that acknowledged.
    pub acknowledged: usize,
    /// From the commit to the last acknowledgement, in milliseconds.
    pub took_ms: f64,
    /// Open connections that those who acknowledged closed for it.
    #[serde(default)]
    pub closed: u64,
    /// Requests under way that they ended for it.
    #[serde(default)]
    pub ended_requests: u64,
    /// Connected sidecars that did not acknowledge in time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<InstanceId>,
    /// Instances concerned that have no open stream, with the time they were last seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_connected: Vec<NotConnected>,
}

/// An instance without an open stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotConnected {
    /// Which one.
    pub instance: InstanceId,
    /// RFC 3339.
    pub since: String,
}

/// Asks what the evaluator says of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    /// The caller.
    pub source: ServiceName,
    /// The service that is called.
    pub destination: ServiceName,
    /// `main` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// An HTTP method, for a request instead of a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path of the request, with its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Headers of the request, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

/// The evaluator's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decided {
    /// Whether the call goes through.
    pub allowed: bool,
    /// Allowed only because of audit.
    pub would_deny: bool,
    /// The intention or the default that decided.
    pub because: String,
    /// The protocol of the destination as declared, `tcp` if not.
    pub protocol: Protocol,
    /// Every intention that matches, and what became of it.
    pub explanation: Explanation,
    /// For a request that goes through: the target that is forwarded, where it is not the one that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<String>,
    /// Where it is denied, or would be without audit: the command that lets it through and nothing more, to be pasted into
    /// a shell; none: no intention so small does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The intention that the command sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggested: Option<Intention>,
    /// What decides now, and how the suggestion gets by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion_why: Option<String>,
    /// What the sidecars that would judge the call hold; absent where a file was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// The last decisions on calls of this pair that sidecars told, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<SeenDecision>,
    /// Things to know: no such service registered, sidecars behind, and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Makes an enrolment token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTokenRequest {
    /// The service that its bearer becomes.
    pub service: ServiceName,
    /// How often it may be spent; 1 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Seconds that it lasts; 900 unless given, 86,400 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
}

/// A token, printed once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatedToken {
    /// Names it in lists and logs.
    pub id: String,
    /// `postern1.…`
    pub token: String,
    /// The service that its bearer becomes.
    pub service: ServiceName,
    /// How often it may be spent.
    pub uses: u32,
    /// RFC 3339.
    pub expires_at: String,
}

/// A token as listed: never its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// Names it.
    pub id: String,
    /// The service that its bearer becomes.
    pub service: ServiceName,
    /// How often it was made to be spent.
    pub uses: u32,
    /// How often it can still be spent.
    pub uses_left: u32,
    /// RFC 3339.
    pub expires_at: String,
    /// Who made it.
    pub created_by: String,
    /// `active`, `spent`, `expired` or `revoked`.
    pub state: String,
}

/// What revoking a token did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRevoked {
    /// The token.
    pub id: String,
    /// SVIDs that were revoked with it.
    pub svids_revoked: usize,
    /// The revision of the change.
    pub revision: u64,
}

/// A service in the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Its name.
    pub name: ServiceName,
    /// As set by an operator, else as declared, if it was.
    pub protocol: Option<Protocol>,
    /// Registered instances.
    pub instances: usize,
    /// Those that can be called.
    pub healthy: usize,
    /// Those with an open stream.
    pub connected: usize,
    /// Those without a sidecar, which can be found and are endpoints of no upstream.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub without_sidecar: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A service with its instances.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceDetail {
    /// Its name.
    pub name: ServiceName,
    /// As set by an operator, else as declared, if it was.
    pub protocol: Option<Protocol>,
    /// Its instances with a sidecar, by id.
    pub instances: Vec<Instance>,
    /// Its instances without one, by node and id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registered: Vec<RegisteredInstance>,
    /// Intentions whose destination is this service or `*`.
    pub inbound: Vec<StoredIntention>,
    /// What an operator set for it, where something is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<StoredSettings>,
}

/// One running copy of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// HOST:PORT that others dial; absent when it only calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `healthy`, `warning`, `critical`, `maintenance` or `left`.
    pub health: String,
    /// Whether its sidecar has an open stream.
    pub connected: bool,
    /// Since when (RFC 3339) it is connected or not.
    pub since: String,
    /// Named ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortName>,
    /// `--meta`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// REGION[/ZONE].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub locality: String,
    /// Host name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Version of the sidecar; empty when it never connected to this control plane.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Revision that it acknowledged on the authority lane.
    pub revision: u64,
    /// RFC 3339: when its newest SVID ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svid_not_after: Option<String>,
    /// `--tag`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The services that its sidecar is set up to call (`--upstream`), while it is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<ServiceName>,
    /// What its checks say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckState>,
}

/// An instance without a sidecar: for discovery alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisteredInstance {
    /// Unique on its node.
    pub id: String,
    /// Where it runs.
    pub node: String,
    /// A host name or IP address, its node's where it has none of its own.
    pub address: String,
    /// 0: none.
    pub port: u16,
    /// `healthy`, `warning`, `critical` or `maintenance`.
    pub health: String,
    /// By which it can be found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What its checks say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckState>,
}

/// What a check says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckState {
    /// Unique on its node.
    pub id: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// In its words, or why it is in maintenance.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What deregistering did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deregistered {
    /// The instance.
    pub id: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// Whether its lineage was revoked.
    pub revoked: bool,
    /// The revision of the change.
    pub revision: u64,
}

/// The certificate authority.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Roots that sidecars trust.
    pub roots: Vec<CertificateStatus>,
    /// The certificate that signs SVIDs.
    pub intermediate: CertificateStatus,
    /// Lifetime of an SVID in seconds.
    pub svid_ttl_s: u64,
    /// Unexpired SVIDs.
    pub active_svids: usize,
    /// Revoked, not yet expired.
    pub revoked_svids: usize,
}

/// One certificate of the authority.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Base32 SHA-256 of its SPKI, as in enrolment tokens.
    pub pin: String,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// `built-in` or `brought`.
    pub origin: String,
}

/// The control plane at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Which mesh.
    pub mesh: MeshInfo,
    /// RFC 3339: start of this process.
    pub started_at: String,
    /// Store revision.
    pub revision: u64,
    /// `deny`, `allow` or `audit`.
    pub default: DefaultPolicy,
    /// Number of intentions.
    pub intentions: usize,
    /// Number of services.
    pub services: usize,
    /// Every registered instance.
    pub instances: Vec<Instance>,
    /// Instances that acknowledged less than they were sent.
    pub behind: Vec<InstanceId>,
    /// Intentions that a sidecar did not understand.
    pub not_understood: Vec<NotUnderstoodBy>,
}

/// A sidecar that did not understand something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotUnderstoodBy {
    /// Which sidecar.
    pub instance: InstanceId,
    /// Which resource.
    pub key: String,
    /// Why.
    pub why: String,
}

/// Something that `doctor` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word, such as `svid_expired`.
    pub code: String,
    /// What it concerns: an instance, a service, a file.
    pub subject: String,
    /// What is the matter.
    pub message: String,
    /// What to do.
    pub cure: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Ok,
    /// Will hurt soon, or hurts little.
    Warning,
    /// Hurts now.
    Error,
}

/// One entry of Prometheus' `http_sd_configs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrometheusTarget {
    /// HOST:PORT.
    pub targets: Vec<String>,
    /// `service`, `service_instance`, `datacenter`.
    pub labels: BTreeMap<String, String>,
}

/// Both sides of a pair as text, for messages.
pub fn pair(source: &Party, destination: &Party) -> String {
    format!("{source} -> {destination}")
}
