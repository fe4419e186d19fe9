//! Settings of services and JWT providers, as they are stored.

use std::time::SystemTime;

use postern_traffic::settings::JwksSource;
use postern_traffic::{JwtProvider, ServiceSettings};
use serde::{Deserialize, Serialize};

use super::as_millis;

/// Settings of a service, and who set them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// What they say.
    pub settings: ServiceSettings,
    /// When they were last set.
    #[serde(with = "as_millis")]
    pub created_at: SystemTime,
    /// A token id or `uid:N`.
    pub created_by: String,
    /// In the words of who set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A JWT provider, and who set it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderRecord {
    /// What it says.
    pub provider: JwtProvider,
    /// When it was last set.
    #[serde(with = "as_millis")]
    pub created_at: SystemTime,
    /// A token id or `uid:N`.
    pub created_by: String,
    /// In the words of who set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The last good keys that a file or a URL had. Written only when they change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JwksRecord {
    /// Where they came from: they count only as long as the provider says the same.
    pub source: JwksSource,
    /// The key set (RFC 7517 §5).
    pub jwks: String,
    /// When they were new.
    #[serde(with = "as_millis")]
    pub changed_at: SystemTime,
}
