//! Why a stream was reset.

/// Why a stream was refused or ended at once, as RESET carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// A policy denies it, or denies it now.
    Denied,
    /// The destination has no port of that name.
    NoSuchPort,
    /// The destination stops.
    Draining,
    /// The destination could not reach its local service.
    DialFailed,
    /// A limit of the sender of the RESET is reached.
    Limit,
    /// The connection behind the sender of the RESET was reset or failed.
    ResetByPeer,
    /// The sender of the RESET waited too long.
    TimedOut,
    /// The dialler wants the stream no more.
    Cancelled,
    /// The identity of the peer is trusted no more.
    Untrusted,
    /// A number that this version does not know, or no reason given.
    Other,
    /// The tunnel ended under the stream. Never on the wire.
    TunnelEnded,
}

impl Reason {
    /// The reason that `code` stands for on the wire.
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Denied,
            2 => Self::NoSuchPort,
            3 => Self::Draining,
            4 => Self::DialFailed,
            5 => Self::Limit,
            6 => Self::ResetByPeer,
            7 => Self::TimedOut,
            8 => Self::Cancelled,
            9 => Self::Untrusted,
            _ => Self::Other,
        }
    }

    /// The number that stands for it on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Denied => 1,
            Self::NoSuchPort => 2,
            Self::Draining => 3,
            Self::DialFailed => 4,
            Self::Limit => 5,
            Self::ResetByPeer => 6,
            Self::TimedOut => 7,
            Self::Cancelled => 8,
            Self::Untrusted => 9,
            Self::Other | Self::TunnelEnded => 0,
        }
    }

    /// The reason in one word, from a fixed list, for metric and log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NoSuchPort => "no_such_port",
            Self::Draining => "draining",
            Self::DialFailed => "dial_failed",
            Self::Limit => "limit",
            Self::ResetByPeer => "reset_by_peer",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Untrusted => "untrusted",
            Self::Other => "other",
            Self::TunnelEnded => "tunnel_ended",
        }
    }
}

/// How a stream fails that its peer has ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the peer ended the stream: {}", .0.word())]
pub(crate) struct StreamReset(pub(crate) Reason);

/// Why the peer has ended the stream, if that is what it failed for.
pub(crate) fn reset_reason(error: &std::io::Error) -> Option<Reason> {
    Some(error.get_ref()?.downcast_ref::<StreamReset>()?.0)
}
