//! A request, as it is judged.

use http::HeaderMap;

use super::{PathSettings, VerifiedTokens};

/// An HTTP request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Methods depend on case (RFC 9110 §9.1).
    pub method: &'a str,
    /// The whole request target, with its query.
    pub target: &'a str,
    /// The value of Host, or `:authority` in HTTP/2; an absolute target must agree with it.
    pub host: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The verified tokens among them.
    pub tokens: &'a VerifiedTokens,
    /// What the destination wants done with unusual paths.
    pub paths: PathSettings,
}
