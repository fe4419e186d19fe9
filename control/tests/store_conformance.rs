//! Every engine of the store behaves like the model.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use postern_control::store::{Batch, Clock, Compare, LeaseId, MemoryStore, Op, RedbStore, Store, StoreError, StoreSettings, Txn};
use proptest::prelude::*;
use tempfile::TempDir;

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A clock that the test moves.
#[derive(Clone)]
struct TestClock(Arc<Mutex<Instant>>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Clock::new(move || *now.lock())
    }
}

struct Engine {
    store: Arc<dyn Store>,
    _directory: Option<TempDir>,
}

fn redb_path(directory: &TempDir) -> PathBuf {
    directory.path().join("store.redb")
}

fn redb() -> (Arc<RedbStore>, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(redb_path(&directory), &StoreSettings::default()).unwrap();
    (Arc::new(store), directory)
}

fn engines() -> [(&'static str, Engine); 2] {
    let (redb, directory) = redb();
    [
        ("memory", Engine { store: Arc::new(MemoryStore::new()), _directory: None }),
        ("redb", Engine { store: redb, _directory: Some(directory) }),
    ]
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens soon")
}

async fn next(watch: &mut BoxStream<'static, Result<Batch, StoreError>>) -> Result<Batch, StoreError> {
    soon(watch.next()).await.expect("a watch goes on")
}

fn put(key: &str, value: &str) -> Op {
    Op::put(key.to_owned(), value.to_owned())
}

// ---- the model and redb, side by side ----

#[derive(Debug, Clone)]
enum Action {
    Txn(Vec<CompareSpec>, Vec<OpSpec>, Vec<OpSpec>),
    Get(usize),
    Range(usize, usize),
    /// Collects everything under a prefix from a revision, given in percent of the current one.
    Watch(usize, u64),
    Grant(u64),
    KeepAlive(usize),
    Revoke(usize),
    Advance(u64),
    /// To a revision, given in percent of the current one.
    Compact(u64),
    Reopen,
}

#[derive(Debug, Clone)]
enum CompareSpec {
    Mod(usize, Ordering, u64),
    Version(usize, Ordering, u64),
    Value(usize, u8),
}

#[derive(Debug, Clone)]
enum OpSpec {
    Put(usize, u8, Option<usize>),
    Delete(usize),
    DeletePrefix(usize),
}

const KEYS: [&[u8]; 10] = [b"a", b"a/", b"a/1", b"a/2", b"b", b"b/1", b"c\x00", &[0xFE], &[0xFF], &[0xFF, 0xFF]];
const PREFIXES: [&[u8]; 7] = [b"", b"a", b"a/", b"b", b"nothing", &[0xFF], &[0xFE]];

fn ordering() -> impl Strategy<Value = Ordering> {
    prop_oneof![Just(Ordering::Less), Just(Ordering::Equal), Just(Ordering::Greater)]
}

fn compare() -> impl Strategy<Value = CompareSpec> {
    let key = 0..KEYS.len();
    prop_oneof![
        (key.clone(), ordering(), 0..20u64).prop_map(|(key, ordering, n)| CompareSpec::Mod(key, ordering, n)),
        (key.clone(), ordering(), 0..4u64).prop_map(|(key, ordering, n)| CompareSpec::Version(key, ordering, n)),
        (key, 0..3u8).prop_map(|(key, value)| CompareSpec::Value(key, value)),
    ]
}

fn op() -> impl Strategy<Value = OpSpec> {
    let key = 0..KEYS.len();
    prop_oneof![
        6 => (key.clone(), 0..3u8, prop::option::weighted(0.4, 0..5usize)).prop_map(|(k, v, l)| OpSpec::Put(k, v, l)),
        2 => key.prop_map(OpSpec::Delete),
        1 => (0..PREFIXES.len()).prop_map(OpSpec::DeletePrefix),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let ops = || prop::collection::vec(op(), 0..5);
    prop_oneof![
        10 => (prop::collection::vec(compare(), 0..3), ops(), ops()).prop_map(|(c, t, o)| Action::Txn(c, t, o)),
        1 => (0..KEYS.len()).prop_map(Action::Get),
        2 => (0..PREFIXES.len(), 0..4usize).prop_map(|(prefix, limit)| Action::Range(prefix, limit)),
        3 => (0..PREFIXES.len(), 0..120u64).prop_map(|(prefix, percent)| Action::Watch(prefix, percent)),
        2 => (1..4000u64).prop_map(Action::Grant),
        1 => (0..5usize).prop_map(Action::KeepAlive),
        1 => (0..5usize).prop_map(Action::Revoke),
        2 => (1..3000u64).prop_map(Action::Advance),
        1 => (0..120u64).prop_map(Action::Compact),
        1 => Just(Action::Reopen),
    ]
}

struct SideBySide {
    clock: TestClock,
    directory: TempDir,
    memory: Arc<MemoryStore>,
    redb: Option<Arc<RedbStore>>,
    leases: Vec<LeaseId>,
    sentinels: u64,
}

impl SideBySide {
    fn new() -> Self {
        let clock = TestClock::new();
        let directory = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryStore::with_clock(clock.clock()));
        let mut both = Self { clock, directory, memory, redb: None, leases: Vec::new(), sentinels: 0 };
        both.open();
        both
    }

    fn open(&mut self) {
        let settings = StoreSettings { clock: self.clock.clock(), ..StoreSettings::default() };
        self.redb = Some(Arc::new(RedbStore::open(redb_path(&self.directory), &settings).unwrap()));
    }

    fn redb(&self) -> &Arc<RedbStore> {
        self.redb.as_ref().unwrap()
    }

    fn lease(&self, index: usize) -> LeaseId {
        self.leases.get(index).copied().unwrap_or(LeaseId(1000 + index as u64))
    }

    fn txn(&self, compares: &[CompareSpec], then: &[OpSpec], otherwise: &[OpSpec]) -> Txn {
        let key = |index: usize| Bytes::from_static(KEYS[index]);
        let compares = compares.iter().map(|compare| match compare {
            CompareSpec::Mod(index, ordering, n) => Compare::ModRevision(key(*index), *ordering, *n),
            CompareSpec::Version(index, ordering, n) => Compare::Version(key(*index), *ordering, *n),
            CompareSpec::Value(index, value) => Compare::Value(key(*index), vec![*value].into()),
        });
        let ops = |specs: &[OpSpec]| {
            specs
                .iter()
                .map(|spec| match spec {
                    OpSpec::Put(index, value, lease) => {
                        Op::Put { key: key(*index), value: vec![*value].into(), lease: lease.map(|index| self.lease(index)) }
                    }
                    OpSpec::Delete(index) => Op::Delete(key(*index)),
                    OpSpec::DeletePrefix(index) => Op::DeletePrefix(Bytes::from_static(PREFIXES[*index])),
                })
                .collect()
        };
        Txn { compares: compares.collect(), then: ops(then), otherwise: ops(otherwise) }
    }

    async fn run(&mut self, action: &Action) -> Result<(), TestCaseError> {
        let (memory, redb) = (Arc::clone(&self.memory), Arc::clone(self.redb()));
        match action {
            Action::Txn(compares, then, otherwise) => {
                let txn = self.txn(compares, then, otherwise);
                let told =
                    |result: Result<postern_control::store::TxnResult, StoreError>| result.map(|r| (r.succeeded, r.revision));
                prop_assert_eq!(told(memory.txn(txn.clone()).await), told(redb.txn(txn).await));
            }
            Action::Get(key) => prop_assert_eq!(memory.get(KEYS[*key]).await, redb.get(KEYS[*key]).await),
            Action::Range(prefix, limit) => {
                let prefix = PREFIXES[*prefix];
                prop_assert_eq!(memory.range(prefix, *limit).await, redb.range(prefix, *limit).await);
            }
            Action::Watch(prefix, percent) => {
                // At most the next revision, which is the mark: a watch from beyond it would never see it.
                let from = (memory.revision() * percent / 100).min(memory.revision() + 1);
                self.same_history(PREFIXES[*prefix], from).await?;
            }
            Action::Grant(millis) => {
                let ttl = Duration::from_millis(*millis);
                let lease = memory.grant(ttl).await;
                prop_assert_eq!(&lease, &redb.grant(ttl).await);
                self.leases.push(lease.unwrap());
            }
            Action::KeepAlive(lease) => {
                let lease = self.lease(*lease);
                prop_assert_eq!(memory.keep_alive(lease).await, redb.keep_alive(lease).await);
            }
            Action::Revoke(lease) => {
                let lease = self.lease(*lease);
                prop_assert_eq!(memory.revoke(lease).await, redb.revoke(lease).await);
            }
            Action::Advance(millis) => {
                self.clock.advance(Duration::from_millis(*millis));
                prop_assert_eq!(Ok(memory.expire_leases()), redb.expire_leases().await);
            }
            Action::Compact(percent) => {
                let revision = memory.revision() * percent / 100;
                prop_assert_eq!(memory.compact(revision).await, redb.compact(revision).await);
            }
            Action::Reopen => {
                drop(redb);
                self.redb = None;
                self.open();
                memory.restart();
            }
        }
        prop_assert_eq!(self.memory.revision(), self.redb().revision());
        Ok(())
    }

    /// Both give the same batches from `from` on, up to a mark that is set for this.
    async fn same_history(&mut self, prefix: &[u8], from: u64) -> Result<(), TestCaseError> {
        self.sentinels += 1;
        let mut mark = prefix.to_vec();
        mark.extend_from_slice(format!("mark {}", self.sentinels).as_bytes());
        let (memory, redb) = (Arc::clone(&self.memory), Arc::clone(self.redb()));
        for store in [&*memory as &dyn Store, &*redb as &dyn Store] {
            store.txn(Txn::new().then(Op::put(mark.clone(), ""))).await.unwrap();
        }
        let from_memory = collect(&*memory, prefix, from, &mark).await;
        let from_redb = collect(&*redb, prefix, from, &mark).await;
        prop_assert_eq!(from_memory, from_redb);
        Ok(())
    }
}

/// What a watch gives until it fails, or gives the mark.
async fn collect(store: &dyn Store, prefix: &[u8], from: u64, mark: &[u8]) -> Vec<Result<Batch, StoreError>> {
    let mut watch = store.watch(prefix, from);
    let mut got = Vec::new();
    loop {
        let batch = next(&mut watch).await;
        let last = batch.as_ref().map_or(true, |batch| batch.events.iter().any(|event| event.key == mark));
        got.push(batch);
        if last {
            return got;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn redb_behaves_like_the_model(actions in prop::collection::vec(action(), 1..50)) {
        runtime().block_on(async {
            let mut both = SideBySide::new();
            for action in &actions {
                both.run(action).await?;
            }
            for prefix in PREFIXES {
                prop_assert_eq!(both.memory.range(prefix, 0).await, both.redb().range(prefix, 0).await);
                both.same_history(prefix, 0).await?;
                let middle = both.memory.revision() / 2;
                both.same_history(prefix, middle).await?;
            }
            Ok(())
        })?;
    }
}

// ---- sentences that hold for every engine ----

#[tokio::test]
async fn a_new_store_is_at_revision_1_and_its_first_change_makes_2() {
    for (name, engine) in engines() {
        assert_eq!(engine.store.revision(), 1, "{name}");
        assert_eq!(engine.store.range(b"", 0).await.unwrap().revision, 1, "{name}");
        let result = engine.store.txn(Txn::new().then(put("k", "v"))).await.unwrap();
        assert_eq!((result.succeeded, result.revision), (true, 2), "{name}");
        let kv = engine.store.get(b"k").await.unwrap().unwrap();
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (2, 2, 1, None), "{name}");
    }
}

#[tokio::test]
async fn a_transaction_that_changes_nothing_makes_no_revision() {
    for (name, engine) in engines() {
        let nothing = [
            Txn::new(),
            Txn::new().then(Op::delete("k")),
            Txn::new().then(Op::DeletePrefix("k".into())),
            Txn::new().when(Compare::exists("k")).then(put("k", "v")),
        ];
        for txn in nothing {
            assert_eq!(engine.store.txn(txn).await.unwrap().revision, 1, "{name}");
        }
    }
}

#[tokio::test]
async fn a_compare_chooses_the_list() {
    for (name, engine) in engines() {
        let create = || Txn::new().when(Compare::absent("k")).then(put("k", "new")).otherwise(put("lost", "race"));
        assert!(engine.store.txn(create()).await.unwrap().succeeded, "{name}");
        assert!(!engine.store.txn(create()).await.unwrap().succeeded, "{name}");
        assert_eq!(engine.store.get(b"lost").await.unwrap().unwrap().value, "race", "{name}");
        let swap = |revision| Txn::new().when(Compare::unchanged("k", revision)).then(put("k", "swapped"));
        assert!(!engine.store.txn(swap(7)).await.unwrap().succeeded, "{name}");
        assert!(engine.store.txn(swap(2)).await.unwrap().succeeded, "{name}");
        assert_eq!(engine.store.get(b"k").await.unwrap().unwrap().version, 2, "{name}");
    }
}

#[tokio::test]
async fn what_no_engine_takes_is_refused_and_changes_nothing() {
    for (name, engine) in engines() {
        let many = Txn { then: (0..129).map(|n| put(&n.to_string(), "")).collect(), ..Txn::new() };
        let large = Txn::new().then(Op::put("k", vec![0; 1 << 20]));
        let twice = Txn::new().then(put("k", "1")).then(put("k", "2"));
        let leased =
            Txn::new().then(put("other", "")).then(Op::Put { key: "k".into(), value: "".into(), lease: Some(LeaseId(9)) });
        assert_eq!(engine.store.txn(many).await.unwrap_err(), StoreError::TooManyOps { count: 129, max: 128 }, "{name}");
        let size = (1 << 20) + 1;
        assert_eq!(engine.store.txn(large).await.unwrap_err(), StoreError::TooLarge { size, max: 1 << 20 }, "{name}");
        assert_eq!(engine.store.txn(twice).await.unwrap_err(), StoreError::DuplicateKey { key: "k".into() }, "{name}");
        assert_eq!(engine.store.txn(leased).await.unwrap_err(), StoreError::LeaseNotFound(LeaseId(9)), "{name}");
        assert_eq!(engine.store.revision(), 1, "{name}");
        assert!(engine.store.range(b"", 0).await.unwrap().kvs.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_watch_gives_each_transaction_whole_in_order_and_what_comes_later() {
    for (name, engine) in engines() {
        let store = &engine.store;
        store.txn(Txn::new().then(put("a/2", "x")).then(put("a/1", "x")).then(put("b", "x"))).await.unwrap();
        let mut watch = store.watch(b"a/", 2);
        let first = next(&mut watch).await.unwrap();
        assert_eq!(first.revision, 2, "{name}");
        let keys: Vec<_> = first.events.iter().map(|event| event.key.clone()).collect();
        assert_eq!(keys, ["a/1", "a/2"], "{name}");
        store.txn(Txn::new().then(put("b", "not watched"))).await.unwrap();
        let follow = tokio::spawn(async move { next(&mut watch).await.unwrap() });
        store.txn(Txn::new().then(Op::delete("a/1"))).await.unwrap();
        let second = follow.await.unwrap();
        assert_eq!((second.revision, second.events[0].value.as_ref()), (4, None), "{name}");
    }
}

#[tokio::test]
async fn a_watch_from_a_revision_that_lies_ahead_waits_for_it() {
    for (name, engine) in engines() {
        let mut watch = engine.store.watch(b"", 4);
        for value in ["2", "3", "4"] {
            engine.store.txn(Txn::new().then(put("k", value))).await.unwrap();
        }
        assert_eq!(next(&mut watch).await.unwrap().events[0].value.as_deref(), Some(&b"4"[..]), "{name}");
    }
}

#[tokio::test]
async fn a_watch_of_forgotten_history_says_what_is_the_oldest_and_ends() {
    for (name, engine) in engines() {
        for value in ["2", "3", "4"] {
            engine.store.txn(Txn::new().then(put("k", value))).await.unwrap();
        }
        engine.store.compact(3).await.unwrap();
        let mut watch = engine.store.watch(b"", 2);
        assert_eq!(next(&mut watch).await, Err(StoreError::Compacted { oldest: 3 }), "{name}");
        assert_eq!(soon(watch.next()).await, None, "{name}");
        assert_eq!(next(&mut engine.store.watch(b"", 3)).await.unwrap().revision, 3, "{name}");
        assert_eq!(engine.store.get(b"k").await.unwrap().unwrap().value, "4", "{name}");
        let ahead = engine.store.compact(5).await.unwrap_err();
        assert_eq!(ahead, StoreError::FutureRevision { asked: 5, revision: 4 }, "{name}");
    }
}

#[tokio::test]
async fn a_watcher_that_is_slower_than_the_history_is_kept_is_told_so() {
    for (name, engine) in engines() {
        let mut watch = engine.store.watch(b"", 2);
        engine.store.txn(Txn::new().then(put("k", ""))).await.unwrap();
        next(&mut watch).await.unwrap();
        for _ in 0..3 {
            engine.store.txn(Txn::new().then(put("k", ""))).await.unwrap();
        }
        engine.store.compact(5).await.unwrap();
        assert_eq!(next(&mut watch).await, Err(StoreError::Compacted { oldest: 5 }), "{name}");
    }
}

#[tokio::test]
async fn the_end_of_a_lease_deletes_its_keys_in_one_revision() {
    for (name, engine) in engines() {
        let store = &engine.store;
        let lease = store.grant(Duration::from_millis(50)).await.unwrap();
        let with = |key: &'static str, lease| Op::Put { key: key.into(), value: "".into(), lease };
        store
            .txn(Txn::new().then(with("a", Some(lease))).then(with("b", Some(lease))).then(with("c", Some(lease))))
            .await
            .unwrap();
        let mut watch = store.watch(b"", 3);
        store.txn(Txn::new().then(with("c", None))).await.unwrap();
        next(&mut watch).await.unwrap();
        let end = next(&mut watch).await.unwrap();
        let keys: Vec<_> = end.events.iter().map(|event| (event.key.clone(), event.value.clone())).collect();
        assert_eq!(keys, [("a".into(), None), ("b".into(), None)], "{name}");
        assert_eq!(store.keep_alive(lease).await, Err(StoreError::LeaseNotFound(lease)), "{name}");
        assert!(store.get(b"c").await.unwrap().is_some(), "{name}: a put without a lease detaches");
    }
}

#[tokio::test]
async fn leases_that_end_together_end_in_the_order_of_their_times() {
    let mut both = SideBySide::new();
    let [late, early] = [400, 100].map(Duration::from_millis);
    for ttl in [late, early] {
        both.run(&Action::Grant(ttl.as_millis() as u64)).await.unwrap();
    }
    let leased = |key, lease| OpSpec::Put(key, 0, Some(lease));
    both.run(&Action::Txn(vec![], vec![leased(0, 0), leased(4, 1)], vec![])).await.unwrap();
    both.run(&Action::Advance(500)).await.unwrap();
    for store in [&*both.memory as &dyn Store, &**both.redb()] {
        let mut watch = store.watch(b"", 3);
        let ends = [next(&mut watch).await.unwrap(), next(&mut watch).await.unwrap()];
        assert_eq!(ends.map(|batch| batch.events[0].key.clone()), [KEYS[4], KEYS[0]]);
    }
}

#[tokio::test]
async fn the_end_of_a_store_ends_its_watches() {
    for (name, engine) in engines() {
        let mut watch = engine.store.watch(b"", 2);
        engine.store.txn(Txn::new().then(put("k", ""))).await.unwrap();
        next(&mut watch).await.unwrap();
        drop(engine);
        assert_eq!(next(&mut watch).await, Err(StoreError::Closed), "{name}");
        assert_eq!(soon(watch.next()).await, None, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost_among_many_writers() {
    for (name, engine) in engines() {
        let increment = |store: Arc<dyn Store>| async move {
            loop {
                let seen = store.get(b"counter").await.unwrap();
                let (value, revision) = seen.map_or((0, 0), |kv| (kv.value[0], kv.mod_revision));
                let txn = Txn::new().when(Compare::unchanged("counter", revision)).then(Op::put("counter", vec![value + 1]));
                if store.txn(txn).await.unwrap().succeeded {
                    return;
                }
            }
        };
        let writers = (0..64).map(|_| tokio::spawn(increment(Arc::clone(&engine.store))));
        for writer in join_all(writers).await {
            writer.unwrap();
        }
        let kv = engine.store.get(b"counter").await.unwrap().unwrap();
        assert_eq!((kv.value[0], kv.version, engine.store.revision()), (64, 64, 65), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_misses_nothing_of_what_left_the_window() {
    const WRITES: u64 = 6000;
    let (store, _directory) = redb();
    let mut slow = store.watch(b"", 2);
    let writes = (0..WRITES).map(|n| store.txn(Txn::new().then(put(&n.to_string(), ""))));
    assert!(join_all(writes).await.into_iter().all(|result| result.is_ok()));
    for revision in 2..WRITES + 2 {
        assert_eq!(next(&mut slow).await.unwrap().revision, revision);
    }
}
