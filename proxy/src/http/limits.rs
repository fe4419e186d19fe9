//! How much of everything HTTP may take (`security.md`, limits).

use std::time::Duration;

/// Limits of HTTP connections and requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// The time in which a whole request head must arrive, from its first byte.
    pub head: Duration,
    /// Bytes of a request head, and of an HTTP/2 header list.
    pub head_bytes: usize,
    /// Bytes that an HTTP/1 connection holds of what it reads, and of what it writes, while a body passes. More are fewer
    /// calls of the kernel and fewer turns between the two connections of a request. Heads of answers have this limit too.
    pub body_bytes: usize,
    /// Headers of an HTTP/1 message.
    pub headers: usize,
    /// Streams of one HTTP/2 connection at once.
    pub streams: u32,
    /// HTTP/2 streams that the peer may reset before they were accepted.
    pub early_resets: usize,
    /// HTTP/2 streams that we may reset for faults of the peer.
    pub own_resets: usize,
    /// HTTP/2 frames that say nothing (empty DATA, SETTINGS, PING, PRIORITY, unknown kinds) at once; a tenth of it a second
    /// afterwards, and one for each frame with content and each KiB that is sent.
    pub empty_frames: u32,
    /// An HTTP/2 connection asks its peer for a sign of life so often.
    pub ping_interval: Duration,
    /// And ends when none comes in so long.
    pub ping_timeout: Duration,
    /// A connection without a request open is closed after so long.
    pub idle: Duration,
    /// A connection without a request open gives its buffers back after so long.
    pub drowsy: Duration,
    /// A pooled connection that nobody used for so long is closed: sooner than the peer would.
    pub pooled_idle: Duration,
    /// Pooled connections to one place that nobody uses.
    pub pooled_most: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            head_bytes: 64 * 1024,
            body_bytes: 256 * 1024,
            headers: 128,
            streams: 100,
            early_resets: 20,
            own_resets: 1_024,
            empty_frames: 1_000,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            drowsy: Duration::from_secs(1),
            pooled_idle: Duration::from_secs(50),
            pooled_most: 256,
        }
    }
}

impl HttpLimits {
    /// The same at the destination, where a head that was just within the limits has grown by what the caller's sidecar adds.
    pub(crate) fn with_room_for_a_sidecar(&self) -> Self {
        Self { headers: self.headers + 8, head_bytes: self.head_bytes + 1_024, ..self.clone() }
    }
}
