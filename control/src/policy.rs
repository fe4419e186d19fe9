//! Changes of intentions and of the default policy: each is one transaction with its audit entry.
//!
//! Every change also puts the key [`MARKER`], and compares it: so two changes never miss each other, deletions included,
//! and the revision of that key is the one that `expected_revision` is held against.

mod notes;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use postern_api::http::{Applied, ApplyRequest, DefaultRequest, SetRequest, SetVerb, Written};
use postern_intentions::file::IntentionFile;
use postern_intentions::plan::{self, Plan};
use postern_intentions::{Action, DefaultPolicy, Intention, IntentionError, Mode, PairKey, Party, Rule};
use serde_json::json;

use crate::audit::AuditEntry;
use crate::mirror::{Mirror, View};
use crate::push::Sidecars;
use crate::records::{self, DefaultRecord, IntentionRecord};
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// The key that every change of intentions or default puts. It is not mirrored.
const MARKER: &[u8] = b"policy/changed";
/// How often a change is tried again after another one came between.
const TRIES: usize = 16;
/// Changes of one apply: a transaction has 128 operations, and some are ours.
pub const MAX_CHANGES: usize = 120;
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
    /// More changes than one transaction takes.
    #[error("{changes} changes at once; at most {MAX_CHANGES} fit into one transaction")]
    TooMany {
        /// How many there would be.
        changes: usize,
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
}

/// What one change would write; nothing where the store says so already.
struct Draft {
    ops: Vec<Op>,
    audit: AuditEntry,
}

/// A committed change.
struct Committed {
    revision: u64,
    at: SystemTime,
}

impl Policy {
    /// Changes go into `store` and are seen in `mirror`.
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>, sidecars: Arc<Sidecars>) -> Self {
        Self { store, mirror, sidecars }
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
            let marker = self.current_marker().await?;
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
            };
            let details = json!({ "pair": wanted.pair(), "before": stored.map(|(record, _)| record.intention), "after": wanted });
            let draft = Draft {
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
            let marker = self.current_marker().await?;
            let found = self.mirror.read(|view| {
                let exists = view.intentions.contains_key(&key) || view.not_understood.contains_key(&key);
                exists.then(|| view.intentions.get(&key).map(|(record, _)| record.intention.clone()))
            });
            let Some(before) = found else { return Err(not_found(&key)) };
            let details = json!({ "pair": pair(&key), "temporary": key.temporary, "before": before });
            let draft = Draft {
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
                ops: vec![default_op(request.policy)?],
                audit: entry(author, "default.set", details, request.reason.clone()),
            };
            if let Some(committed) = self.commit(marker, draft).await? {
                return Ok(self.written(committed, true, None, notes, &[Party::Any], request.wait_ms).await);
            }
        }
        Err(PolicyError::Contended)
    }

    /// Makes the store equal to the request, or says what would change.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn apply(&self, request: ApplyRequest, author: &Author) -> Result<Applied, PolicyError> {
        check_wanted(&request)?;
        let wanted = IntentionFile { default: request.default, intentions: request.intentions.clone() };
        for _ in 0..TRIES {
            let marker = self.current_marker().await?;
            if let Some(expected) = request.expected_revision
                && marker > expected
            {
                return Err(PolicyError::Stale { expected, stored: marker });
            }
            let (plan, base_revision, notes) = self.mirror.read(|view| {
                let plan = plan::difference(&permanent(view), &wanted, request.merge);
                let notes = notes::of_plan(view, &plan, SystemTime::now());
                (plan, view.revision, notes)
            });
            let unreadable = self.mirror.read(|view| unreadable_to_remove(view, &request));
            let applied = |written| applied(&plan, base_revision, written);
            if request.dry_run || (plan.is_empty() && unreadable.is_empty()) {
                return Ok(applied(None));
            }
            let draft = self.draft_of(&plan, &unreadable, &request, author)?;
            if let Some(committed) = self.commit(marker, draft).await? {
                let concerned = destinations_of(&plan, &unreadable);
                let written = self.written(committed, true, None, notes, &concerned, request.wait_ms).await;
                return Ok(applied(Some(written)));
            }
        }
        Err(PolicyError::Contended)
    }

    /// Deletes temporary intentions that have ended; gives how many.
    ///
    /// # Errors
    /// [`PolicyError::Store`].
    pub async fn sweep(&self, now: SystemTime) -> Result<usize, PolicyError> {
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

    fn draft_of(
        &self,
        plan: &Plan,
        unreadable: &[PairKey],
        request: &ApplyRequest,
        author: &Author,
    ) -> Result<Draft, PolicyError> {
        let changes = plan.added.len() + plan.changed.len() + plan.removed.len() + unreadable.len();
        if changes > MAX_CHANGES {
            return Err(PolicyError::TooMany { changes });
        }
        let now = SystemTime::now();
        let mut ops = Vec::with_capacity(changes + 1);
        for intention in plan.added.iter().chain(plan.changed.iter().map(|(_, after)| after)) {
            let record = IntentionRecord {
                intention: intention.clone(),
                created_at: now,
                created_by: author.who.clone(),
                reason: request.reason.clone(),
            };
            ops.push(Op::put(records::intention_key(&intention.key()), records::encode(&record)?));
        }
        let gone = plan.removed.iter().map(Intention::key).chain(unreadable.iter().cloned());
        ops.extend(gone.map(|key| Op::delete(records::intention_key(&key))));
        if let Some((_, policy)) = plan.default {
            ops.push(default_op(policy)?);
        }
        let details = json!({ "added": plan.added, "changed": plan.changed, "removed": plan.removed, "default": plan.default });
        Ok(Draft { ops, audit: entry(author, "intention.apply", details, request.reason.clone()) })
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

fn check_wanted(request: &ApplyRequest) -> Result<(), PolicyError> {
    let mut pairs = std::collections::BTreeSet::new();
    for intention in &request.intentions {
        intention.validate()?;
        if intention.is_temporary() {
            let pair = intention.pair();
            return Err(PolicyError::Invalid(format!("{pair} has expires_at; an apply holds permanent intentions only")));
        }
        if !pairs.insert(intention.key()) {
            return Err(PolicyError::Invalid(format!("{} is there twice; a pair has one permanent intention", intention.pair())));
        }
    }
    Ok(())
}

/// The permanent intentions and the default, as a file would say them.
pub fn permanent(view: &View) -> IntentionFile {
    let intentions = view.intentions.iter().filter(|(key, _)| !key.temporary).map(|(_, (record, _))| record.intention.clone());
    IntentionFile { default: Some(view.default.0), intentions: intentions.collect() }
}

/// Permanent intentions that cannot be read and that the apply takes out. Those that it sets anew are simply replaced.
fn unreadable_to_remove(view: &View, request: &ApplyRequest) -> Vec<PairKey> {
    if request.merge {
        return Vec::new();
    }
    let wanted: std::collections::BTreeSet<PairKey> = request.intentions.iter().map(Intention::key).collect();
    view.not_understood.keys().filter(|key| !key.temporary && !wanted.contains(key)).cloned().collect()
}

fn destinations_of(plan: &Plan, unreadable: &[PairKey]) -> Vec<Party> {
    if plan.default.is_some() {
        return vec![Party::Any];
    }
    let changed = plan.added.iter().chain(plan.changed.iter().map(|(_, after)| after)).chain(&plan.removed);
    let all = changed.map(|intention| intention.destination.clone()).chain(unreadable.iter().map(|key| key.destination.clone()));
    let distinct: std::collections::BTreeSet<Party> = all.collect();
    distinct.into_iter().collect()
}

fn applied(plan: &Plan, base_revision: u64, written: Option<Written>) -> Applied {
    Applied {
        added: plan.added.clone(),
        changed: plan.changed.clone(),
        removed: plan.removed.clone(),
        default: plan.default,
        base_revision,
        not_understood_by: Vec::new(),
        written,
    }
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
