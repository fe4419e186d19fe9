//! Settings of services and JWT providers.

use postern_names::ServiceName;
use postern_traffic::settings::TrafficFile;
use postern_traffic::{JwtProvider, ServiceSettings};
use serde::{Deserialize, Serialize};

use super::Written;

/// Settings of one service with their place in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredSettings {
    /// What they say.
    pub settings: ServiceSettings,
    /// The store revision that last changed them.
    pub revision: u64,
    /// When they were last set (RFC 3339).
    pub created_at: String,
    /// Who set them: a token id or a uid.
    pub created_by: String,
    /// Why, in the words of who set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A JWT provider with its place in the store, and how its keys are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredProvider {
    /// What it says.
    pub provider: JwtProvider,
    /// The store revision that last changed it.
    pub revision: u64,
    /// When it was last set (RFC 3339).
    pub created_at: String,
    /// Who set it: a token id or a uid.
    pub created_by: String,
    /// Why, in the words of who set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its keys.
    pub keys: ProviderKeys,
}

/// The keys of a provider as the control plane has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderKeys {
    /// How many of a known type there are; 0: no token of the provider is good.
    pub count: usize,
    /// RFC 3339: when they were last read from their file or URL by this control plane; absent: never, or they are inline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at: Option<String>,
    /// Why the last attempt to read them failed, where it did. The last good keys stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// All settings and providers, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// The store revision of this view.
    pub revision: u64,
    /// By service.
    pub services: Vec<StoredSettings>,
    /// By name.
    pub jwt_providers: Vec<StoredProvider>,
}

/// Sets what a file says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyServiceConfigRequest {
    /// Settings and providers, each of which replaces what is stored of its name.
    pub file: TrafficFile,
    /// Delete settings and providers that are not in the file.
    #[serde(default)]
    pub replace: bool,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Refuse (409) when settings or providers have changed since this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
    /// For the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds to wait for the connected sidecars concerned; 0 returns at commit.
    #[serde(default)]
    pub wait_ms: u64,
}

/// What was, or would be, added, changed and removed of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference<T> {
    /// New ones.
    pub added: Vec<T>,
    /// Before and after.
    pub changed: Vec<(T, T)>,
    /// Those that are gone.
    pub removed: Vec<T>,
}

impl<T> Default for Difference<T> {
    fn default() -> Self {
        Self { added: Vec::new(), changed: Vec::new(), removed: Vec::new() }
    }
}

impl<T> Difference<T> {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What an apply did, or would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppliedServiceConfig {
    /// Settings of services.
    pub services: Difference<ServiceSettings>,
    /// JWT providers.
    pub jwt_providers: Difference<JwtProvider>,
    /// Stored settings that this version cannot read, and that the apply takes out or replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<ServiceName>,
    /// The revision that the difference was computed against.
    pub base_revision: u64,
    /// Connected sidecars that would not understand it and so take the defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_understood_by: Vec<String>,
    /// Things to know: a subset that nobody defined, a service that nobody has seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Absent for a dry run and when nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
}

impl AppliedServiceConfig {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.jwt_providers.is_empty() && self.unreadable.is_empty()
    }
}
