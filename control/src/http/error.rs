//! How a request fails: a status and an [`ErrorBody`].

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postern_api::http::ErrorBody;

use crate::acl::{AccountError, Denied};
use crate::identity::IdentityError;
use crate::policy::PolicyError;
use crate::registry::RegisterError;
use crate::service_config::ConfigError;
use crate::store::StoreError;

/// A failed request.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    /// `error` says what went wrong, naming the thing.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), hint: None } }
    }

    /// 400.
    pub fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// 404.
    pub fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// 500, logged: what went wrong is ours, and the caller can only try again.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).hint("see the log of the control plane")
    }

    /// Adds the cure.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// The status that it answers with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What went wrong, and the cure, in one line.
    pub fn text(&self) -> String {
        match &self.body.hint {
            Some(hint) => format!("{}; {hint}", self.body.error),
            None => self.body.error.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::new(StatusCode::FORBIDDEN, denied.to_string()).hint("`meshctl acl policy` gives a token more")
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let text = error.to_string();
        match error {
            AccountError::NotFound(_) => Self::not_found(text),
            AccountError::Invalid(_) | AccountError::Rules(_) => Self::bad_request(text),
            AccountError::Bootstrapped => Self::new(StatusCode::FORBIDDEN, text),
            AccountError::Store(error) => Self::from(error),
            AccountError::Unwritable(error) => Self::internal(error),
        }
    }
}

impl From<PolicyError> for ApiError {
    fn from(error: PolicyError) -> Self {
        let text = error.to_string();
        match error {
            PolicyError::Intention(_) | PolicyError::Invalid(_) => Self::bad_request(text),
            PolicyError::NotFound { .. } => Self::not_found(text).hint("`meshctl intention list` shows those that there are"),
            PolicyError::Stale { .. } => Self::new(StatusCode::CONFLICT, text).hint("look at the difference again, then apply"),
            PolicyError::Forgotten { .. } => Self::not_found(text).hint("`meshctl intention history` shows what is kept"),
            PolicyError::Contended => Self::new(StatusCode::SERVICE_UNAVAILABLE, text).hint("try again"),
            PolicyError::Store(error) => Self::from(error),
            PolicyError::Unwritable(error) => Self::internal(error),
        }
    }
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        let text = error.to_string();
        match error {
            ConfigError::Faults { .. } => Self::bad_request(text).hint("`meshctl service config validate FILE` names the lines"),
            ConfigError::Circle(_) => Self::bad_request(text).hint("break the circle in one of these services"),
            ConfigError::NoSettings(_) | ConfigError::NoProvider(_) => {
                Self::not_found(text).hint("`meshctl service config show` shows those that there are")
            }
            ConfigError::Named { .. } => Self::new(StatusCode::CONFLICT, text).hint("without it those intentions would deny"),
            ConfigError::TooMany { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, text).hint("split the file, and apply its parts one after the other")
            }
            ConfigError::Stale { .. } => Self::new(StatusCode::CONFLICT, text).hint("look at the difference again, then apply"),
            ConfigError::Unreadable(_) => Self::new(StatusCode::CONFLICT, text),
            ConfigError::Contended => Self::new(StatusCode::SERVICE_UNAVAILABLE, text).hint("try again"),
            ConfigError::Store(error) => Self::from(error),
            ConfigError::Unwritable(error) => Self::internal(error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Closed => Self::new(StatusCode::SERVICE_UNAVAILABLE, "the control plane is stopping").hint("try again"),
            StoreError::TooLarge { .. } | StoreError::TooManyOps { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).hint("send less at once")
            }
            other => Self::internal(other),
        }
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Store(error) => Self::from(error),
            RegisterError::Contended(_) | RegisterError::Busy(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).hint("try again")
            }
            RegisterError::Unwritable(error) => Self::internal(error),
            other => Self::bad_request(other.to_string()),
        }
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Store(error) => Self::from(error),
            IdentityError::NoSuchToken(_) => {
                Self::not_found(error.to_string()).hint("`meshctl token list` shows those that there are")
            }
            IdentityError::Contended(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).hint("try again"),
            other => Self::internal(other),
        }
    }
}
