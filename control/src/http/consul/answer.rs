//! Answers with Consul's headers.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::call::{Call, Consistency};
use super::error::ConsulError;

/// What every answer has of headers, those that `pass` adds included: enough to make the map once.
const HEADERS: usize = 12;
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
const EFFECTIVE_CONSISTENCY: HeaderName = HeaderName::from_static("x-consul-effective-consistency");
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

/// An answer of Consul's API.
#[derive(Debug)]
pub struct Answer {
    response: Response,
    consistency: Consistency,
}

impl Answer {
    /// 200 with JSON, indented where the call asked for it.
    ///
    /// # Errors
    /// 500 where the value cannot be JSON; none of ours is one such.
    pub fn json(call: &Call, value: &impl Serialize) -> Result<Self, ConsulError> {
        Ok(Self::bytes(call, "application/json", json(call, value)?))
    }

    /// 200 with a body of another type.
    pub fn bytes(call: &Call, content_type: &'static str, body: impl Into<Body>) -> Self {
        let mut response = Response::new(body.into());
        *response.headers_mut() = HeaderMap::with_capacity(HEADERS);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { response, consistency: call.consistency }
    }

    /// An empty body.
    pub fn nothing(call: &Call, status: StatusCode) -> Self {
        Self { response: status.into_response(), consistency: call.consistency }
    }

    /// Another status than 200.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        *self.response.status_mut() = status;
        self
    }

    /// What a query tells beside its answer: the index to wait from, and that it comes from a leader that is in touch.
    #[must_use]
    pub fn at(self, index: u64) -> Self {
        let consistency = self.consistency.effective();
        // Clients wait from index 0 without blocking, so it is never given.
        self.with(INDEX, HeaderValue::from(index.max(1)))
            .with(KNOWN_LEADER, HeaderValue::from_static("true"))
            .with(LAST_CONTACT, HeaderValue::from_static("0"))
            .with(EFFECTIVE_CONSISTENCY, HeaderValue::from_static(consistency))
    }

    /// The hash of the content, for `?hash=`.
    #[must_use]
    pub fn hashed(self, hash: &str) -> Self {
        match HeaderValue::from_str(hash) {
            Ok(value) => self.with(CONTENT_HASH, value),
            Err(_) => self,
        }
    }

    /// Another header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.response.headers_mut().insert(name, value);
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        self.response
    }
}

/// The bytes of a value, indented where the call asked for it.
///
/// # Errors
/// 500 where the value cannot be JSON; none of ours is one such.
pub fn json(call: &Call, value: &impl Serialize) -> Result<Vec<u8>, ConsulError> {
    // Most answers fit.
    let mut body = Vec::with_capacity(512);
    if call.pretty {
        pretty(&mut body, value).map_err(ConsulError::internal)?;
        body.push(b'\n');
    } else {
        serde_json::to_writer(&mut body, value).map_err(ConsulError::internal)?;
    }
    Ok(body)
}

/// As Consul indents it: by four spaces.
fn pretty(body: &mut Vec<u8>, value: &impl Serialize) -> Result<(), serde_json::Error> {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(body, formatter))
}
