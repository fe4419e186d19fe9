//! Reads of keys, and changes until they are durable.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{MutexGuard, RwLock};

use super::draft::{Draft, Plan};
use super::entry::{self, Entry, StoredEntry, kv_key};
use super::evaluate::{Facts, evaluate};
use super::op::{KvOp, OpError, Outcome};
use crate::mirror::{Mirror, View};
use crate::seal::{SealError, SealKey};
use crate::sessions::{Behaviour, SessionRecord, session_key};
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// How often a change is tried beside others before it goes alone.
const TRIES: usize = 16;
/// Queues of those that write the same key at the same time.
const TURNS: usize = 256;
/// Keys that are given up in one transaction when a session ends, and their bytes.
const RELEASED_AT_ONCE: usize = 64;
const RELEASED_BYTES: usize = 512 << 10;
/// Bytes of all keys and values: they are held in memory, and fit a snapshot (`snapshot::LONGEST`) and an export.
const MAX_TOTAL_BYTES: u64 = 256 << 20;
/// Sessions that are ended at the same time; the store commits them as groups.
const ENDED_AT_ONCE: usize = 64;

/// Why a read or change of keys failed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no room for more.
    #[error("the key-value store is full: all keys and values together have at most {MAX_TOTAL_BYTES} bytes; delete some")]
    Full,
    /// A value cannot be opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What becomes part of a transaction of keys.
#[derive(Debug)]
pub struct Beside<T> {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is done.
    pub ops: Vec<Op>,
    /// For the caller, once all is done.
    pub given: T,
}

/// All keys of one control plane.
pub struct KeyValues {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    seal: Arc<SealKey>,
    cluster_id: String,
    max_bytes: u64,
    /// Every change holds it for reading, one that must be alone for writing.
    gate: RwLock<()>,
    turns: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
    /// Until when a key that was deleted with its session must not be locked, milliseconds since 1970.
    delays: Mutex<HashMap<Bytes, u64>>,
    /// Sessions that are being ended: they lock nothing any more.
    ending: Mutex<HashSet<String>>,
}

impl KeyValues {
    /// The keys of this store.
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>, seal: Arc<SealKey>) -> Arc<Self> {
        Self::with_room(store, mirror, seal, MAX_TOTAL_BYTES)
    }

    /// As [`KeyValues::new`], with room for so many bytes of keys and values.
    pub(super) fn with_room(store: Arc<dyn Store>, mirror: Arc<Mirror>, seal: Arc<SealKey>, max_bytes: u64) -> Arc<Self> {
        let cluster_id = mirror.read(|view| view.cluster.cluster_id.clone());
        Arc::new(Self {
            store,
            mirror,
            seal,
            cluster_id,
            max_bytes,
            gate: RwLock::default(),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
            hasher: RandomState::new(),
            delays: Mutex::default(),
            ending: Mutex::default(),
        })
    }

    /// Opens the value of an entry that the view gave.
    ///
    /// # Errors
    /// [`SealError`] names the key.
    pub fn open(&self, key: &[u8], stored: &StoredEntry) -> Result<Vec<u8>, SealError> {
        entry::open(&self.seal, &self.cluster_id, key, stored).map(|value| value.to_vec())
    }

    /// Carries out all operations in one transaction, or none. Ready when it is durable and every reader sees it. The
    /// caller has checked that there are at most [`MAX_OPS`](super::MAX_OPS) and how long keys and values are.
    ///
    /// # Errors
    /// [`KvError`]. What was refused because of the keys' state is no error but [`Outcome::Refused`].
    pub async fn apply(&self, ops: &[KvOp]) -> Result<Outcome, KvError> {
        let reads_only = ops.iter().all(KvOp::only_reads);
        let nothing = |_: &View| Ok(Beside { compares: Vec::new(), ops: Vec::new(), given: () });
        let (outcome, _) = self.commit(ops, reads_trees(ops) && !reads_only, nothing).await?;
        Ok(outcome)
    }

    /// As [`KeyValues::apply`], with what else is to be part of the same transaction, by the view that the keys are judged
    /// by; it may be asked several times. Its refusals count on from those of the keys: number 0 is `ops.len()`. Gives what
    /// it gave for the caller, unless something was refused.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn apply_beside<T>(
        &self,
        ops: &[KvOp],
        beside: impl Fn(&View) -> Result<Beside<T>, Vec<OpError>>,
    ) -> Result<(Outcome, Option<T>), KvError> {
        self.commit(ops, reads_trees(ops), beside).await
    }

    /// `is_alone`: nobody else may write keys meanwhile.
    async fn commit<T>(
        &self,
        ops: &[KvOp],
        mut is_alone: bool,
        beside: impl Fn(&View) -> Result<Beside<T>, Vec<OpError>>,
    ) -> Result<(Outcome, Option<T>), KvError> {
        let mut tries = 0;
        loop {
            // Those that meet at a key again take turns, or all but one would fail each time.
            let _turns = if tries > 0 && !is_alone { self.take_turns(ops).await } else { Vec::new() };
            let _company = if is_alone { None } else { Some(self.gate.read().await) };
            let _alone = if is_alone { Some(self.gate.write().await) } else { None };
            if is_alone {
                self.settle().await?;
            }
            let (mut outcome, mut draft, beside) = match self.evaluated(ops, &beside)? {
                Evaluated::Refused(outcome) => return Ok((outcome, None)),
                Evaluated::Drafted(outcome, draft, beside) => (outcome, draft, beside),
            };
            draft.txn.compares.extend(beside.compares);
            draft.txn.then.extend(beside.ops);
            if draft.txn.then.is_empty() {
                outcome.commit_nothing();
                return Ok((outcome, Some(beside.given)));
            }
            if draft.adds > 0 && self.mirror.read(|view| view.kv.bytes()) + draft.adds > self.max_bytes {
                return Err(KvError::Full);
            }
            if draft.needs_to_be_alone && !is_alone {
                is_alone = true;
                continue;
            }
            let result = self.store.txn(draft.txn).await?;
            self.mirror.reached(result.revision).await;
            if result.succeeded {
                outcome.commit(result.revision);
                return Ok((outcome, Some(beside.given)));
            }
            tries += 1;
            is_alone |= tries >= TRIES;
        }
    }

    /// Ends sessions: what they hold is released or deleted, as each says, and cannot be locked for its lock-delay.
    /// Ready when it is durable. A session that does not exist is passed over.
    ///
    /// # Errors
    /// [`KvError`]: some may have ended, and the others can be ended again.
    pub async fn end_sessions(&self, ids: Vec<String>) -> Result<(), KvError> {
        let _marks = Marks::set(&self.ending, &ids);
        // Whoever was judged before the marks were set is through now; nobody locks for these sessions any more.
        drop(self.gate.write().await);
        self.settle().await?;
        let mut ended = futures_util::stream::iter(ids).map(|id| self.end_session(id)).buffer_unordered(ENDED_AT_ONCE);
        while let Some(result) = ended.next().await {
            result?;
        }
        Ok(())
    }

    async fn end_session(&self, id: String) -> Result<(), KvError> {
        loop {
            let _company = self.gate.read().await;
            let now = SystemTime::now();
            let Some(release) = self.mirror.read(|view| Release::next(view, &id, now)) else { return Ok(()) };
            for key in &release.delayed {
                self.delay(key.clone(), release.not_before, now);
            }
            let is_last = release.is_last;
            let result = self.store.txn(release.txn).await?;
            self.mirror.reached(result.revision).await;
            if is_last && result.succeeded {
                return Ok(());
            }
        }
    }

    fn delay(&self, key: Bytes, not_before: u64, now: SystemTime) {
        let now = postern_api::convert::millis(now);
        let mut delays = self.delays.lock();
        delays.retain(|_, until| *until > now);
        if not_before > now {
            delays.insert(key, not_before);
        }
    }

    fn evaluated<T>(
        &self,
        ops: &[KvOp],
        beside: impl Fn(&View) -> Result<Beside<T>, Vec<OpError>>,
    ) -> Result<Evaluated<T>, SealError> {
        let now = postern_api::convert::millis(SystemTime::now());
        let is_delayed = |key: &[u8]| self.delays.lock().get(key).is_some_and(|until| *until > now);
        let is_ending = |session: &str| self.ending.lock().contains(session);
        let planned = self.mirror.read(|view| {
            let facts = Facts { view, seal: &self.seal, now, is_delayed: &is_delayed, is_ending: &is_ending };
            let mut evaluation = evaluate(&facts, ops)?;
            let beside = match beside(view) {
                Ok(beside) if evaluation.errors.is_empty() => beside,
                Ok(_) => return Ok(Err(evaluation.errors)),
                Err(errors) => {
                    let counted_on = errors.into_iter().map(|error| OpError { op: error.op + ops.len(), ..error });
                    evaluation.errors.extend(counted_on);
                    return Ok(Err(evaluation.errors));
                }
            };
            let plan = Plan::new(&mut evaluation, view);
            Ok(Ok((Outcome::Done { revision: view.revision, results: evaluation.results }, plan, beside)))
        });
        Ok(match planned? {
            Err(errors) => Evaluated::Refused(Outcome::Refused(errors)),
            Ok((outcome, plan, beside)) => Evaluated::Drafted(outcome, plan.draft(&self.seal, &self.cluster_id), beside),
        })
    }

    /// Waits until the view holds all that was handed to the store before.
    async fn settle(&self) -> Result<(), KvError> {
        let barrier = self.store.txn(Txn::new()).await?;
        self.mirror.reached(barrier.revision).await;
        Ok(())
    }

    async fn take_turns(&self, ops: &[KvOp]) -> Vec<MutexGuard<'_, ()>> {
        let turn = |op: &KvOp| usize::try_from(self.hasher.hash_one(op.key()) % TURNS as u64).unwrap_or(0);
        let mut wanted: Vec<usize> = ops.iter().map(turn).collect();
        // In one order everywhere: nobody waits in a circle.
        wanted.sort_unstable();
        wanted.dedup();
        let mut taken = Vec::with_capacity(wanted.len());
        for turn in wanted {
            if let Some(turn) = self.turns.get(turn) {
                taken.push(turn.lock().await);
            }
        }
        taken
    }
}

enum Evaluated<T> {
    Refused(Outcome),
    Drafted(Outcome, Draft, Beside<T>),
}

/// What was read of a tree must not change until the commit, and no compare says so.
fn reads_trees(ops: &[KvOp]) -> bool {
    ops.iter().any(|op| matches!(op, KvOp::GetTree(_)))
}

impl Outcome {
    /// Everything is as it was: what was put and deleted again has the index of that.
    fn commit_nothing(&mut self) {
        if let Self::Done { revision, .. } = *self {
            self.commit(revision);
        }
    }

    /// The revision is known now.
    fn commit(&mut self, committed: u64) {
        let Self::Done { revision, results } = self else { return };
        *revision = committed;
        for result in results.iter_mut().filter(|result| result.is_changed) {
            result.entry.modify_index = committed;
            if result.entry.create_index == 0 {
                result.entry.create_index = committed;
            }
        }
    }
}

/// Sessions that are marked as ending, as long as it lives.
struct Marks<'a> {
    ending: &'a Mutex<HashSet<String>>,
    ids: Vec<String>,
}

impl<'a> Marks<'a> {
    fn set(ending: &'a Mutex<HashSet<String>>, ids: &[String]) -> Self {
        ending.lock().extend(ids.iter().cloned());
        Self { ending, ids: ids.to_vec() }
    }
}

impl Drop for Marks<'_> {
    fn drop(&mut self) {
        let mut ending = self.ending.lock();
        for id in &self.ids {
            ending.remove(id);
        }
    }
}

/// One step of giving up what a session holds. The session itself goes with the last.
struct Release {
    txn: Txn,
    is_last: bool,
    /// Keys that are deleted, and must not be locked before this time.
    delayed: Vec<Bytes>,
    not_before: u64,
}

impl Release {
    /// `None`: there is no such session.
    fn next(view: &View, id: &str, now: SystemTime) -> Option<Self> {
        let (session, revision) = view.sessions.get(id)?;
        let not_before = not_before(session, now);
        let mut release = Self { txn: Txn::new(), is_last: true, delayed: Vec::new(), not_before };
        let mut bytes = 0;
        for key in view.kv.held_by(id) {
            let Some(entry) = view.kv.get(key) else { continue };
            bytes += entry.stored.sealed.len();
            if release.txn.then.len() == RELEASED_AT_ONCE || (bytes > RELEASED_BYTES && !release.txn.then.is_empty()) {
                release.is_last = false;
                return Some(release);
            }
            release.add(key, entry, session.behaviour);
        }
        let key = session_key(id);
        release.txn.compares.push(Compare::unchanged(key.clone(), *revision));
        release.txn.then.push(Op::delete(key));
        Some(release)
    }

    fn add(&mut self, key: &Bytes, entry: &Entry, behaviour: Behaviour) {
        let stored = kv_key(key);
        self.txn.compares.push(Compare::unchanged(stored.clone(), entry.modify_index));
        self.txn.then.push(match behaviour {
            Behaviour::Release => {
                let free = StoredEntry { session: None, not_before: self.not_before, ..entry.stored.clone() };
                Op::put(stored, free.encode())
            }
            Behaviour::Delete => {
                self.delayed.push(key.clone());
                Op::delete(stored)
            }
        });
    }
}

fn not_before(session: &SessionRecord, now: SystemTime) -> u64 {
    match session.lock_delay {
        Duration::ZERO => 0,
        delay => postern_api::convert::millis(now + delay),
    }
}
