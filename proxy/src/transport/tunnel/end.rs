//! How a tunnel ends, and what its streams make of it.

use std::io;
use std::sync::Arc;

use super::Violation;
use super::proof::PROOF_TOO_LONG;

/// Why a tunnel is no more, in one word of a fixed list, and what is told of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the tunnel ended ({word}): {detail}")]
pub(crate) struct End {
    pub(crate) word: &'static str,
    pub(crate) detail: Arc<str>,
    /// The peer is not, or not for certain, who it was.
    is_untrusted: bool,
    /// The peer did not keep to the protocol.
    is_violation: bool,
}

impl End {
    pub(crate) fn new(word: &'static str, detail: impl ToString) -> Self {
        Self { word, detail: detail.to_string().into(), is_untrusted: false, is_violation: false }
    }

    /// The end of a tunnel whose peer is trusted no more.
    pub(crate) fn untrusted(word: &'static str, detail: impl ToString) -> Self {
        Self { is_untrusted: true, ..Self::new(word, detail) }
    }

    /// What the peer did against the protocol, in one word of a fixed list, if that is why.
    pub(super) fn violation(&self) -> Option<&'static str> {
        self.is_violation.then_some(self.word)
    }

    /// How a stream of it fails.
    pub(super) fn error(&self) -> io::Error {
        let kind = match self.word {
            _ if self.is_untrusted => io::ErrorKind::PermissionDenied,
            "truncated" => io::ErrorKind::UnexpectedEof,
            "timed_out" => io::ErrorKind::TimedOut,
            "tls_error" => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, self.clone())
    }
}

/// Why the peer is trusted no more, in one word, if that is what a stream of its tunnel failed for.
pub(crate) fn untrusted_word(error: &io::Error) -> Option<&'static str> {
    error.get_ref()?.downcast_ref::<End>().filter(|end| end.is_untrusted).map(|end| end.word)
}

/// The end that a peer made by not keeping to the protocol.
pub(super) fn ended_by(violation: &Violation) -> End {
    let end = match violation.word() {
        word @ PROOF_TOO_LONG => End::untrusted(word, violation),
        word => End::new(word, violation),
    };
    End { is_violation: true, ..end }
}

/// The end that the connection made.
pub(super) fn ended_by_io(error: &io::Error) -> End {
    let word = match error.kind() {
        io::ErrorKind::UnexpectedEof => "truncated",
        io::ErrorKind::InvalidData => "tls_error",
        io::ErrorKind::TimedOut => "timed_out",
        _ => "reset",
    };
    End { is_violation: word == "tls_error", ..End::new(word, error) }
}
