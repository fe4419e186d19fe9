//! What a request says: JSON bodies, queries and the names in a path, refused with the place and the reason.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use postern_intentions::Party;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Bytes of a body.
const BODY_LIMIT: usize = 1 << 20;
/// Bytes of the body of an apply.
const APPLY_LIMIT: usize = 32 << 20;
/// For a whole body to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A JSON body of at most 1 MiB.
pub struct Input<T>(pub T);

/// A JSON body of at most 32 MiB.
pub struct LargeInput<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        parse(&read(request, BODY_LIMIT).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for LargeInput<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        parse(&read(request, APPLY_LIMIT).await?).map(Self)
    }
}

async fn read(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {} MiB", limit >> 20));
    let declared = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), limit);
    match tokio::time::timeout(BODY_TIMEOUT, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the body did not arrive whole: {error}"))),
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 60 s")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if body.trim_ascii().is_empty() {
        return Err(ApiError::bad_request("the body is empty; send a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let field = field_at(body, error.line(), error.column());
        let at = field.map(|field| format!("field {field:?}: ")).unwrap_or_default();
        ApiError::bad_request(format!("the body is not what this route takes: {at}{error}"))
    })
}

/// The last key of an object before this place (line and column from 1, columns in bytes).
fn field_at(body: &[u8], line: usize, column: usize) -> Option<String> {
    let line_start = match line.checked_sub(2) {
        Some(breaks) => body.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(breaks)?.0 + 1,
        None => 0,
    };
    let before = body.get(..(line_start + column).min(body.len()))?;
    let text = String::from_utf8_lossy(before);
    let mut end = text.len();
    while let Some(colon) = text[..end].rfind(':') {
        if let Some(key) = text[..colon].trim_end().strip_suffix('"')
            && let Some(open) = key.rfind('"')
        {
            return Some(key[open + 1..].chars().take(64).collect());
        }
        end = colon;
    }
    None
}

/// The query of a request; what it does not know is refused.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let parsed: Result<axum::extract::Query<T>, QueryRejection> =
            axum::extract::Query::from_request_parts(parts, state).await;
        match parsed {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                Err(ApiError::bad_request(format!("the query is not what this route takes: {}", source_of(&rejection))))
            }
        }
    }
}

fn source_of(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// One name in a path.
pub struct Name<T>(pub T);

impl<T, S> FromRequestParts<S> for Name<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(bad_path)?;
        text.parse().map(Self).map_err(|error| ApiError::bad_request(error.to_string()))
    }
}

/// `{source}/{destination}` in a path.
pub struct Pair {
    /// Who calls.
    pub source: Party,
    /// Who is called.
    pub destination: Party,
}

impl<S: Send + Sync> FromRequestParts<S> for Pair {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((source, destination)) = Path::<(String, String)>::from_request_parts(parts, state).await.map_err(bad_path)?;
        Ok(Self { source: party("source", &source)?, destination: party("destination", &destination)? })
    }
}

fn party(side: &str, text: &str) -> Result<Party, ApiError> {
    text.parse().map_err(|error| ApiError::bad_request(format!("{side}: {error}")))
}

fn bad_path(rejection: PathRejection) -> ApiError {
    ApiError::bad_request(format!("the path cannot be read: {}", source_of(&rejection)))
}

#[cfg(test)]
mod tests {
    use postern_api::http::SetRequest;

    use super::*;

    fn refused(body: &str) -> String {
        let error = parse::<SetRequest>(body.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        format!("{error:?}")
    }

    #[test]
    fn a_wrong_value_is_named_by_field_line_and_column() {
        let error = refused("{\n  \"verb\": \"allow\",\n  \"wait_ms\": \"soon\"\n}");
        assert!(error.contains("wait_ms") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_named() {
        assert!(refused(r#"{"verb":"allow","wiat_ms":1}"#).contains("unknown field `wiat_ms`"));
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        assert!(refused(r#"{"verb":"allow","verb":"deny"}"#).contains("duplicate field"));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for body in ["", " ", "{", "[]", "null", "{\"verb\":}", "\u{0}"] {
            refused(body);
        }
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        let body = "[".repeat(100_000);
        assert!(parse::<serde_json::Value>(body.as_bytes()).is_err());
    }
}
