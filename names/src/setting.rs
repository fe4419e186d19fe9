//! Settings that cannot be.

use crate::NameError;

/// A setting that is not valid, with the form that is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(pub String);

impl From<NameError> for SettingError {
    fn from(error: NameError) -> Self {
        Self(error.to_string())
    }
}
