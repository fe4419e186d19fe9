//! Keys, transactions and sessions against a naive model of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const KEYS: [&str; 5] = ["a", "a/b", "a/b/c", "b", "z"];
const PREFIXES: [&str; 5] = ["", "a", "a/", "b", "x"];

/// An operation of the model: keys by number, sessions by number, indexes by what they are to be.
#[derive(Debug, Clone)]
enum Step {
    Txn(Vec<Verb>),
    Create { delete: bool, delay: bool },
    Destroy(usize),
}

#[derive(Debug, Clone)]
enum Verb {
    Set(usize, u8, u64),
    Cas(usize, u8, Index),
    Lock(usize, u8, usize),
    Unlock(usize, u8, usize),
    Get(usize),
    GetOrEmpty(usize),
    GetTree(usize),
    CheckIndex(usize, Index),
    CheckSession(usize, usize),
    CheckNotExists(usize),
    Delete(usize),
    DeleteTree(usize),
    DeleteCas(usize, Index),
}

#[derive(Debug, Clone, Copy)]
enum Index {
    Zero,
    Current,
    Wrong,
}

fn index() -> impl Strategy<Value = Index> {
    prop_oneof![1 => Just(Index::Zero), 3 => Just(Index::Current), 1 => Just(Index::Wrong)]
}

fn verb() -> impl Strategy<Value = Verb> {
    let key = 0..KEYS.len();
    let prefix = 0..PREFIXES.len();
    let value = 0u8..3;
    let session = 0usize..3;
    prop_oneof![
        4 => (key.clone(), value.clone(), 0u64..2).prop_map(|(k, v, f)| Verb::Set(k, v, f)),
        2 => (key.clone(), value.clone(), index()).prop_map(|(k, v, i)| Verb::Cas(k, v, i)),
        4 => (key.clone(), value.clone(), session.clone()).prop_map(|(k, v, s)| Verb::Lock(k, v, s)),
        2 => (key.clone(), value, session.clone()).prop_map(|(k, v, s)| Verb::Unlock(k, v, s)),
        1 => key.clone().prop_map(Verb::Get),
        1 => key.clone().prop_map(Verb::GetOrEmpty),
        1 => prefix.clone().prop_map(Verb::GetTree),
        1 => (key.clone(), index()).prop_map(|(k, i)| Verb::CheckIndex(k, i)),
        1 => (key.clone(), session).prop_map(|(k, s)| Verb::CheckSession(k, s)),
        1 => key.clone().prop_map(Verb::CheckNotExists),
        2 => key.clone().prop_map(Verb::Delete),
        1 => prefix.prop_map(Verb::DeleteTree),
        1 => (key, index()).prop_map(|(k, i)| Verb::DeleteCas(k, i)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => verb().prop_map(|verb| Step::Txn(vec![verb])),
        6 => prop::collection::vec(verb(), 1..6).prop_map(Step::Txn),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(delete, delay)| Step::Create { delete, delay }),
        1 => (0usize..3).prop_map(Step::Destroy),
    ];
    prop::collection::vec(step, 1..24)
}

/// A key as the model has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    value: Vec<u8>,
    flags: u64,
    lock_index: u64,
    session: Option<String>,
    create: u64,
    modify: u64,
    /// A lock-delay goes on; in this test none ends.
    is_delayed: bool,
}

/// What an operation gives: the key, its cell, and whether the value is told.
type Given = (String, Option<Cell>, bool);

#[derive(Debug, Default)]
struct Model {
    revision: u64,
    cells: BTreeMap<String, Cell>,
    delayed: BTreeSet<String>,
    /// The sessions in the order of their making; what ended is empty.
    sessions: Vec<Option<(String, bool, bool)>>,
}

impl Model {
    fn session(&self, number: usize) -> String {
        let id = self.sessions.get(number).and_then(Option::as_ref).map(|(id, ..)| id.clone());
        id.unwrap_or_else(|| "00000000-0000-0000-0000-000000000000".into())
    }

    fn lives(&self, id: &str) -> bool {
        self.sessions.iter().flatten().any(|(other, ..)| other == id)
    }

    fn index(&self, key: usize, index: Index) -> u64 {
        let current = self.cells.get(KEYS[key]).map_or(0, |cell| cell.modify);
        match index {
            Index::Zero => 0,
            Index::Current => current,
            Index::Wrong => current + 1000,
        }
    }

    fn op(&self, verb: &Verb) -> KvOp {
        let key = |number: &usize| Bytes::from(KEYS[*number]);
        let value = |value: &u8| Bytes::from(vec![*value; usize::from(*value)]);
        match verb {
            Verb::Set(k, v, flags) => KvOp::Set { key: key(k), value: value(v), flags: *flags },
            Verb::Cas(k, v, i) => KvOp::Cas { key: key(k), value: value(v), flags: 0, index: self.index(*k, *i) },
            Verb::Lock(k, v, s) => KvOp::Lock { key: key(k), value: value(v), flags: 0, session: self.session(*s) },
            Verb::Unlock(k, v, s) => KvOp::Unlock { key: key(k), value: value(v), flags: 0, session: self.session(*s) },
            Verb::Get(k) => KvOp::Get(key(k)),
            Verb::GetOrEmpty(k) => KvOp::GetOrEmpty(key(k)),
            Verb::GetTree(p) => KvOp::GetTree(PREFIXES[*p].into()),
            Verb::CheckIndex(k, i) => KvOp::CheckIndex { key: key(k), index: self.index(*k, *i) },
            Verb::CheckSession(k, s) => KvOp::CheckSession { key: key(k), session: self.session(*s) },
            Verb::CheckNotExists(k) => KvOp::CheckNotExists(key(k)),
            Verb::Delete(k) => KvOp::Delete(key(k)),
            Verb::DeleteTree(p) => KvOp::DeleteTree(PREFIXES[*p].into()),
            Verb::DeleteCas(k, i) => KvOp::DeleteCas { key: key(k), index: self.index(*k, *i) },
        }
    }

    /// Which operations are refused, or what they give.
    fn apply(&mut self, ops: &[KvOp]) -> Result<Vec<Given>, Vec<usize>> {
        let before = self.cells.clone();
        let mut given = Vec::new();
        let mut refused = Vec::new();
        for (number, op) in ops.iter().enumerate() {
            if !self.step(op, &before, &mut given) {
                refused.push(number);
            }
        }
        if !refused.is_empty() {
            self.cells = before;
            return Err(refused);
        }
        if self.cells != before {
            self.revision += 1;
            return Ok(given);
        }
        // What was put and deleted again has the index of the revision that it left as it was.
        for cell in given.iter_mut().filter_map(|(_, cell, _)| cell.as_mut()) {
            cell.modify = cell.modify.min(self.revision);
            cell.create = cell.create.min(self.revision);
        }
        Ok(given)
    }

    fn step(&mut self, op: &KvOp, before: &BTreeMap<String, Cell>, given: &mut Vec<Given>) -> bool {
        let key = String::from_utf8(op.key().to_vec()).unwrap();
        let cell = self.cells.get(&key).cloned();
        let stale = |index: u64| match &cell {
            Some(cell) => cell.modify != index || index > self.revision,
            None => index != 0,
        };
        match op {
            KvOp::Set { value, flags, .. } => self.write(&key, value, *flags, cell.as_ref(), before),
            KvOp::Cas { value, flags, index, .. } => {
                if stale(*index) {
                    return false;
                }
                self.write(&key, value, *flags, cell.as_ref(), before);
            }
            KvOp::Lock { value, flags, session, .. } => {
                if !self.lives(session) {
                    return false;
                }
                let mut like = cell.unwrap_or_else(empty);
                match &like.session {
                    Some(holder) if holder != session => return false,
                    Some(_) => {}
                    None if like.is_delayed || self.delayed.contains(&key) => return false,
                    None => like.lock_index += 1,
                }
                like.session = Some(session.clone());
                like.is_delayed = false;
                self.write(&key, value, *flags, Some(&like), before);
            }
            KvOp::Unlock { value, flags, session, .. } => {
                let Some(mut like) = cell.filter(|cell| cell.session.as_deref() == Some(session)) else { return false };
                like.session = None;
                self.write(&key, value, *flags, Some(&like), before);
            }
            KvOp::Get(_) => {
                given.push((key, cell.clone(), true));
                return cell.is_some();
            }
            KvOp::GetOrEmpty(_) => {
                given.push((key, cell, true));
                return true;
            }
            KvOp::GetTree(_) => {
                given.extend(
                    self.cells
                        .iter()
                        .filter(|(other, _)| other.starts_with(&key))
                        .map(|(other, cell)| (other.clone(), Some(cell.clone()), true)),
                );
                return true;
            }
            KvOp::CheckIndex { index, .. } => {
                if cell.is_none() || stale(*index) {
                    return false;
                }
            }
            KvOp::CheckSession { session, .. } => {
                if cell.is_none_or(|cell| cell.session.as_deref().unwrap_or_default() != session) {
                    return false;
                }
            }
            KvOp::CheckNotExists(_) => return cell.is_none(),
            KvOp::Delete(_) => {
                self.cells.remove(&key);
                return true;
            }
            KvOp::DeleteTree(_) => {
                self.cells.retain(|other, _| !other.starts_with(&key));
                return true;
            }
            KvOp::DeleteCas { index, .. } => {
                if cell.is_some() && stale(*index) {
                    return false;
                }
                self.cells.remove(&key);
                return true;
            }
        }
        given.push((key.clone(), self.cells.get(&key).cloned(), false));
        true
    }

    /// Writes a value with the lock of `like`, unless it is there just so.
    fn write(&mut self, key: &str, value: &Bytes, flags: u64, like: Option<&Cell>, before: &BTreeMap<String, Cell>) {
        let revision = self.revision + 1;
        let like = like.cloned().unwrap_or_else(empty);
        let create = before.get(key).map_or(revision, |cell| cell.create);
        let mut cell = Cell { value: value.to_vec(), flags, create, modify: revision, ..like };
        if let Some(stored) = self.cells.get(key) {
            cell.modify = stored.modify;
            if cell == *stored {
                return;
            }
            cell.modify = revision;
        }
        self.cells.insert(key.to_owned(), cell);
    }

    fn destroy(&mut self, number: usize) {
        let Some((id, delete, delay)) = self.sessions.get_mut(number).and_then(Option::take) else { return };
        self.revision += 1;
        let held: Vec<String> =
            self.cells.iter().filter(|(_, cell)| cell.session.as_deref() == Some(&id)).map(|(key, _)| key.clone()).collect();
        for key in held {
            if delete {
                self.cells.remove(&key);
                if delay {
                    self.delayed.insert(key);
                }
            } else if let Some(cell) = self.cells.get_mut(&key) {
                cell.session = None;
                cell.is_delayed = delay;
                cell.modify = self.revision;
            }
        }
    }
}

fn empty() -> Cell {
    Cell { value: Vec::new(), flags: 0, lock_index: 0, session: None, create: 0, modify: 0, is_delayed: false }
}

fn cell_of(keys: &KeyValues, key: &Bytes, entry: &Entry) -> Cell {
    Cell { value: keys.open(key, &entry.stored).unwrap(), ..bare(entry) }
}

fn bare(entry: &Entry) -> Cell {
    Cell {
        value: Vec::new(),
        flags: entry.stored.flags,
        lock_index: entry.stored.lock_index,
        session: entry.stored.session.clone(),
        create: entry.create_index,
        modify: entry.modify_index,
        is_delayed: entry.stored.not_before != 0,
    }
}

fn given_of(results: &[KvResult]) -> Vec<(String, Cell)> {
    let given = results.iter().map(|result| {
        let value = result.value.clone().unwrap_or_default();
        (String::from_utf8(result.key.to_vec()).unwrap(), Cell { value, ..bare(&result.entry) })
    });
    given.collect()
}

fn expected(given: Vec<Given>) -> Vec<(String, Cell)> {
    let told = given.into_iter().map(|(key, cell, is_told)| {
        let mut cell = cell.unwrap_or_else(empty);
        if !is_told {
            cell.value.clear();
        }
        (key, cell)
    });
    told.collect()
}

async fn behaves_as_the_model(steps: Vec<Step>) {
    let plane = plane().await;
    let mut model = Model { revision: plane.mirror.revision(), ..Model::default() };
    for step in steps {
        let indexes = |view: &crate::mirror::View| -> Vec<u64> {
            let keys = KEYS.iter().map(|key| view.kv.index_of(key.as_bytes()));
            keys.chain(PREFIXES.iter().map(|prefix| view.kv.index_under(prefix.as_bytes()))).collect()
        };
        let before = (plane.mirror.read(indexes), model.cells.clone());
        match &step {
            Step::Txn(verbs) => {
                let ops: Vec<KvOp> = verbs.iter().map(|verb| model.op(verb)).collect();
                match (plane.keys.apply(&ops).await.unwrap(), model.apply(&ops)) {
                    (Outcome::Done { results, revision }, Ok(given)) => {
                        assert_eq!(given_of(&results), expected(given), "{ops:?}");
                        assert_eq!(revision, model.revision, "{ops:?}");
                    }
                    (Outcome::Refused(errors), Err(refused)) => {
                        assert_eq!(errors.iter().map(|error| error.op).collect::<Vec<_>>(), refused, "{errors:?}");
                    }
                    (ours, models) => panic!("{ops:?}: {ours:?}, the model says {models:?}"),
                }
            }
            Step::Create { delete, delay } => {
                let behaviour = if *delete { Behaviour::Delete } else { Behaviour::Release };
                let lock_delay = if *delay { Duration::from_secs(60) } else { Duration::ZERO };
                let id = plane.sessions.create(session(behaviour, lock_delay)).await.unwrap();
                model.revision += 1;
                model.sessions.push(Some((id, *delete, *delay)));
            }
            Step::Destroy(number) => {
                plane.sessions.destroy(&model.session(*number)).await.unwrap();
                model.destroy(*number);
            }
        }
        let (after, cells) = plane.mirror.read(|view| {
            let cells = view.kv.under(b"").map(|(key, entry)| {
                let name = String::from_utf8(key.to_vec()).unwrap();
                (name, cell_of(&plane.keys, key, entry))
            });
            assert_eq!(view.revision, model.revision);
            (indexes(view), cells.collect::<BTreeMap<_, _>>())
        });
        assert_eq!(cells, model.cells, "after {step:?}");
        indexes_move_with_what_they_are_of(&before, &(after, cells), model.revision);
    }
}

type Indexed = (Vec<u64>, BTreeMap<String, Cell>);

fn indexes_move_with_what_they_are_of(before: &Indexed, after: &Indexed, revision: u64) {
    let is_changed = |key: &str| before.1.get(key) != after.1.get(key);
    for (at, key) in KEYS.iter().enumerate() {
        let wanted = if is_changed(key) { revision } else { before.0[at] };
        assert_eq!(after.0[at], wanted, "index of {key:?}");
    }
    for (at, prefix) in PREFIXES.iter().enumerate() {
        let at = KEYS.len() + at;
        let moves = KEYS.iter().any(|key| key.starts_with(prefix) && is_changed(key));
        assert_eq!(after.0[at], if moves { revision } else { before.0[at] }, "index under {prefix:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keys_transactions_and_sessions_behave_as_a_naive_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(behaves_as_the_model(steps));
    }
}
