//! All sessions at one revision.

use std::collections::BTreeMap;

use super::record::SessionRecord;

/// The sessions by id, each with the revision that made it.
#[derive(Debug, Default)]
pub struct SessionsView {
    by_id: BTreeMap<String, (SessionRecord, u64)>,
    index: u64,
}

impl SessionsView {
    /// A session.
    pub fn get(&self, id: &str) -> Option<&(SessionRecord, u64)> {
        self.by_id.get(id)
    }

    /// All sessions, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &(SessionRecord, u64))> {
        self.by_id.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The revision of the last change of any session.
    pub fn index(&self) -> u64 {
        self.index.max(1)
    }

    /// Sessions that ended before are not known; they did in this revision at the latest.
    pub(crate) fn loaded_at(&mut self, revision: u64) {
        self.index = revision;
    }

    /// Takes a change in.
    pub(crate) fn put(&mut self, id: &str, record: Option<SessionRecord>, revision: u64) {
        self.index = self.index.max(revision);
        match record {
            Some(record) => self.by_id.insert(id.to_owned(), (record, revision)),
            None => self.by_id.remove(id),
        };
    }
}
