//! Answers that a sidecar gives itself, in the words of HTTP or of gRPC.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use super::body::Body;
use super::headers::OVERLOADED;

/// An answer to a request.
pub(crate) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// What `grpc-message` cannot hold (gRPC over HTTP/2, «Status-Message»).
const NOT_IN_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// The language that a caller understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    /// A status and a JSON body.
    Http,
    /// A status in trailers.
    Grpc,
}

impl Language {
    /// By what a request says of its body.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let is_grpc = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if is_grpc { Self::Grpc } else { Self::Http }
    }
}

/// Why a sidecar answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The policy denies it.
    Denied,
    /// The request is not one that can be judged.
    BadRequest,
    /// A rate limit is used up.
    TooMany,
    /// The service does not answer, or nobody can be sent to it.
    Unavailable,
    /// A circuit breaker is open.
    Overloaded,
    /// The service broke off, or answered with what is not HTTP.
    BadGateway,
    /// It took too long.
    TimedOut,
    /// As a fault that was ordered says.
    Injected(StatusCode),
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Denied => StatusCode::FORBIDDEN,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Injected(status) => status,
        }
    }

    /// The word of the field `error`, and the reason in the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::BadRequest => "bad_request",
            Self::TooMany => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::BadGateway => "bad_gateway",
            Self::TimedOut => "timed_out",
            Self::Injected(_) => "injected",
        }
    }

    /// Whether the sidecar of the caller says so without an instance having it.
    pub(crate) fn is_before_any_instance(self) -> bool {
        match self {
            Self::BadRequest | Self::TooMany | Self::Unavailable | Self::Overloaded | Self::Injected(_) => true,
            Self::Denied | Self::BadGateway | Self::TimedOut => false,
        }
    }

    /// The status of gRPC (its «Status codes and their use»; for injected faults «HTTP to gRPC Status Code Mapping»).
    pub(crate) fn grpc_status(self) -> u8 {
        match self {
            Self::Denied => 7,
            Self::BadRequest => 3,
            Self::TooMany => 8,
            Self::Unavailable | Self::Overloaded | Self::BadGateway => 14,
            Self::TimedOut => 4,
            Self::Injected(status) => match status.as_u16() {
                400 => 13,
                401 => 16,
                403 => 7,
                404 => 12,
                429 | 502 | 503 | 504 => 14,
                _ => 2,
            },
        }
    }
}

#[derive(Serialize)]
struct Told<'a> {
    error: &'static str,
    source: &'a str,
    destination: &'a str,
    because: &'a str,
}

/// The answer that tells why a call did not go through.
pub(crate) fn refuse(language: Language, refusal: Refusal, source: &str, destination: &str, because: &str) -> Answer {
    let told = Told { error: refusal.word(), source, destination, because };
    let text = serde_json::to_string(&told).unwrap_or_default();
    let mut answer = told_in(language, refusal, text);
    if refusal == Refusal::Overloaded {
        answer.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    answer
}

fn told_in(language: Language, refusal: Refusal, text: String) -> Answer {
    match language {
        Language::Http => {
            let mut answer = Response::new(Body::own(Bytes::from(text)));
            *answer.status_mut() = refusal.status();
            answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
            answer
        }
        Language::Grpc => {
            let mut answer = Response::new(Body::empty());
            answer.headers_mut().insert(header::CONTENT_TYPE, GRPC);
            answer.headers_mut().extend(grpc_trailers(refusal, &text));
            answer
        }
    }
}

/// The trailers that end a gRPC call, alone or behind what was sent.
pub(crate) fn grpc_trailers(refusal: Refusal, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(u16::from(refusal.grpc_status())));
    let encoded = utf8_percent_encode(message, NOT_IN_MESSAGE).to_string();
    if let Ok(message) = HeaderValue::try_from(encoded) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_denied_request_is_told_why() {
        let answer = refuse(Language::Http, Refusal::Denied, "web", "api", "intention * -> api (deny)");
        assert_eq!(answer.status(), 403);
        let body = answer.into_body().collect().await.expect("body").to_bytes();
        assert_eq!(
            body,
            r#"{"error":"denied","source":"web","destination":"api","because":"intention * -> api (deny)"}"#.as_bytes()
        );
    }

    #[test]
    fn a_denied_grpc_call_gets_status_7_and_the_reason() {
        let answer = refuse(Language::Grpc, Refusal::Denied, "web", "api", "default (deny) – ü%");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "7");
        let message = answer.headers()["grpc-message"].to_str().expect("ASCII");
        assert!(message.contains("default (deny) %E2%80%93 %C3%BC%25"), "{message}");
    }
}
