//! When an instance that fails is left out for a while.

use serde::{Deserialize, Serialize};

use super::Percent;
use crate::Period;

/// Ejection by what a caller sees of an instance: 5xx answers, resets, failed connects and time-outs count as failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierEjection {
    /// Failures in a row after which an instance is ejected; 0: never.
    pub consecutive_failures: u32,
    /// How often success rates are compared.
    pub interval: Period,
    /// An instance is ejected whose success rate in an interval is below this; `0`: never. Judged where at least
    /// `success_rate_requests` were seen.
    pub success_rate: Percent,
    /// Requests in an interval below which no rate is judged.
    pub success_rate_requests: u32,
    /// How long the first ejection lasts; the nth lasts n times as long.
    pub base_time: Period,
    /// The longest ejection.
    pub max_time: Period,
    /// How many of the instances may be ejected at once; never more than half, whatever this says.
    pub max_ejected: Percent,
}

impl Default for OutlierEjection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            interval: Period::seconds(10),
            success_rate: Percent::default(),
            success_rate_requests: 100,
            base_time: Period::seconds(30),
            max_time: Period::seconds(300),
            max_ejected: Percent::of(50),
        }
    }
}
