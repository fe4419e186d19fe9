//! All entries at one revision, their indexes, and what was deleted lately.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use super::entry::{Entry, StoredEntry};

/// How many deleted keys are remembered, for the indexes of those who wait for them.
const MAX_TOMBSTONES: usize = 4096;

/// The entries, and what was deleted lately.
#[derive(Debug, Default)]
pub struct KvView {
    entries: BTreeMap<Bytes, Entry>,
    /// Of all keys and sealed values.
    bytes: u64,
    /// The keys that each session holds.
    held: HashMap<String, BTreeSet<Bytes>>,
    /// When a key was deleted that does not exist now.
    tombstones: BTreeMap<Bytes, u64>,
    /// The tombstones, the oldest first; those of keys that exist again are stale.
    oldest: VecDeque<(u64, Bytes)>,
    /// No deletion that is not among the tombstones is newer.
    floor: u64,
}

impl KvView {
    /// The entry of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The entries whose keys begin with `prefix`, in the order of their bytes.
    pub fn under<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a Bytes, &'a Entry)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.entries.range::<[u8], _>(from).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes all keys and sealed values have.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys that a session holds.
    pub fn held_by(&self, session: &str) -> impl Iterator<Item = &Bytes> {
        self.held.get(session).into_iter().flatten()
    }

    /// The sessions that hold a key.
    pub fn holders(&self) -> impl Iterator<Item = &String> {
        self.held.keys()
    }

    /// The index of a key: the revision of its last change. It moves when it is deleted and never goes down.
    pub fn index_of(&self, key: &[u8]) -> u64 {
        if let Some(entry) = self.entries.get(key) {
            return entry.modify_index;
        }
        self.tombstones.get(key).copied().unwrap_or(self.floor).max(1)
    }

    /// The index of all keys that begin so, those that were deleted included.
    pub fn index_under(&self, prefix: &[u8]) -> u64 {
        let entries = self.under(prefix).map(|(_, entry)| entry.modify_index).max().unwrap_or(0);
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let deleted = self.tombstones.range::<[u8], _>(from).take_while(|(key, _)| key.starts_with(prefix));
        let deleted = deleted.map(|(_, revision)| *revision).max().unwrap_or(0);
        entries.max(deleted).max(self.floor).max(1)
    }

    /// What was deleted before this view was loaded is not known; it was in this revision at the latest.
    pub(crate) fn loaded_at(&mut self, revision: u64) {
        self.floor = revision;
    }

    /// Takes a change in.
    pub(crate) fn put(&mut self, key: Bytes, value: Option<&Bytes>, revision: u64, create_revision: u64) {
        if let Some(before) = self.entries.remove(&key) {
            self.bytes = self.bytes.saturating_sub(size(&key, &before.stored));
            self.let_go(&key, before.stored.session.as_deref());
        }
        let Some(value) = value else { return self.bury(key, revision) };
        match StoredEntry::decode(&key, value) {
            Ok(stored) => {
                self.tombstones.remove(&key);
                self.bytes += size(&key, &stored);
                if let Some(session) = &stored.session {
                    self.held.entry(session.clone()).or_default().insert(key.clone());
                }
                self.entries.insert(key, Entry { create_index: create_revision, modify_index: revision, stored });
            }
            Err(error) => {
                tracing::error!(%error, "ignoring a key");
                self.bury(key, revision);
            }
        }
    }

    fn let_go(&mut self, key: &Bytes, session: Option<&str>) {
        let Some(session) = session else { return };
        let Some(keys) = self.held.get_mut(session) else { return };
        keys.remove(key);
        if keys.is_empty() {
            self.held.remove(session);
        }
    }

    fn bury(&mut self, key: Bytes, revision: u64) {
        self.tombstones.insert(key.clone(), revision);
        self.oldest.push_back((revision, key));
        while self.oldest.len() > MAX_TOMBSTONES {
            let Some((revision, key)) = self.oldest.pop_front() else { return };
            if self.tombstones.get(&key) == Some(&revision) {
                self.tombstones.remove(&key);
            }
            self.floor = self.floor.max(revision);
        }
    }
}

fn size(key: &Bytes, stored: &StoredEntry) -> u64 {
    (key.len() + stored.sealed.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> Bytes {
        StoredEntry { flags: 0, lock_index: 0, not_before: 0, session: None, sealed: Bytes::new() }.encode()
    }

    fn put(view: &mut KvView, key: &str, revision: u64) {
        view.put(key.to_owned().into(), Some(&value()), revision, revision);
    }

    fn delete(view: &mut KvView, key: &str, revision: u64) {
        view.put(key.to_owned().into(), None, revision, 0);
    }

    #[test]
    fn the_index_of_a_key_is_its_own() {
        let mut view = KvView::default();
        assert_eq!(view.index_of(b"a"), 1, "never 0");
        put(&mut view, "a", 5);
        put(&mut view, "b", 6);
        assert_eq!((view.index_of(b"a"), view.index_of(b"b"), view.index_of(b"c")), (5, 6, 1));
        delete(&mut view, "a", 7);
        assert_eq!(view.index_of(b"a"), 7, "a deletion is a change");
        put(&mut view, "a", 8);
        assert_eq!(view.index_of(b"a"), 8);
    }

    #[test]
    fn the_bytes_are_those_of_what_is_there() {
        let mut view = KvView::default();
        let sealed = |length: usize| StoredEntry { sealed: vec![0; length].into(), ..StoredEntry::nothing() }.encode();
        view.put("ab".into(), Some(&sealed(10)), 2, 2);
        view.put("c".into(), Some(&sealed(5)), 3, 3);
        assert_eq!(view.bytes(), 18);
        view.put("ab".into(), Some(&sealed(1)), 4, 2);
        assert_eq!(view.bytes(), 9);
        view.put("c".into(), None, 5, 0);
        view.put("c".into(), None, 6, 0);
        assert_eq!(view.bytes(), 3);
    }

    #[test]
    fn the_index_of_a_prefix_moves_with_what_is_under_it_and_with_nothing_else() {
        let mut view = KvView::default();
        view.loaded_at(3);
        put(&mut view, "app/a", 5);
        put(&mut view, "other", 6);
        assert_eq!((view.index_under(b"app/"), view.index_under(b""), view.index_under(b"x")), (5, 6, 3));
        delete(&mut view, "app/a", 7);
        assert_eq!(view.index_under(b"app/"), 7);
        assert_eq!(view.index_under(b"app"), 7);
        assert_eq!(view.index_under(b"b"), 3);
    }

    #[test]
    fn an_index_never_goes_down_when_deletions_are_forgotten() {
        let mut view = KvView::default();
        put(&mut view, "a", 2);
        delete(&mut view, "a", 3);
        let mut last = (view.index_of(b"a"), view.index_under(b"a"));
        for revision in 0..MAX_TOMBSTONES as u64 + 10 {
            delete(&mut view, &format!("b{revision}"), 4 + revision);
            let now = (view.index_of(b"a"), view.index_under(b"a"));
            assert!(now.0 >= last.0 && now.1 >= last.1, "{now:?} after {last:?}");
            last = now;
        }
        assert!(view.tombstones.len() <= MAX_TOMBSTONES && view.oldest.len() <= MAX_TOMBSTONES);
    }

    #[test]
    fn a_session_is_known_by_the_keys_that_it_holds() {
        let mut view = KvView::default();
        let locked = |session: Option<&str>| {
            let session = session.map(ToOwned::to_owned);
            StoredEntry { flags: 0, lock_index: 1, not_before: 0, session, sealed: Bytes::new() }.encode()
        };
        view.put("a".into(), Some(&locked(Some("s"))), 2, 2);
        view.put("b".into(), Some(&locked(Some("s"))), 3, 3);
        assert_eq!(view.held_by("s").count(), 2);
        view.put("a".into(), Some(&locked(None)), 4, 2);
        view.put("b".into(), None, 5, 0);
        assert_eq!(view.held_by("s").count(), 0);
        assert_eq!(view.holders().count(), 0);
    }
}
