//! How one try of a request ended.

/// What a caller's sidecar saw of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing of the request reached the service: the connect or the handshake failed, a pooled connection was closed before
    /// a byte was sent, or the stream was refused (`REFUSED_STREAM`, RFC 9113 §8.7).
    ConnectFailure,
    /// The connection or the stream ended before the answer did.
    Reset {
        /// Whether nothing of the answer was passed on.
        before_answer: bool,
    },
    /// The head of an answer, whatever it says.
    Status(u16),
    /// A gRPC status, from the trailers or from the head of an answer without a body.
    GrpcStatus(u8),
    /// No head of an answer came in time: `timeouts.per_try`, or `timeouts.request` while the try was running.
    PerTryTimeout,
}

impl Outcome {
    /// Whether the instance answered.
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Status(_) | Self::GrpcStatus(_))
    }

    /// Whether it counts against the instance: 5xx, resets, failed connects and time-outs, and the gRPC status codes that
    /// servers mean as such: UNKNOWN (what an unhandled exception becomes), DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
    pub fn is_failure(self) -> bool {
        match self {
            Self::ConnectFailure | Self::Reset { .. } | Self::PerTryTimeout => true,
            Self::Status(status) => (500..600).contains(&status),
            Self::GrpcStatus(status) => matches!(status, 2 | 4 | 13 | 14 | 15),
        }
    }
}
