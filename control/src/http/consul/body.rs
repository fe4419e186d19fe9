//! Bodies of requests: read whole, up to a limit.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};

use super::super::input::BODY_TIMEOUT;
use super::error::ConsulError;
use super::fields::Fields;

/// Bytes of a JSON body.
const JSON_LIMIT: usize = 1 << 20;

/// A JSON object of at most 1 MiB.
pub struct Json(pub Fields);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = ConsulError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ConsulError> {
        Fields::read(&read(request.into_body(), JSON_LIMIT).await?).map(Self)
    }
}

/// A whole body of at most `limit` bytes.
///
/// # Errors
/// 413 where it is larger, 400 where it does not arrive whole, 408 where that takes too long.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, ConsulError> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(error)) => Err(ConsulError::bad_request(format!("the body did not arrive whole: {error}"))),
        Err(_) => Err(ConsulError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 60 s")),
    }
}

/// 413, as Consul words it.
pub fn too_large(limit: usize) -> ConsulError {
    ConsulError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("Request body too large, max size: {limit} bytes."))
}
