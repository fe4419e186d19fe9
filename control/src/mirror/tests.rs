use std::time::SystemTime;

use bytes::Bytes;
use postern_intentions::{Action, Call, DefaultPolicy, Intention, Mode, Rule, decide};
use postern_names::PortName;

use super::*;
use crate::records::{self, ClusterRecord, DefaultRecord, IntentionRecord};
use crate::store::{MemoryStore, Op, Txn};

fn cluster() -> ClusterRecord {
    ClusterRecord {
        cluster_id: "c".into(),
        trust_domain: "test.postern".parse().unwrap(),
        datacenter: "dc1".parse().unwrap(),
        epoch: 1,
        created_at: SystemTime::UNIX_EPOCH,
    }
}

fn intention(source: &str, destination: &str, action: Action) -> IntentionRecord {
    let intention = Intention {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        rule: Rule::Action(action),
        mode: Mode::Enforce,
        expires_at: None,
        description: String::new(),
        meta: Default::default(),
    };
    IntentionRecord { intention, created_at: SystemTime::UNIX_EPOCH, created_by: "uid:0".into(), reason: None, changed_in: None }
}

fn put(record: &IntentionRecord) -> Op {
    Op::put(records::intention_key(&record.intention.key()), records::encode(record).unwrap())
}

async fn initialised() -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let op = Op::put(records::cluster_key(), records::encode(&cluster()).unwrap());
    store.txn(Txn::new().then(op)).await.unwrap();
    store
}

#[tokio::test]
async fn a_store_that_was_never_initialised_is_refused() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    assert!(matches!(Mirror::start(store).await, Err(MirrorError::NoCluster)));
}

#[tokio::test]
async fn the_view_holds_what_was_there_and_what_comes() {
    let store = initialised().await;
    store.txn(Txn::new().then(put(&intention("web", "api", Action::Allow)))).await.unwrap();
    let mirror = Mirror::start(Arc::clone(&store)).await.unwrap();
    assert_eq!(mirror.read(|view| view.intentions.len()), 1);

    let mut changes = mirror.subscribe();
    let written = store.txn(Txn::new().then(put(&intention("web", "db", Action::Deny)))).await.unwrap();
    mirror.reached(written.revision).await;
    assert_eq!(mirror.read(|view| (view.intentions.len(), view.revision)), (2, written.revision));
    let change = changes.recv().await.unwrap();
    assert_eq!(change.revision, written.revision);
    assert_eq!(change.keys.len(), 1);
}

#[tokio::test]
async fn writes_that_go_on_while_it_loads_are_not_lost() {
    let store = initialised().await;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut last = 0;
            for n in 0..300 {
                let record = intention(&format!("s{n}"), "api", Action::Allow);
                last = store.txn(Txn::new().then(put(&record))).await.unwrap().revision;
                tokio::task::yield_now().await;
            }
            last
        })
    };
    tokio::task::yield_now().await;
    let mirror = Mirror::start(Arc::clone(&store)).await.unwrap();
    let last = writer.await.unwrap();
    mirror.reached(last).await;
    assert_eq!(mirror.read(|view| view.intentions.len()), 300);
    assert_eq!(mirror.read(|view| view.pairs_to(&"api".parse().unwrap()).count()), 300);
}

#[tokio::test]
async fn the_rules_follow_the_view_and_those_of_a_pair_agree_with_them() {
    let store = initialised().await;
    let mirror = Mirror::start(Arc::clone(&store)).await.unwrap();
    let (web, api) = ("web".parse().unwrap(), "api".parse().unwrap());
    let port = PortName::main();
    let judge = || {
        mirror.read(|view| {
            let call = Call { source: &web, destination: &api, port: &port, protocol: view.protocol(&api), request: None };
            let whole = decide(&view.rules(), &call, SystemTime::now());
            assert_eq!(decide(&view.rules_of_pair(&web, &api), &call, SystemTime::now()), whole);
            whole.allowed()
        })
    };
    assert!(!judge());
    for (record, allowed) in [
        (intention("*", "*", Action::Allow), true),
        (intention("*", "api", Action::Deny), false),
        (intention("web", "api", Action::Allow), true),
        (intention("other", "api", Action::Deny), true),
    ] {
        let written = store.txn(Txn::new().then(put(&record))).await.unwrap();
        mirror.reached(written.revision).await;
        assert_eq!(judge(), allowed, "{}", record.intention.pair());
    }
    let delete = Op::DeletePrefix(Bytes::from_static(b"intention/"));
    let allow = Op::put(records::default_key(), records::encode(&DefaultRecord { policy: DefaultPolicy::Allow }).unwrap());
    let written = store.txn(Txn::new().then(delete).then(allow)).await.unwrap();
    mirror.reached(written.revision).await;
    assert!(judge());
    assert_eq!(mirror.read(|view| view.pairs_to(&"api".parse().unwrap()).count()), 0);
}

#[tokio::test]
async fn an_intention_that_cannot_be_read_denies_its_pair() {
    let store = initialised().await;
    let allow = intention("*", "*", Action::Allow);
    let broken = Op::put(
        records::intention_key(&intention("web", "api", Action::Allow).intention.key()),
        Bytes::from_static(b"{\"v2\":1}"),
    );
    store.txn(Txn::new().then(put(&allow)).then(broken)).await.unwrap();
    let mirror = Mirror::start(store).await.unwrap();
    let (web, api) = ("web".parse().unwrap(), "api".parse().unwrap());
    let port = PortName::main();
    let allowed = mirror.read(|view| {
        let call = Call { source: &web, destination: &api, port: &port, protocol: view.protocol(&api), request: None };
        decide(&view.rules(), &call, SystemTime::now()).allowed()
    });
    assert!(!allowed);
}

struct Seen(Mutex<Vec<(u64, u64)>>);

impl Observer for Seen {
    fn changed(&self, view: &View, change: &Change) {
        self.0.lock().push((change.revision, view.revision));
    }
}

#[tokio::test]
async fn an_observer_sees_each_change_with_the_view_that_holds_it() {
    let store = initialised().await;
    let mirror = Mirror::start(Arc::clone(&store)).await.unwrap();
    let seen = Arc::new(Seen(Mutex::default()));
    mirror.observe(Arc::clone(&seen) as Arc<dyn Observer>);
    let mut last = 0;
    for n in 0..10 {
        last = store.txn(Txn::new().then(put(&intention(&format!("s{n}"), "api", Action::Allow)))).await.unwrap().revision;
    }
    mirror.reached(last).await;
    let seen = seen.0.lock();
    assert_eq!(seen.len(), 10);
    assert!(seen.iter().all(|(change, view)| change == view));
}
