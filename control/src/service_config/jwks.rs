//! Keys of JWT providers that are not written into their settings: read from files and URLs, stored when they change, and
//! pushed with the provider. Sidecars never dial out for them.

mod fetch;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postern_names::PortName;
use postern_traffic::settings::{JWKS_LIMIT, JwksSource, check_jwks};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::fetch::Fetcher;
use crate::audit::AuditEntry;
use crate::mirror::{Mirror, View};
use crate::records::{self, JwksRecord, RecordKey};
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// How often a file is looked at.
const FILE_PERIOD: Duration = Duration::from_secs(2);
/// The longest wait after a failed attempt.
const RETRY: Duration = Duration::from_secs(10);
/// The longest sleep.
const LONG: Duration = Duration::from_secs(3600);

/// How the keys of one provider are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyStatus {
    /// When they were last read with success by this process.
    pub read_at: Option<SystemTime>,
    /// Why the last attempt failed, if it did.
    pub problem: Option<String>,
}

/// Reads the keys of all providers that have them elsewhere, each when it is due.
pub struct JwksKeeper {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    fetcher: Fetcher,
    statuses: Mutex<BTreeMap<PortName, KeyStatus>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// A provider whose keys are read.
#[derive(Debug, Clone)]
struct Watched {
    source: JwksSource,
    due: Instant,
}

impl JwksKeeper {
    /// Begins to read.
    pub fn start(store: Arc<dyn Store>, mirror: Arc<Mirror>) -> Arc<Self> {
        let keeper =
            Arc::new(Self { store, mirror, fetcher: Fetcher::default(), statuses: Mutex::default(), task: Mutex::new(None) });
        *keeper.task.lock() = Some(tokio::spawn(run(Arc::downgrade(&keeper))));
        keeper
    }

    /// How the keys of each provider are that has them elsewhere.
    pub fn statuses(&self) -> BTreeMap<PortName, KeyStatus> {
        self.statuses.lock().clone()
    }

    /// How the keys of one provider are.
    pub fn status(&self, name: &PortName) -> Option<KeyStatus> {
        self.statuses.lock().get(name).cloned()
    }

    async fn read_due(&self, watched: &mut BTreeMap<PortName, Watched>) {
        let now = Instant::now();
        let due: Vec<(PortName, JwksSource)> =
            watched.iter().filter(|(_, one)| one.due <= now).map(|(name, one)| (name.clone(), one.source.clone())).collect();
        let reads = due.into_iter().map(async |(name, source)| {
            let read = self.read(&source).await;
            (name, source, read)
        });
        for (name, source, read) in futures_util::future::join_all(reads).await {
            let kept = match read {
                Ok(keys) => self.keep(&name, &source, keys).await.map_err(|error| format!("they cannot be stored: {error}")),
                Err(problem) => Err(problem),
            };
            let period = period_of(&source);
            let wait = if kept.is_ok() { period } else { period.min(RETRY) };
            self.tell(&name, kept);
            if let Some(one) = watched.get_mut(&name) {
                one.due = Instant::now() + wait;
            }
        }
    }

    async fn read(&self, source: &JwksSource) -> Result<String, String> {
        let text = match source {
            JwksSource::Inline(text) => text.clone(),
            JwksSource::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.map_err(|error| format!("reading failed: {error}"))??
            }
            JwksSource::Url { url, .. } => self.fetcher.get(url).await.map_err(|error| error.to_string())?,
        };
        check_jwks(&text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    /// Stores the keys where they are new.
    async fn keep(&self, name: &PortName, source: &JwksSource, jwks: String) -> Result<(), StoreError> {
        let found = self.mirror.read(|view| {
            let settings = &view.settings;
            let (provider, revision) = settings.providers.get(name)?;
            let is_known = settings.jwks.get(name).is_some_and(|(record, _)| record.jwks == jwks && record.source == *source);
            (provider.provider.jwks == *source).then_some((*revision, is_known))
        });
        // Somebody changed the provider meanwhile: these keys are of nobody.
        let Some((revision, false)) = found else { return Ok(()) };
        let keys = check_jwks(&jwks).unwrap_or(0);
        let record = JwksRecord { source: source.clone(), jwks, changed_at: SystemTime::now() };
        let encoded = records::encode(&record).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let audit = AuditEntry {
            at: SystemTime::now(),
            who: "control-plane".into(),
            from: "local".into(),
            what: "jwt_provider.keys".into(),
            details: json!({ "provider": name, "source": source, "keys": keys }),
            reason: None,
        };
        let txn = Txn::new()
            .when(Compare::unchanged(records::provider_key(name), revision))
            .then(Op::put(records::jwks_key(name), encoded))
            .then(audit.op());
        let result = self.store.txn(txn).await?;
        self.mirror.reached(result.revision).await;
        if result.succeeded {
            tracing::info!(provider = %name, keys, "new keys of a JWT provider");
        }
        Ok(())
    }

    fn tell(&self, name: &PortName, kept: Result<(), String>) {
        let mut statuses = self.statuses.lock();
        let status = statuses.entry(name.clone()).or_default();
        match kept {
            Ok(()) => *status = KeyStatus { read_at: Some(SystemTime::now()), problem: None },
            Err(problem) => {
                if status.problem.as_ref() != Some(&problem) {
                    tracing::warn!(provider = %name, problem, "the keys of a JWT provider cannot be read; the last good ones stay");
                }
                status.problem = Some(problem);
            }
        }
    }

    /// Takes in which providers there are now.
    fn follow(&self, watched: &mut BTreeMap<PortName, Watched>) {
        let wanted = self.mirror.read(sources);
        watched.retain(|name, one| wanted.get(name) == Some(&one.source));
        self.statuses.lock().retain(|name, _| watched.contains_key(name));
        let now = Instant::now();
        for (name, source) in wanted {
            watched.entry(name).or_insert(Watched { source, due: now });
        }
    }
}

impl Drop for JwksKeeper {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

/// The providers whose keys come from elsewhere.
fn sources(view: &View) -> BTreeMap<PortName, JwksSource> {
    let providers = view.settings.providers.iter().map(|(name, (record, _))| (name.clone(), record.provider.jwks.clone()));
    providers.filter(|(_, source)| !matches!(source, JwksSource::Inline(_))).collect()
}

fn period_of(source: &JwksSource) -> Duration {
    match source {
        JwksSource::Url { refresh, .. } => refresh.duration(),
        JwksSource::File(_) | JwksSource::Inline(_) => FILE_PERIOD,
    }
}

fn read_file(path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read {path}: {error}");
    let file = std::fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{path} is no file"));
    }
    let mut text = String::new();
    // One byte more than there may be, so that a longer file is refused and not cut.
    file.take(JWKS_LIMIT as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

async fn run(keeper: Weak<JwksKeeper>) {
    let Some(mut changes) = keeper.upgrade().map(|keeper| keeper.mirror.subscribe()) else { return };
    let mut watched = BTreeMap::new();
    loop {
        let due = {
            let Some(keeper) = keeper.upgrade() else { return };
            keeper.follow(&mut watched);
            keeper.read_due(&mut watched).await;
            watched.values().map(|one| one.due).min().unwrap_or_else(|| Instant::now() + LONG)
        };
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = a_provider_changed(&mut changes) => {}
        }
    }
}

async fn a_provider_changed(changes: &mut tokio::sync::broadcast::Receiver<Arc<crate::mirror::Change>>) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match changes.recv().await {
            Ok(change) => {
                if change.everything || change.keys.iter().any(|key| matches!(key, RecordKey::Provider(_))) {
                    return;
                }
            }
            // Whatever was missed is read off the view.
            Err(RecvError::Lagged(_)) => return,
            // The mirror is gone, and with it the keeper.
            Err(RecvError::Closed) => return tokio::time::sleep(LONG).await,
        }
    }
}
