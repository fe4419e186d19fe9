//! What is counted of an edge.

use std::sync::Arc;
use std::time::SystemTime;

use crate::Histogram;

/// Counts of one edge over some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Connections, or HTTP requests.
    pub count: u64,
    /// Of those, the ones that went through and failed: an HTTP status of 500 and above, a gRPC status other than 0, no answer.
    pub errors: u64,
    /// Bytes from the caller.
    pub bytes_in: u64,
    /// Bytes to the caller.
    pub bytes_out: u64,
    /// From a request's head to the last byte of its answer. Empty for connections.
    pub latency: Histogram,
    /// The first of them.
    pub first_seen: SystemTime,
    /// The last of them.
    pub last_seen: SystemTime,
    /// The path of one of them as it was received, without its query: to judge others like it. Absent for connections.
    pub sample: Option<Arc<str>>,
}

impl Tally {
    /// Nothing yet; `at` is when the first is seen.
    pub fn new(at: SystemTime) -> Self {
        Self {
            count: 0,
            errors: 0,
            bytes_in: 0,
            bytes_out: 0,
            latency: Histogram::default(),
            first_seen: at,
            last_seen: at,
            sample: None,
        }
    }

    /// Adds what was counted elsewhere, or at another time.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.errors = self.errors.saturating_add(other.errors);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.latency.merge(&other.latency);
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        if self.sample.is_none() {
            self.sample.clone_from(&other.sample);
        }
    }
}
