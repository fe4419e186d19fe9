//! How much is asked of a service at once.

use postern_names::ServiceName;
use serde::{Deserialize, Serialize};

use super::RequestMatch;

/// What one caller's sidecar asks of a service at once, at most. Over it the answer is 503 with `x-postern-overloaded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreakers {
    /// Connections to one instance.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests in flight to the whole service.
    pub requests: u32,
}

impl Default for CircuitBreakers {
    fn default() -> Self {
        Self { connections: 1_024, pending: 1_024, requests: 4_096 }
    }
}

/// A limit at the destination's sidecars, counted by each of them for itself. Over it the answer is 429, gRPC status 8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests that it counts; absent: all.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<RequestMatch>,
    /// Only requests of this caller; absent: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ServiceName>,
    /// Whether each caller has a share of its own.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub per: RateKey,
    /// Requests a second, 0.001 to 1,000,000, in steps of 0.001.
    pub requests_per_second: f64,
    /// Requests at once after a quiet time, 1 to 1,000,000; absent: those of one second, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Who shares a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateKey {
    /// Each calling service has its own.
    #[default]
    Caller,
    /// All callers share one.
    Service,
}
