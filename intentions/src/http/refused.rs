//! Why a request target is not judged at all.

use serde::{Deserialize, Serialize};

/// Why a request is answered with 400 instead of being judged: its target could mean different things to different
/// servers, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum PathRefused {
    /// `CONNECT` asks for a tunnel to somewhere else.
    #[error("CONNECT is not let through")]
    Connect,
    /// Neither a path, nor `http://authority/path`, nor `*` of OPTIONS (RFC 9112 §3.2).
    #[error("the request target is neither a path nor an absolute URL")]
    NoPath,
    /// The absolute-form names another authority than Host.
    #[error("the request target names another authority than Host")]
    OtherAuthority,
    /// A control character, NUL included.
    #[error("the path holds a control character")]
    ControlCharacter,
    /// A space.
    #[error("the path holds a space")]
    Space,
    /// `\`, which some servers take for `/`.
    #[error("the path holds a backslash")]
    Backslash,
    /// `%` without two hexadecimal digits.
    #[error("the path holds a % without two hexadecimal digits")]
    BadEscape,
    /// `%00`.
    #[error("the path holds an escaped NUL (%00)")]
    EscapedNul,
    /// `%2F`, unless the service keeps it.
    #[error("the path holds an escaped slash (%2F)")]
    EscapedSlash,
    /// `%5C`.
    #[error("the path holds an escaped backslash (%5C)")]
    EscapedBackslash,
    /// More `..` than segments before it.
    #[error("the path climbs above /")]
    AboveRoot,
}

impl PathRefused {
    /// The reason in one word, for metric and log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::NoPath => "no_path",
            Self::OtherAuthority => "other_authority",
            Self::ControlCharacter => "control_character",
            Self::Space => "space",
            Self::Backslash => "backslash",
            Self::BadEscape => "bad_escape",
            Self::EscapedNul => "escaped_nul",
            Self::EscapedSlash => "escaped_slash",
            Self::EscapedBackslash => "escaped_backslash",
            Self::AboveRoot => "above_root",
        }
    }
}
