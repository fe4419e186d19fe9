//! Changes of intentions and of the default policy: each is one transaction with its audit entry.
//!
//! An apply that is larger than a transaction is a change set (`policy::staging`): one revision all the same.
//!
//! Every change also puts the key [`MARKER`], and compares it: so two changes never miss each other, deletions included,
//! and the revision of that key is the one that `expected_revision` is held against.

mod apply;
mod notes;
mod staging;
#[cfg(test)]
mod tests;
mod understanding;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use postern_api::http::{DefaultRequest, SetRequest, SetVerb, Written};
use postern_intentions::file::IntentionFile;
use postern_intentions::{Action, DefaultPolicy, Intention, IntentionError, Mode, PairKey, Party, Rule};
use serde_json::json;
use tokio::task::JoinHandle;

pub use self::apply::permanent_of;
use self::staging::Staging;
use crate::audit::AuditEntry;
use crate::mirror::{Mirror, View};
use crate::push::Sidecars;
use crate::records::{self, DefaultRecord, IntentionRecord};
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// The key that every change of intentions or default puts. It is not mirrored.
const MARKER: &[u8] = b"policy/changed";
/// How often a change is tried again after another one came between.
const TRIES: usize = 16;
/// Changes of one transaction: it has 128 operations, and some are ours.
const MAX_CHANGES: usize = 120;
/// The longest that a temporary intention lasts.
const MAX_TEMPORARY: Duration = Duration::from_secs(366 * 24 * 3600);
/// No caller waits longer for the sidecars.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// A temporary intention is kept for so long after its end, so that clocks that differ see it end, not vanish.
const KEEP_EXPIRED: Duration = Duration::from_secs(60);

/// Who asks for a change, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// `uid:N`, or `operator:` and the begin of a token's hash.
    pub who: String,
    /// An address, or `unix`.
    pub from: String,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The intention says something that cannot be.
    #[error(transparent)]
    Intention(#[from] IntentionError),
    /// The request says something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// There is no such intention.
    #[error("there is no {kind} intention {pair}")]
    NotFound {
        /// `permanent` or `temporary`.
        kind: &'static str,
        /// `web -> api`
        pair: String,
    },
    /// The store changed since the revision that the request is based on.
    #[error("intentions changed in revision {stored}, after revision {expected} that this change is based on")]
    Stale {
        /// What the request is based on.
        expected: u64,
        /// The last change.
        stored: u64,
    },
    /// Other changes came between too often.
    #[error("other changes of intentions came between {TRIES} times")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be written as JSON.
    #[error("the record cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// Changes intentions.
pub struct Policy {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    sidecars: Arc<Sidecars>,
    staging: Staging,
    /// Moves the change set in force to the keys of its intentions.
    mover: Mutex<Option<JoinHandle<()>>>,
}

/// What one change would write; nothing where the store says so already.
struct Draft {
    /// What must hold beside that nothing changed.
    compares: Vec<Compare>,
    ops: Vec<Op>,
    audit: AuditEntry,
}

/// A committed change.
struct Committed {
    revision: u64,
    at: SystemTime,
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Some(mover) = self.mover.lock().take() {
            mover.abort();
        }
    }
}

impl Policy {
    /// Changes go into `store` and are seen in `mirror`.
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>, sidecars: Arc<Sidecars>) -> Self {
        let staging = Staging::new(Arc::clone(&store), Arc::clone(&mirror));
        Self { store, mirror, sidecars, staging, mover: Mutex::new(None) }
    }

    /// Sets the permanent intention of a pair, or with `expires_in_s` the temporary one.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn set(
        &self,
        source: Party,
        destination: Party,
        request: SetRequest,
        author: &Author,
    ) -> Result<Written, PolicyError> {
        let expires_at = expiry(request.expires_in_s, SystemTime::now())?;
        let key = PairKey { source: source.clone(), destination: destination.clone(), temporary: expires_at.is_some() };
        for _ in 0..TRIES {
            self.staging.move_pair(&key).await?;
            let marker = self.current_marker().await?;
            if self.staging.holds(&key) {
                continue;
            }
            let (stored, wanted, notes) = self.mirror.read(|view| {
                let wanted = intention_for(view, &source, &destination, request.verb, expires_at);
                let stored = view.intentions.get(&key).cloned();
                let notes = notes::of_set(view, &wanted, stored.as_ref().map(|(record, _)| &record.intention), SystemTime::now());
                (stored, wanted, notes)
            });
            wanted.validate()?;
            if let Some((record, revision)) = &stored
                && record.intention == wanted
            {
                let at = Committed { revision: *revision, at: record.created_at };
                return Ok(self.written(at, false, Some(wanted), notes, &[destination], request.wait_ms).await);
            }
            let record = IntentionRecord {
                intention: wanted.clone(),
                created_at: SystemTime::now(),
                created_by: author.who.clone(),
                reason: request.reason.clone(),
                changed_in: None,
            };
            let details = json!({ "pair": wanted.pair(), "before": stored.map(|(record, _)| record.intention), "after": wanted });
            let draft = Draft {
                compares: Vec::new(),
                ops: vec![Op::put(records::intention_key(&key), records::encode(&record)?)],
                audit: entry(author, "intention.set", details, request.reason.clone()),
            };
            if let Some(committed) = self.commit(marker, draft).await? {
                return Ok(self.written(committed, true, Some(wanted), notes, &[destination], request.wait_ms).await);
            }
        }
        Err(PolicyError::Contended)
    }

    /// Deletes the permanent or the temporary intention of a pair.
    ///
    /// # Errors
    /// [`PolicyError::NotFound`] where there is none, and every other [`PolicyError`].
    pub async fn delete(
        &self,
        key: PairKey,
        reason: Option<String>,
        wait_ms: u64,
        author: &Author,
    ) -> Result<Written, PolicyError> {
        for _ in 0..TRIES {
            self.staging.move_pair(&key).await?;
            let marker = self.current_marker().await?;
            if self.staging.holds(&key) {
                continue;
            }
            let found = self.mirror.read(|view| {
                let exists = view.intentions.contains_key(&key) || view.not_understood.contains_key(&key);
                exists.then(|| view.intentions.get(&key).map(|(record, _)| record.intention.clone()))
            });
            let Some(before) = found else { return Err(not_found(&key)) };
            let details = json!({ "pair": pair(&key), "temporary": key.temporary, "before": before });
            let draft = Draft {
                compares: Vec::new(),
                ops: vec![Op::delete(records::intention_key(&key))],
                audit: entry(author, "intention.delete", details, reason.clone()),
            };
            if let Some(committed) = self.commit(marker, draft).await? {
                let notes = self.mirror.read(|view| notes::of_delete(view, &key, SystemTime::now()));
                return Ok(self.written(committed, true, None, notes, &[key.destination], wait_ms).await);
            }
        }
        Err(PolicyError::Contended)
    }

    /// Changes the default policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn set_default(&self, request: DefaultRequest, author: &Author) -> Result<Written, PolicyError> {
        for _ in 0..TRIES {
            let marker = self.current_marker().await?;
            let (before, revision) = self.mirror.read(|view| view.default);
            let notes = notes::of_default(before, request.policy);
            if before == request.policy {
                let at = Committed { revision, at: SystemTime::now() };
                return Ok(self.written(at, false, None, notes, &[Party::Any], request.wait_ms).await);
            }
            let details = json!({ "before": before, "after": request.policy });
            let draft = Draft {
                compares: Vec::new(),
                ops: vec![default_op(request.policy)?],
                audit: entry(author, "default.set", details, request.reason.clone()),
            };
            if let Some(committed) = self.commit(marker, draft).await? {
                return Ok(self.written(committed, true, None, notes, &[Party::Any], request.wait_ms).await);
            }
        }
        Err(PolicyError::Contended)
    }

    /// Deletes temporary intentions that have ended; gives how many. Also finishes what a crash interrupted: moves the
    /// change set in force, and deletes those that nothing came of.
    ///
    /// # Errors
    /// [`PolicyError::Store`].
    pub async fn sweep(&self, now: SystemTime) -> Result<usize, PolicyError> {
        self.staging.clear().await?;
        self.staging.move_all().await?;
        let marker = self.current_marker().await?;
        let ended: Vec<PairKey> = self.mirror.read(|view| {
            let ended = view
                .intentions
                .iter()
                .filter(|(_, (record, _))| record.intention.expires_at.is_some_and(|end| end + KEEP_EXPIRED <= now));
            ended.map(|(key, _)| key.clone()).take(MAX_CHANGES).collect()
        });
        if ended.is_empty() {
            return Ok(0);
        }
        let author = Author { who: "control-plane".into(), from: "local".into() };
        let pairs: Vec<String> = ended.iter().map(pair).collect();
        let draft = Draft {
            compares: Vec::new(),
            ops: ended.iter().map(|key| Op::delete(records::intention_key(key))).collect(),
            audit: entry(&author, "intention.expire", json!({ "pairs": pairs }), None),
        };
        Ok(if self.commit(marker, draft).await?.is_some() { ended.len() } else { 0 })
    }

    /// The revision of the last change of intentions or default, once the view holds it.
    async fn current_marker(&self) -> Result<u64, PolicyError> {
        let marker = self.store.get(MARKER).await?.map_or(0, |kv| kv.mod_revision);
        self.mirror.reached(marker).await;
        Ok(marker)
    }

    /// `None`: another change came between.
    async fn commit(&self, marker: u64, draft: Draft) -> Result<Option<Committed>, PolicyError> {
        let mut txn = Txn::new().when(Compare::unchanged(MARKER, marker)).then(Op::put(MARKER, Bytes::new()));
        txn.compares.extend(draft.compares);
        txn.then.extend(draft.ops);
        txn.then.push(draft.audit.op());
        let result = self.store.txn(txn).await?;
        self.mirror.reached(result.revision).await;
        Ok(result.succeeded.then_some(Committed { revision: result.revision, at: result.committed_at }))
    }

    async fn written(
        &self,
        committed: Committed,
        changed: bool,
        intention: Option<Intention>,
        notes: Vec<String>,
        destinations: &[Party],
        wait_ms: u64,
    ) -> Written {
        let wait = Duration::from_millis(wait_ms).min(MAX_WAIT);
        let in_force = match wait_ms {
            0 => None,
            _ => Some(self.sidecars.wait_in_force(committed.revision, destinations, wait).await),
        };
        Written { revision: committed.revision, changed, committed_at_us: micros(committed.at), intention, notes, in_force }
    }
}

fn entry(author: &Author, what: &str, details: serde_json::Value, reason: Option<String>) -> AuditEntry {
    AuditEntry { at: SystemTime::now(), who: author.who.clone(), from: author.from.clone(), what: what.into(), details, reason }
}

fn default_op(policy: DefaultPolicy) -> Result<Op, serde_json::Error> {
    Ok(Op::put(records::default_key(), records::encode(&DefaultRecord { policy })?))
}

fn expiry(seconds: Option<u64>, now: SystemTime) -> Result<Option<SystemTime>, PolicyError> {
    let Some(seconds) = seconds else { return Ok(None) };
    let lasts = Duration::from_secs(seconds);
    if seconds == 0 || lasts > MAX_TEMPORARY {
        return Err(PolicyError::Invalid(format!("expires_in_s is {seconds}; a temporary intention lasts 1 second to 366 days")));
    }
    // Whole milliseconds, as on the wire, so that what is compared is what was stored.
    let end = postern_api::convert::millis(now + lasts);
    Ok(Some(postern_api::convert::time(end)))
}

/// What the pair says after the verb.
fn intention_for(view: &View, source: &Party, destination: &Party, verb: SetVerb, expires_at: Option<SystemTime>) -> Intention {
    let fresh = |action, mode| Intention {
        source: source.clone(),
        destination: destination.clone(),
        rule: Rule::Action(action),
        mode,
        expires_at,
        description: String::new(),
        meta: Default::default(),
    };
    match verb {
        SetVerb::Allow => fresh(Action::Allow, Mode::Enforce),
        SetVerb::Deny => fresh(Action::Deny, Mode::Enforce),
        SetVerb::Audit => {
            let key = PairKey { source: source.clone(), destination: destination.clone(), temporary: false };
            match view.intentions.get(&key) {
                Some((record, _)) => Intention { mode: Mode::Audit, expires_at, ..record.intention.clone() },
                None => fresh(Action::Deny, Mode::Audit),
            }
        }
    }
}

/// The permanent intentions and the default, as a file would say them.
pub fn permanent(view: &View) -> IntentionFile {
    let intentions = view.intentions.iter().filter(|(key, _)| !key.temporary).map(|(_, (record, _))| record.intention.clone());
    IntentionFile { default: Some(view.default.0), intentions: intentions.collect() }
}

fn not_found(key: &PairKey) -> PolicyError {
    PolicyError::NotFound { kind: if key.temporary { "temporary" } else { "permanent" }, pair: pair(key) }
}

fn pair(key: &PairKey) -> String {
    postern_api::http::pair(&key.source, &key.destination)
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
