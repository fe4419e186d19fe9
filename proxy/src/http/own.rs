//! What the settings of the own service say about requests that arrive, ready to ask. All workers share it.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use postern_intentions::PathSettings;
use postern_traffic::{RateLimits, ServiceSettings};

use super::jwt::Verifiers;
use crate::snapshot::{ResolvedProvider, Snapshot};

/// The settings of the own service as the newest snapshot has them.
#[derive(Debug, Default)]
pub(crate) struct OwnService {
    current: ArcSwapOption<Own>,
    making: Mutex<()>,
}

/// What was made of them.
#[derive(Debug)]
pub(crate) struct Own {
    settings: Arc<ServiceSettings>,
    providers: Arc<[ResolvedProvider]>,
    /// Whose tokens permissions may rely on.
    pub(crate) verifiers: Verifiers,
    /// How unusual paths are judged.
    pub(crate) paths: PathSettings,
    /// How many requests are let in.
    pub(crate) limits: RateLimits,
}

impl OwnService {
    /// What this snapshot says. A worker waits while another one makes it: it is seldom, and short.
    pub(crate) fn of(&self, snapshot: &Snapshot) -> Arc<Own> {
        let is_of = |own: &Own| Arc::ptr_eq(&own.settings, &snapshot.own_settings) && Arc::ptr_eq(&own.providers, &snapshot.jwt);
        if let Some(own) = self.current.load_full().filter(|own| is_of(own)) {
            return own;
        }
        let _making = self.making.lock();
        let before = self.current.load_full();
        if let Some(own) = before.clone().filter(|own| is_of(own)) {
            return own;
        }
        let own = Arc::new(Own::of(snapshot, before.as_deref()));
        self.current.store(Some(own.clone()));
        own
    }
}

impl Own {
    fn of(snapshot: &Snapshot, before: Option<&Self>) -> Self {
        let (settings, providers) = (&snapshot.own_settings, &snapshot.jwt);
        let previous = before.map(|before| &before.limits);
        let limits = RateLimits::compile(&settings.rate_limits, previous, Instant::now()).unwrap_or_else(|error| {
            tracing::warn!(service = %settings.service, %error, "the rate limits of the service are not understood; none counts");
            RateLimits::none()
        });
        let (verifiers, errors) = Verifiers::compile(providers.iter().map(|known| (&known.provider, known.jwks.as_str())));
        for (provider, error) in errors {
            tracing::warn!(%provider, %error, "the keys of a JWT provider cannot be used; what asks for its tokens is denied");
        }
        Self { settings: settings.clone(), providers: providers.clone(), verifiers, paths: settings.paths(), limits }
    }
}
