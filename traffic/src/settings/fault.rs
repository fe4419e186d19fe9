//! What is made to fail on purpose.

use serde::{Deserialize, Serialize};

use super::Percent;
use crate::Period;

/// Faults that a caller's sidecar injects before a request is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Requests that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<DelayFault>,
    /// Requests that are answered with an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortFault>,
}

/// A share of the requests waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayFault {
    /// Which share.
    pub percent: Percent,
    /// How long.
    pub delay: Period,
}

/// A share of the requests is answered without being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbortFault {
    /// Which share.
    pub percent: Percent,
    /// The HTTP status, 200 to 599. A gRPC call gets the status that gRPC maps it to.
    pub status: u16,
}
