//! Changes of settings and JWT providers: each is one transaction with its audit entry.
//!
//! Every change also puts the key [`MARKER`], and compares it: so two changes never miss each other, deletions included,
//! and the revision of that key is the one that `expected_revision` is held against.

pub mod jwks;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use postern_api::http::{AppliedServiceConfig, ApplyServiceConfigRequest, Written};
use postern_names::{PortName, ServiceName};
use postern_traffic::RoutingError;
use postern_traffic::settings::{Fault, JwksSource, TrafficFile};
use postern_traffic::{JwtProvider, ServiceSettings};
use serde_json::json;

use self::plan::Plan;
use crate::audit::AuditEntry;
use crate::mirror::Mirror;
use crate::policy::Author;
use crate::push::Sidecars;
use crate::records::{self, ProviderRecord, SettingsRecord};
use crate::store::{Compare, MAX_TXN_BYTES, Op, Store, StoreError, Txn};

/// The key that every change of settings or providers puts. It is not mirrored.
const MARKER: &[u8] = b"service-config/changed";
/// How often a change is tried again after another one came between.
const TRIES: usize = 16;
/// Records of one transaction: it has 128 operations, and some are ours.
const MAX_CHANGES: usize = 100;
/// Room in a transaction for all that is not a record.
const MARGIN: usize = 32 << 10;
/// No caller waits longer for the sidecars.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings say something that cannot be.
    #[error("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults {
        /// Everything that is wrong.
        faults: Vec<Fault>,
    },
    /// Together with what is stored, requests would be sent round in circles.
    #[error(transparent)]
    Circle(RoutingError),
    /// Nothing of that name is stored.
    #[error("{0} has no settings")]
    NoSettings(ServiceName),
    /// No provider of that name is stored.
    #[error("there is no JWT provider {0}")]
    NoProvider(PortName),
    /// A provider is named by intentions, which would deny without it.
    #[error("JWT provider {name} is named by intentions for {}; change those first", destinations.join(", "))]
    Named {
        /// The provider.
        name: PortName,
        /// Destinations of the intentions.
        destinations: Vec<String>,
    },
    /// More than a transaction holds.
    #[error("this changes {count} services and providers, and one change holds at most {MAX_CHANGES} and 960 KiB of them")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// The store changed since the revision that the request is based on.
    #[error("settings changed in revision {stored}, after revision {expected} that this change is based on")]
    Stale {
        /// What the request is based on.
        expected: u64,
        /// The last change.
        stored: u64,
    },
    /// A part cannot be changed where the whole cannot be read.
    #[error("the stored settings of {0} cannot be read by this version; set them anew with `meshctl service config apply`")]
    Unreadable(ServiceName),
    /// Other changes came between too often.
    #[error("other changes of settings came between {TRIES} times")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be written as JSON.
    #[error("the record cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// Changes settings and providers.
pub struct ServiceConfigs {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    sidecars: Arc<Sidecars>,
}

/// What one change writes.
struct Draft {
    ops: Vec<Op>,
    audit: AuditEntry,
    concerned: Concerned,
}

/// Whom a change concerns.
#[derive(Debug, Clone, Default)]
struct Concerned {
    services: BTreeSet<ServiceName>,
    providers: BTreeSet<PortName>,
}

impl ServiceConfigs {
    /// Changes go into `store` and are seen in `mirror`.
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>, sidecars: Arc<Sidecars>) -> Self {
        Self { store, mirror, sidecars }
    }

    /// Sets what the request says, or says what would change.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub async fn apply(&self, request: ApplyServiceConfigRequest, author: &Author) -> Result<AppliedServiceConfig, ConfigError> {
        request.file.validate().map_err(|faults| ConfigError::Faults { faults })?;
        for _ in 0..TRIES {
            let marker = self.current_marker().await?;
            if let Some(expected) = request.expected_revision
                && marker > expected
            {
                return Err(ConfigError::Stale { expected, stored: marker });
            }
            let sidecars = self.sidecars.list();
            let plan = self.mirror.read(|view| Plan::of(view, &request, &sidecars));
            if let Some(circle) = plan.circle.clone() {
                return Err(ConfigError::Circle(circle));
            }
            if let Some(named) = plan.named.clone() {
                return Err(named.into());
            }
            if request.dry_run || plan.is_empty() {
                return Ok(plan.applied(None));
            }
            let draft = draft(&plan, &request, author)?;
            let concerned = draft.concerned.clone();
            if let Some((revision, at)) = self.commit(marker, draft).await? {
                let written = self.written(revision, at, &concerned, request.wait_ms).await;
                return Ok(plan.applied(Some(written)));
            }
        }
        Err(ConfigError::Contended)
    }

    /// Deletes the settings of a service: the defaults hold from then on.
    ///
    /// # Errors
    /// [`ConfigError::NoSettings`], and every other [`ConfigError`].
    pub async fn delete_settings(
        &self,
        service: ServiceName,
        reason: Option<String>,
        wait_ms: u64,
        author: &Author,
    ) -> Result<Written, ConfigError> {
        self.delete(wait_ms, || {
            let before = self.mirror.read(|view| {
                let settings = &view.settings;
                let exists = settings.services.contains_key(&service) || settings.unreadable.contains_key(&service);
                exists.then(|| settings.of(&service).cloned())
            });
            let Some(before) = before else { return Err(ConfigError::NoSettings(service.clone())) };
            Ok(deletion(&service, before.as_ref(), reason.clone(), author))
        })
        .await
    }

    /// Changes the settings of a service by what they are. `change` gets them with their revision where there are some,
    /// and gives what they shall be, `None` for the defaults. It is asked again where another change came between.
    ///
    /// # Errors
    /// What `change` says, and every [`ConfigError`].
    pub async fn edit<E: From<ConfigError>>(
        &self,
        service: &ServiceName,
        author: &Author,
        change: impl Fn(Option<(&ServiceSettings, u64)>) -> Result<Option<ServiceSettings>, E>,
    ) -> Result<(), E> {
        for _ in 0..TRIES {
            let marker = self.current_marker().await?;
            let stored = self.mirror.read(|view| {
                if view.settings.unreadable.contains_key(service) {
                    return Err(ConfigError::Unreadable(service.clone()));
                }
                Ok(view.settings.services.get(service).map(|(record, revision)| (record.settings.clone(), *revision)))
            })?;
            let draft = match change(stored.as_ref().map(|(settings, revision)| (settings, *revision)))? {
                Some(after) => self.replacement(after, author)?,
                None => stored.map(|(before, _)| deletion(service, Some(&before), None, author)),
            };
            let Some(draft) = draft else { return Ok(()) };
            if self.commit(marker, draft).await?.is_some() {
                return Ok(());
            }
        }
        Err(ConfigError::Contended.into())
    }

    /// `None`: the store says so already.
    fn replacement(&self, after: ServiceSettings, author: &Author) -> Result<Option<Draft>, ConfigError> {
        let file = TrafficFile { services: vec![after], jwt_providers: Vec::new() };
        file.validate().map_err(|faults| ConfigError::Faults { faults })?;
        let request = ApplyServiceConfigRequest { file, ..ApplyServiceConfigRequest::default() };
        let sidecars = self.sidecars.list();
        let plan = self.mirror.read(|view| Plan::of(view, &request, &sidecars));
        if let Some(circle) = plan.circle.clone() {
            return Err(ConfigError::Circle(circle));
        }
        if plan.is_empty() { Ok(None) } else { draft(&plan, &request, author).map(Some) }
    }

    /// Deletes a JWT provider.
    ///
    /// # Errors
    /// [`ConfigError::NoProvider`], [`ConfigError::Named`] while an intention names it, and every other [`ConfigError`].
    pub async fn delete_provider(
        &self,
        name: PortName,
        reason: Option<String>,
        wait_ms: u64,
        author: &Author,
    ) -> Result<Written, ConfigError> {
        self.delete(wait_ms, || {
            let (before, named) =
                self.mirror.read(|view| (view.settings.providers.get(&name).cloned(), plan::named(view, &name)));
            let Some((before, _)) = before else { return Err(ConfigError::NoProvider(name.clone())) };
            named?;
            let details = json!({ "provider": name, "before": before.provider });
            Ok(Draft {
                ops: vec![Op::delete(records::provider_key(&name)), Op::delete(records::jwks_key(&name))],
                audit: entry(author, "jwt_provider.delete", details, reason.clone()),
                concerned: Concerned { providers: [name.clone()].into(), ..Concerned::default() },
            })
        })
        .await
    }

    async fn delete(&self, wait_ms: u64, draft: impl Fn() -> Result<Draft, ConfigError>) -> Result<Written, ConfigError> {
        for _ in 0..TRIES {
            let marker = self.current_marker().await?;
            let draft = draft()?;
            let concerned = draft.concerned.clone();
            if let Some((revision, at)) = self.commit(marker, draft).await? {
                return Ok(self.written(revision, at, &concerned, wait_ms).await);
            }
        }
        Err(ConfigError::Contended)
    }

    /// The revision of the last change, once the view holds it.
    async fn current_marker(&self) -> Result<u64, ConfigError> {
        let marker = self.store.get(MARKER).await?.map_or(0, |kv| kv.mod_revision);
        self.mirror.reached(marker).await;
        Ok(marker)
    }

    /// `None`: another change came between.
    async fn commit(&self, marker: u64, draft: Draft) -> Result<Option<(u64, SystemTime)>, ConfigError> {
        let mut txn = Txn::new().when(Compare::unchanged(MARKER, marker)).then(Op::put(MARKER, Bytes::new()));
        txn.then.extend(draft.ops);
        txn.then.push(draft.audit.op());
        let result = self.store.txn(txn).await?;
        self.mirror.reached(result.revision).await;
        Ok(result.succeeded.then_some((result.revision, result.committed_at)))
    }

    async fn written(&self, revision: u64, at: SystemTime, concerned: &Concerned, wait_ms: u64) -> Written {
        let wait = Duration::from_millis(wait_ms).min(MAX_WAIT);
        let mut services = concerned.services.clone();
        services.extend(self.mirror.read(|view| {
            let names_one =
                |service: &ServiceName| concerned.providers.iter().any(|provider| view.settings.is_named_for(service, provider));
            let all = if concerned.providers.is_empty() { BTreeSet::new() } else { view.service_names() };
            all.into_iter().filter(names_one).collect::<Vec<_>>()
        }));
        let in_force = match wait_ms {
            0 => None,
            _ => Some(self.sidecars.wait_settings(revision, &services, wait).await),
        };
        let committed_at_us = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let committed_at_us = u64::try_from(committed_at_us).unwrap_or(u64::MAX);
        Written { revision, changed: true, committed_at_us, intention: None, notes: Vec::new(), in_force }
    }
}

fn deletion(service: &ServiceName, before: Option<&ServiceSettings>, reason: Option<String>, author: &Author) -> Draft {
    let details = json!({ "service": service, "before": before });
    Draft {
        ops: vec![Op::delete(records::settings_key(service))],
        audit: entry(author, "service_config.delete", details, reason),
        concerned: Concerned { services: [service.clone()].into(), ..Concerned::default() },
    }
}

/// Everything that the plan changes, in one transaction.
fn draft(plan: &Plan, request: &ApplyServiceConfigRequest, author: &Author) -> Result<Draft, ConfigError> {
    let now = SystemTime::now();
    let mut ops = Vec::new();
    for settings in plan.services.added.iter().chain(plan.services.changed.iter().map(|(_, after)| after)) {
        let record = SettingsRecord {
            settings: settings.clone(),
            created_at: now,
            created_by: author.who.clone(),
            reason: request.reason.clone(),
        };
        ops.push(Op::put(records::settings_key(&settings.service), records::encode(&record)?));
    }
    for provider in plan.providers.added.iter().chain(plan.providers.changed.iter().map(|(_, after)| after)) {
        let record = ProviderRecord {
            provider: provider.clone(),
            created_at: now,
            created_by: author.who.clone(),
            reason: request.reason.clone(),
        };
        ops.push(Op::put(records::provider_key(&provider.name), records::encode(&record)?));
        if matches!(provider.jwks, JwksSource::Inline(_)) {
            ops.push(Op::delete(records::jwks_key(&provider.name)));
        }
    }
    ops.extend(plan.services.removed.iter().map(|settings| Op::delete(records::settings_key(&settings.service))));
    ops.extend(plan.unreadable_removed.iter().map(|service| Op::delete(records::settings_key(service))));
    for provider in &plan.providers.removed {
        ops.push(Op::delete(records::provider_key(&provider.name)));
        ops.push(Op::delete(records::jwks_key(&provider.name)));
    }
    let bytes: usize = ops.iter().map(|op| if let Op::Put { key, value, .. } = op { key.len() + value.len() } else { 64 }).sum();
    if ops.len() > MAX_CHANGES || bytes > MAX_TXN_BYTES - 2 * MARGIN {
        return Err(ConfigError::TooMany { count: ops.len() });
    }
    let audit = entry(author, "service_config.apply", told(plan, MAX_TXN_BYTES - MARGIN - bytes), request.reason.clone());
    Ok(Draft { ops, audit, concerned: plan.concerned() })
}

/// What the audit log is told: all of it where that fits, else the names.
fn told(plan: &Plan, room: usize) -> serde_json::Value {
    let whole = json!({ "services": plan.services, "jwt_providers": plan.providers, "unreadable": plan.unreadable });
    if serde_json::to_vec(&whole).map_or(usize::MAX, |json| json.len()) <= room {
        return whole;
    }
    let services = names(&plan.services, |settings: &ServiceSettings| settings.service.to_string());
    let providers = names(&plan.providers, |provider: &JwtProvider| provider.name.to_string());
    json!({ "services": services, "jwt_providers": providers, "unreadable": plan.unreadable })
}

fn names<T>(difference: &postern_api::http::Difference<T>, name: impl Fn(&T) -> String) -> serde_json::Value {
    let added: Vec<String> = difference.added.iter().map(&name).collect();
    let changed: Vec<String> = difference.changed.iter().map(|(_, after)| name(after)).collect();
    let removed: Vec<String> = difference.removed.iter().map(&name).collect();
    json!({ "added": added, "changed": changed, "removed": removed })
}

fn entry(author: &Author, what: &str, details: serde_json::Value, reason: Option<String>) -> AuditEntry {
    AuditEntry { at: SystemTime::now(), who: author.who.clone(), from: author.from.clone(), what: what.into(), details, reason }
}
