//! Why an intention was refused.

use crate::party::PartyError;
use crate::words::UnknownWord;
use postern_names::NameError;

/// Why an intention is not valid. Messages say what, why and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntentionError {
    /// A side is neither a service name nor `*`.
    #[error(transparent)]
    Party(#[from] PartyError),
    /// A port or JWT provider is not a label.
    #[error(transparent)]
    Name(#[from] NameError),
    /// One of a few words was expected.
    #[error(transparent)]
    Word(#[from] UnknownWord),
    /// `action` together with `permissions`.
    #[error(
        "action and permissions are both given: an intention has one of the two; keep one, and say what else happens with otherwise"
    )]
    ActionAndPermissions,
    /// Neither `action` nor `permissions`.
    #[error("neither action nor permissions is given: add action: allow, action: deny or permissions")]
    NeitherActionNorPermissions,
    /// `otherwise` belongs to permissions.
    #[error("otherwise is given without permissions: it says what happens where no permission matches; use action instead")]
    OtherwiseWithoutPermissions,
    /// An empty list of permissions.
    #[error("permissions is empty: give at least one permission, or use action")]
    NoPermissions,
    /// A method that no request can have.
    #[error("method {given:?} is not valid: use an upper-case token such as GET")]
    Method {
        /// What was given, cut to 80 characters.
        given: String,
    },
    /// Two of `path_exact`, `path_prefix`, `path_regex`.
    #[error("more than one path criterion is given: use one of path_exact, path_prefix and path_regex, or several permissions")]
    PathCriteria,
    /// A path that no request can have.
    #[error("path {given:?} is not valid: {why}")]
    Path {
        /// What was given, cut to 80 characters.
        given: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A regular expression that does not compile, or is too large.
    #[error("regular expression {given:?} is not valid: {why}")]
    Regex {
        /// What was given, cut to 80 characters.
        given: String,
        /// What the compiler says.
        why: String,
    },
    /// Not a header name.
    #[error("header name {given:?} is not valid: use a token such as x-team")]
    HeaderName {
        /// What was given, cut to 80 characters.
        given: String,
    },
    /// A criterion has none or several of its ways to match.
    #[error("the criterion on {of} needs exactly one of {expected}")]
    Matches {
        /// What it is about: `header x-team`.
        of: String,
        /// The ways to match.
        expected: &'static str,
    },
    /// `present: false` has no meaning of its own.
    #[error("present: false is not valid: use present: true, with invert: true for a header that must be absent")]
    NotPresent,
    /// An empty text where one is needed.
    #[error("{what} is empty: give a text, or leave it out")]
    Empty {
        /// What is empty.
        what: &'static str,
    },
    /// A text past its limit.
    #[error("{what} is longer than {limit} bytes: shorten it")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Bytes.
        limit: usize,
    },
    /// A list past its limit.
    #[error("there are more than {limit} {what}: leave some out")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// Number.
        limit: usize,
    },
    /// A control character, which would reach terminals and logs.
    #[error("{what} holds a control character: leave it out")]
    ControlCharacter {
        /// What holds it.
        what: &'static str,
    },
    /// An expiry that cannot be written down everywhere.
    #[error("expires_at is not valid: use a time from 1970 to the year 9999, such as 2026-03-01T12:00:00Z")]
    ExpiresAt,
}

/// At most 80 characters of what was given, for a message.
pub(crate) fn shown(given: &str) -> String {
    given.chars().take(80).collect()
}
