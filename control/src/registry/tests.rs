use postern_ca::Serial;
use postern_checks::{CheckForm, Status};
use tokio::time::Instant;

use super::catalog::operations::{self, CatalogOp, Subject, Verb};
use super::catalog::{Leaving, Registering, RegisteringService};
use super::checks::{Critical, OUTPUT_PERIOD, REAP};
use super::*;
use crate::mirror::{Change, Observer, View};
use crate::records::{CheckRecord, ClusterRecord, IssuanceRecord, LineageRecord, NodeRecord, RecordKey, RegisteredRecord};
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

/// A check of an instance that the control plane runs, as it is registered.
fn check(node: &str, id: &str, of: &str, form: CheckForm) -> CheckRecord {
    let definition = CheckForm { name: id.into(), ..form }.validate().unwrap();
    CheckRecord {
        node: node.into(),
        id: id.into(),
        name: id.into(),
        notes: String::new(),
        status: Status::Critical,
        output: String::new(),
        service_id: of.into(),
        kind: definition.type_name().into(),
        definition: Some(definition),
        status_since: SystemTime::UNIX_EPOCH,
        created_in: None,
    }
}

fn ttl() -> CheckForm {
    CheckForm { ttl: "1h".into(), ..CheckForm::default() }
}

fn deregistering() -> CheckForm {
    CheckForm { deregister_critical_service_after: "90s".into(), ..ttl() }
}

fn registered(node: &str, id: &str) -> RegisteredRecord {
    RegisteredRecord {
        node: node.into(),
        id: id.into(),
        service: db(),
        tags: Vec::new(),
        address: "10.0.0.9".into(),
        port: 1,
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        weights: Weights::default(),
        enable_tag_override: false,
        locality: String::new(),
        created_in: None,
    }
}

/// Instances without a sidecar on a node, and checks.
async fn put_registered(rig: &Rig, node: &str, ids: &[&str], checks: &[CheckRecord]) {
    for id in ids {
        let service = Some(RegisteringService { record: registered(node, id), replaces_checks: false });
        let of = checks.iter().filter(|check| check.service_id == *id).cloned().collect();
        let registering = Registering { node: None, service, checks: of };
        rig.registry.register_without_sidecar(&registering, &[]).await.unwrap();
    }
}

/// Written past all rules, as an older version may have left it.
async fn put_check(rig: &Rig, check: &CheckRecord) {
    let key = RecordKey::Check(check.node.clone(), check.id.clone()).to_bytes();
    let result = rig.registry.store.txn(Txn::new().then(Op::put(key, records::encode(check).unwrap()))).await.unwrap();
    rig.mirror.reached(result.revision).await;
}

impl Rig {
    /// The checks that are stored for a node.
    fn checks_on(&self, node: &str) -> Vec<String> {
        self.mirror.read(|view| view.catalog.node(node).into_iter().flat_map(|node| node.checks.keys().cloned()).collect())
    }

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

#[tokio::test]
async fn a_check_that_deregisters_is_refused_for_an_instance_with_a_sidecar() {
    let rig = rig(store().await, RegistrySettings::default()).await;
    rig.register("db-1", true).await;
    let registering = Registering { checks: vec![check("db-1", "c", "db-1", deregistering())], ..Registering::default() };
    let error = rig.registry.register_without_sidecar(&registering, &[]).await.unwrap_err().to_string();
    assert!(error.contains("DeregisterCriticalServiceAfter") && error.contains("sidecar"), "{error}");
    assert!(rig.checks_on("db-1").is_empty(), "nothing was written");
    let registering = Registering { checks: vec![check("db-1", "c", "db-1", ttl())], ..Registering::default() };
    rig.registry.register_without_sidecar(&registering, &[]).await.unwrap();
}

#[tokio::test]
async fn what_is_critical_for_too_long_is_deregistered_unless_it_has_a_sidecar() {
    let rig = rig(store().await, RegistrySettings::default()).await;
    rig.register("db-1", true).await;
    put_check(&rig, &check("db-1", "c", "db-1", deregistering())).await;
    put_registered(&rig, "host", &["web-1"], &[check("host", "w", "web-1", deregistering())]).await;
    let (settle, start) = (Duration::from_secs(60), Instant::now());
    let mut critical = Critical::new(start);
    let mut due = |after: u64| rig.mirror.read(|view| critical.due(view, settle, start + Duration::from_secs(after)));
    // However long ago it became critical, by the clock of whoever wrote that.
    for after in (0..150).step_by(10) {
        assert_eq!(due(after), [], "after {after} s");
    }
    assert_eq!(due(150), [("host".to_owned(), "web-1".to_owned())]);
}

#[tokio::test]
async fn a_check_that_was_good_in_between_has_its_time_again_and_so_has_all_after_a_pause() {
    let rig = rig(store().await, RegistrySettings::default()).await;
    put_registered(&rig, "host", &["web-1"], &[check("host", "w", "web-1", deregistering())]).await;
    let start = Instant::now();
    let mut critical = Critical::new(start);
    let mut count = 0;
    let mut until_due = |from: u64| {
        let mut at = from;
        while rig.mirror.read(|view| critical.due(view, Duration::ZERO, start + Duration::from_secs(at))).is_empty() {
            at += REAP.as_secs();
            count += 1;
            assert!(count < 100, "it is never due");
        }
        at - from
    };
    assert_eq!(until_due(0), 90);
    assert_eq!(until_due(1000), 90, "this process did not run");
    rig.registry.update_check("host", "w", Some(Status::Passing), "").await.unwrap();
    rig.registry.update_check("host", "w", Some(Status::Critical), "").await.unwrap();
    assert_eq!(until_due(1100), 90, "it was good");
}

#[tokio::test]
async fn an_instance_with_a_sidecar_is_deregistered_with_it_alone_and_keeps_its_maintenance() {
    let rig = rig(store().await, RegistrySettings::default()).await;
    rig.register("db-1", true).await;
    rig.registry.set_maintenance("db-1", Some("db-1"), Some("moving"), &[]).await.unwrap();
    rig.registry.set_maintenance("db-1", None, Some("repair"), &[]).await.unwrap();
    let node = NodeRecord {
        node: "db-1".into(),
        id: String::new(),
        address: "10.0.0.1".into(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        created_in: None,
    };
    let checks = vec![check("db-1", "of-node", "", ttl())];
    let registering = Registering { node: Some(node), service: None, checks };
    rig.registry.register_without_sidecar(&registering, &[]).await.unwrap();
    put_registered(&rig, "db-1", &["web-1"], &[check("db-1", "w", "web-1", ttl())]).await;
    let maintenance = ["_node_maintenance", "_service_maintenance:db-1"];
    assert_eq!(rig.checks_on("db-1"), [maintenance[0], maintenance[1], "of-node", "w"]);

    let error = rig.registry.deregister_without_sidecar("db-1", Leaving::Service("db-1"), &[]).await.unwrap_err();
    assert!(matches!(error, RegisterError::HasSidecar { .. }), "{error}");
    let evaluated = |subject: Subject| {
        let ops = [CatalogOp { verb: Verb::Delete, subject }];
        rig.mirror.read(|view| operations::evaluate(view, rig.registry.home(), &ops)).map(|written| written.ops.len())
    };
    let errors = evaluated(Subject::Service(registered("db-1", "db-1"))).unwrap_err();
    assert!(errors[0].what.contains("has a sidecar"), "{}", errors[0].what);
    let record = rig.mirror.read(|view| view.catalog.node("db-1").unwrap().record.clone().unwrap().0);
    assert_eq!(evaluated(Subject::Node(record)).ok(), Some(4), "the node, web-1, its check and that of the node");

    assert!(rig.registry.deregister_without_sidecar("db-1", Leaving::Node, &[]).await.unwrap());
    assert_eq!(rig.checks_on("db-1"), maintenance);
    assert_eq!(rig.mirror.read(|view| view.catalog.node("db-1").map(|node| node.registered.len())), Some(0));
    assert!(rig.set().is_empty(), "it stays out of every set");

    rig.registry.set_maintenance("db-1", Some("db-1"), None, &[]).await.unwrap();
    rig.registry.set_maintenance("db-1", None, None, &[]).await.unwrap();
    assert_eq!(rig.set(), ["db-1"]);
}

#[tokio::test]
async fn the_checks_of_an_instance_with_a_sidecar_go_with_its_record() {
    let rig = rig(store().await, quick()).await;
    rig.register("db-1", true).await;
    // More than one transaction holds.
    for number in 0..200 {
        put_check(&rig, &check("db-1", &format!("c-{number}"), "db-1", ttl())).await;
    }
    rig.registry.set_maintenance("db-1", None, Some("repair"), &[]).await.unwrap();
    rig.registry.leave(&"db-1".parse().unwrap(), Vec::new()).await.unwrap();
    assert_eq!(rig.checks_on("db-1").len(), 201, "it may come back");
    rig.until("it is forgotten", |rig| rig.health("db-1").is_none()).await;
    assert_eq!(rig.checks_on("db-1"), ["_node_maintenance"]);
}

#[tokio::test]
async fn what_registers_in_the_place_of_a_sidecar_keeps_its_checks() {
    let rig = rig(store().await, quick()).await;
    rig.register("db-1", true).await;
    rig.registry.leave(&"db-1".parse().unwrap(), Vec::new()).await.unwrap();
    put_registered(&rig, "db-1", &["db-1"], &[check("db-1", "c", "db-1", ttl())]).await;
    rig.until("the sidecar is forgotten", |rig| rig.health("db-1").is_none()).await;
    assert_eq!(rig.checks_on("db-1"), ["c"]);
    rig.registry.deregister_without_sidecar("db-1", Leaving::Service("db-1"), &[]).await.unwrap();
    assert!(rig.checks_on("db-1").is_empty());
}

#[tokio::test]
async fn checks_of_instances_that_are_not_there_are_taken_out_at_a_start() {
    let store = store().await;
    {
        let before = rig(Arc::clone(&store), RegistrySettings::default()).await;
        before.register("db-1", true).await;
        put_registered(&before, "db-1", &["web-1"], &[]).await;
        for (id, of) in [("of-node", ""), ("of-sidecar", "db-1"), ("of-web", "web-1"), ("orphan", "web-2")] {
            put_check(&before, &check("db-1", id, of, ttl())).await;
        }
        put_check(&before, &check("another-host", "moved", "db-1", ttl())).await;
    }
    let after = rig(store, RegistrySettings::default()).await;
    after.until("it is gone", |rig| rig.checks_on("another-host").is_empty() && rig.checks_on("db-1").len() == 3).await;
    assert_eq!(after.checks_on("db-1"), ["of-node", "of-sidecar", "of-web"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_note_of_a_ttl_check_is_written_every_five_minutes_and_known_at_once() {
    let store = store().await;
    let rig = rig(Arc::clone(&store), RegistrySettings::default()).await;
    put_registered(&rig, "host", &["web-1"], &[check("host", "beat", "web-1", ttl())]).await;
    let stored = |rig: &Rig| rig.mirror.read(|view| view.catalog.node("host").unwrap().checks["beat"].0.output.clone());
    rig.registry.tell_check("host", "beat", Status::Passing, "0").await.unwrap();
    assert_eq!(stored(&rig), "0");
    let revision = store.revision();
    for number in 1..=100 {
        assert!(rig.registry.tell_check("host", "beat", Status::Passing, &number.to_string()).await.unwrap());
    }
    assert_eq!(store.revision(), revision, "the status is the same");
    assert_eq!(rig.registry.newest_output("host", "beat").as_deref(), Some("100"));
    tokio::time::sleep(OUTPUT_PERIOD).await;
    rig.until("it is written", |rig| stored(rig) == "100").await;
    assert_eq!((store.revision(), rig.registry.newest_output("host", "beat")), (revision + 1, None));

    rig.registry.tell_check("host", "beat", Status::Passing, "101").await.unwrap();
    rig.registry.tell_check("host", "beat", Status::Warning, "slow").await.unwrap();
    assert_eq!((stored(&rig).as_str(), rig.registry.newest_output("host", "beat")), ("slow", None), "a status at once");
    assert!(!rig.registry.tell_check("host", "nope", Status::Warning, "").await.unwrap());
}

#[tokio::test]
async fn output_that_is_cut_is_the_same_when_it_comes_again() {
    let store = store().await;
    let rig = rig(Arc::clone(&store), RegistrySettings::default()).await;
    put_registered(&rig, "host", &["web-1"], &[check("host", "beat", "web-1", ttl())]).await;
    let long = "x".repeat(10_000);
    rig.registry.update_check("host", "beat", Some(Status::Passing), &long).await.unwrap();
    let revision = store.revision();
    rig.registry.update_check("host", "beat", Some(Status::Passing), &long).await.unwrap();
    assert_eq!(store.revision(), revision);
}

#[tokio::test]
async fn an_alias_is_looked_at_when_the_control_plane_starts() {
    let store = store().await;
    let alias = check("host", "follows", "", CheckForm { alias_service: "web-1".into(), ..CheckForm::default() });
    let key = |key: RecordKey| key.to_bytes();
    let txn = Txn::new()
        .then(Op::put(
            key(RecordKey::Registered("host".into(), "web-1".into())),
            records::encode(&registered("host", "web-1")).unwrap(),
        ))
        .then(Op::put(key(RecordKey::Check("host".into(), "follows".into())), records::encode(&alias).unwrap()));
    store.txn(txn).await.unwrap();
    let after = rig(store, RegistrySettings::default()).await;
    let status = |rig: &Rig| rig.mirror.read(|view| view.catalog.node("host").unwrap().checks["follows"].0.status);
    after.until("it follows", |rig| status(rig) == Status::Passing).await;
}
