//! A mesh in one process: an authority, sidecars' data planes, and services behind them.
#![allow(dead_code)] // each test program uses a part of it

mod service;
pub mod tunnel_end;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use postern_ca::{
    Authority, Expected, PrivateKey, Request, Serial, Subject, Svid, SvidSlot, SvidSource, SvidVerifier, Trust, TrustSource,
    client_config,
};
use postern_intentions::{Action, DefaultPolicy, Entry, EntryContent, Intention, Mode, Protocol, Rule, RuleSet};
use postern_names::{Datacenter, PortName, ServiceName, TrustDomain};
use postern_proxy::clock::Clock;
use postern_proxy::data_plane::{
    AccessLog, DataPlane, DataPlaneConfig, Limits, LocalTarget, LogMode, Metrics, RecordLayerKind, Shared, Sink, TransportMode,
    UpstreamListener, UpstreamSpec,
};
use postern_proxy::sightings::Reports;
use postern_proxy::snapshot::{Endpoint, PairVerdict, Positions, Snapshot, Upstream};
use postern_traffic::ServiceSettings;
use postern_traffic::settings::Percent;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[allow(unused_imports)] // as above
pub use service::{ByteByByte, Service};

pub const ALLOW: (Action, Mode) = (Action::Allow, Mode::Enforce);
pub const DENY: (Action, Mode) = (Action::Deny, Mode::Enforce);
pub const AUDIT: (Action, Mode) = (Action::Deny, Mode::Audit);

pub const HOUR: Duration = Duration::from_secs(3_600);
/// How long a condition is waited for: outcomes are asserted here, not speed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn intention(source: &str, destination: &str, (action, mode): (Action, Mode)) -> Intention {
    Intention {
        source: source.parse().expect("source"),
        destination: destination.parse().expect("destination"),
        rule: Rule::Action(action),
        mode,
        expires_at: None,
        description: String::new(),
        meta: BTreeMap::new(),
    }
}

fn settings() -> ServiceSettings {
    ServiceSettings::of("api".parse().expect("service"))
}

pub fn temporary(source: &str, destination: &str, what: (Action, Mode), until: SystemTime) -> Intention {
    Intention { expires_at: Some(until), ..intention(source, destination, what) }
}

/// Waits until a condition holds; fails the test after [`PATIENCE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within {PATIENCE:?}: {what}");
}

/// Nothing listens there: no other test is given port 1 by the kernel, as a port that was just freed could be.
pub const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// Connects from this address of this host.
pub async fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::new(source.parse().expect("address"), 0)).expect("bind");
    socket.connect(to).await.expect("connect")
}

pub struct Mesh {
    authority: Authority,
    trust_domain: TrustDomain,
    datacenter: Datacenter,
    sequence: AtomicU64,
    carried: Carried,
    /// What every service speaks.
    pub protocol: Protocol,
    /// The settings of every service, but for its name.
    pub settings: ServiceSettings,
}

/// How the sidecars of a mesh reach each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    pub transport: TransportMode,
    pub record_layer: RecordLayerKind,
}

/// A data plane with one worker.
pub struct Plane {
    plane: DataPlane,
    shared: Shared,
    enforced: watch::Receiver<u64>,
    _judging: JoinSet<()>,
}

impl Plane {
    async fn start(config: DataPlaneConfig) -> Self {
        let shared = Shared::new(&config);
        let (sender, enforced) = watch::channel(0);
        let mut judging = JoinSet::new();
        judging.spawn(shared.clone().keep_judging(config.snapshots.clone(), config.clock.clone(), sender));
        let plane = DataPlane::start(config, shared.clone()).await.expect("data plane");
        Self { plane, shared, enforced, _judging: judging }
    }

    pub fn enforced(&self) -> watch::Receiver<u64> {
        self.enforced.clone()
    }

    pub fn open_connections(&self) -> usize {
        self.shared.open_connections()
    }

    pub async fn drain(self, deadline: Duration) {
        self.plane.drain(deadline).await;
    }
}

/// The data plane of one sidecar.
pub struct Side {
    pub plane: Plane,
    pub inbound: SocketAddr,
    pub upstream: SocketAddr,
    service: ServiceName,
    svid: SvidSource,
    serial: Serial,
    protocol: Protocol,
    trust: TrustSource,
    snapshots: watch::Sender<Arc<Snapshot>>,
    metrics: Arc<Metrics>,
}

struct Parts {
    service: ServiceName,
    svid: Svid,
    inbound: Option<std::net::TcpListener>,
    locals: BTreeMap<PortName, LocalTarget>,
    upstreams: Vec<(UpstreamSpec, UpstreamListener)>,
    rules: Vec<Intention>,
    told: HashMap<ServiceName, Upstream>,
    limits: Limits,
}

impl Mesh {
    /// A mesh as it is unless told otherwise.
    pub fn new() -> Self {
        Self::over(Carried::default())
    }

    pub fn over(carried: Carried) -> Self {
        let trust_domain: TrustDomain = "mesh.example".parse().expect("trust domain");
        let datacenter: Datacenter = "dc1".parse().expect("datacenter");
        // An hour old, so that it may have issued certificates that are not new any more.
        let authority = Authority::create(&trust_domain, &datacenter, SystemTime::now() - HOUR).expect("authority");
        Self {
            authority,
            trust_domain,
            datacenter,
            sequence: AtomicU64::new(1),
            carried,
            protocol: Protocol::Tcp,
            settings: settings(),
        }
    }

    /// A certificate that is new.
    pub fn svid(&self, service: &str, ttl: Duration) -> Svid {
        self.svid_issued(service, ttl, Duration::ZERO)
    }

    /// A certificate that was issued so long ago.
    pub fn svid_issued(&self, service: &str, ttl: Duration, ago: Duration) -> Svid {
        let key = PrivateKey::generate().expect("key");
        let id = Subject::Service(service.parse().expect("service"));
        let request = Request { csr_der: &key.csr_der(), id, ports: &[], ttl, now: SystemTime::now() - ago };
        let issued = self.authority.issue(request).expect("issue");
        Svid::new(issued.chain, key).expect("svid")
    }

    fn trust(&self, revoked: HashSet<Serial>) -> Arc<Trust> {
        Arc::new(Trust { bundle: self.authority.bundle(), datacenter: self.datacenter.clone(), revoked })
    }

    fn snapshot(&self, trust: Arc<Trust>, rules: Vec<Intention>, upstreams: HashMap<ServiceName, Upstream>) -> Arc<Snapshot> {
        let entries = rules
            .into_iter()
            .zip(1..)
            .map(|(intention, revision)| Entry { revision, content: EntryContent::Understood(Arc::new(intention)) });
        Arc::new(Snapshot {
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            position: Positions::default(),
            trust,
            rules: Arc::new(RuleSet::compile(DefaultPolicy::Deny, entries)),
            protocol: self.protocol,
            own_settings: Arc::new(self.settings.clone()),
            jwt: Arc::new([]),
            upstreams,
        })
    }

    /// A service with one port.
    pub async fn destination(&self, service: &str, local: SocketAddr, rules: Vec<Intention>) -> Side {
        self.destination_with(service, local, rules, Limits::default()).await
    }

    pub async fn destination_with(&self, service: &str, local: SocketAddr, rules: Vec<Intention>, limits: Limits) -> Side {
        self.destination_at(service, &[("main", LocalTarget::Socket(local))], rules, limits).await
    }

    pub async fn destination_at(
        &self,
        service: &str,
        locals: &[(&str, LocalTarget)],
        rules: Vec<Intention>,
        limits: Limits,
    ) -> Side {
        let svid = self.svid(service, HOUR);
        self.listening(service, svid, locals, rules, limits).await
    }

    /// A service with one port and this certificate.
    pub async fn destination_holding(&self, svid: Svid, service: &str, local: SocketAddr, rules: Vec<Intention>) -> Side {
        self.listening(service, svid, &[("main", LocalTarget::Socket(local))], rules, Limits::default()).await
    }

    /// A service that calls itself, through its own sidecar.
    pub async fn calling_itself(&self, service: &str, local: SocketAddr) -> Side {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        self.start(Parts {
            service: service.parse().expect("service"),
            svid: self.svid(service, HOUR),
            inbound: Some(std::net::TcpListener::bind("127.0.0.1:0").expect("bind")),
            locals: BTreeMap::from([(PortName::main(), LocalTarget::Socket(local))]),
            upstreams: vec![(service.parse().expect("upstream"), UpstreamListener::Tcp(listener))],
            rules: vec![intention("*", service, ALLOW)],
            told: HashMap::new(),
            limits: Limits::default(),
        })
        .await
    }

    /// A service that calls `upstream` at `addresses`, with these limits.
    pub async fn caller_within(&self, limits: Limits, service: &str, upstream: &str, instances: &[(&str, SocketAddr)]) -> Side {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        self.start(Parts {
            service: service.parse().expect("service"),
            svid: self.svid(service, HOUR),
            inbound: None,
            locals: BTreeMap::new(),
            upstreams: vec![(upstream.parse().expect("upstream"), UpstreamListener::Tcp(listener))],
            rules: Vec::new(),
            told: self.told_of(service, upstream, instances, true),
            limits,
        })
        .await
    }

    /// A sidecar that answers for `service`, with the certificate of another one.
    pub async fn impostor(&self, service: &str, certified: &str, local: SocketAddr) -> Side {
        let svid = self.svid(certified, HOUR);
        let rules = vec![intention("*", service, ALLOW)];
        self.listening(service, svid, &[("main", LocalTarget::Socket(local))], rules, Limits::default()).await
    }

    async fn listening(
        &self,
        service: &str,
        svid: Svid,
        locals: &[(&str, LocalTarget)],
        rules: Vec<Intention>,
        limits: Limits,
    ) -> Side {
        let inbound = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        self.start(Parts {
            service: service.parse().expect("service"),
            svid,
            inbound: Some(inbound),
            locals: locals.iter().map(|(port, target)| (port.parse().expect("port"), target.clone())).collect(),
            upstreams: Vec::new(),
            rules,
            told: HashMap::new(),
            limits,
        })
        .await
    }

    /// A service that calls `upstream` at `at`; `allowed` is what the control plane told it of the pair.
    pub async fn caller(&self, service: &str, upstream: &str, at: &Side, allowed: bool) -> Side {
        let svid = self.svid(service, HOUR);
        self.calling(service, svid, upstream, at, allowed, None).await
    }

    /// The same with this certificate.
    pub async fn caller_holding(&self, svid: Svid, service: &str, upstream: &str, at: &Side) -> Side {
        self.calling(service, svid, upstream, at, true, None).await
    }

    /// The same with a certificate of this lifetime.
    pub async fn caller_for(&self, service: &str, upstream: &str, at: &Side, ttl: Duration) -> Side {
        let svid = self.svid(service, ttl);
        self.calling(service, svid, upstream, at, true, None).await
    }

    pub async fn unix_caller(&self, service: &str, upstream: &str, at: &Side, path: &Path) -> Side {
        let svid = self.svid(service, HOUR);
        self.calling(service, svid, upstream, at, true, Some(path)).await
    }

    async fn calling(&self, service: &str, svid: Svid, upstream: &str, at: &Side, allowed: bool, unix: Option<&Path>) -> Side {
        let listener = match unix {
            None => UpstreamListener::Tcp(std::net::TcpListener::bind("127.0.0.1:0").expect("bind")),
            Some(path) => UpstreamListener::Unix(path.to_owned(), std::os::unix::net::UnixListener::bind(path).expect("bind")),
        };
        let told = self.told_of(service, upstream, &[("api-1", at.inbound)], allowed);
        self.start(Parts {
            service: service.parse().expect("service"),
            svid,
            inbound: None,
            locals: BTreeMap::new(),
            upstreams: vec![(upstream.parse().expect("upstream"), listener)],
            rules: Vec::new(),
            told,
            limits: Limits::default(),
        })
        .await
    }

    async fn start(&self, parts: Parts) -> Side {
        let nowhere = NOWHERE;
        let inbound = parts.inbound.as_ref().map_or(nowhere, |listener| listener.local_addr().expect("address"));
        let upstream = match parts.upstreams.first() {
            Some((_, UpstreamListener::Tcp(listener))) => listener.local_addr().expect("address"),
            _ => nowhere,
        };
        let trust = self.trust(HashSet::new());
        let trust_source: TrustSource = Arc::new(ArcSwap::new(trust.clone()));
        let (snapshots, receiver) = watch::channel(self.snapshot(trust, parts.rules, parts.told));
        let serial = *parts.svid.serial();
        let svid: SvidSource = Arc::new(SvidSlot::new(Arc::new(parts.svid)));
        let metrics = Metrics::new().expect("metrics");
        let service = parts.service.clone();
        let plane = Plane::start(DataPlaneConfig {
            locality: String::new(),
            instance: format!("{}-1", parts.service).parse().expect("instance"),
            service: parts.service,
            trust_domain: self.trust_domain.clone(),
            svid: svid.clone(),
            trust: trust_source.clone(),
            snapshots: receiver,
            clock: Arc::new(Clock::new()),
            inbound: parts.inbound,
            locals: parts.locals,
            upstreams: parts.upstreams,
            transport: self.carried.transport,
            record_layer: self.carried.record_layer,
            limits: parts.limits,
            access_log: AccessLog::new(LogMode::All, Percent::ALL, Sink::default()),
            spans: None,
            metrics: metrics.clone(),
        })
        .await;
        let protocol = self.protocol;
        Side { plane, inbound, upstream, service, svid, serial, protocol, trust: trust_source, snapshots, metrics }
    }

    fn told_of(
        &self,
        service: &str,
        upstream: &str,
        endpoints: &[(&str, SocketAddr)],
        allowed: bool,
    ) -> HashMap<ServiceName, Upstream> {
        let endpoints = endpoints
            .iter()
            .map(|(instance, address)| Endpoint {
                instance: instance.parse().expect("instance"),
                address: address.to_string(),
                ports: vec![PortName::main()],
                transports: vec!["direct".to_owned(), "tunnel".to_owned()],
                locality: String::new(),
                meta: Arc::default(),
                weight: 1,
            })
            .collect();
        let because = format!("intention {service} -> {upstream} ({})", if allowed { "allow" } else { "deny" });
        let verdict = PairVerdict { allowed, would_deny: false, because, until: None };
        let name: ServiceName = upstream.parse().expect("upstream");
        let settings = Arc::new(ServiceSettings { service: name.clone(), ..self.settings.clone() });
        HashMap::from([(name, Upstream { protocol: self.protocol, verdict, endpoints, settings })])
    }

    /// A TLS handshake as `service`, asking for `name`.
    pub async fn shake_hands<S>(&self, service: &str, name: &str, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.shake_hands_trusting(self, service, name, socket).await
    }

    /// The same with a certificate of this mesh, towards a server of another.
    pub async fn shake_hands_trusting<S>(&self, other: &Mesh, service: &str, name: &str, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let svid = SvidSlot::new(Arc::new(self.svid(service, HOUR)));
        connect(other, svid, name, socket).await
    }

    /// What a client that is `service` shakes hands by.
    pub fn client_config(&self, service: &str) -> Arc<rustls::ClientConfig> {
        let trust: TrustSource = Arc::new(ArcSwap::new(self.trust(HashSet::new())));
        let svid = SvidSlot::new(Arc::new(self.svid(service, HOUR)));
        client_config(Arc::new(svid), SvidVerifier::new(trust, Expected::AnyService), &[])
    }

    pub async fn shake_hands_without_certificate<S>(&self, name: &str, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        connect(self, SvidSlot::empty(), name, socket).await
    }
}

async fn connect<S>(server: &Mesh, svid: SvidSlot, name: &str, socket: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let trust: TrustSource = Arc::new(ArcSwap::new(server.trust(HashSet::new())));
    let config = client_config(Arc::new(svid), SvidVerifier::new(trust, Expected::AnyService), &[]);
    let name = ServerName::try_from(name.to_owned()).expect("name");
    TlsConnector::from(config).connect(name, socket).await
}

impl Side {
    /// Publishes a snapshot with these rules; gives its sequence number.
    pub fn publish(&self, mesh: &Mesh, rules: Vec<Intention>) -> u64 {
        self.put(mesh.snapshot(self.trust.load_full(), rules, HashMap::new()))
    }

    /// Publishes a snapshot in which the first certificate of `peer` is revoked.
    pub fn revoke(&self, mesh: &Mesh, peer: &Side, rules: Vec<Intention>) -> u64 {
        self.revoke_serial(mesh, peer.serial, rules)
    }

    /// Publishes a snapshot in which this certificate is revoked.
    pub fn revoke_serial(&self, mesh: &Mesh, serial: Serial, rules: Vec<Intention>) -> u64 {
        self.put(mesh.snapshot(mesh.trust(HashSet::from([serial])), rules, HashMap::new()))
    }

    /// Waits until every open connection was judged by this snapshot.
    pub async fn enforces(&self, sequence: u64) {
        let mut enforced = self.plane.enforced();
        let judged = tokio::time::timeout(PATIENCE, enforced.wait_for(|enforced| *enforced >= sequence)).await;
        judged.expect("judged in time").expect("a data plane that judges");
    }

    /// Renews its certificate, and gives the serial of the new one.
    pub fn renew(&self, mesh: &Mesh, ttl: Duration) -> Serial {
        let svid = mesh.svid(self.service.as_str(), ttl);
        let serial = *svid.serial();
        self.svid.store(Arc::new(svid));
        serial
    }

    /// No snapshot comes any more.
    pub fn publish_nothing_more(&mut self) {
        let last = self.snapshots.borrow().clone();
        self.snapshots = watch::channel(last).0;
    }

    /// Publishes a snapshot that trusts the roots of `mesh` and no other.
    pub fn trust_only(&self, mesh: &Mesh, rules: Vec<Intention>) -> u64 {
        self.put(mesh.snapshot(mesh.trust(HashSet::new()), rules, HashMap::new()))
    }

    pub fn publish_endpoints(&self, mesh: &Mesh, upstream: &str, endpoints: &[(&str, SocketAddr)]) -> u64 {
        self.publish_endpoints_with(mesh, upstream, endpoints, Vec::new())
    }

    pub fn publish_endpoints_with(
        &self,
        mesh: &Mesh,
        upstream: &str,
        endpoints: &[(&str, SocketAddr)],
        rules: Vec<Intention>,
    ) -> u64 {
        let told = mesh.told_of(self.service.as_str(), upstream, endpoints, true);
        self.put(mesh.snapshot(self.trust.load_full(), rules, told))
    }

    fn put(&self, snapshot: Arc<Snapshot>) -> u64 {
        assert_eq!(snapshot.protocol, self.protocol);
        let sequence = snapshot.sequence;
        self.trust.store(snapshot.trust.clone());
        self.snapshots.send_replace(snapshot);
        sequence
    }

    /// What is told of the calls that it sees from now on, to a control plane that was told nothing yet.
    pub fn reports(&self) -> Reports {
        let mut reports = Reports::new(self.plane.shared.sightings(), self.metrics.clone());
        reports.begin_stream();
        reports
    }

    /// All metrics as text.
    pub fn metrics(&self) -> String {
        self.metrics.encode().expect("metrics")
    }

    /// The sum of the series of a metric whose line has this text.
    pub fn sum(&self, name: &str, text: &str) -> f64 {
        let metrics = self.metrics();
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(text));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until the metrics have this text.
    pub async fn counts(&self, text: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            if self.metrics.encode().expect("metrics").contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{text} is not in\n{}", self.metrics.encode().expect("metrics"));
    }
}
