//! The port with the push behind it, driven by real clients over TLS.

mod apply;
mod flood;
mod leaving;
mod seen;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

use arc_swap::ArcSwap;
use bytes::Bytes;
use postern_api::convert;
use postern_api::v1;
use postern_api::v1::control_message::Message as Down;
use postern_api::v1::mesh_client::MeshClient;
use postern_api::v1::sidecar_message::Message as Up;
use postern_ca::{Authority, PrivateKey, Request, Serial, Subject, Svid, SvidSlot, Trust};
use postern_intentions::{Action, Intention, Mode, Party, Rule};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Response, Status, Streaming};

use super::*;
use crate::edges::Traffic;
use crate::kv::KeyValues;
use crate::push::PushSettings;
use crate::records::{self, ClusterRecord, IntentionRecord, IssuanceRecord, RevokedRecord};
use crate::registry::RegistrySettings;
use crate::seal::SealKey;
use crate::store::{MemoryStore, Op, Store, Txn};

const DAY: Duration = Duration::from_secs(86_400);

/// Enrolment is not what these tests are about.
struct NoIdentity;

#[tonic::async_trait]
impl Identity for NoIdentity {
    async fn enroll(&self, request: tonic::Request<v1::EnrollRequest>) -> Result<Response<v1::IdentityGrant>, Status> {
        assert!(request.extensions().get::<CallerInfo>().is_some());
        Err(Status::permission_denied("no token is good here"))
    }

    async fn renew(&self, _: tonic::Request<v1::RenewRequest>) -> Result<Response<v1::IdentityGrant>, Status> {
        Err(Status::permission_denied("reached renew"))
    }
}

struct Rig {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    authority: Authority,
    trust: TrustSource,
    mesh: Arc<MeshService>,
    traffic: Arc<Traffic>,
    server: GrpcServer,
    opened: Arc<parking_lot::Mutex<Vec<Serial>>>,
}

fn push_settings() -> PushSettings {
    PushSettings {
        heartbeat: Duration::from_millis(100),
        ack_timeout: Duration::from_millis(600),
        silence: Duration::from_secs(5),
        registry: RegistrySettings { liveness: Duration::from_secs(30), ..RegistrySettings::default() },
        ..PushSettings::default()
    }
}

async fn rig() -> Rig {
    rig_with(push_settings(), GrpcSettings::default()).await
}

async fn rig_with(push: PushSettings, settings: GrpcSettings) -> Rig {
    let (trust_domain, datacenter) = ("test.postern".parse().unwrap(), "dc1".parse().unwrap());
    let authority = Authority::create(&trust_domain, &datacenter, SystemTime::now() - DAY).unwrap();
    let trust = Trust { bundle: authority.bundle(), datacenter: datacenter.clone(), revoked: Default::default() };
    let trust: TrustSource = Arc::new(ArcSwap::from_pointee(trust));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let cluster = ClusterRecord { cluster_id: "c".into(), trust_domain, datacenter, epoch: 3, created_at: SystemTime::now() };
    store.txn(Txn::new().then(Op::put(records::cluster_key(), records::encode(&cluster).unwrap()))).await.unwrap();
    let mirror = Mirror::start(Arc::clone(&store)).await.unwrap();
    let opened = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let on_open = {
        let opened = Arc::clone(&opened);
        Arc::new(move |serial| opened.lock().push(serial))
    };
    let keys = KeyValues::new(Arc::clone(&store), Arc::clone(&mirror), Arc::new(SealKey::in_memory()));
    let traffic = Traffic::start(Arc::clone(&store), Duration::from_secs(60)).await.unwrap();
    let mesh = MeshService::start(
        Arc::clone(&store),
        Arc::clone(&mirror),
        Arc::clone(&keys),
        Arc::clone(&traffic),
        Arc::clone(&trust),
        on_open,
        push,
    );
    let mut chain_and_key = issue(&authority, Subject::ControlPlane, DAY, SystemTime::now());
    chain_and_key.0.push(authority.root().clone());
    let svid = Arc::new(SvidSlot::new(Arc::new(Svid::new(chain_and_key.0, chain_and_key.1).unwrap())));
    let server = GrpcServer::start(GrpcConfig {
        listener: bind("127.0.0.1:0".parse().unwrap()).unwrap(),
        svid,
        trust: Arc::clone(&trust),
        mirror: Arc::clone(&mirror),
        identity: Arc::new(NoIdentity),
        mesh: Arc::clone(&mesh),
        settings,
    })
    .unwrap();
    Rig { store, mirror, authority, trust, mesh, traffic, server, opened }
}

fn issue(
    authority: &Authority,
    id: Subject,
    ttl: Duration,
    now: SystemTime,
) -> (Vec<postern_ca::CertificateDer<'static>>, PrivateKey) {
    let key = PrivateKey::generate().unwrap();
    let csr = key.csr_der();
    let issued = authority.issue(Request { csr_der: &csr, id, ports: &[], ttl, now }).unwrap();
    (issued.chain, key)
}

/// hyper's connection as the service that generated clients want.
#[derive(Clone)]
struct Connection(hyper::client::conn::http2::SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Connection {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        *request.uri_mut() = format!("https://control.test{path}").parse().unwrap();
        Box::pin(self.0.send_request(request))
    }
}

impl Rig {
    fn service_svid(&self, service: &str) -> Arc<Svid> {
        self.svid_since(service, DAY, SystemTime::now())
    }

    fn svid_since(&self, service: &str, ttl: Duration, now: SystemTime) -> Arc<Svid> {
        let (chain, key) = issue(&self.authority, Subject::Service(service.parse().unwrap()), ttl, now);
        Arc::new(Svid::new(chain, key).unwrap())
    }

    async fn connect(&self, svid: Option<Arc<Svid>>) -> Option<Connection> {
        let verifier = SvidVerifier::new(Arc::clone(&self.trust), Expected::ControlPlane);
        let config = postern_ca::client_config(Arc::new(SvidSlot::new(svid)), verifier, &[b"h2"]);
        let tcp = TcpStream::connect(self.server.local_addr()).await.ok()?;
        let name = "control.test.postern".to_owned().try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.ok()?;
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.ok()?;
        tokio::spawn(connection);
        Some(Connection(sender))
    }

    /// Records an issuance, as an enrolment would.
    async fn record(&self, svid: &Svid, service: &str, instance: &str, lineage: &str) {
        let record = IssuanceRecord {
            serial: *svid.serial(),
            id: svid.id().to_string(),
            service: service.parse().unwrap(),
            instance: instance.parse().unwrap(),
            lineage: lineage.into(),
            replaces: None,
            not_after: svid.not_after(),
            key_hash: String::new(),
            used: false,
            chain: Vec::new(),
        };
        self.write([Op::put(records::issuance_key(svid.serial()), records::encode(&record).unwrap())]).await;
    }

    async fn write(&self, ops: impl IntoIterator<Item = Op>) -> u64 {
        let txn = Txn { then: ops.into_iter().collect(), ..Txn::default() };
        let revision = self.store.txn(txn).await.unwrap().revision;
        self.mirror.reached(revision).await;
        revision
    }

    async fn intend(&self, source: &str, destination: &str, action: Action) -> u64 {
        self.write([intention(source, destination, action)]).await
    }

    async fn sidecar(&self, service: &str, instance: &str, upstreams: &[&str]) -> TestSidecar {
        let svid = self.service_svid(service);
        self.record(&svid, service, instance, instance).await;
        let connection = self.connect(Some(Arc::clone(&svid))).await.unwrap();
        let mut sidecar = open(connection, hello(instance, upstreams)).await;
        sidecar.svid = Some(svid);
        assert!(matches!(sidecar.next().await, Some(Down::Welcome(_))));
        sidecar
    }
}

fn intention(source: &str, destination: &str, action: Action) -> Op {
    let intention = Intention {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        rule: Rule::Action(action),
        mode: Mode::Enforce,
        expires_at: None,
        description: String::new(),
        meta: Default::default(),
    };
    let key = records::intention_key(&intention.key());
    let record =
        IntentionRecord { intention, created_at: SystemTime::now(), created_by: "uid:0".into(), reason: None, changed_in: None };
    Op::put(key, records::encode(&record).unwrap())
}

fn hello(instance: &str, upstreams: &[&str]) -> v1::Hello {
    v1::Hello {
        version: "0.1.0".into(),
        registration: Some(v1::Registration {
            instance_id: instance.into(),
            advertise: "127.0.0.1:21000".into(),
            ports: vec!["main".into()],
            transports: vec!["direct".into()],
            healthy: true,
            ..v1::Registration::default()
        }),
        upstreams: upstreams.iter().map(|name| (*name).to_owned()).collect(),
        ..v1::Hello::default()
    }
}

struct TestSidecar {
    up: mpsc::Sender<v1::SidecarMessage>,
    down: Streaming<v1::ControlMessage>,
    /// What it knows, by lane and key.
    known: BTreeMap<(i32, String), Bytes>,
    lanes: BTreeSet<i32>,
    interrupted: Option<String>,
    svid: Option<Arc<Svid>>,
}

async fn open(connection: Connection, hello: v1::Hello) -> TestSidecar {
    let (up, messages) = mpsc::channel(16);
    up.send(v1::SidecarMessage { message: Some(Up::Hello(hello)) }).await.unwrap();
    let down = MeshClient::new(connection).connect(ReceiverStream::new(messages)).await.unwrap().into_inner();
    TestSidecar { up, down, known: BTreeMap::new(), lanes: BTreeSet::new(), interrupted: None, svid: None }
}

impl TestSidecar {
    /// The next message that is no heartbeat; nothing at the end of the stream.
    async fn next(&mut self) -> Option<Down> {
        let next = async {
            loop {
                match self.down.message().await {
                    Ok(Some(v1::ControlMessage { message: Some(Down::Heartbeat(_)) })) => {}
                    Ok(Some(message)) => return message.message,
                    Ok(None) => return None,
                    Err(status) => {
                        self.interrupted = Some(status.message().to_owned());
                        return None;
                    }
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), next).await.expect("a message in time")
    }

    /// Takes the next whole delta in, without acknowledging it.
    async fn take(&mut self) -> v1::Delta {
        loop {
            let Some(Down::Delta(delta)) = self.next().await else { panic!("no delta") };
            if delta.complete {
                self.known.retain(|(lane, _), _| *lane != delta.lane);
            }
            for resource in &delta.upserts {
                self.known.insert((delta.lane, resource.key.clone()), resource.body.clone());
            }
            for key in &delta.deletes {
                self.known.remove(&(delta.lane, key.clone()));
            }
            if delta.last {
                self.lanes.insert(delta.lane);
                return delta;
            }
        }
    }

    async fn acknowledge(&self, delta: &v1::Delta) {
        let ack = v1::Ack { lane: delta.lane, position: delta.to, ..v1::Ack::default() };
        self.send(Up::Ack(ack)).await;
    }

    async fn send(&self, message: Up) {
        self.up.send(v1::SidecarMessage { message: Some(message) }).await.unwrap();
    }

    /// Takes and acknowledges until `holds`.
    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let delta = self.take().await;
            self.acknowledge(&delta).await;
        }
    }

    async fn settle(&mut self) {
        self.until(|sidecar| sidecar.lanes.len() == 2).await;
    }

    fn knows(&self, key: &str) -> bool {
        self.known.keys().any(|(_, known)| known == key)
    }

    fn verdict(&self, upstream: &str) -> Option<v1::ServiceBody> {
        let body = self.known.get(&(v1::Lane::Reachability.into(), format!("service/{upstream}")))?;
        convert::decode_exact(body).ok()
    }

    /// Why the stream was interrupted: the sidecar comes back soon.
    async fn interrupted(&mut self) -> String {
        while self.next().await.is_some() {}
        self.interrupted.take().expect("a reason")
    }

    /// Why the stream was refused: the sidecar comes back after a while.
    async fn refused(&mut self) -> v1::Refusal {
        loop {
            match self.next().await {
                Some(Down::Refusal(refusal)) => return refusal,
                Some(_) => {}
                None => panic!("the stream ended without a reason"),
            }
        }
    }
}

#[tokio::test]
async fn a_sidecar_gets_what_concerns_it_and_nothing_else() {
    let rig = rig().await;
    rig.intend("web", "api", Action::Allow).await;
    rig.intend("*", "*", Action::Deny).await;
    rig.intend("web", "db", Action::Allow).await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    let delta = api.take().await;
    assert!(delta.complete && delta.last);
    assert_eq!(delta.to.unwrap().epoch, 3);
    for key in ["intention/web/api", "intention/*/*", "default", "bundle", "service/api"] {
        assert!(api.knows(key), "{key}");
    }
    assert!(!api.knows("intention/web/db"));
    assert_eq!(rig.opened.lock().len(), 1, "its SVID was seen in use");
}

#[tokio::test]
async fn a_deny_is_in_force_when_its_destination_acknowledged_it() {
    let rig = rig().await;
    rig.intend("web", "api", Action::Allow).await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    let mut db = rig.sidecar("db", "db-1", &[]).await;
    api.settle().await;
    db.settle().await;
    let revision = rig.intend("web", "api", Action::Deny).await;
    let sidecars = rig.mesh.sidecars();
    let to_api = [Party::Service("api".parse().unwrap())];
    let before = sidecars.wait_in_force(revision, &to_api, Duration::from_millis(50)).await;
    assert_eq!((before.concerned, before.acknowledged), (1, 0));
    assert_eq!(before.waiting_for, ["api-1".parse().unwrap()]);

    let waiting = tokio::spawn(async move { sidecars.wait_in_force(revision, &to_api, Duration::from_secs(5)).await });
    let delta = loop {
        let delta = api.take().await;
        if delta.upserts.iter().any(|resource| resource.key == "intention/web/api") {
            break delta;
        }
        api.acknowledge(&delta).await;
    };
    assert!(!delta.complete);
    api.acknowledge(&delta).await;
    let after = waiting.await.unwrap();
    assert_eq!((after.concerned, after.acknowledged), (1, 1));
    assert!(after.took_ms > 0.0);
    let everyone = rig.mesh.sidecars().wait_in_force(revision, &[Party::Any], Duration::from_secs(5)).await;
    assert_eq!((everyone.concerned, everyone.acknowledged), (2, 2), "db was not concerned, and need not be woken");
}

#[tokio::test]
async fn a_caller_gets_endpoints_and_the_verdict_of_its_pair() {
    let rig = rig().await;
    let mut web = rig.sidecar("web", "web-1", &["api"]).await;
    web.until(|web| web.verdict("api").is_some()).await;
    assert!(!web.verdict("api").unwrap().allowed);
    assert!(web.verdict("api").unwrap().because.contains("default"));
    let api = rig.sidecar("api", "api-1", &[]).await;
    web.until(|web| web.knows("endpoint/api/api-1")).await;
    rig.intend("web", "api", Action::Allow).await;
    web.until(|web| web.verdict("api").unwrap().allowed).await;
    api.send(Up::Goodbye(v1::Goodbye { reason: "test".into() })).await;
    web.until(|web| !web.knows("endpoint/api/api-1")).await;
}

#[tokio::test]
async fn a_slow_sidecar_gets_the_last_state_and_not_each_one() {
    let rig = rig_with(PushSettings { ack_timeout: Duration::from_secs(30), ..push_settings() }, GrpcSettings::default()).await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.settle().await;
    rig.intend("web", "api", Action::Allow).await;
    let first = api.take().await;
    for _ in 0..20 {
        rig.intend("web", "api", Action::Deny).await;
        rig.intend("web", "api", Action::Allow).await;
        rig.intend("job", "api", Action::Allow).await;
    }
    api.acknowledge(&first).await;
    let mut delta = api.take().await;
    while delta.lane != i32::from(v1::Lane::Authority) {
        api.acknowledge(&delta).await;
        delta = api.take().await;
    }
    assert_eq!(delta.upserts.len(), 2);
    assert_eq!(delta.to.unwrap().revision, rig.mirror.revision());
}

#[tokio::test]
async fn a_stream_that_never_acknowledges_is_closed() {
    let rig = rig().await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.take().await;
    assert!(api.interrupted().await.contains("acknowledged"));
}

#[tokio::test]
async fn a_revoked_svid_loses_its_stream_and_its_connection() {
    let rig = rig().await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    let mut db = rig.sidecar("db", "db-1", &[]).await;
    api.settle().await;
    db.settle().await;
    let svid = api.svid.clone().unwrap();
    let record = RevokedRecord { lineage: "api-1".into(), not_after: svid.not_after() };
    rig.write([Op::put(records::revoked_key(svid.serial()), records::encode(&record).unwrap())]).await;
    assert!(api.refused().await.reason.contains("revoked"));
    db.until(|db| db.knows(&format!("revoked/{}", svid.serial()))).await;
    let again = rig.connect(Some(svid)).await.unwrap();
    let (_up, messages) = mpsc::channel::<v1::SidecarMessage>(1);
    assert!(MeshClient::new(again).connect(ReceiverStream::new(messages)).await.is_err());
}

#[tokio::test]
async fn an_instance_id_in_use_under_another_key_is_refused_and_the_same_lineage_takes_over() {
    let rig = rig().await;
    let mut first = rig.sidecar("api", "api-1", &[]).await;
    first.settle().await;
    let stranger = rig.service_svid("api");
    rig.record(&stranger, "api", "api-1", "another lineage").await;
    let mut second = open(rig.connect(Some(stranger)).await.unwrap(), hello("api-1", &[])).await;
    let refusal = second.refused().await;
    assert_eq!(refusal.code(), v1::refusal::Code::IdInUse);
    assert!(refusal.reason.contains("127.0.0.1"), "{}", refusal.reason);

    let renewed = rig.sidecar("api", "api-1", &[]).await;
    assert!(first.refused().await.reason.contains("newer stream"));
    assert_eq!(rig.mesh.sidecars().len(), 1);
    drop(renewed);
}

#[tokio::test]
async fn an_svid_of_another_instance_registers_nothing() {
    let rig = rig().await;
    let svid = rig.service_svid("api");
    rig.record(&svid, "api", "api-1", "l").await;
    let mut sidecar = open(rig.connect(Some(svid)).await.unwrap(), hello("api-2", &[])).await;
    assert!(sidecar.refused().await.reason.contains("api-1"));
    assert!(rig.mirror.read(|view| view.instances.is_empty()));
}

#[tokio::test]
async fn what_was_not_understood_is_kept_for_status() {
    let rig = rig().await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.settle().await;
    rig.intend("web", "api", Action::Allow).await;
    let delta = api.take().await;
    let nacks = vec![v1::Nack { key: "intention/web/api".into(), why: "from the future".into() }];
    api.send(Up::Ack(v1::Ack { lane: delta.lane, position: delta.to, nacks, ..v1::Ack::default() })).await;
    let sidecars = rig.mesh.sidecars();
    let nacked = |sidecars: &crate::push::Sidecars| sidecars.list().first().map_or(0, |sidecar| sidecar.nacks.len());
    let waited = tokio::time::timeout(Duration::from_secs(5), async {
        while nacked(&sidecars) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap();
    rig.intend("web", "api", Action::Deny).await;
    let delta = api.take().await;
    api.acknowledge(&delta).await;
    let waited = tokio::time::timeout(Duration::from_secs(5), async {
        while nacked(&sidecars) != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap();
}

#[tokio::test]
async fn only_enrol_works_without_a_certificate_and_only_renew_with_an_expired_one() {
    let rig = rig().await;
    let nobody = rig.connect(None).await.unwrap();
    let mut identity = v1::identity_client::IdentityClient::new(nobody.clone());
    assert!(identity.enroll(v1::EnrollRequest::default()).await.unwrap_err().message().contains("no token"));
    assert_eq!(identity.renew(v1::RenewRequest::default()).await.unwrap_err().code(), tonic::Code::Unauthenticated);
    let (_up, messages) = mpsc::channel::<v1::SidecarMessage>(1);
    let refused = MeshClient::new(nobody).connect(ReceiverStream::new(messages)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);

    let expired = rig.svid_since("api", Duration::from_secs(600), SystemTime::now() - Duration::from_secs(1200));
    let expired = rig.connect(Some(expired)).await.unwrap();
    let mut identity = v1::identity_client::IdentityClient::new(expired.clone());
    let reached = identity.renew(v1::RenewRequest::default()).await.unwrap_err();
    assert!(reached.message().contains("reached renew"), "{reached:?}");
    let (_up, messages) = mpsc::channel::<v1::SidecarMessage>(1);
    let refused = MeshClient::new(expired).connect(ReceiverStream::new(messages)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_handshake_is_dropped_and_disturbs_nobody() {
    let settings =
        GrpcSettings { handshake_timeout: Duration::from_millis(500), handshakes_at_once: 1, ..GrpcSettings::default() };
    let rig = rig_with(push_settings(), settings).await;
    let mut silent = TcpStream::connect(rig.server.local_addr()).await.unwrap();
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.settle().await;
    let mut byte = [0; 1];
    let ended = tokio::time::timeout(Duration::from_secs(5), tokio::io::AsyncReadExt::read(&mut silent, &mut byte)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
}

#[tokio::test]
async fn a_shutdown_tells_the_sidecars_and_ends() {
    let rig = rig().await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.settle().await;
    let (mesh, server) = (Arc::clone(&rig.mesh), rig.server);
    let stopping = tokio::spawn(async move {
        mesh.shut_down().await;
        server.shut_down().await;
    });
    assert!(api.interrupted().await.contains("stops"));
    tokio::time::timeout(Duration::from_secs(5), stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn every_address_of_the_host_is_bound_and_a_taken_port_is_named() {
    let listener = bind("[::]:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok());
    let error = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap_err().to_string();
    assert!(error.contains("--grpc"), "{error}");
}
