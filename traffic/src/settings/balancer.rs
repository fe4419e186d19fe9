//! Which instance a request goes to.

use serde::{Deserialize, Serialize};

/// How an instance is chosen among those that can take the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Balancer {
    /// By which rule.
    pub policy: Policy,
    /// For `ring_hash` and `maglev`: what of a request decides. The first that the request has counts; none: a random one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hash_on: Vec<HashOn>,
    /// Whether near instances come first.
    #[serde(skip_serializing_if = "super::is_default")]
    pub locality: LocalityPreference,
}

/// The rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Of two random instances the one with the lower cost: a peak-sensitive moving average of its latency times the
    /// requests that are open on it.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// Consistent hashing on a ring.
    RingHash,
    /// Consistent hashing by a table (Eisenbud et al., NSDI 2016).
    Maglev,
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum HashOn {
    /// The value of this header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this parameter of the query.
    Query(String),
    /// The address of the process that called, as its sidecar sees it.
    Source(SourceAddress),
}

/// The one way to name the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceAddress {
    /// Its IP address.
    Address,
}

/// Whether instances of the caller's own locality are preferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalityPreference {
    /// The same zone before the same region before all others, as long as enough of the nearer ones can take requests.
    #[default]
    Prefer,
    /// All are alike.
    Ignore,
}
