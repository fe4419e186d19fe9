//! The fixed words of an intention.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A word where one of a few was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not known: use {expected}")]
pub struct UnknownWord {
    /// What the word stands for, such as `action`.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub given: String,
    /// The words that are known.
    pub expected: &'static str,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// The word, as it is written in files and on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { kind: $kind, given: text.chars().take(80).collect(), expected: $expected }),
                }
            }
        }
    };
}

words!(
    /// What an intention or a permission says of the calls that it matches.
    Action, "action", "allow or deny", {
        /// The call goes through.
        Allow = "allow",
        /// The call is refused.
        Deny = "deny"
    }
);
words!(
    /// Whether a denial is carried out or only reported.
    #[derive(Default)]
    Mode, "mode", "enforce or audit", {
        /// What is denied is refused.
        #[default]
        Enforce = "enforce",
        /// What would be denied is allowed, counted and logged.
        Audit = "audit"
    }
);
words!(
    /// The verdict on a pair that no intention matches.
    #[derive(Default)]
    DefaultPolicy, "default policy", "deny, allow or audit", {
        /// Refused; the default as shipped.
        #[default]
        Deny = "deny",
        /// Goes through.
        Allow = "allow",
        /// Goes through, counted and logged as what would be denied.
        Audit = "audit"
    }
);
words!(
    /// What a service speaks. It belongs to the service, and all of its instances declare the same.
    #[derive(Default)]
    Protocol, "protocol", "tcp, http, http2 or grpc", {
        /// Bytes; no request inside is judged.
        #[default]
        Tcp = "tcp",
        /// HTTP/1.1.
        Http = "http",
        /// HTTP/2.
        Http2 = "http2",
        /// gRPC over HTTP/2.
        Grpc = "grpc"
    }
);
words!(
    /// What becomes of a path with an escaped slash (`%2F`).
    #[derive(Default)]
    EncodedSlash, "encoded_slash", "refuse or keep", {
        /// The request is refused with 400.
        #[default]
        Refuse = "refuse",
        /// It is forwarded as it is, and judged both as it is and as a slash.
        Keep = "keep"
    }
);
words!(
    /// What becomes of a path with empty segments (`//`).
    #[derive(Default)]
    DoubleSlash, "double_slash", "collapse or keep", {
        /// `//` becomes `/`.
        #[default]
        Collapse = "collapse",
        /// It is forwarded as it is, and judged both as it is and as one slash.
        Keep = "keep"
    }
);

impl Protocol {
    /// Whether it is carried request by request.
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }
}
