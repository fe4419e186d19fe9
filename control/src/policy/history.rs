//! The history of intentions and default: what was changed, by whom and why, and what was true at a revision.
//!
//! A record is part of the transaction of its change. What was true before is found by undoing changes from the newest on:
//! each says what its pairs were before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use postern_api::http::Change;
use postern_intentions::{DefaultPolicy, Intention, PairKey, Party};

use super::PolicyError;
use crate::records::change_set::{ChangeSetKey, StagedChange, decode_chunk};
use crate::records::history::{HistoryRecord, PREFIX, part_key, parts_prefix, record_key};
use crate::records::{self, IntentionRecord};
use crate::store::{Op, Store, StoreError, Txn};

/// Changes that are kept.
pub(super) const MOST: usize = 1_000;
/// Bytes of their pairs that are kept; those of the newest change are, however many.
const MOST_BYTES: u64 = 64 << 20;
/// How long a change is kept.
const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);
/// After so many changes it is looked for some to forget, beside the times that the clock sets.
const TIDY_EVERY: usize = 64;
/// Changes that are forgotten in one transaction: two operations each.
const FORGOTTEN_AT_ONCE: usize = 60;
/// Pairs that an answer holds at most.
const MOST_PAIRS: usize = 10_000;

/// A change, and the revision that it made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub record: HistoryRecord,
    pub revision: u64,
}

/// Which changes are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this caller.
    pub source: Option<Party>,
    /// Only those of this service.
    pub destination: Option<Party>,
    /// Only those before this revision.
    pub before: Option<u64>,
    /// How many, at most.
    pub limit: usize,
}

/// What was true at a revision.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Then {
    /// The permanent intentions.
    pub intentions: BTreeMap<PairKey, Intention>,
    /// The default.
    pub default: DefaultPolicy,
    /// Pairs that were changed since.
    pub touched: BTreeSet<PairKey>,
}

/// Reads and tidies the history.
#[derive(Clone)]
pub struct History {
    store: Arc<dyn Store>,
    since_tidied: Arc<AtomicUsize>,
}

/// What a change said of a pair before it.
enum Before {
    Nothing,
    Intention(Box<Intention>),
    /// It was there, and what it said is not known.
    Unreadable,
}

impl History {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, since_tidied: Arc::default() }
    }

    /// The changes that `filter` asks for, newest first, with those pairs that `may_read` lets through by their destination.
    /// A change without such a pair is left out, unless it changed the default.
    ///
    /// # Errors
    /// [`PolicyError::Store`].
    pub async fn list(&self, filter: &Filter, may_read: impl Fn(&Party) -> bool) -> Result<Vec<Change>, PolicyError> {
        let mut changes = Vec::new();
        let mut room = MOST_PAIRS;
        let is_asked_for = |pair: &PairKey| {
            filter.source.as_ref().is_none_or(|source| *source == pair.source)
                && filter.destination.as_ref().is_none_or(|destination| *destination == pair.destination)
        };
        let asks_for_a_pair = filter.source.is_some() || filter.destination.is_some();
        let newest_first = self.kept().await?.into_iter().rev().take(MOST);
        for kept in newest_first.filter(|kept| filter.before.is_none_or(|before| kept.revision < before)) {
            if changes.len() >= filter.limit {
                break;
            }
            let mut change = change_of(&kept, !asks_for_a_pair);
            let mut found = 0;
            for part in 0..kept.record.parts {
                for staged in self.part(&kept.record, part).await? {
                    let Some(pair) = staged.pair() else { continue };
                    if !is_asked_for(&pair) || !may_read(&pair.destination) {
                        continue;
                    }
                    found += 1;
                    if room > 0 {
                        room -= 1;
                        tell(&mut change, &pair, &staged);
                    } else {
                        change.left_out += 1;
                    }
                }
            }
            if found > 0 || change.default.is_some() {
                changes.push(change);
            }
        }
        Ok(changes)
    }

    /// Undoes, in what is true at revision `newest`, every change after `revision`.
    ///
    /// # Errors
    /// [`PolicyError::Forgotten`] names the oldest revision that it can be done for.
    pub(super) async fn undo(&self, mut then: Then, newest: u64, revision: u64) -> Result<Then, PolicyError> {
        // The newest change must be the one that made what is true, and each the one after the change before it.
        let mut reached = newest;
        for kept in self.kept().await?.into_iter().rev().filter(|kept| kept.revision <= newest) {
            if reached <= revision || kept.revision != reached {
                break;
            }
            self.undo_one(&mut then, &kept).await?;
            reached = kept.record.base;
        }
        if reached > revision {
            return Err(PolicyError::Forgotten { revision, oldest: reached });
        }
        Ok(then)
    }

    async fn undo_one(&self, then: &mut Then, kept: &Kept) -> Result<(), PolicyError> {
        if let Some((before, _)) = kept.record.default {
            then.default = before;
        }
        for part in 0..kept.record.parts {
            for change in self.part(&kept.record, part).await? {
                let Some(pair) = change.pair().filter(|pair| !pair.temporary) else { continue };
                match before(&change) {
                    Before::Nothing => then.intentions.remove(&pair),
                    Before::Intention(intention) => then.intentions.insert(pair.clone(), *intention),
                    Before::Unreadable => {
                        let what = format!("what {pair} said before revision {} could not be read then", kept.revision);
                        return Err(PolicyError::Invalid(format!("{what}; set the intentions by a file")));
                    }
                };
                then.touched.insert(pair);
            }
        }
        Ok(())
    }

    /// The changes that are kept, oldest first.
    async fn kept(&self) -> Result<Vec<Kept>, PolicyError> {
        let range = self.store.range(PREFIX.as_bytes(), 0).await?;
        let read = |kv: &crate::store::Kv| {
            let record = records::decode(&kv.key, &kv.value).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            Ok(Kept { record, revision: kv.mod_revision })
        };
        range.kvs.iter().map(read).collect()
    }

    /// A part of a change; where it was not moved yet, it is still in the change set.
    async fn part(&self, record: &HistoryRecord, number: u32) -> Result<Vec<StagedChange>, PolicyError> {
        let own = part_key(record.base, number);
        let staged = record.change_set.as_ref().map(|id| ChangeSetKey::Chunk(id.clone(), number).to_bytes());
        // It may be moved between the first look and the second.
        for key in [Some(&own), staged.as_ref(), Some(&own)].into_iter().flatten() {
            if let Some(kv) = self.store.get(key).await? {
                return decode_chunk(kv.value).map_err(|error| StoreError::Corrupt(error.to_string()).into());
            }
        }
        // Forgotten since the record was read.
        Ok(Vec::new())
    }

    /// Called after each change: now and then it forgets what need not be kept.
    pub(super) async fn grew(&self, now: SystemTime) -> Result<(), PolicyError> {
        if self.since_tidied.fetch_add(1, Ordering::Relaxed) + 1 < TIDY_EVERY {
            return Ok(());
        }
        self.tidy(now).await
    }

    /// Forgets what need not be kept, from the oldest on.
    pub(super) async fn tidy(&self, now: SystemTime) -> Result<(), PolicyError> {
        self.since_tidied.store(0, Ordering::Relaxed);
        let kept = self.kept().await?;
        let forgotten = too_much(&kept, now);
        for some in kept[..forgotten].chunks(FORGOTTEN_AT_ONCE) {
            let mut txn = Txn::new();
            for Kept { record, .. } in some {
                txn.then.push(Op::delete(record_key(record.base)));
                txn.then.push(Op::DeletePrefix(parts_prefix(record.base)));
            }
            self.store.txn(txn).await?;
        }
        Ok(())
    }
}

/// How many of the oldest go.
fn too_much(kept: &[Kept], now: SystemTime) -> usize {
    let mut bytes = 0;
    let mut stay = 0;
    for Kept { record, .. } in kept.iter().rev() {
        bytes += record.bytes;
        let is_old = now.duration_since(record.at).is_ok_and(|age| age > LONGEST);
        if stay == MOST || is_old || (stay > 0 && bytes > MOST_BYTES) {
            break;
        }
        stay += 1;
    }
    kept.len() - stay
}

fn change_of(kept: &Kept, with_default: bool) -> Change {
    let record = &kept.record;
    Change {
        revision: kept.revision,
        at: crate::http::rfc3339(record.at),
        who: record.who.clone(),
        from: record.from.clone(),
        what: record.what.clone(),
        reason: record.reason.clone(),
        added: Vec::new(),
        changed: Vec::new(),
        removed: Vec::new(),
        default: record.default.filter(|_| with_default),
        unreadable: Vec::new(),
        left_out: 0,
    }
}

fn tell(change: &mut Change, pair: &PairKey, staged: &StagedChange) {
    let after = staged.value.as_ref().map(|value| records::decode::<IntentionRecord>(&staged.key, value));
    match (before(staged), after) {
        (Before::Nothing, Some(Ok(after))) => change.added.push(after.intention),
        (Before::Intention(before), Some(Ok(after))) => change.changed.push((*before, after.intention)),
        (Before::Intention(before), None) => change.removed.push(*before),
        (Before::Nothing, None) => {}
        (Before::Unreadable, _) | (_, Some(Err(_))) => change.unreadable.push(pair.to_string()),
    }
}

fn before(change: &StagedChange) -> Before {
    if change.before.is_empty() {
        return Before::Nothing;
    }
    serde_json::from_slice(&change.before).map_or(Before::Unreadable, |intention| Before::Intention(Box::new(intention)))
}
