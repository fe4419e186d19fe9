//! How single requests are treated: time-outs, retries, and the spelling of paths.

pub use postern_intentions::{DoubleSlash, EncodedSlash};
use serde::{Deserialize, Serialize};

use super::Percent;
use crate::Period;

/// How long anything may take. `0s` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To reach an instance: connect and handshake.
    pub connect: Period,
    /// From the whole request head to the head of the answer, retries included. A gRPC deadline that is shorter holds.
    pub request: Period,
    /// The same for each try; `0s`: `request` alone holds.
    pub per_try: Period,
    /// Without a byte in either direction, while a request is open.
    pub idle: Period,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Period::seconds(2),
            request: Period::seconds(15),
            per_try: Period::seconds(0),
            idle: Period::seconds(300),
        }
    }
}

/// What is tried again, on another instance where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Tries after the first one.
    pub attempts: u32,
    /// What makes a try worth another one.
    pub on: Vec<RetryOn>,
    /// Status codes that do, beside `on`.
    pub statuses: Vec<u16>,
    /// Methods that may be repeated (upper case); empty: those that are idempotent (RFC 9110 §9.2.2) or, for gRPC, none
    /// but where nothing was sent.
    pub methods: Vec<String>,
    /// Retries at once, as a share of the requests that are active; at least three are always allowed.
    pub budget: Percent,
    /// The pause before a retry.
    pub backoff: Backoff,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: vec![RetryOn::ConnectFailure],
            statuses: Vec::new(),
            methods: Vec::new(),
            budget: Percent::of(20),
            backoff: Backoff::default(),
        }
    }
}

/// A condition under which a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// No instance took the request: nothing of it was sent.
    ConnectFailure,
    /// The instance went away before it answered.
    Reset,
    /// 502, 503 or 504.
    GatewayError,
    /// Any 5xx, and what [`RetryOn::Reset`] says.
    #[serde(rename = "5xx")]
    ServerError,
    /// A try took longer than `per_try`.
    PerTryTimeout,
    /// gRPC status 14.
    Unavailable,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 13.
    Internal,
}

/// Full jitter between nothing and `base`, which doubles with each retry up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// The longest first pause.
    pub base: Period,
    /// The longest pause of all.
    pub max: Period,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Period::millis(25), max: Period::millis(250) }
    }
}
