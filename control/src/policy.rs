//! Changes of intentions and of the default policy: each is one transaction with its audit entry and its history.
//!
//! An apply that is larger than a transaction is a change set (`policy::staging`): one revision all the same.
//!
//! Every change also puts the key [`MARKER`], and compares it: so two changes never miss each other, deletions included,
//! and the revision of that key is the one that `expected_revision` is held against.

mod apply;
pub mod effects;
mod history;
mod notes;
mod preview;
mod rollback;
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

pub use self::apply::{Touched, permanent_of};
pub use self::history::{Filter, History};
use self::staging::Staging;
use crate::audit::AuditEntry;
use crate::mirror::{Mirror, View};
use crate::push::Sidecars;
use crate::records::change_set::{StagedChange, encode_chunk};
use crate::records::history::{HistoryRecord, part_key, record_key};
use crate::records::{self, DefaultRecord, IntentionRecord};
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// The key that every change of intentions or default puts. It is not mirrored.
const MARKER: &[u8] = b"policy/changed";
/// How often a change is tried again after another one came between.
const TRIES: usize = 16;
/// Changes of one transaction: it has 128 operations, and some are ours.
const MAX_CHANGES: usize = 120;
/// Bytes of a reason.
const MAX_REASON: usize = 1024;
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

/// How an intention is deleted.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// For the audit log and the history.
    pub reason: Option<String>,
    /// Milliseconds to wait for the sidecars concerned; 0: not at all.
    pub wait_ms: u64,
    /// What the deletion is based on: it is refused where intentions or default changed since.
    pub expected_revision: Option<u64>,
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
    /// The history does not go back so far.
    #[error("what intentions said at revision {revision} is not kept any more; the history goes back to revision {oldest}")]
    Forgotten {
        /// The revision that was asked for.
        revision: u64,
        /// The oldest one that there is a way back to.
        oldest: u64,
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
    history: History,
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
    changed: Changed,
}

/// What a change changes, for the history.
#[derive(Default)]
struct Changed {
    default: Option<(DefaultPolicy, DefaultPolicy)>,
    pairs: Pairs,
}

enum Pairs {
    /// These, in the same transaction.
    These(Vec<StagedChange>),
    /// Those of a change set: its id, chunks and bytes.
    OfSet(String, u32, usize),
}

impl Default for Pairs {
    fn default() -> Self {
        Self::These(Vec::new())
    }
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
        let history = History::new(Arc::clone(&store));
        Self { store, mirror, sidecars, history, staging, mover: Mutex::new(None) }
    }

    /// What was changed.
    pub fn history(&self) -> &History {
        &self.history
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
        check_reason(request.reason.as_deref())?;
        let expires_at = expiry(request.expires_in_s, SystemTime::now())?;
        let key = PairKey { source: source.clone(), destination: destination.clone(), temporary: expires_at.is_some() };
        for _ in 0..TRIES {
            self.staging.move_pair(&key).await?;
            let marker = self.current_marker().await?;
            check_base(request.expected_revision, marker)?;
            if self.staging.holds(&key) {
                continue;
            }
            let (stored, before, wanted, notes) = self.mirror.read(|view| {
                let wanted = intention_for(view, &source, &destination, request.verb, expires_at);
                let stored = view.intentions.get(&key).cloned();
                let before = json_before(view, &key);
                let notes = notes::of_set(view, &wanted, stored.as_ref().map(|(record, _)| &record.intention), SystemTime::now());
                (stored, before, wanted, notes)
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
            let value = records::encode(&record)?;
            let change = StagedChange { key: records::intention_key(&key), value: Some(value.clone()), before };
            let draft = Draft {
                compares: Vec::new(),
                ops: vec![Op::put(records::intention_key(&key), value)],
                audit: entry(author, "intention.set", details, request.reason.clone()),
                changed: Changed { default: None, pairs: Pairs::These(vec![change]) },
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
    pub async fn delete(&self, key: PairKey, deletion: Deletion, author: &Author) -> Result<Written, PolicyError> {
        let Deletion { reason, wait_ms, expected_revision } = deletion;
        check_reason(reason.as_deref())?;
        for _ in 0..TRIES {
            self.staging.move_pair(&key).await?;
            let marker = self.current_marker().await?;
            check_base(expected_revision, marker)?;
            if self.staging.holds(&key) {
                continue;
            }
            let found = self.mirror.read(|view| {
                let exists = view.intentions.contains_key(&key) || view.not_understood.contains_key(&key);
                let intention = || view.intentions.get(&key).map(|(record, _)| record.intention.clone());
                exists.then(|| (intention(), json_before(view, &key)))
            });
            let Some((before, json)) = found else { return Err(not_found(&key)) };
            let change = StagedChange { key: records::intention_key(&key), value: None, before: json };
            let details = json!({ "pair": pair(&key), "temporary": key.temporary, "before": before });
            let draft = Draft {
                compares: Vec::new(),
                ops: vec![Op::delete(records::intention_key(&key))],
                audit: entry(author, "intention.delete", details, reason.clone()),
                changed: Changed { default: None, pairs: Pairs::These(vec![change]) },
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
        check_reason(request.reason.as_deref())?;
        for _ in 0..TRIES {
            let marker = self.current_marker().await?;
            check_base(request.expected_revision, marker)?;
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
                changed: Changed { default: Some((before, request.policy)), pairs: Pairs::default() },
            };
            if let Some(committed) = self.commit(marker, draft).await? {
                return Ok(self.written(committed, true, None, notes, &[Party::Any], request.wait_ms).await);
            }
        }
        Err(PolicyError::Contended)
    }

    /// Deletes temporary intentions that have ended; gives how many. Also finishes what a crash interrupted: moves the
    /// change set in force, and deletes those that nothing came of. And forgets what the history need not keep.
    ///
    /// # Errors
    /// [`PolicyError::Store`].
    pub async fn sweep(&self, now: SystemTime) -> Result<usize, PolicyError> {
        self.staging.clear().await?;
        self.staging.move_all().await?;
        self.history.tidy(now).await?;
        let marker = self.current_marker().await?;
        let ended: Vec<(PairKey, Bytes)> = self.mirror.read(|view| {
            let ended = view
                .intentions
                .iter()
                .filter(|(_, (record, _))| record.intention.expires_at.is_some_and(|end| end + KEEP_EXPIRED <= now));
            ended.map(|(key, _)| (key.clone(), json_before(view, key))).take(MAX_CHANGES).collect()
        });
        if ended.is_empty() {
            return Ok(0);
        }
        let author = Author { who: "control-plane".into(), from: "local".into() };
        let gone = |(key, before)| StagedChange { key: records::intention_key(&key), value: None, before };
        let pairs: Vec<String> = ended.iter().map(|(key, _)| pair(key)).collect();
        let mut changes: Vec<StagedChange> = ended.into_iter().map(gone).collect();
        // The others are for the next time.
        changes.truncate(how_many_fit(&changes));
        let count = changes.len();
        let draft = Draft {
            compares: Vec::new(),
            ops: changes.iter().map(|change| Op::delete(change.key.clone())).collect(),
            audit: entry(&author, "intention.expire", json!({ "pairs": pairs[..count] }), None),
            changed: Changed { default: None, pairs: Pairs::These(changes) },
        };
        Ok(if self.commit(marker, draft).await?.is_some() { count } else { 0 })
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
        txn.then.extend(history_ops(marker, &draft)?);
        txn.compares.extend(draft.compares);
        txn.then.extend(draft.ops);
        txn.then.push(draft.audit.op());
        let result = self.store.txn(txn).await?;
        self.mirror.reached(result.revision).await;
        if result.succeeded
            && let Err(error) = self.history.grew(result.committed_at).await
        {
            tracing::warn!(%error, "the history of intentions was not tidied up; trying again later");
        }
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

/// The record of a change, and its pairs where they are not in a change set.
fn history_ops(marker: u64, draft: &Draft) -> Result<Vec<Op>, PolicyError> {
    let AuditEntry { at, who, from, what, reason, .. } = &draft.audit;
    let mut ops = Vec::new();
    let (parts, bytes, change_set) = match &draft.changed.pairs {
        Pairs::These(changes) if changes.is_empty() => (0, 0, None),
        Pairs::These(changes) => {
            let part = encode_chunk(changes);
            let bytes = part.len();
            ops.push(Op::put(part_key(marker, 0), part));
            (1, bytes, None)
        }
        Pairs::OfSet(id, chunks, bytes) => (*chunks, *bytes, Some(id.clone())),
    };
    let record = HistoryRecord {
        base: marker,
        at: *at,
        who: who.clone(),
        from: from.clone(),
        what: what.clone(),
        reason: reason.clone(),
        default: draft.changed.default,
        parts,
        bytes: bytes as u64,
        change_set,
    };
    ops.push(Op::put(record_key(marker), records::encode(&record)?));
    Ok(ops)
}

/// Nothing was changed since what a change is based on.
fn check_base(expected: Option<u64>, stored: u64) -> Result<(), PolicyError> {
    match expected {
        Some(expected) if stored > expected => Err(PolicyError::Stale { expected, stored }),
        _ => Ok(()),
    }
}

/// A reason is a line or two; it is kept with every intention that it was given for.
fn check_reason(reason: Option<&str>) -> Result<(), PolicyError> {
    let Some(reason) = reason else { return Ok(()) };
    if reason.len() > MAX_REASON {
        return Err(PolicyError::Invalid(format!("the reason is {} bytes long; at most {MAX_REASON} are kept", reason.len())));
    }
    if reason.chars().any(|c| c.is_control() && c != '\n') {
        return Err(PolicyError::Invalid("the reason holds a control character; write it as plain text".into()));
    }
    Ok(())
}

/// What is stored of a pair, as the history keeps it: its intention as JSON, its name where that cannot be read, nothing
/// where there is none.
fn json_before(view: &View, key: &PairKey) -> Bytes {
    match view.intentions.get(key) {
        Some((record, _)) => json_of(&record.intention),
        None if view.not_understood.contains_key(key) => json_of(&pair(key)),
        None => Bytes::new(),
    }
}

fn json_of(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// How many of these changes one transaction holds, with its audit entry and its history; at least one.
fn how_many_fit(changes: &[StagedChange]) -> usize {
    let mut bytes = 0;
    let fits = |change: &&StagedChange| {
        bytes += change.size();
        bytes <= apply::MAX_BYTES
    };
    changes.iter().take_while(fits).count().max(1)
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
