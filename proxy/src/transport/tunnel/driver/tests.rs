//! Two ends over real sockets, with readers that stop where a test says so.

use std::io::{IoSlice, IoSliceMut};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postern_ca::{Authority, Expected, Peer, PrivateKey, Request, Subject, Svid, SvidSlot, Trust};
use postern_intentions::{DefaultPolicy, Protocol, RuleSet};
use postern_names::PortName;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::super::{Budgets, Machine, StreamId, TunnelLimits};
use super::*;
use crate::snapshot::Positions;
use crate::transport::channel::Channel;
use crate::transport::handshake::{self, ClientConfigs, Established, ServerConfigs};
use crate::transport::peer::PeerIdentity;
use crate::transport::record::RecordLayerKind;

const HOUR: Duration = Duration::from_secs(3_600);
const PATIENCE: Duration = Duration::from_secs(20);
const KIND: RecordLayerKind = RecordLayerKind::InPlace;

struct World {
    authority: Authority,
    trust: TrustSource,
    changes: watch::Sender<Arc<Snapshot>>,
    drivers: JoinSet<End>,
}

/// A tunnel with both of its ends.
struct Tunnel {
    dialler: Arc<Link>,
    acceptor: Arc<Link>,
    /// The streams that the acceptor was given.
    served: Arc<Mutex<Vec<TunnelStream>>>,
}

impl World {
    fn new() -> Self {
        let (domain, datacenter) = ("mesh.example".parse().expect("domain"), "dc1".parse().expect("datacenter"));
        let authority = Authority::create(&domain, &datacenter, SystemTime::now()).expect("authority");
        let trust = Arc::new(Trust { bundle: authority.bundle(), datacenter, revoked: Default::default() });
        let snapshot = Snapshot {
            sequence: 1,
            position: Positions::default(),
            trust: trust.clone(),
            rules: Arc::new(RuleSet::compile(DefaultPolicy::Deny, [])),
            protocol: Protocol::Tcp,
            own_settings: Arc::new(postern_traffic::ServiceSettings::of("api".parse().expect("service"))),
            jwt: Arc::new([]),
            upstreams: Default::default(),
        };
        let changes = watch::channel(Arc::new(snapshot)).0;
        Self { authority, trust: Arc::new(ArcSwap::new(trust)), changes, drivers: JoinSet::new() }
    }

    fn slot(&self, service: &str) -> SvidSource {
        let key = PrivateKey::generate().expect("key");
        let id = Subject::Service(service.parse().expect("service"));
        let request = Request { csr_der: &key.csr_der(), id, ports: &[], ttl: HOUR, now: SystemTime::now() };
        let chain = self.authority.issue(request).expect("issue").chain;
        Arc::new(SvidSlot::new(Arc::new(Svid::new(chain, key).expect("svid"))))
    }

    /// A tunnel from `service` to `api`; `budgets` are those of `api`, and no timer of liveness comes to help.
    async fn tunnel(&mut self, service: &str, budgets: &Arc<Budgets>) -> Tunnel {
        let (web, api) = (self.slot(service), self.slot("api"));
        let verifier = SvidVerifier::new(self.trust.clone(), Expected::AnyService);
        let client = ClientConfigs::new(postern_ca::client_config(web.clone(), verifier.clone(), &[]), web.clone(), KIND);
        let server = ServerConfigs::new(postern_ca::server_config(api.clone(), verifier.clone(), &[]), api.clone(), KIND);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().expect("address")), listener.accept());
        let (config, own_leaf) = client.current().expect("svid");
        let name = ServerName::try_from("api.mesh.example").expect("name");
        let (dialled, accepted) = tokio::join!(
            handshake::connect(dialled.expect("connect"), KIND, config, own_leaf, name),
            handshake::accept(accepted.expect("accept").0, KIND, |_| Ok(server.current().expect("svid"))),
        );
        let (dialler, _) = self.end(Role::Dialler, dialled.expect("handshake"), web, &verifier, &Budgets::new(1 << 30, 1 << 30));
        let (acceptor, served) = self.end(Role::Acceptor, accepted.expect("handshake"), api, &verifier, budgets);
        Tunnel { dialler, acceptor, served }
    }

    fn end(
        &mut self,
        role: Role,
        established: Established,
        svid: SvidSource,
        verifier: &Arc<SvidVerifier>,
        budgets: &Arc<Budgets>,
    ) -> (Arc<Link>, Arc<Mutex<Vec<TunnelStream>>>) {
        let peer = Peer::of(&established.peer_chain, &self.trust.load()).expect("peer");
        let service = peer.service.clone().expect("service");
        let identities = Identities {
            svid,
            trust: self.trust.clone(),
            verifier: verifier.clone(),
            clock: Arc::new(Clock::new()),
            own_leaf: established.own_leaf.clone(),
            peer_leaf: established.peer_chain[0].clone(),
        };
        let limits = TunnelLimits { ping_after: HOUR, ..TunnelLimits::default() };
        let machine = Machine::new(role, limits, std::time::Instant::now());
        let link = Link::new(machine, Channel::of(established), PeerIdentity::new(peer), service, budgets);
        let driver = Driver {
            link: link.clone(),
            role,
            identities,
            changes: self.changes.subscribe(),
            stopping: CancellationToken::new(),
            idle: HOUR,
            metrics: Metrics::new().expect("metrics"),
        };
        let served = Arc::new(Mutex::new(Vec::new()));
        let keep = served.clone();
        self.drivers.spawn(driver.run(move |stream, _| {
            stream.accept();
            keep.lock().push(stream);
        }));
        (link, served)
    }
}

impl Tunnel {
    /// Opens a stream; gives both ends of it.
    async fn open(&self) -> (TunnelStream, TunnelStream) {
        let id = self.dialler.open(&PortName::main(), None).expect("open");
        let stream = TunnelStream::new(self.dialler.clone(), id);
        tokio::time::timeout(PATIENCE, stream.accepted()).await.expect("in time").expect("accepted");
        (stream, self.served.lock().pop().expect("served"))
    }
}

/// Sends until `bytes` are sent, or nothing more goes.
async fn send(stream: &mut TunnelStream, bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        left -= poll_fn(|cx| {
            let mut source = |_: &mut Context<'_>, slots: &mut [IoSliceMut<'_>]| {
                Poll::Ready(Ok(slots.iter().map(|slot| slot.len()).sum::<usize>().min(left)))
            };
            stream.poll_send(cx, &mut source)
        })
        .await
        .map_err(crate::transport::channel::Fault::into_error)
        .expect("send");
    }
}

/// Reads what comes until it is `bytes`.
async fn read(stream: &mut TunnelStream, bytes: usize) {
    let mut left = bytes;
    let reading = async {
        while left > 0 {
            left -= poll_fn(|cx| {
                let mut sink = |_: &mut Context<'_>, slices: &[IoSlice<'_>]| {
                    Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum::<usize>().min(left)))
                };
                stream.poll_recv(cx, &mut sink)
            })
            .await
            .map_err(crate::transport::channel::Fault::into_error)
            .expect("read");
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the bytes come in time");
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// What a stream may have unread in the beginning.
const WINDOW: usize = 64 * 1024;

#[tokio::test]
async fn unread_bytes_of_one_peer_stop_its_credit_and_leave_other_peers_alone() {
    let mut world = World::new();
    let budgets = Budgets::new(1 << 30, 100 * 1024);
    let (first, second) = (world.tunnel("web", &budgets).await, world.tunnel("web", &budgets).await);
    let other = world.tunnel("shop", &budgets).await;
    let (mut one, mut of_one) = first.open().await;
    let (mut two, mut of_two) = second.open().await;
    let (mut third, mut of_third) = other.open().await;
    send(&mut one, WINDOW).await;
    send(&mut two, WINDOW).await;
    eventually("both windows are full", || budgets.held() == 2 * WINDOW).await;

    read(&mut of_two, WINDOW).await;
    send(&mut two, WINDOW).await;
    eventually("128 KiB are unread again", || budgets.held() == 2 * WINDOW).await;
    // Over the budget what is read is not granted again, whoever reads it.
    read(&mut of_two, 10 * 1024).await;
    assert_eq!(second.dialler.may_send(two.id()), 0);
    tokio::join!(send(&mut third, 1 << 20), read(&mut of_third, 1 << 20));

    read(&mut of_one, WINDOW).await;
    tokio::join!(send(&mut two, 1 << 20), read(&mut of_two, WINDOW - 10 * 1024 + (1 << 20)));
    tokio::join!(send(&mut one, 1 << 20), read(&mut of_one, 1 << 20));
    eventually("nothing is held", || budgets.held() == 0).await;
}

#[tokio::test]
async fn unread_bytes_of_all_peers_stop_all_credit_until_they_are_read() {
    let mut world = World::new();
    let budgets = Budgets::new(100 * 1024, 1 << 30);
    let (web, shop) = (world.tunnel("web", &budgets).await, world.tunnel("shop", &budgets).await);
    let (mut one, mut of_one) = web.open().await;
    let (mut two, mut of_two) = web.open().await;
    let (mut other, mut of_other) = shop.open().await;
    send(&mut one, WINDOW).await;
    send(&mut two, WINDOW).await;
    eventually("both windows are full", || budgets.held() == 2 * WINDOW).await;

    // What another peer was granted before it may send; more it is not given, though its reader keeps up.
    send(&mut other, WINDOW).await;
    read(&mut of_other, WINDOW).await;
    assert_eq!(shop.dialler.may_send(other.id()), 0);
    // Not even a new stream is given any, beyond the 16 KiB that need none.
    let (mut late, mut of_late) = web.open().await;
    send(&mut late, 16 * 1024).await;
    read(&mut of_late, 16 * 1024).await;
    assert_eq!(web.dialler.may_send(late.id()), 0);

    // Nothing happens on that tunnel when the others are read: it looks by itself.
    tokio::join!(read(&mut of_one, WINDOW), read(&mut of_two, WINDOW));
    let thawed = tokio::time::timeout(PATIENCE, async { tokio::join!(send(&mut other, 1 << 20), read(&mut of_other, 1 << 20)) });
    thawed.await.expect("credit comes back");
}

#[tokio::test]
async fn what_a_tunnel_held_is_given_back_with_it() {
    let mut world = World::new();
    let budgets = Budgets::new(100 * 1024, 1 << 30);
    let tunnel = world.tunnel("web", &budgets).await;
    let (mut one, of_one) = tunnel.open().await;
    send(&mut one, WINDOW).await;
    eventually("the window is full", || budgets.held() == WINDOW).await;

    tunnel.acceptor.end(End::new("closed", "for a test"));
    drop((one, of_one, tunnel));
    while world.drivers.join_next().await.is_some() {}

    assert_eq!(budgets.held(), 0);
}

#[tokio::test]
async fn bytes_ahead_of_the_acceptance_wait_for_no_turn_that_they_do_not_take() {
    let mut world = World::new();
    let tunnel = world.tunnel("web", &Budgets::new(1 << 30, 1 << 30)).await;
    let (mut bulk, mut of_bulk) = tunnel.open().await;
    let (mut other, mut of_other) = tunnel.open().await;
    while tunnel.dialler.may_send(bulk.id()) < 300 * 1024 {
        tokio::join!(send(&mut bulk, 4 << 20), read(&mut of_bulk, 4 << 20));
    }
    // Nobody drives the socket in between, so that there is no room for more.
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut all = |_: &mut Context<'_>, slots: &mut [IoSliceMut<'_>]| Poll::Ready(Ok(slots.iter().map(|slot| slot.len()).sum()));
    while bulk.poll_send(&mut cx, &mut all).is_ready() {}
    assert!(tunnel.dialler.may_send(bulk.id()) > 0, "stopped for want of room, not of credit");
    tunnel.dialler.forgo_turn(bulk.id());
    let id: StreamId = tunnel.dialler.open(&PortName::main(), None).expect("open");
    let asking = TunnelStream::new(tunnel.dialler.clone(), id);
    assert_eq!(asking.send_ahead(&[0; 1024]).expect("ahead"), 0);

    tokio::join!(send(&mut other, 1 << 20), read(&mut of_other, 1 << 20));
    drop(asking);
}

#[test]
fn the_task_of_a_tunnel_stays_small() {
    fn size_of_run<F, S>(_: fn(Driver, S) -> F) -> usize
    where
        S: FnMut(TunnelStream, Opening),
    {
        size_of::<F>()
    }
    let size = size_of_run(|driver, serve: fn(TunnelStream, Opening)| driver.run(serve));
    assert!((512..=1_600).contains(&size), "{size} bytes");
}
