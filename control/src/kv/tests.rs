//! Keys, transactions and sessions over a store in memory.

mod model;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::*;
use crate::mirror::Mirror;
use crate::records::{self, ClusterRecord};
use crate::seal::SealKey;
use crate::sessions::{Behaviour, NewSession, SessionSettings, Sessions};
use crate::store::{MemoryStore, Op, Store, Txn};

struct Plane {
    mirror: Arc<Mirror>,
    keys: Arc<KeyValues>,
    sessions: Arc<Sessions>,
}

async fn plane() -> Plane {
    plane_with_room(1 << 30).await
}

async fn plane_with_room(bytes: u64) -> Plane {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let cluster = ClusterRecord {
        cluster_id: "c".into(),
        trust_domain: "test.postern".parse().unwrap(),
        datacenter: "dc1".parse().unwrap(),
        epoch: 1,
        created_at: SystemTime::UNIX_EPOCH,
    };
    store.txn(Txn::new().then(Op::put(records::cluster_key(), records::encode(&cluster).unwrap()))).await.unwrap();
    let mirror = Mirror::start(Arc::clone(&store)).await.unwrap();
    let keys = KeyValues::with_room(Arc::clone(&store), Arc::clone(&mirror), Arc::new(SealKey::in_memory()), bytes);
    let sessions = Sessions::start(store, Arc::clone(&mirror), Arc::clone(&keys), SessionSettings::default());
    Plane { mirror, keys, sessions }
}

fn session(behaviour: Behaviour, lock_delay: Duration) -> NewSession {
    NewSession {
        name: String::new(),
        node: "localhost".into(),
        lock_delay,
        behaviour,
        ttl: None,
        node_checks: Vec::new(),
        service_checks: Vec::new(),
    }
}

fn set(key: &str, value: &str) -> KvOp {
    KvOp::Set { key: key.to_owned().into(), value: value.to_owned().into(), flags: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_increment_one_key_by_compare_and_set_none_is_lost() {
    let plane = Arc::new(plane().await);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let plane = Arc::clone(&plane);
        workers.spawn(async move {
            let mut done = 0;
            while done < 20 {
                let (index, count) = plane.mirror.read(|view| {
                    let entry = view.kv.get(b"n");
                    let count = entry.map(|entry| plane.keys.open(b"n", &entry.stored).unwrap());
                    (entry.map_or(0, |entry| entry.modify_index), count)
                });
                let count: u64 = count.map_or(0, |text| String::from_utf8(text).unwrap().parse().unwrap());
                let value = (count + 1).to_string().into();
                let op = KvOp::Cas { key: "n".into(), value, flags: 0, index };
                done += u64::from(matches!(plane.keys.apply(&[op]).await.unwrap(), Outcome::Done { .. }));
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    let entry = plane.mirror.read(|view| view.kv.get(b"n").cloned()).unwrap();
    assert_eq!(plane.keys.open(b"n", &entry.stored).unwrap(), b"160");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_write_one_key_all_get_through() {
    let plane = Arc::new(plane().await);
    let mut workers = tokio::task::JoinSet::new();
    for number in 0..64 {
        let plane = Arc::clone(&plane);
        workers.spawn(async move {
            for round in 0..5 {
                let outcome = plane.keys.apply(&[set("hot", &format!("{number}.{round}"))]).await.unwrap();
                assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_never_held_by_two() {
    let plane = Arc::new(plane().await);
    let mut workers = tokio::task::JoinSet::new();
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for _ in 0..8 {
        let (plane, inside) = (Arc::clone(&plane), Arc::clone(&inside));
        workers.spawn(async move {
            for _ in 0..10 {
                let id = plane.sessions.create(session(Behaviour::Release, Duration::ZERO)).await.unwrap();
                let lock = KvOp::Lock { key: "lock".into(), value: "x".into(), flags: 0, session: id.clone() };
                if matches!(plane.keys.apply(&[lock]).await.unwrap(), Outcome::Done { .. }) {
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
                plane.sessions.destroy(&id).await.unwrap();
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    assert_eq!(plane.mirror.read(|view| (view.sessions.len(), view.kv.holders().count())), (0, 0));
}

#[tokio::test]
async fn a_session_that_holds_more_than_a_transaction_takes_releases_all() {
    let plane = plane().await;
    let id = plane.sessions.create(session(Behaviour::Delete, Duration::ZERO)).await.unwrap();
    for number in 0..200 {
        let key = format!("many/{number}").into();
        let lock = KvOp::Lock { key, value: "x".into(), flags: 0, session: id.clone() };
        assert!(matches!(plane.keys.apply(&[lock]).await.unwrap(), Outcome::Done { .. }));
    }
    plane.sessions.destroy(&id).await.unwrap();
    assert_eq!(plane.mirror.read(|view| view.kv.len()), 0);
}

#[tokio::test]
async fn a_session_of_large_values_releases_all() {
    let plane = plane().await;
    let id = plane.sessions.create(session(Behaviour::Release, Duration::ZERO)).await.unwrap();
    for number in 0..5 {
        let (key, value) = (format!("large/{number}").into(), vec![7; MAX_VALUE_BYTES].into());
        let lock = KvOp::Lock { key, value, flags: 0, session: id.clone() };
        assert!(matches!(plane.keys.apply(&[lock]).await.unwrap(), Outcome::Done { .. }));
    }
    plane.sessions.destroy(&id).await.unwrap();
    assert_eq!(plane.mirror.read(|view| (view.kv.len(), view.kv.holders().count())), (5, 0));
}

#[tokio::test]
async fn a_transaction_may_have_128_operations_of_any_kind() {
    let plane = plane().await;
    let id = plane.sessions.create(session(Behaviour::Release, Duration::ZERO)).await.unwrap();
    let keys = || (0..MAX_OPS).map(|number| Bytes::from(format!("k/{number}")));
    let locks: Vec<_> = keys().map(|key| KvOp::Lock { key, value: "x".into(), flags: 0, session: id.clone() }).collect();
    let outcome = plane.keys.apply(&locks).await.unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let mut mixed: Vec<_> = keys().take(MAX_OPS - 3).map(|key| KvOp::Set { key, value: "y".into(), flags: 1 }).collect();
    mixed.insert(0, KvOp::DeleteTree("k/12".into()));
    mixed.insert(0, KvOp::GetTree("k/".into()));
    let outcome = plane.keys.apply(&mixed).await.unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let revision = plane.mirror.revision();
    assert!(plane.mirror.read(|view| view.kv.under(b"k/1").all(|(_, entry)| entry.modify_index == revision)));
}

#[tokio::test]
async fn a_value_in_another_keys_place_does_not_open() {
    let plane = plane().await;
    plane.keys.apply(&[set("a", "of a"), set("b", "of b")]).await.unwrap();
    let stored = plane.mirror.read(|view| view.kv.get(b"a").cloned()).unwrap().stored;
    assert!(plane.keys.open(b"b", &stored).is_err());
    assert!(!stored.sealed.windows(4).any(|window| window == b"of a"));
}

#[tokio::test]
async fn a_store_that_is_full_takes_no_more_until_something_is_deleted() {
    let plane = plane_with_room(2000).await;
    plane.keys.apply(&[set("a", &"x".repeat(1200))]).await.unwrap();
    assert!(matches!(plane.keys.apply(&[set("b", &"x".repeat(1200))]).await, Err(KvError::Full)));
    plane.keys.apply(&[KvOp::Delete("a".into())]).await.unwrap();
    plane.keys.apply(&[set("b", &"x".repeat(1200))]).await.unwrap();
}
