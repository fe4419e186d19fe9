//! A whole sidecar against a control plane of a few lines: enrolment, snapshot, acknowledgement, restart, renewal, goodbye.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::Stream;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use postern_api::convert;
use postern_api::v1::identity_server::{Identity, IdentityServer};
use postern_api::v1::mesh_server::{Mesh, MeshServer};
use postern_api::v1::{self, control_message, sidecar_message};
use postern_ca::{Authority, EnrolmentToken, Expected, PrivateKey, Subject, Svid, SvidSlot, SvidVerifier, Trust};
use postern_intentions::DefaultPolicy;
use postern_proxy::settings::{Address, Periods, TokenSource};
use postern_proxy::state::StateDir;
use postern_proxy::{Addresses, ProxyError, Settings, Shutdown};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt;

const CLUSTER: &str = "cluster-1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A control plane that says what the test tells it to.
struct Control {
    authority: Arc<Authority>,
    token: EnrolmentToken,
    address: SocketAddr,
    heard: mpsc::Receiver<sidecar_message::Message>,
    task: JoinHandle<()>,
    ends_next: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Service {
    authority: Arc<Authority>,
    token: EnrolmentToken,
    ttl: Duration,
    heard: mpsc::Sender<sidecar_message::Message>,
    /// Is sent after the first acknowledgement.
    afterwards: Option<v1::Delta>,
    understands: &'static [&'static str],
    /// The next stream that tells of calls is ended.
    ends_next: Arc<AtomicBool>,
}

impl Service {
    fn grant(&self, csr: &[u8]) -> Result<Response<v1::IdentityGrant>, Status> {
        let now = SystemTime::now();
        let id = Subject::Service("web".parse().unwrap());
        let request = postern_ca::Request { csr_der: csr, id, ports: &[], ttl: self.ttl, now };
        let issued = self.authority.issue(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(v1::IdentityGrant {
            chain: issued.chain.iter().map(|der| der.to_vec().into()).collect(),
            bundle: Some(convert::bundle_to_wire(&self.authority.bundle())),
            lineage: "lineage-1".into(),
            cluster_id: CLUSTER.into(),
            server_time_ms: convert::millis(now),
        }))
    }
}

#[tonic::async_trait]
impl Identity for Service {
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::IdentityGrant>, Status> {
        let request = request.into_inner();
        if request.token != self.token.reveal() {
            return Err(Status::unauthenticated("the token is not valid"));
        }
        self.grant(&request.csr)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::IdentityGrant>, Status> {
        self.grant(&request.into_inner().csr)
    }
}

#[tonic::async_trait]
impl Mesh for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<v1::ControlMessage, Status>> + Send>>;

    async fn connect(&self, request: Request<Streaming<v1::SidecarMessage>>) -> Result<Response<Self::ConnectStream>, Status> {
        let mut incoming = request.into_inner();
        let (outgoing, messages) = mpsc::channel(16);
        let heard = self.heard.clone();
        let ends_next = self.ends_next.clone();
        let mut afterwards = self.afterwards.clone();
        let welcome = v1::Welcome { understands: self.understands.iter().map(ToString::to_string).collect(), ..welcome() };
        tokio::spawn(async move {
            let say = |message| v1::ControlMessage { message: Some(message) };
            outgoing.send(Ok(say(control_message::Message::Welcome(welcome)))).await.unwrap();
            outgoing.send(Ok(say(control_message::Message::Delta(everything())))).await.unwrap();
            while let Ok(Some(message)) = incoming.message().await {
                let Some(message) = message.message else { continue };
                if matches!(message, sidecar_message::Message::Ack(_))
                    && let Some(delta) = afterwards.take()
                {
                    outgoing.send(Ok(say(control_message::Message::Delta(delta)))).await.unwrap();
                }
                let leaves = matches!(message, sidecar_message::Message::Goodbye(_));
                let ends = matches!(message, sidecar_message::Message::Seen(_)) && ends_next.swap(false, Ordering::SeqCst);
                if heard.send(message).await.is_err() || leaves || ends {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

fn welcome() -> v1::Welcome {
    v1::Welcome {
        cluster_id: CLUSTER.into(),
        version: "0.1.0".into(),
        server_time_ms: convert::millis(SystemTime::now()),
        heartbeat_ms: 100,
        beat_ms: 50,
        silence_ms: 25_000,
        ..Default::default()
    }
}

fn everything() -> v1::Delta {
    let body = convert::default_to_body(DefaultPolicy::Deny).encode_to_vec().into();
    v1::Delta {
        lane: v1::Lane::Authority.into(),
        to: Some(v1::Position { epoch: 1, revision: 9 }),
        complete: true,
        upserts: vec![v1::Resource { key: "default".into(), revision: 1, body }],
        deletes: Vec::new(),
        last: true,
        watch: 0,
    }
}

impl Control {
    async fn start(ttl: Duration) -> Self {
        Self::start_and_send(ttl, None).await
    }

    async fn start_and_send(ttl: Duration, afterwards: Option<v1::Delta>) -> Self {
        Self::start_understanding(ttl, afterwards, &[]).await
    }

    async fn start_understanding(ttl: Duration, afterwards: Option<v1::Delta>, understands: &'static [&'static str]) -> Self {
        let (trust_domain, datacenter) = ("example.com".parse().unwrap(), "dc1".parse().unwrap());
        let authority = Arc::new(Authority::create(&trust_domain, &datacenter, SystemTime::now()).unwrap());
        let token = EnrolmentToken::generate(authority.pin()).unwrap();
        let (heard, hearing) = mpsc::channel(1_024);
        let ends_next = Arc::new(AtomicBool::new(false));
        let service = Service {
            authority: authority.clone(),
            token: token.clone(),
            ttl,
            heard,
            afterwards,
            understands,
            ends_next: ends_next.clone(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = TlsAcceptor::from(tls(&authority, datacenter));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, service) = (tls.clone(), service.clone());
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(socket).await else { return };
                    let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let service = service.clone();
                        async move {
                            match request.uri().path().starts_with("/postern.v1.Identity/") {
                                true => IdentityServer::new(service).oneshot(request).await,
                                false => MeshServer::new(service).oneshot(request).await,
                            }
                        }
                    });
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Self { authority, token, address, heard: hearing, task, ends_next }
    }

    fn settings(&self, directory: &std::path::Path) -> Settings {
        let mut settings = Settings::new("web".parse().unwrap(), directory).unwrap().with_id("web-1".parse().unwrap(), directory);
        settings.token = Some(TokenSource::Text(self.token.reveal().into()));
        settings.control = vec![Address::Tcp { host: "127.0.0.1".into(), port: self.address.port() }];
        settings.admin = Some(Address::Tcp { host: "127.0.0.1".into(), port: 0 });
        settings.drain = Duration::from_secs(1);
        settings.periods = Periods {
            probe: Duration::from_millis(20),
            reconnect_floor: Duration::from_millis(10),
            reconnect_ceiling: Duration::from_millis(50),
            renew_ceiling: Duration::from_millis(100),
            busy: Duration::from_millis(100),
            ..Periods::default()
        };
        settings
    }

    async fn hears<T>(&mut self, what: &str, mut wanted: impl FnMut(sidecar_message::Message) -> Option<T>) -> T {
        let search = async {
            loop {
                let message = self.heard.recv().await.expect("the control plane runs");
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("not heard: {what}"))
    }
}

fn tls(authority: &Authority, datacenter: postern_names::Datacenter) -> Arc<rustls::ServerConfig> {
    let key = PrivateKey::generate().unwrap();
    let (csr, now) = (key.csr_der(), SystemTime::now());
    let ttl = Duration::from_secs(3_600);
    let request = postern_ca::Request { csr_der: &csr, id: Subject::ControlPlane, ports: &[], ttl, now };
    let mut chain = authority.issue(request).unwrap().chain;
    chain.push(authority.root().clone());
    let svid = Arc::new(SvidSlot::new(Arc::new(Svid::new(chain, key).unwrap())));
    let trust = Trust { bundle: authority.bundle(), datacenter, revoked: Default::default() };
    let verifier = SvidVerifier::new(Arc::new(ArcSwap::from_pointee(trust)), Expected::ServiceOrNone).with_grace(PATIENCE);
    postern_ca::server_config(svid, verifier, &[b"h2"])
}

/// A sidecar that runs until it is told to stop.
struct Sidecar {
    addresses: Addresses,
    stop: oneshot::Sender<Shutdown>,
    task: JoinHandle<Result<(), ProxyError>>,
}

impl Sidecar {
    async fn start(settings: Settings) -> Self {
        let (stop, stopping) = oneshot::channel::<Shutdown>();
        let (tell, told) = oneshot::channel();
        let shutdown = async { stopping.await.unwrap_or_else(|_| Shutdown::now("the test ended")) };
        let task = tokio::spawn(postern_proxy::run(settings, shutdown, |addresses| {
            let _ = tell.send(addresses.clone());
        }));
        let addresses = tokio::time::timeout(PATIENCE, told).await.expect("ready in time").expect("ready");
        Self { addresses, stop, task }
    }

    async fn stop(self, reason: &str) {
        self.stop.send(Shutdown::now(reason)).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.expect("stopped in time").unwrap().unwrap();
    }
}

async fn ask(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn run_to_its_end(settings: Settings) -> ProxyError {
    let running = postern_proxy::run(settings, std::future::pending::<Shutdown>(), |_| panic!("it must not become ready"));
    tokio::time::timeout(PATIENCE, running).await.expect("it ends").expect_err("it is refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_enrols_acknowledges_what_is_on_disk_and_restarts_without_the_control_plane() {
    let directory = tempfile::tempdir().unwrap();
    let mut control = Control::start(Duration::from_secs(3_600)).await;
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = control.settings(directory.path());
    settings.listen = Some(Address::Tcp { host: "127.0.0.1".into(), port: 0 });
    settings.locals.insert("main".parse().unwrap(), service.local_addr().unwrap().to_string().parse().unwrap());
    let state_dir = settings.state_dir.clone();

    let sidecar = Sidecar::start(settings.clone()).await;

    let hello = control
        .hears("hello", |message| if let sidecar_message::Message::Hello(hello) = message { Some(hello) } else { None })
        .await;
    let registration = hello.registration.unwrap();
    assert_eq!((registration.instance_id.as_str(), registration.ports), ("web-1", vec!["main".to_owned()]));
    assert_eq!(Some(registration.advertise), sidecar.addresses.inbound);
    let ack =
        control.hears("ack", |message| if let sidecar_message::Message::Ack(ack) = message { Some(ack) } else { None }).await;
    assert_eq!(ack.position, Some(v1::Position { epoch: 1, revision: 9 }));
    assert!(state_dir.join("snapshot").exists(), "acknowledged means on disk");
    control
        .hears("a beat of a service that is well", |message| {
            matches!(message, sidecar_message::Message::Beat(beat) if beat.healthy).then_some(())
        })
        .await;

    let mut admin = tokio::net::TcpStream::connect(&sidecar.addresses.admin).await.unwrap();
    assert!(ask(&mut admin, "/ready").await.starts_with("HTTP/1.1 200"));
    let mut admin = tokio::net::TcpStream::connect(&sidecar.addresses.admin).await.unwrap();
    let metrics = ask(&mut admin, "/metrics").await;
    assert!(metrics.contains("postern_snapshot_revision 9") && metrics.contains("postern_control_connected 1"), "{metrics}");
    let mut private = tokio::net::UnixStream::connect(state_dir.join("admin.sock")).await.unwrap();
    let snapshot = ask(&mut private, "/snapshot").await;
    assert!(snapshot.contains("\"default\": \"deny\"") && snapshot.contains("spiffe://example.com/"), "{snapshot}");

    sidecar.stop("done").await;
    let goodbye = control
        .hears("goodbye", |message| if let sidecar_message::Message::Goodbye(goodbye) = message { Some(goodbye) } else { None })
        .await;
    assert_eq!(goodbye.reason, "done");

    control.task.abort();
    settings.token = None;
    let again = Sidecar::start(settings).await;
    assert!(again.addresses.inbound.is_some());
    again.stop("done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_position_is_refused_counted_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let older = v1::Delta { to: Some(v1::Position { epoch: 1, revision: 8 }), ..everything() };
    let mut control = Control::start_and_send(Duration::from_secs(3_600), Some(older)).await;
    let sidecar = Sidecar::start(control.settings(directory.path())).await;

    // It comes back after the refusal, with what it holds and with what it has to tell.
    let hello = control
        .hears("a second hello", |message| match message {
            sidecar_message::Message::Hello(hello) if !hello.registration.as_ref()?.warnings.is_empty() => Some(hello),
            _ => None,
        })
        .await;
    assert_eq!(hello.authority, Some(v1::Position { epoch: 1, revision: 9 }));
    assert!(hello.registration.unwrap().warnings[0].contains("older"));
    let mut admin = tokio::net::TcpStream::connect(&sidecar.addresses.admin).await.unwrap();
    let metrics = ask(&mut admin, "/metrics").await;
    let counted = metrics.lines().find_map(|line| line.strip_prefix("postern_snapshot_refused_total{reason=\"older\"} "));
    assert!(counted.is_some_and(|count| count.parse::<u64>().unwrap() >= 1), "{metrics}");
    sidecar.stop("done").await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_with_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(Duration::from_secs(3_600)).await;
    let mut settings = control.settings(directory.path());
    let wrong = EnrolmentToken::generate(control.authority.pin()).unwrap();
    settings.token = Some(TokenSource::Text(wrong.reveal().into()));

    let refused = run_to_its_end(settings).await;

    assert!(matches!(refused, ProxyError::TokenRefused(_)) && refused.exit_code() == 2, "{refused}");
}

#[tokio::test]
async fn a_control_plane_that_the_token_does_not_pin_gets_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(Duration::from_secs(3_600)).await;
    let mut settings = control.settings(directory.path());
    let foreign = EnrolmentToken::generate([7; 32]).unwrap();
    settings.token = Some(TokenSource::Text(foreign.reveal().into()));

    let refused = run_to_its_end(settings).await;

    assert!(refused.to_string().contains("not the control plane that made the token"), "{refused}");
}

#[tokio::test]
async fn an_operator_token_is_refused_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::new("web".parse().unwrap(), directory.path()).unwrap();
    settings.admin = Some(Address::Tcp { host: "127.0.0.1".into(), port: 0 });
    settings.control = vec![Address::Tcp { host: "127.0.0.1".into(), port: 1 }];
    let operator = postern_ca::OperatorToken::generate().unwrap();
    settings.token = Some(TokenSource::Text(operator.reveal().into()));

    let refused = run_to_its_end(settings).await;

    assert!(refused.to_string().contains("operator"), "{refused}");
}

#[tokio::test]
async fn without_state_and_without_token_it_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::new("web".parse().unwrap(), directory.path()).unwrap();
    settings.admin = Some(Address::Tcp { host: "127.0.0.1".into(), port: 0 });

    let refused = run_to_its_end(settings).await;

    assert!(refused.to_string().contains("meshctl token create"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_is_renewed_with_a_new_key_before_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(Duration::from_secs(4)).await;
    let settings = control.settings(directory.path());
    let state_dir = settings.state_dir.clone();
    let sidecar = Sidecar::start(settings).await;
    let first = std::fs::read(state_dir.join("svid")).unwrap();

    let renewed = async {
        while std::fs::read(state_dir.join("svid")).unwrap() == first {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.expect("renewed in time");

    let mut admin = tokio::net::TcpStream::connect(&sidecar.addresses.admin).await.unwrap();
    assert!(ask(&mut admin, "/ready").await.starts_with("HTTP/1.1 200"));
    sidecar.stop("done").await;
    let state = StateDir::open(&state_dir, &"web-1".parse().unwrap()).unwrap();
    assert_eq!(state.enrolment().unwrap().unwrap().cluster_id, CLUSTER);
    assert!(!state.path().join(".svid.new").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_that_expired_while_the_sidecar_was_away_is_renewed_and_not_served_before() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(Duration::from_secs(2)).await;
    let mut settings = control.settings(directory.path());
    let state_dir = settings.state_dir.clone();
    Sidecar::start(settings.clone()).await.stop("away").await;
    let not_after = {
        let state = StateDir::open(&state_dir, &"web-1".parse().unwrap()).unwrap();
        state.enrolment().unwrap().unwrap().svid.not_after()
    };
    while SystemTime::now() <= not_after {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    settings.token = None;
    let sidecar = Sidecar::start(settings).await;

    sidecar.stop("done").await;
    let state = StateDir::open(&state_dir, &"web-1".parse().unwrap()).unwrap();
    assert!(state.enrolment().unwrap().unwrap().svid.not_after() > not_after);
}

/// A sidecar whose service has called an upstream that has no instance.
async fn with_a_call_that_fails(control: &Control, directory: &std::path::Path) -> Sidecar {
    let mut settings = control.settings(directory);
    settings.upstreams = vec!["db=127.0.0.1:0".parse().unwrap()];
    settings.periods.report = Duration::from_millis(200);
    let sidecar = Sidecar::start(settings).await;
    fail_to_call(&sidecar).await;
    sidecar
}

async fn fail_to_call(sidecar: &Sidecar) {
    let mut caller = tokio::net::TcpStream::connect(&sidecar.addresses.upstreams["db"]).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, caller.read(&mut [0])).await.expect("an end");
    assert!(!matches!(ended, Ok(1..)), "nothing answers");
}

fn an_upstream() -> v1::Delta {
    let service = v1::ServiceBody { protocol: "tcp".into(), allowed: true, ..Default::default() };
    v1::Delta {
        lane: v1::Lane::Reachability.into(),
        to: Some(v1::Position { epoch: 1, revision: 9 }),
        upserts: vec![v1::Resource { key: "service/db".into(), revision: 2, body: service.encode_to_vec().into() }],
        last: true,
        ..everything()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_is_told_to_a_control_plane_that_understands_it() {
    let directory = tempfile::tempdir().unwrap();
    let understands = &[postern_api::understanding::EDGES];
    let mut control = Control::start_understanding(Duration::from_secs(3_600), Some(an_upstream()), understands).await;
    let sidecar = with_a_call_that_fails(&control, directory.path()).await;

    let (mut edge, mut decision) = (None, None);
    control
        .hears("the edge and the decision", |message| {
            if let sidecar_message::Message::Seen(seen) = message {
                edge = seen.edges.first().cloned().or(edge.take());
                decision = seen.decisions.first().cloned().or(decision.take());
            }
            (edge.is_some() && decision.is_some()).then_some(())
        })
        .await;

    let (edge, decision) = (edge.unwrap(), decision.unwrap());
    assert_eq!((edge.peer.as_str(), edge.outbound, edge.verdict.as_str(), edge.count), ("db", true, "failed", 1));
    assert_eq!((decision.peer.as_str(), decision.because.as_str()), ("db", "no healthy instance is known"));
    sidecar.stop("done").await;
    control.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_of_calls_to_a_control_plane_that_does_not_understand_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut control = Control::start_and_send(Duration::from_secs(3_600), Some(an_upstream())).await;
    let sidecar = with_a_call_that_fails(&control, directory.path()).await;

    let mut beats = 0;
    control
        .hears("many beats", |message| {
            assert!(!matches!(message, sidecar_message::Message::Seen(_)));
            beats += usize::from(matches!(message, sidecar_message::Message::Beat(_)));
            (beats > 60).then_some(())
        })
        .await;

    sidecar.stop("done").await;
    control.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_seen_while_the_stream_is_away_is_told_once_on_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let understands = &[postern_api::understanding::EDGES];
    let mut control = Control::start_understanding(Duration::from_secs(3_600), Some(an_upstream()), understands).await;
    control.ends_next.store(true, Ordering::SeqCst);
    let sidecar = with_a_call_that_fails(&control, directory.path()).await;
    let calls = async { tokio::join!(fail_to_call(&sidecar), fail_to_call(&sidecar), fail_to_call(&sidecar)) };
    calls.await;

    let (mut told, mut streams) = (0, 0);
    control
        .hears("all four calls on two streams", |message| {
            match message {
                sidecar_message::Message::Hello(_) => streams += 1,
                sidecar_message::Message::Seen(seen) => told += seen.edges.iter().map(|edge| edge.count).sum::<u64>(),
                _ => {}
            }
            (told == 4 && streams >= 2).then_some(())
        })
        .await;

    sidecar.stop("done").await;
    control
        .hears("nothing more before the goodbye", |message| match message {
            sidecar_message::Message::Seen(seen) if !seen.edges.is_empty() => panic!("told twice: {seen:?}"),
            sidecar_message::Message::Goodbye(_) => Some(()),
            _ => None,
        })
        .await;
    control.task.abort();
}
