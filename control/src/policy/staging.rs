//! Change sets: changes that are larger than a transaction, in one revision (`records::change_set` has the layout).
//!
//! What is staged is written by several transactions and seen by nobody. The one that puts the pointer also compares the
//! head of the set, so that a set of which something was cleared away is never made true.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use postern_intentions::PairKey;
use serde_json::{Value, json};

use super::{MAX_CHANGES, PolicyError, pair};
use crate::audit::AuditEntry;
use crate::mirror::{Mirror, SetInForce, StagedChunk};
use crate::records::change_set::{
    ChangeSetKey, ChangeSetRecord, DamagedChunk, POINTER, StagedChange, decode_chunk, encode_chunk, set_prefix,
};
use crate::records::history::part_key;
use crate::records::{self, IntentionRecord};
use crate::store::{Compare, MAX_TXN_BYTES, Op, Store, StoreError, Txn};

/// Bytes of a chunk, unless one change alone is longer: moving it writes it, and tells the audit log of it.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of the chunks that are staged in one transaction.
const STAGED_AT_ONCE: usize = 768 << 10;
/// Room in a transaction for all that is not the change itself.
const MARGIN: usize = 16 << 10;
/// Transactions at once; the store makes them durable together.
const AT_ONCE: usize = 64;

/// Writes change sets and moves them.
#[derive(Clone)]
pub(super) struct Staging {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    /// Sets that this process is writing.
    running: Arc<Mutex<BTreeSet<String>>>,
}

/// A set that is wholly written, and seen by nobody yet. When it is dropped without having been made true, it is cleared
/// away with what crashes leave.
pub(super) struct Staged {
    /// Which set.
    pub id: String,
    /// How many chunks it has.
    pub chunks: u32,
    head: u64,
    running: Arc<Mutex<BTreeSet<String>>>,
}

impl Staged {
    /// What must hold for the set to be made true: it is whole, and no other set is in force.
    pub fn compares(&self) -> Vec<Compare> {
        let head = ChangeSetKey::Head(self.id.clone()).to_bytes();
        vec![Compare::unchanged(head, self.head), Compare::absent(POINTER)]
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

impl Staging {
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>) -> Self {
        Self { store, mirror, running: Arc::default() }
    }

    /// Whether the change of this pair was not moved yet.
    pub fn holds(&self, key: &PairKey) -> bool {
        self.mirror.read(|view| view.change_sets.chunk_of(key).is_some())
    }

    /// Writes a set. `None`: somebody cleared it away meanwhile.
    pub async fn write(&self, changes: Vec<StagedChange>) -> Result<Option<Staged>, PolicyError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let head_key = ChangeSetKey::Head(id.clone()).to_bytes();
        self.running.lock().insert(id.clone());
        let mut staged = Staged { id, chunks: 0, head: 0, running: Arc::clone(&self.running) };
        staged.head = self.store.txn(Txn::new().then(Op::put(head_key.clone(), Bytes::new()))).await?.revision;
        let chunks = cut(changes)?;
        staged.chunks = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let whole = Compare::unchanged(head_key, staged.head);
        let txns = together(&staged.id, chunks).into_iter().map(|txn| self.store.txn(txn.when(whole.clone())));
        let written: Vec<_> = stream::iter(txns).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(written.iter().all(|result| result.succeeded).then_some(staged))
    }

    /// Takes a set that came to nothing out of the store.
    pub async fn discard(&self, id: &str) -> Result<(), PolicyError> {
        let is_in_force =
            Compare::unchanged(POINTER, self.mirror.read(|view| view.change_sets.in_force().map_or(0, |set| set.revision)));
        self.store.txn(Txn::new().when(is_in_force).then(Op::DeletePrefix(set_prefix(id)))).await?;
        Ok(())
    }

    /// Takes out what crashes and callers that hung up left behind.
    pub async fn clear(&self) -> Result<(), PolicyError> {
        let left: Vec<String> = self.mirror.read(|view| {
            let running = self.running.lock();
            view.change_sets.not_in_force().filter(|id| !running.contains(*id)).cloned().collect()
        });
        for id in left {
            tracing::info!(%id, "clearing away a change of intentions that was never made true");
            self.discard(&id).await?;
        }
        Ok(())
    }

    /// Moves the chunk that holds the change of this pair to the keys of its intentions.
    pub async fn move_pair(&self, key: &PairKey) -> Result<(), PolicyError> {
        let found = self.mirror.read(|view| {
            let (number, chunk) = view.change_sets.chunk_of(key)?;
            Some((view.change_sets.in_force()?.clone(), number, chunk.clone()))
        });
        if let Some((set, number, chunk)) = found {
            let moved = self.move_chunk(&set, number, chunk).await?;
            self.mirror.reached(moved).await;
        }
        Ok(())
    }

    /// Moves all of the set in force, if there is one, to the keys of its intentions, where it says the same.
    pub async fn move_all(&self) -> Result<(), PolicyError> {
        loop {
            let found = self.mirror.read(|view| {
                let set = view.change_sets.in_force()?.clone();
                Some((set, view.change_sets.chunks_in_force().cloned().unwrap_or_default()))
            });
            let Some((set, chunks)) = found else { return Ok(()) };
            let moved = if chunks.is_empty() {
                self.end(&set).await?
            } else {
                let moves = chunks.into_iter().map(|(number, chunk)| self.move_chunk(&set, number, chunk));
                stream::iter(moves).buffer_unordered(AT_ONCE).try_fold(0, async |last, moved| Ok(moved.max(last))).await?
            };
            self.mirror.reached(moved).await;
        }
    }

    /// Gives the revision after it, whether or not somebody else was faster.
    async fn move_chunk(&self, set: &SetInForce, number: u32, chunk: StagedChunk) -> Result<u64, PolicyError> {
        let key = ChangeSetKey::Chunk(set.record.id.clone(), number).to_bytes();
        let changes = decode_chunk(chunk.bytes.clone()).map_err(damaged)?;
        let mut ops = vec![Op::delete(key.clone())];
        ops.extend(changes.iter().map(|change| moved(change, set.revision)));
        if let Some(base) = set.record.base {
            let part = Op::put(part_key(base, number), chunk.bytes);
            if ops.iter().map(size).sum::<usize>() + size(&part) > MAX_TXN_BYTES - 2 * MARGIN {
                // Too long to be moved together: first into the history, where it says the same.
                let is_there = Compare::unchanged(key.clone(), chunk.revision);
                self.store.txn(Txn::new().when(is_there).then(part)).await?;
            } else {
                ops.push(part);
            }
        }
        let audit = audit_of_part(
            set,
            number,
            &changes,
            MAX_TXN_BYTES - MARGIN - ops.iter().map(size).sum::<usize>().min(MAX_TXN_BYTES - MARGIN),
        );
        ops.push(audit.op());
        let txn = Txn { compares: vec![Compare::unchanged(key, chunk.revision)], then: ops, ..Txn::default() };
        Ok(self.store.txn(txn).await?.revision)
    }

    /// Everything was moved.
    async fn end(&self, set: &SetInForce) -> Result<u64, PolicyError> {
        let txn = Txn::new()
            .when(Compare::unchanged(POINTER, set.revision))
            .then(Op::delete(POINTER))
            .then(Op::DeletePrefix(set_prefix(&set.record.id)));
        Ok(self.store.txn(txn).await?.revision)
    }
}

fn damaged(error: DamagedChunk) -> PolicyError {
    PolicyError::Store(StoreError::Corrupt(error.to_string()))
}

/// A change as the transaction that moves it makes it. It keeps the revision that made it true.
fn moved(change: &StagedChange, revision: u64) -> Op {
    let Some(value) = &change.value else { return Op::delete(change.key.clone()) };
    let with_revision = records::decode::<IntentionRecord>(&change.key, value)
        .ok()
        .and_then(|record| records::encode(&IntentionRecord { changed_in: Some(revision), ..record }).ok());
    // What this version cannot read it moves as it is.
    Op::put(change.key.clone(), with_revision.unwrap_or_else(|| value.clone()))
}

fn size(op: &Op) -> usize {
    match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Delete(key) | Op::DeletePrefix(key) => key.len(),
    }
}

/// Cuts changes into chunks that one transaction each can move.
fn cut(changes: Vec<StagedChange>) -> Result<Vec<Vec<StagedChange>>, PolicyError> {
    let mut chunks = Vec::new();
    let mut chunk = Vec::new();
    let mut bytes = 0;
    for mut change in changes {
        if change.size() > MAX_TXN_BYTES - MARGIN && !change.before.is_empty() {
            change.before = named(&change);
        }
        if change.size() > MAX_TXN_BYTES - MARGIN {
            return Err(StoreError::TooLarge { size: change.size(), max: MAX_TXN_BYTES - MARGIN }.into());
        }
        if !chunk.is_empty() && (chunk.len() == MAX_CHANGES || bytes + change.size() > CHUNK_BYTES) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += change.size();
        chunk.push(change);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// As few transactions as the chunks fit into.
fn together(id: &str, chunks: Vec<Vec<StagedChange>>) -> Vec<Txn> {
    let mut txns = Vec::new();
    let mut txn = Txn::new();
    let mut bytes = 0;
    for (number, chunk) in (0..).zip(chunks) {
        let op = Op::put(ChangeSetKey::Chunk(id.to_owned(), number).to_bytes(), encode_chunk(&chunk));
        if !txn.then.is_empty() && (txn.then.len() == MAX_CHANGES || bytes + size(&op) > STAGED_AT_ONCE) {
            txns.push(std::mem::take(&mut txn));
            bytes = 0;
        }
        bytes += size(&op);
        txn.then.push(op);
    }
    txns.push(txn);
    txns
}

/// The pair of a change, as JSON.
fn named(change: &StagedChange) -> Bytes {
    serde_json::to_vec(&name(change)).map(Bytes::from).unwrap_or_default()
}

fn name(change: &StagedChange) -> String {
    change.pair().as_ref().map(pair).unwrap_or_default()
}

/// What the audit log is told of a chunk; only the pairs where more than `room` bytes would tell it all.
fn audit_of_part(set: &SetInForce, number: u32, changes: &[StagedChange], room: usize) -> AuditEntry {
    let ChangeSetRecord { id, chunks, at, who, from, reason, .. } = &set.record;
    let with = |said: Value| {
        let mut details = json!({ "change_set": id, "revision": set.revision, "part": number + 1, "of": chunks });
        if let (Value::Object(details), Value::Object(said)) = (&mut details, said) {
            details.extend(said);
        }
        AuditEntry {
            at: *at,
            who: who.clone(),
            from: from.clone(),
            what: "intention.apply.part".into(),
            details,
            reason: reason.clone(),
        }
    };
    let whole = with(told(changes));
    if serde_json::to_vec(&whole).map_or(0, |json| json.len()) <= room {
        return whole;
    }
    with(json!({ "pairs": changes.iter().map(name).collect::<Vec<_>>() }))
}

fn told(changes: &[StagedChange]) -> Value {
    let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for change in changes {
        let before: Option<Value> = serde_json::from_slice(&change.before).ok();
        let after = change.value.as_ref().map(|value| {
            let record: Value = serde_json::from_slice(value).unwrap_or_default();
            record.get("intention").cloned().unwrap_or_default()
        });
        match (before, after) {
            (None, Some(after)) => added.push(after),
            (Some(before), Some(after)) => changed.push(json!([before, after])),
            (before, None) => removed.push(before.unwrap_or_else(|| name(change).into())),
        }
    }
    json!({ "added": added, "changed": changed, "removed": removed })
}
