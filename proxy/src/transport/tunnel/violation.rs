//! What ends a tunnel.

use super::frame::PROOF;
use super::proof::PROOF_TOO_LONG;

/// What the peer did that ends the tunnel with all its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// A frame whose kind is below 128 and unknown.
    #[error("a frame of the unknown kind {0}; the peer speaks another version")]
    UnknownKind(u8),
    /// A frame whose length its kind does not allow.
    #[error("a frame of kind {kind} with {length} bytes, which that kind does not allow")]
    Length {
        /// The kind on the wire.
        kind: u8,
        /// The length that its header gives.
        length: u32,
    },
    /// A frame whose payload is not what its kind requires.
    #[error("a frame of kind {0} whose content is not valid")]
    Malformed(u8),
    /// A frame of the tunnel on a stream, or of a stream on the tunnel, or an id above 2^31 - 1.
    #[error("a frame of kind {kind} on stream {id}, where it has no meaning")]
    WrongStream {
        /// The kind on the wire.
        kind: u8,
        /// The stream that its header gives.
        id: u32,
    },
    /// A frame for a stream that was never opened.
    #[error("a frame for stream {0}, which was never opened")]
    UnknownStream(u32),
    /// An OPEN with an id that does not rise.
    #[error("stream {0} was opened although an id as high was used before")]
    ReusedId(u32),
    /// An OPEN from the end that was dialled.
    #[error("the end that was dialled opened a stream")]
    WrongRole,
    /// DATA or FIN from the end that was dialled, on a stream that it had not accepted.
    #[error("the peer sent on stream {0} before it accepted it")]
    NotAccepted(u32),
    /// More DATA than there was credit for.
    #[error("the peer sent {length} bytes on stream {id} with credit for {credit}")]
    NoCredit {
        /// The stream.
        id: u32,
        /// The length of the DATA frame.
        length: u32,
        /// The credit that the peer had.
        credit: u32,
    },
    /// Credit of more than 2^31 - 1 bytes.
    #[error("the credit of stream {0} exceeds 2^31 - 1")]
    CreditOverflow(u32),
    /// A CREDIT of nothing that does not accept a stream.
    #[error("a CREDIT of nothing on stream {0}")]
    EmptyCredit(u32),
    /// A DATA frame without data.
    #[error("a DATA frame without data on stream {0}")]
    EmptyData(u32),
    /// DATA or FIN after FIN.
    #[error("the peer sent on stream {0} after it had finished it")]
    AfterFin(u32),
    /// More OPENs were refused, or reset before they were accepted, than a second allows.
    #[error("more OPENs were refused or reset within a second than a tunnel allows")]
    RefusedTooFast,
    /// More PINGs than a second allows.
    #[error("more PINGs came within a second than a tunnel allows")]
    PingsTooFast,
    /// The peer opens streams and does not read the answers.
    #[error("the peer opens streams and does not read the answers")]
    Backlog,
    /// More frames for ended streams than can have crossed their end on the way.
    #[error("more frames came for ended streams than can have crossed their end on the way")]
    TooManyLate,
    /// Nothing came from the peer, not even the answer to a PING.
    #[error("nothing came from the peer, not even the answer to a PING")]
    Silent,
}

impl Violation {
    /// The violation in one word, from a fixed list, so that no peer can make a metric series.
    pub fn word(&self) -> &'static str {
        match self {
            Self::UnknownKind(_) => "unknown_kind",
            Self::Length { kind: PROOF, length: 1.. } => PROOF_TOO_LONG,
            Self::Length { .. } => "bad_length",
            Self::Malformed(_) => "malformed",
            Self::WrongStream { .. } => "wrong_stream",
            Self::UnknownStream(_) => "unknown_stream",
            Self::ReusedId(_) => "reused_id",
            Self::WrongRole => "wrong_role",
            Self::NotAccepted(_) => "not_accepted",
            Self::NoCredit { .. } => "no_credit",
            Self::CreditOverflow(_) => "credit_overflow",
            Self::EmptyCredit(_) => "empty_credit",
            Self::EmptyData(_) => "empty_data",
            Self::AfterFin(_) => "after_fin",
            Self::RefusedTooFast => "refused_too_fast",
            Self::PingsTooFast => "pings_too_fast",
            Self::Backlog => "backlog",
            Self::TooManyLate => "too_many_late",
            Self::Silent => "silent",
        }
    }
}
