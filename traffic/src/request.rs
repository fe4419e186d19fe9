//! What of a request routing, balancing and limits look at.

use http::HeaderMap;

/// The head of a request, borrowed from whoever holds it.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// As received; methods depend on case (RFC 9110 §9.1).
    pub method: &'a str,
    /// The path as received, without the query: neither decoded nor resolved. Routing protects nothing, so that it is not
    /// fooled by a spelling is not needed; the destination judges what it receives by its own reading.
    pub path: &'a str,
    /// What follows `?`, without it.
    pub query: Option<&'a str>,
    /// The headers, pseudo-headers left out.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// Of a request as `http` has it. An authority-form target (`CONNECT`) has an empty path, which matches no path criterion.
    pub fn of<B>(request: &'a http::Request<B>) -> Self {
        Self {
            method: request.method().as_str(),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
        }
    }
}
