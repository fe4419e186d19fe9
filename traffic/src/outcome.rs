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
    /// A connection was made whose requests nobody reads.
    Connected,
    /// Nothing was sent, because a circuit breaker of this sidecar is open: says nothing of the instance.
    Overloaded,
}

impl Outcome {
    /// Whether it counts against the instance: 5xx, resets, failed connects and time-outs, and the gRPC status codes that
    /// servers mean as such: UNKNOWN (what an unhandled exception becomes), DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
    pub fn is_failure(self) -> bool {
        match self {
            Self::ConnectFailure | Self::Reset { .. } | Self::PerTryTimeout => true,
            Self::Status(status) => (500..600).contains(&status),
            Self::GrpcStatus(status) => matches!(status, 2 | 4 | 13 | 14 | 15),
            Self::Connected | Self::Overloaded => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_did_wrong_does_not_count_against_the_instance() {
        let fine = [200, 301, 400, 403, 404, 429, 499].map(Outcome::Status).into_iter();
        let fine =
            fine.chain([0, 1, 3, 5, 7, 8, 12, 16].map(Outcome::GrpcStatus)).chain([Outcome::Connected, Outcome::Overloaded]);
        assert_eq!(fine.filter(|outcome| outcome.is_failure()).collect::<Vec<_>>(), []);
        let bad = [500, 503, 599].map(Outcome::Status).into_iter().chain([2, 4, 13, 14, 15].map(Outcome::GrpcStatus));
        let bad = bad.chain([Outcome::ConnectFailure, Outcome::Reset { before_answer: false }, Outcome::PerTryTimeout]);
        assert_eq!(bad.filter(|outcome| !outcome.is_failure()).collect::<Vec<_>>(), []);
    }
}
