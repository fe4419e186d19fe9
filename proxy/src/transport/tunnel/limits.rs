//! How much one tunnel may hold and how fast the peer may make work.

use std::time::Duration;

/// The limits of one tunnel. Both ends of a tunnel may have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TunnelLimits {
    /// Streams that are open at once.
    pub streams: usize,
    /// Bytes that a new stream may have unread; at least [`super::EARLY_DATA`].
    pub initial_credit: u32,
    /// Bytes that a stream may have unread once its reader has kept up.
    pub most_credit: u32,
    /// Bytes that it may have unread on a long way, as far as what [`Machine::set_most_over`](super::Machine::set_most_over)
    /// says has room for what is over `most_credit`.
    pub largest_credit: u32,
    /// OPENs in one second that are refused, or reset before they were accepted.
    pub refused_per_second: u32,
    /// PINGs in one second, questions and answers.
    pub pings_per_second: u32,
    /// Silence after which a PING asks whether the peer is there.
    pub ping_after: Duration,
    /// Silence after that PING that means it is not.
    pub dead_after: Duration,
    /// Bytes of one stream within a second, both ways, over which the tunnel is busy.
    pub busy_bytes: u32,
}

impl Default for TunnelLimits {
    fn default() -> Self {
        Self {
            streams: 2_048,
            initial_credit: 64 * 1024,
            most_credit: 1024 * 1024,
            largest_credit: 8 * 1024 * 1024,
            refused_per_second: 500,
            pings_per_second: 10,
            ping_after: Duration::from_secs(10),
            dead_after: Duration::from_secs(5),
            busy_bytes: 4 * 1024 * 1024,
        }
    }
}
