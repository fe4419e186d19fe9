use postern_ca::Serial;

use super::*;
use crate::mirror::{Change, Observer, View};
use crate::records::{ClusterRecord, IssuanceRecord, LineageRecord};
use crate::store::MemoryStore;

struct Refresh(Arc<EndpointSets>);

impl Observer for Refresh {
    fn changed(&self, view: &View, change: &Change) {
        for service in &change.services {
            self.0.refresh(view, service);
        }
    }
}

struct Rig {
    mirror: Arc<Mirror>,
    sets: Arc<EndpointSets>,
    registry: Arc<Registry>,
}

async fn store() -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let cluster = ClusterRecord {
        cluster_id: "c".into(),
        trust_domain: "test.postern".parse().unwrap(),
        datacenter: "dc1".parse().unwrap(),
        epoch: 1,
        created_at: SystemTime::UNIX_EPOCH,
    };
    store.txn(Txn::new().then(Op::put(records::cluster_key(), records::encode(&cluster).unwrap()))).await.unwrap();
    store
}

async fn rig(store: Arc<dyn Store>, settings: RegistrySettings) -> Rig {
    let mirror = Mirror::start(Arc::clone(&store)).await.unwrap();
    let sets = Arc::new(EndpointSets::default());
    mirror.observe(Arc::new(Refresh(Arc::clone(&sets))));
    mirror.read(|view| sets.refresh_all(view));
    let registry = Registry::start(store, Arc::clone(&mirror), Arc::clone(&sets), settings);
    Rig { mirror, sets, registry }
}

fn quick() -> RegistrySettings {
    RegistrySettings {
        liveness: Duration::from_millis(300),
        removal: Duration::from_millis(600),
        settle: Duration::from_millis(900),
        ..RegistrySettings::default()
    }
}

fn db() -> ServiceName {
    "db".parse().unwrap()
}

fn registration(id: &str, healthy: bool) -> Registration {
    let wire = v1::Registration {
        instance_id: id.into(),
        advertise: "10.0.0.1:21000".into(),
        ports: vec!["main".into()],
        healthy,
        ..v1::Registration::default()
    };
    Registration::from_wire(&wire).unwrap()
}

impl Rig {
    async fn register(&self, id: &str, healthy: bool) {
        self.registry.register(&db(), "l", &registration(id, healthy)).await.unwrap();
    }

    fn set(&self) -> Vec<String> {
        self.sets.of(&db()).iter().map(ToString::to_string).collect()
    }

    fn health(&self, id: &str) -> Option<bool> {
        self.mirror.read(|view| view.instances.get(id).map(|(record, _)| record.healthy))
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{what}: set {:?}", self.set()));
    }
}

#[tokio::test]
async fn the_same_registration_again_writes_nothing() {
    let store = store().await;
    let rig = rig(Arc::clone(&store), RegistrySettings::default()).await;
    rig.register("db-1", true).await;
    let revision = store.revision();
    rig.register("db-1", true).await;
    for _ in 0..100 {
        rig.registry.beat(&"db-1".parse().unwrap(), true);
    }
    assert_eq!(store.revision(), revision);
    assert_eq!(rig.set(), ["db-1"]);
}

#[tokio::test]
async fn silence_makes_critical_but_never_empties_a_set() {
    let rig = rig(store().await, quick()).await;
    rig.register("db-1", true).await;
    rig.register("db-2", true).await;
    let beating = async {
        loop {
            rig.registry.beat(&"db-2".parse().unwrap(), true);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = beating => {}
        () = rig.until("db-1 goes", |rig| rig.set() == ["db-2"]) => {}
    }
    rig.until("db-2 is critical", |rig| rig.health("db-2") == Some(false)).await;
    assert_eq!(rig.set(), ["db-2"], "the last set stays");
    rig.until("db-1 is forgotten", |rig| rig.health("db-1").is_none()).await;
    assert_eq!(rig.set(), ["db-2"], "time empties nothing");
    rig.registry.leave(&"db-2".parse().unwrap(), Vec::new()).await.unwrap();
    assert!(rig.set().is_empty(), "a goodbye may");
}

#[tokio::test]
async fn a_silent_instance_is_in_no_list_and_remembered_until_its_svid_ends() {
    let store = store().await;
    let (serial, not_after) = (Serial::random().unwrap(), SystemTime::now() + Duration::from_secs(4));
    let lineage = LineageRecord {
        lineage: "lineage".into(),
        service: db(),
        instance: "db-1".parse().unwrap(),
        token_id: "t".into(),
        newest: serial,
        revoked: false,
        forked: false,
    };
    let issuance = IssuanceRecord {
        serial,
        id: "spiffe://example.org/ns/default/dc/dc1/svc/db".into(),
        service: db(),
        instance: "db-1".parse().unwrap(),
        lineage: "lineage".into(),
        replaces: None,
        not_after,
        key_hash: String::new(),
        used: true,
        chain: Vec::new(),
    };
    let txn = Txn::new()
        .then(Op::put(records::lineage_key("lineage"), records::encode(&lineage).unwrap()))
        .then(Op::put(records::issuance_key(&serial), records::encode(&issuance).unwrap()));
    store.txn(txn).await.unwrap();
    let rig = rig(store, quick()).await;
    rig.registry.register(&db(), "lineage", &registration("db-1", false)).await.unwrap();
    rig.registry.register(&db(), "other", &registration("db-2", false)).await.unwrap();
    let record = |rig: &Rig| rig.mirror.read(|view| view.instances.get("db-1").map(|(record, _)| record.clone()));
    rig.until("it is in no list", |rig| record(rig).is_some_and(|record| record.left && record.silent)).await;
    rig.until("one without an SVID is forgotten", |rig| rig.health("db-2").is_none()).await;
    rig.until("its SVID has ended", |rig| record(rig).is_none()).await;
    assert!(SystemTime::now() >= not_after);
}

#[tokio::test]
async fn a_beat_that_reports_another_health_is_written_at_once() {
    let rig = rig(store().await, RegistrySettings::default()).await;
    rig.register("db-1", false).await;
    assert!(rig.set().is_empty(), "it was never healthy");
    rig.registry.beat(&"db-1".parse().unwrap(), true);
    rig.until("it is healthy", |rig| rig.set() == ["db-1"]).await;
}

#[tokio::test]
async fn after_a_restart_recorded_instances_stay_until_they_settled() {
    let store = store().await;
    {
        let before = rig(Arc::clone(&store), RegistrySettings::default()).await;
        before.register("db-1", true).await;
        before.register("db-2", true).await;
    }
    let started = std::time::Instant::now();
    let after = rig(store, quick()).await;
    assert_eq!(after.set(), ["db-1", "db-2"]);
    let beating = async {
        loop {
            after.registry.beat(&"db-1".parse().unwrap(), true);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = beating => {}
        () = after.until("db-2 goes", |rig| rig.set() == ["db-1"]) => {}
    }
    assert!(started.elapsed() >= quick().settle);
}

#[tokio::test]
async fn another_protocol_is_refused_and_both_are_named() {
    let rig = rig(store().await, RegistrySettings::default()).await;
    let mut first = registration("db-1", true);
    first.protocol = Some(Protocol::Http);
    rig.registry.register(&db(), "l", &first).await.unwrap();
    let mut second = registration("db-2", true);
    second.protocol = Some(Protocol::Tcp);
    let error = rig.registry.register(&db(), "m", &second).await.unwrap_err().to_string();
    assert!(error.contains("http") && error.contains("tcp"), "{error}");
    assert_eq!(rig.health("db-2"), None, "nothing was written");
}

#[tokio::test]
async fn an_id_of_another_service_is_refused() {
    let rig = rig(store().await, RegistrySettings::default()).await;
    rig.register("db-1", true).await;
    let error = rig.registry.register(&"web".parse().unwrap(), "m", &registration("db-1", true)).await.unwrap_err();
    assert!(matches!(error, RegisterError::OtherService { .. }), "{error}");
}

#[test]
fn an_address_that_cannot_be_dialled_is_refused() {
    for advertise in ["0.0.0.0:21000", "[::]:21000", "host", ":21000", "host:0", "host:99999", "a b:1", "10.0.0.1:0"] {
        let wire = v1::Registration { instance_id: "db-1".into(), advertise: advertise.into(), ..v1::Registration::default() };
        assert!(Registration::from_wire(&wire).is_err(), "{advertise}");
    }
    for advertise in ["", "10.0.0.1:21000", "[fd00::1]:21000", "db-1.example.com:21000", "localhost:1"] {
        let wire = v1::Registration { instance_id: "db-1".into(), advertise: advertise.into(), ..v1::Registration::default() };
        assert!(Registration::from_wire(&wire).is_ok(), "{advertise}");
    }
}
