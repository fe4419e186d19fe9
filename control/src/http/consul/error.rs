//! How a request of Consul's API fails: a status and a line of text, worded as Consul words it where clients look at it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::error::ApiError;
use crate::acl::Denied;
use crate::registry::RegisterError;
use crate::store::StoreError;

/// A failed request of Consul's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulError {
    status: StatusCode,
    text: String,
}

impl ConsulError {
    /// Any status.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 403.
    pub fn denied(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    /// 404 with a reason. Where Consul gives an empty body, use [`Answer::nothing`](super::answer::Answer::nothing).
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// 500 for what Consul's servers refuse: it has no better status for what is invalid in itself.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// 500, logged: what went wrong is ours.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }

    /// 501: Consul has it, and here is nothing that it could mean.
    pub fn absent(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, sentence)
    }

    /// The status that it answers with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl IntoResponse for ConsulError {
    fn into_response(self) -> Response {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        (self.status, [(header::CONTENT_TYPE, text)], self.text).into_response()
    }
}

impl From<Denied> for ConsulError {
    fn from(denied: Denied) -> Self {
        Self::denied(denied.to_string())
    }
}

impl From<StoreError> for ConsulError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::refused("No cluster leader: the control plane is stopping"),
            StoreError::TooLarge { .. } | StoreError::TooManyOps { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            other => Self::internal(other),
        }
    }
}

impl From<RegisterError> for ConsulError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Store(error) => Self::from(error),
            RegisterError::Unwritable(error) => Self::internal(error),
            RegisterError::Contended(_) => Self::refused(error.to_string()),
            other => Self::bad_request(other.to_string()),
        }
    }
}

impl From<ApiError> for ConsulError {
    fn from(error: ApiError) -> Self {
        Self::new(error.status(), error.text())
    }
}
