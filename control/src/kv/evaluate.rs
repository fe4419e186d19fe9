//! What operations come to, one after the other, each seeing what those before it did. Nothing is written here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zeroize::Zeroizing;

use super::entry::{self, Entry, StoredEntry, kv_key};
use super::op::{KvOp, KvResult, OpError};
use crate::mirror::View;
use crate::seal::{SealError, SealKey};
use crate::sessions::session_key;

/// What the operations are judged by.
pub(super) struct Facts<'a> {
    pub view: &'a View,
    pub seal: &'a SealKey,
    /// Milliseconds since 1970.
    pub now: u64,
    /// Whether the lock-delay of a key that was deleted with its session goes on.
    pub is_delayed: &'a dyn Fn(&[u8]) -> bool,
    /// Whether a session is being ended.
    pub is_ending: &'a dyn Fn(&str) -> bool,
}

/// What a key becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pending {
    Put(PendingEntry),
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingEntry {
    /// 0: it is created by this transaction.
    pub create_index: u64,
    pub flags: u64,
    pub lock_index: u64,
    pub not_before: u64,
    pub session: Option<String>,
    pub value: Bytes,
}

/// What a list of operations comes to.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    /// Keys of the store that must be unchanged since these revisions; 0: absent.
    pub compares: BTreeMap<Bytes, u64>,
    pub changes: BTreeMap<Bytes, Pending>,
    /// Prefixes whose keys are all deleted, except for those that `changes` puts afterwards.
    pub trees: Vec<Bytes>,
    pub results: Vec<KvResult>,
    pub errors: Vec<OpError>,
}

/// A key as it is after the operations so far.
enum Current<'a> {
    Stored(&'a Entry),
    Pending(&'a PendingEntry),
}

/// Evaluates all operations, those after a refused one too, so that every error is named.
///
/// # Errors
/// [`SealError`]: a value that is needed cannot be opened.
pub(super) fn evaluate(facts: &Facts<'_>, ops: &[KvOp]) -> Result<Evaluation, SealError> {
    let mut run = Run { facts, evaluation: Evaluation::default() };
    for (index, op) in ops.iter().enumerate() {
        let before = run.evaluation.results.len();
        if let Err(refusal) = run.step(op)? {
            run.evaluation.errors.push(OpError { op: index, what: refusal.what, is_state: refusal.is_state });
        }
        for result in run.evaluation.results.iter_mut().skip(before) {
            result.op = index;
        }
    }
    Ok(run.evaluation)
}

struct Run<'a> {
    facts: &'a Facts<'a>,
    evaluation: Evaluation,
}

struct Refusal {
    what: String,
    is_state: bool,
}

/// The key is not as the operation wants it.
fn state(what: String) -> Result<(), Refusal> {
    Err(Refusal { what, is_state: true })
}

/// What is written to a key.
struct Written<'a> {
    key: &'a Bytes,
    value: &'a Bytes,
    flags: u64,
}

impl Current<'_> {
    fn session(&self) -> Option<&str> {
        match self {
            Self::Stored(entry) => entry.stored.session.as_deref(),
            Self::Pending(entry) => entry.session.as_deref(),
        }
    }

    /// `None`: it is changed by this transaction.
    fn modify_index(&self) -> Option<u64> {
        match self {
            Self::Stored(entry) => Some(entry.modify_index),
            Self::Pending(_) => None,
        }
    }

    /// Lock index and end of the lock-delay.
    fn lock(&self) -> (u64, u64) {
        match self {
            Self::Stored(entry) => (entry.stored.lock_index, entry.stored.not_before),
            Self::Pending(entry) => (entry.lock_index, entry.not_before),
        }
    }
}

impl<'a> Run<'a> {
    /// The outer error ends the evaluation, the inner one refuses the operation.
    fn step(&mut self, op: &KvOp) -> Result<Result<(), Refusal>, SealError> {
        let written = |key, value, flags| Written { key, value, flags };
        Ok(match op {
            KvOp::Set { key, value, flags } => Ok(self.set(&written(key, value, *flags))?),
            KvOp::Cas { key, value, flags, index } => self.cas(&written(key, value, *flags), *index)?,
            KvOp::Lock { key, value, flags, session } => self.lock(&written(key, value, *flags), session)?,
            KvOp::Unlock { key, value, flags, session } => self.unlock(&written(key, value, *flags), session)?,
            KvOp::Get(key) => self.get(key)?,
            KvOp::GetOrEmpty(key) => Ok(self.get_or_empty(key)?),
            KvOp::GetTree(prefix) => Ok(self.get_tree(prefix)?),
            KvOp::CheckIndex { key, index } => self.check_index(key, *index),
            KvOp::CheckSession { key, session } => self.check_session(key, session),
            KvOp::CheckNotExists(key) => match self.current(key) {
                Some(_) => state(format!("key {:?} exists", shown(key))),
                None => Ok(()),
            },
            KvOp::Delete(key) => {
                self.delete(key);
                Ok(())
            }
            KvOp::DeleteTree(prefix) => {
                self.delete_tree(prefix);
                Ok(())
            }
            KvOp::DeleteCas { key, index } => self.delete_cas(key, *index),
        })
    }

    /// The key after the operations so far; what is decided by it holds only while it stays so.
    fn current(&mut self, key: &Bytes) -> Option<Current<'_>> {
        if !self.evaluation.changes.contains_key(key) && !self.is_in_deleted_tree(key) {
            let revision = self.facts.view.kv.get(key).map_or(0, |entry| entry.modify_index);
            self.evaluation.compares.insert(kv_key(key), revision);
        }
        self.peek(key)
    }

    fn peek(&self, key: &Bytes) -> Option<Current<'_>> {
        match self.evaluation.changes.get(key) {
            Some(Pending::Put(entry)) => Some(Current::Pending(entry)),
            Some(Pending::Gone) => None,
            None if self.is_in_deleted_tree(key) => None,
            None => self.facts.view.kv.get(key).map(Current::Stored),
        }
    }

    fn is_in_deleted_tree(&self, key: &[u8]) -> bool {
        self.evaluation.trees.iter().any(|prefix| key.starts_with(prefix))
    }

    fn set(&mut self, written: &Written<'_>) -> Result<(), SealError> {
        let current = self.current(written.key);
        let (lock_index, not_before) = current.as_ref().map_or((0, 0), Current::lock);
        let session = current.as_ref().and_then(Current::session).map(ToOwned::to_owned);
        self.put(written, PendingEntry { lock_index, not_before, session, ..pending(written) })
    }

    fn cas(&mut self, written: &Written<'_>, index: u64) -> Result<Result<(), Refusal>, SealError> {
        let fits = match self.current(written.key) {
            None => index == 0,
            Some(current) => index != 0 && current.modify_index() == Some(index),
        };
        if !fits {
            return Ok(state(format!("failed to set key {:?}, index is stale", shown(written.key))));
        }
        self.set(written).map(Ok)
    }

    fn lock(&mut self, written: &Written<'_>, session: &str) -> Result<Result<(), Refusal>, SealError> {
        if session.is_empty() {
            return Ok(impossible("missing session"));
        }
        let Some(session_revision) = self.facts.view.sessions.get(session).map(|(_, revision)| *revision) else {
            return Ok(impossible(&format!("invalid session {:?}", shown(session.as_bytes()))));
        };
        if (self.facts.is_ending)(session) {
            return Ok(impossible(&format!("invalid session {:?}", shown(session.as_bytes()))));
        }
        self.evaluation.compares.insert(session_key(session), session_revision);
        let (now, is_delayed) = (self.facts.now, (self.facts.is_delayed)(written.key));
        let current = self.current(written.key);
        let holder = current.as_ref().and_then(Current::session);
        let (lock_index, not_before) = current.as_ref().map_or((0, 0), Current::lock);
        let lock_index = match holder {
            Some(holder) if holder == session => lock_index,
            Some(_) => return Ok(state(format!("failed to lock key {:?}, lock is already held", shown(written.key)))),
            None if not_before > now || is_delayed => {
                let what = format!("failed to lock key {:?} due to lock delay", shown(written.key));
                return Ok(state(what));
            }
            None => lock_index + 1,
        };
        let session = Some(session.to_owned());
        self.put(written, PendingEntry { lock_index, session, ..pending(written) }).map(Ok)
    }

    fn unlock(&mut self, written: &Written<'_>, session: &str) -> Result<Result<(), Refusal>, SealError> {
        if session.is_empty() {
            return Ok(impossible("missing session"));
        }
        let held = self.current(written.key).filter(|current| current.session() == Some(session));
        let Some(held) = held else {
            let key = shown(written.key);
            return Ok(state(format!("failed to unlock key {key:?}, lock isn't held, or is held by another session")));
        };
        let (lock_index, _) = held.lock();
        self.put(written, PendingEntry { lock_index, ..pending(written) }).map(Ok)
    }

    /// Puts the entry unless it is there just so.
    fn put(&mut self, written: &Written<'_>, mut entry: PendingEntry) -> Result<(), SealError> {
        let key = written.key;
        // To the store a key that is deleted and put again in one transaction was there all the time.
        entry.create_index = self.facts.view.kv.get(key).map_or(0, |stored| stored.create_index);
        if !self.is_stored_so(key, &entry)? {
            self.evaluation.changes.insert(key.clone(), Pending::Put(entry));
        }
        self.give(key, Value::Left)
    }

    fn is_stored_so(&self, key: &Bytes, entry: &PendingEntry) -> Result<bool, SealError> {
        let Some(Current::Stored(stored)) = self.peek(key) else { return Ok(false) };
        let before = &stored.stored;
        let is_alike = before.flags == entry.flags
            && before.lock_index == entry.lock_index
            && before.session == entry.session
            && before.not_before == entry.not_before
            && before.sealed.len() == SealKey::OVERHEAD + entry.value.len();
        Ok(is_alike && *self.open(key, before)? == entry.value[..])
    }

    fn get(&mut self, key: &Bytes) -> Result<Result<(), Refusal>, SealError> {
        if self.current(key).is_none() {
            return Ok(state(format!("key {:?} doesn't exist", shown(key))));
        }
        self.give(key, Value::Given).map(Ok)
    }

    fn get_or_empty(&mut self, key: &Bytes) -> Result<(), SealError> {
        if self.current(key).is_some() {
            return self.give(key, Value::Given);
        }
        let entry = Entry { create_index: 0, modify_index: 0, stored: StoredEntry::nothing() };
        self.evaluation.results.push(KvResult { op: 0, key: key.clone(), entry, is_changed: false, value: None });
        Ok(())
    }

    fn get_tree(&mut self, prefix: &Bytes) -> Result<(), SealError> {
        for key in self.keys_under(prefix) {
            self.give(&key, Value::Given)?;
        }
        Ok(())
    }

    fn keys_under(&self, prefix: &[u8]) -> BTreeSet<Bytes> {
        let stored = self.facts.view.kv.under(prefix).map(|(key, _)| key);
        let keys = stored.chain(self.evaluation.changes.keys().filter(|key| key.starts_with(prefix)));
        keys.filter(|key| self.peek(key).is_some()).cloned().collect()
    }

    fn check_index(&mut self, key: &Bytes, index: u64) -> Result<(), Refusal> {
        match self.current(key).map(|current| current.modify_index()) {
            None => state(format!("failed to check index, key {:?} doesn't exist", shown(key))),
            Some(Some(current)) if current == index => self.confirm(key),
            Some(current) => {
                let current = current.unwrap_or(0);
                state(format!("failed index check for key {:?}, current modify index {current} != {index}", shown(key)))
            }
        }
    }

    fn check_session(&mut self, key: &Bytes, session: &str) -> Result<(), Refusal> {
        match self.current(key).map(|current| current.session().unwrap_or_default().to_owned()) {
            None => state(format!("failed to check session, key {:?} doesn't exist", shown(key))),
            Some(current) if current == session => self.confirm(key),
            Some(current) => {
                state(format!("failed session check for key {:?}, current session {current:?} != {session:?}", shown(key)))
            }
        }
    }

    /// A check that held gives the key without its value.
    fn confirm(&mut self, key: &Bytes) -> Result<(), Refusal> {
        match self.give(key, Value::Left) {
            Ok(()) => Ok(()),
            Err(error) => Err(Refusal { what: error.to_string(), is_state: false }),
        }
    }

    fn delete(&mut self, key: &Bytes) {
        if self.peek(key).is_some() {
            self.evaluation.changes.insert(key.clone(), Pending::Gone);
        }
    }

    fn delete_tree(&mut self, prefix: &Bytes) {
        let evaluation = &mut self.evaluation;
        evaluation.changes.retain(|key, _| !key.starts_with(prefix));
        if !self.is_in_deleted_tree(prefix) {
            self.evaluation.trees.retain(|longer| !longer.starts_with(prefix));
            self.evaluation.trees.push(prefix.clone());
        }
    }

    fn delete_cas(&mut self, key: &Bytes, index: u64) -> Result<(), Refusal> {
        match self.current(key).map(|current| current.modify_index()) {
            None => Ok(()),
            Some(Some(current)) if current == index => {
                self.delete(key);
                Ok(())
            }
            Some(_) => state(format!("failed to delete key {:?}, index is stale", shown(key))),
        }
    }

    /// Adds the key as it is now to the results.
    fn give(&mut self, key: &Bytes, wanted: Value) -> Result<(), SealError> {
        let result = match self.peek(key) {
            None => return Ok(()),
            Some(Current::Stored(entry)) => {
                let value = match wanted {
                    Value::Given => Some(self.open(key, &entry.stored)?.to_vec()),
                    Value::Left => None,
                };
                KvResult { op: 0, key: key.clone(), entry: entry.clone(), is_changed: false, value }
            }
            Some(Current::Pending(entry)) => {
                let value = (wanted == Value::Given).then(|| entry.value.to_vec());
                KvResult { op: 0, key: key.clone(), entry: entry.unsealed(), is_changed: true, value }
            }
        };
        self.evaluation.results.push(result);
        Ok(())
    }

    fn open(&self, key: &[u8], stored: &StoredEntry) -> Result<Zeroizing<Vec<u8>>, SealError> {
        entry::open(self.facts.seal, &self.facts.view.cluster.cluster_id, key, stored)
    }
}

/// Whether a result carries the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Given,
    Left,
}

impl PendingEntry {
    /// As it will be, but for its value and the index of the commit.
    fn unsealed(&self) -> Entry {
        let stored = StoredEntry {
            flags: self.flags,
            lock_index: self.lock_index,
            not_before: self.not_before,
            session: self.session.clone(),
            sealed: Bytes::new(),
        };
        Entry { create_index: self.create_index, modify_index: 0, stored }
    }
}

fn pending(written: &Written<'_>) -> PendingEntry {
    PendingEntry {
        create_index: 0,
        flags: written.flags,
        lock_index: 0,
        not_before: 0,
        session: None,
        value: written.value.clone(),
    }
}

fn impossible(what: &str) -> Result<(), Refusal> {
    Err(Refusal { what: what.to_owned(), is_state: false })
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).chars().take(200).collect()
}
