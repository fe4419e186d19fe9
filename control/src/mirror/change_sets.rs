//! The change sets of the store as the view holds them: what is staged counts for nothing until a pointer names it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use postern_intentions::PairKey;

use crate::records::change_set::{ChangeSetKey, ChangeSetRecord, StagedChange, decode_chunk};

/// A chunk that was not moved yet.
#[derive(Debug, Clone)]
pub struct StagedChunk {
    /// Its changes, as they are stored.
    pub bytes: Bytes,
    /// The revision that wrote it last.
    pub revision: u64,
}

/// The set whose changes are true though some are not moved to the keys of their intentions yet.
#[derive(Debug, Clone)]
pub struct SetInForce {
    /// What the pointer says.
    pub record: ChangeSetRecord,
    /// The revision that made all of it true.
    pub revision: u64,
}

/// All change sets.
#[derive(Debug, Default)]
pub struct ChangeSets {
    /// By set: what was written of it.
    staged: BTreeMap<String, BTreeMap<u32, StagedChunk>>,
    in_force: Option<SetInForce>,
    /// Where the changes of the set in force wait to be moved.
    chunk_of: HashMap<PairKey, u32>,
    pairs_of: HashMap<u32, Vec<PairKey>>,
}

impl ChangeSets {
    /// The set in force, until all of it is moved.
    pub fn in_force(&self) -> Option<&SetInForce> {
        self.in_force.as_ref()
    }

    /// The chunk of the set in force that holds the change of this pair.
    pub fn chunk_of(&self, pair: &PairKey) -> Option<(u32, &StagedChunk)> {
        let number = self.chunk_of.get(pair)?;
        Some((*number, self.chunks_in_force()?.get(number)?))
    }

    /// The chunks of the set in force that are not moved yet.
    pub fn chunks_in_force(&self) -> Option<&BTreeMap<u32, StagedChunk>> {
        self.staged.get(&self.in_force.as_ref()?.record.id)
    }

    /// Sets that no pointer names: they are being written, or a crash left them.
    pub fn not_in_force(&self) -> impl Iterator<Item = &String> {
        let current = self.in_force.as_ref().map(|set| &set.record.id);
        self.staged.keys().filter(move |id| Some(*id) != current)
    }

    /// A key of a set was put or deleted.
    pub(super) fn put(&mut self, key: ChangeSetKey, value: Option<&[u8]>, revision: u64) {
        let (id, chunk) = match key {
            ChangeSetKey::Head(id) => (id, None),
            ChangeSetKey::Chunk(id, number) => (id, Some(number)),
        };
        let is_in_force = self.in_force.as_ref().is_some_and(|set| set.record.id == id);
        match (value, chunk) {
            (Some(value), Some(number)) => {
                let staged = StagedChunk { bytes: Bytes::copy_from_slice(value), revision };
                if is_in_force {
                    self.index(number, &staged);
                }
                self.staged.entry(id).or_default().insert(number, staged);
            }
            (Some(_), None) => {
                self.staged.entry(id).or_default();
            }
            (None, Some(number)) => {
                if is_in_force {
                    self.forget(number);
                }
                if let Some(chunks) = self.staged.get_mut(&id) {
                    chunks.remove(&number);
                }
            }
            (None, None) => {
                self.staged.remove(&id);
            }
        }
    }

    /// The pointer names this set; gives its changes, which are true from here on.
    pub(super) fn point_at(&mut self, record: ChangeSetRecord, revision: u64) -> Vec<StagedChange> {
        self.point_at_nothing();
        let chunks = self.staged.get(&record.id).cloned().unwrap_or_default();
        self.in_force = Some(SetInForce { record, revision });
        chunks.iter().flat_map(|(number, chunk)| self.index(*number, chunk)).collect()
    }

    /// The pointer is gone: everything was moved.
    pub(super) fn point_at_nothing(&mut self) {
        self.chunk_of.clear();
        self.pairs_of.clear();
        self.in_force = None;
    }

    fn forget(&mut self, number: u32) {
        for pair in self.pairs_of.remove(&number).unwrap_or_default() {
            self.chunk_of.remove(&pair);
        }
    }

    /// Notes where the changes of a chunk wait, and gives them.
    fn index(&mut self, number: u32, chunk: &StagedChunk) -> Vec<StagedChange> {
        let changes = decode_chunk(chunk.bytes.clone()).unwrap_or_else(|error| {
            tracing::error!(number, %error, "ignoring a chunk of a change set");
            Vec::new()
        });
        self.forget(number);
        let pairs: Vec<PairKey> = changes.iter().filter_map(StagedChange::pair).collect();
        self.chunk_of.extend(pairs.iter().cloned().map(|pair| (pair, number)));
        self.pairs_of.insert(number, pairs);
        changes
    }
}
