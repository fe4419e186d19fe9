mod history;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::BoxStream;

use postern_api::http::ApplyRequest;

use super::*;
use crate::mirror::{Change, Observer};
use crate::push::PushStats;
use crate::records::ClusterRecord;
use crate::records::change_set;
use crate::registry::EndpointSets;
use crate::store::{Batch, Kv, LeaseId, MemoryStore, Range, RedbStore, StoreSettings, TxnResult};

/// How long a test waits for what has to come.
const DEADLINE: Duration = Duration::from_secs(60);

/// A store that can be made to die at a transaction, and told to let somebody in before one.
struct Staged {
    store: Arc<dyn Store>,
    /// Transactions until it dies.
    left: AtomicUsize,
    before_pointer: Mutex<Option<Txn>>,
}

impl Staged {
    fn around(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, left: AtomicUsize::new(usize::MAX), before_pointer: Mutex::default() })
    }
}

impl Store for Staged {
    fn range(&self, prefix: &[u8], limit: usize) -> BoxFuture<'static, Result<Range, StoreError>> {
        self.store.range(prefix, limit)
    }

    fn get(&self, key: &[u8]) -> BoxFuture<'static, Result<Option<Kv>, StoreError>> {
        self.store.get(key)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'static, Result<TxnResult, StoreError>> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return future::ready(Err(StoreError::Closed)).boxed();
        }
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
        let is_pointer = txn.then.iter().any(|op| matches!(op, Op::Put { key, .. } if key == change_set::POINTER));
        let first = if is_pointer { self.before_pointer.lock().take() } else { None };
        let store = Arc::clone(&self.store);
        async move {
            if let Some(first) = first {
                store.txn(first).await?;
            }
            store.txn(txn).await
        }
        .boxed()
    }

    fn watch(&self, prefix: &[u8], from: u64) -> BoxStream<'static, Result<Batch, StoreError>> {
        self.store.watch(prefix, from)
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'static, Result<LeaseId, StoreError>> {
        self.store.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'static, Result<Duration, StoreError>> {
        self.store.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.store.revoke(lease)
    }

    fn compact(&self, revision: u64) -> BoxFuture<'static, Result<(), StoreError>> {
        self.store.compact(revision)
    }

    fn revision(&self) -> u64 {
        self.store.revision()
    }
}

struct House {
    store: Arc<Staged>,
    mirror: Arc<Mirror>,
    policy: Policy,
}

impl House {
    async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new())).await
    }

    async fn over(store: Arc<dyn Store>) -> Self {
        let cluster = ClusterRecord {
            cluster_id: "c".into(),
            trust_domain: "test.postern".parse().unwrap(),
            datacenter: "dc1".parse().unwrap(),
            epoch: 1,
            created_at: SystemTime::UNIX_EPOCH,
        };
        let found = Compare::absent(records::cluster_key());
        let txn = Txn::new().when(found).then(Op::put(records::cluster_key(), records::encode(&cluster).unwrap()));
        store.txn(txn).await.unwrap();
        let store = Staged::around(store);
        let mirror = Mirror::start(Arc::clone(&store) as Arc<dyn Store>).await.unwrap();
        let sidecars = Sidecars::new(Arc::clone(&mirror), Arc::new(EndpointSets::default()), Arc::new(PushStats::default()));
        let policy = Policy::new(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&mirror), sidecars);
        Self { store, mirror, policy }
    }

    async fn redb(path: &Path) -> Self {
        Self::over(Arc::new(RedbStore::open(path, &StoreSettings::default()).unwrap())).await
    }

    async fn apply(&self, intentions: Vec<Intention>) -> Result<postern_api::http::Applied, PolicyError> {
        self.policy.apply(request(intentions), &author()).await
    }

    fn stored(&self) -> Vec<Intention> {
        self.mirror.read(|view| permanent(view).intentions)
    }

    /// What a control plane that starts now would see.
    async fn read_anew(&self) -> (Vec<Intention>, BTreeMap<PairKey, u64>) {
        let mirror = Mirror::start(Arc::clone(&self.store) as Arc<dyn Store>).await.unwrap();
        mirror.read(|view| {
            let revisions = view.intentions.iter().map(|(key, (_, revision))| (key.clone(), *revision));
            (permanent(view).intentions, revisions.collect())
        })
    }

    async fn keys_of_sets(&self) -> usize {
        self.store.range(change_set::POINTER, 0).await.unwrap().kvs.len()
    }

    async fn until_moved(&self) {
        let moved = async {
            while self.keys_of_sets().await > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, moved).await.expect("the change set is moved");
    }

    async fn audited(&self) -> Vec<AuditEntry> {
        let range = self.store.range(crate::audit::PREFIX.as_bytes(), 0).await.unwrap();
        range.kvs.iter().map(|kv| serde_json::from_slice(&kv.value).unwrap()).collect()
    }
}

fn author() -> Author {
    Author { who: "uid:0".into(), from: "unix".into() }
}

fn intentions(range: std::ops::Range<usize>, action: Action) -> Vec<Intention> {
    let mut intentions: Vec<Intention> =
        range.map(|n| Intention::new(format!("s{n}").parse().unwrap(), "api".parse().unwrap(), action)).collect();
    intentions.sort_by_key(Intention::key);
    intentions
}

fn request(intentions: Vec<Intention>) -> ApplyRequest {
    ApplyRequest { intentions, ..ApplyRequest::default() }
}

#[derive(Default)]
struct Seen(Mutex<Vec<(u64, usize, usize)>>);

impl Observer for Seen {
    fn changed(&self, view: &View, change: &Change) {
        if !change.keys.is_empty() {
            self.0.lock().push((change.revision, change.keys.len(), view.intentions.len()));
        }
    }
}

#[tokio::test]
async fn a_large_apply_is_one_revision_for_whoever_watches() {
    let house = House::new().await;
    let seen = Arc::new(Seen::default());
    house.mirror.observe(Arc::clone(&seen) as Arc<dyn Observer>);
    let wanted = intentions(0..5000, Action::Allow);
    let applied = house.apply(wanted.clone()).await.unwrap();
    let written = applied.written.unwrap();
    house.until_moved().await;
    house.mirror.reached(house.store.revision()).await;
    assert_eq!(*seen.0.lock(), [(written.revision, 5000, 5000)], "one change; moving it is none");
    assert_eq!(house.stored(), wanted);
    let (stored, revisions) = house.read_anew().await;
    assert_eq!(stored, wanted);
    assert!(revisions.values().all(|revision| *revision == written.revision), "each keeps the revision that made it true");
    let plan = house.policy.apply(ApplyRequest { dry_run: true, ..request(wanted) }, &author()).await.unwrap();
    assert!(plan.added.is_empty() && plan.changed.is_empty() && plan.removed.is_empty());
}

#[tokio::test]
async fn a_large_apply_changes_adds_and_removes_at_once_and_takes_the_default_along() {
    let house = House::new().await;
    house.apply(intentions(0..3000, Action::Allow)).await.unwrap();
    let mut wanted = intentions(1000..2000, Action::Deny);
    wanted.extend(intentions(2000..2500, Action::Allow));
    wanted.extend(intentions(3000..4000, Action::Allow));
    wanted.sort_by_key(Intention::key);
    let with_default = ApplyRequest { default: Some(DefaultPolicy::Allow), ..request(wanted.clone()) };
    let applied = house.policy.apply(with_default, &author()).await.unwrap();
    assert_eq!((applied.added.len(), applied.changed.len(), applied.removed.len()), (1000, 1000, 1500));
    let at_once = house.mirror.read(|view| (permanent(view).intentions, view.default.0));
    assert_eq!(at_once, (wanted.clone(), DefaultPolicy::Allow));
    house.until_moved().await;
    assert_eq!(house.read_anew().await.0, wanted);
}

#[tokio::test]
async fn a_crash_at_any_transaction_leaves_all_of_it_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (intentions(0..40, Action::Allow), intentions(20..1000, Action::Deny));
    let mut outcomes = [0, 0];
    for crash_after in 0.. {
        let path = directory.path().join(format!("{crash_after}.redb"));
        let house = House::redb(&path).await;
        house.apply(old.clone()).await.unwrap();
        house.store.left.store(crash_after, Ordering::SeqCst);
        let applied = house.apply(new.clone()).await;
        if applied.is_ok() {
            // The rest is moved by a task that the same crash ends.
            tokio::time::timeout(DEADLINE, async {
                while house.store.left.load(Ordering::SeqCst) > 0 && house.keys_of_sets().await > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await
            .unwrap();
        }
        let is_done = house.store.left.load(Ordering::SeqCst) > 0;
        let expected = if applied.is_ok() { &new } else { &old };
        let House { store, mirror, policy } = house;
        drop(policy);
        drop(mirror);
        // The follower lets go of the store when it notices.
        let held = Arc::downgrade(&store);
        drop(store);
        tokio::time::timeout(DEADLINE, async {
            while held.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();

        let house = House::redb(&path).await;
        assert_eq!(house.stored(), *expected, "crash after {crash_after}");
        outcomes[usize::from(applied.is_ok())] += 1;
        house.policy.sweep(SystemTime::now()).await.unwrap();
        assert_eq!(house.keys_of_sets().await, 0, "what the crash left is cleared away or moved");
        assert_eq!(house.read_anew().await.0, *expected);
        if is_done {
            break;
        }
    }
    assert!(outcomes[0] >= 3 && outcomes[1] >= 3, "{outcomes:?}");
}

#[tokio::test]
async fn a_change_that_comes_between_is_told_or_planned_in_and_never_lost() {
    for expects in [false, true] {
        let house = House::new().await;
        house.apply(intentions(0..10, Action::Allow)).await.unwrap();
        let base = house.mirror.revision();
        // Another change is committed after the plan was made and the set was written.
        let between = Intention::new("s5".parse().unwrap(), "api".parse().unwrap(), Action::Deny);
        let record = IntentionRecord {
            intention: between.clone(),
            created_at: SystemTime::now(),
            created_by: "uid:1".into(),
            reason: None,
            changed_in: None,
        };
        let put = Op::put(records::intention_key(&between.key()), records::encode(&record).unwrap());
        *house.store.before_pointer.lock() = Some(Txn::new().then(put).then(Op::put(MARKER, Bytes::new())));
        let wanted = ApplyRequest {
            merge: true,
            expected_revision: expects.then_some(base),
            ..request(intentions(100..600, Action::Allow))
        };
        let applied = house.policy.apply(wanted, &author()).await;
        let of_pair = |house: &House| house.stored().into_iter().find(|intention| intention.key() == between.key()).unwrap();
        assert_eq!(of_pair(&house), between, "not lost");
        if expects {
            assert!(matches!(applied, Err(PolicyError::Stale { .. })), "{applied:?}");
            assert_eq!(house.stored().len(), 10);
            assert_eq!(house.keys_of_sets().await, 0, "what was staged is gone");
        } else {
            applied.unwrap();
            assert_eq!(house.stored().len(), 510);
        }
    }
}

#[tokio::test]
async fn single_changes_count_while_the_set_is_still_being_moved() {
    let house = House::new().await;
    let wanted = intentions(0..2000, Action::Allow);
    let staging = &house.policy.staging;
    // As after a crash just behind the pointer: nothing was moved.
    house.store.left.store(usize::MAX, Ordering::SeqCst);
    let applied = house.apply(wanted.clone()).await.unwrap();
    house.policy.mover.lock().take().unwrap().abort();
    let in_force = house.mirror.read(|view| view.change_sets.in_force().cloned());
    let key = |n: usize| intentions(n..n + 1, Action::Allow)[0].key();
    assert!(in_force.is_some() && staging.holds(&key(7)));

    let set =
        SetRequest { verb: SetVerb::Deny, expires_in_s: None, reason: None, wait_ms: 0, dry_run: false, expected_revision: None };
    let deny = house.policy.set(key(7).source, key(7).destination, set, &author()).await.unwrap();
    house.policy.delete(key(1500), Deletion::default(), &author()).await.unwrap();
    assert!(deny.revision > applied.written.unwrap().revision);
    let mut expected = wanted;
    expected.retain(|intention| intention.key() != key(1500));
    for intention in expected.iter_mut().filter(|intention| intention.key() == key(7)) {
        intention.rule = Rule::Action(Action::Deny);
    }
    assert_eq!(house.stored(), expected);
    assert_eq!(house.read_anew().await.0, expected);
    house.policy.sweep(SystemTime::now()).await.unwrap();
    assert_eq!(house.read_anew().await.0, expected);
    assert_eq!(house.keys_of_sets().await, 0);
}

#[tokio::test]
async fn the_audit_log_is_told_the_counts_at_once_and_every_pair_in_the_end() {
    let house = House::new().await;
    house.apply(intentions(0..300, Action::Allow)).await.unwrap();
    house.apply(intentions(100..500, Action::Deny)).await.unwrap();
    house.until_moved().await;
    let entries = house.audited().await;
    let second = entries.iter().filter(|entry| entry.what == "intention.apply").nth(1).unwrap();
    let count = |entry: &AuditEntry, of: &str| entry.details[of].as_array().map_or(0, Vec::len);
    assert_eq!(
        (&second.details["added"], &second.details["changed"], &second.details["removed"]),
        (&json!(200), &json!(200), &json!(100))
    );
    let parts: Vec<_> = entries
        .iter()
        .filter(|entry| entry.what == "intention.apply.part" && entry.details["change_set"] == second.details["change_set"])
        .collect();
    assert_eq!(json!(parts.len()), second.details["parts"]);
    let sum = |of: &str| parts.iter().map(|entry| count(entry, of)).sum::<usize>();
    assert_eq!((sum("added"), sum("changed"), sum("removed")), (200, 200, 100));
    let (before, after) = (&parts.iter().find(|entry| count(entry, "changed") > 0).unwrap().details["changed"][0][0], "deny");
    assert_eq!(before["action"], "allow");
    assert!(parts.iter().any(|entry| entry.details["added"][0]["action"] == after));
    assert!(parts.iter().all(|entry| entry.who == "uid:0"));
}

#[tokio::test]
async fn intentions_too_long_for_one_transaction_are_staged_too() {
    let house = House::new().await;
    let mut wanted = intentions(0..100, Action::Allow);
    for intention in &mut wanted {
        intention.meta = (0..40).map(|n| (format!("key-{n}"), "v".repeat(500))).collect();
    }
    house.apply(wanted.clone()).await.unwrap();
    house.until_moved().await;
    assert_eq!(house.read_anew().await.0, wanted);
}

#[tokio::test]
async fn a_set_that_is_being_written_is_not_cleared_away() {
    let house = House::new().await;
    let changes = (0..500).map(|n| change_set::StagedChange {
        key: Bytes::from(format!("intention/p/s{n}/api")),
        value: Some(Bytes::from_static(b"{}")),
        before: Bytes::new(),
    });
    let staged = house.policy.staging.write(changes.collect()).await.unwrap().unwrap();
    house.mirror.reached(house.store.revision()).await;
    house.policy.sweep(SystemTime::now()).await.unwrap();
    let held = house.keys_of_sets().await;
    assert!(held > 1);
    assert_eq!(house.mirror.read(|view| (view.intentions.len(), view.not_understood.len())), (0, 0), "nobody heeds it");
    drop(staged);
    house.policy.sweep(SystemTime::now()).await.unwrap();
    assert_eq!(house.keys_of_sets().await, 0);
}
