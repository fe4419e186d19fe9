//! What time does to open connections whose peers are renewed, or are not.

use std::time::Instant;

use postern_ca::{Authority, Peer, Serial, SpiffeId, Trust};
use postern_intentions::{DefaultPolicy, Entry, EntryContent, Protocol, RuleSet};
use tokio::task::JoinSet;

use super::*;
use crate::snapshot::Positions;

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    trust: Arc<Trust>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    connections: Arc<Connections>,
    clock: Arc<Clock>,
    _judging: JoinSet<()>,
}

impl World {
    fn new() -> Self {
        let (domain, datacenter) = ("mesh.example".parse().expect("domain"), "dc1".parse().expect("datacenter"));
        let authority = Authority::create(&domain, &datacenter, SystemTime::now()).expect("authority");
        let trust = Arc::new(Trust { bundle: authority.bundle(), datacenter, revoked: Default::default() });
        let (snapshots, source) = watch::channel(snapshot(1, trust.clone()));
        let connections = Connections::new(name("web"), 100, 100);
        let clock = Arc::new(Clock::new());
        let mut judging = JoinSet::new();
        judging.spawn(keep_judging(connections.clone(), source, clock.clone(), watch::channel(0).0));
        Self { trust, snapshots, connections, clock, _judging: judging }
    }

    fn peer(&self, lives: Duration) -> Peer {
        let now = SystemTime::now();
        Peer {
            id: SpiffeId::service(&self.trust.bundle.trust_domain, &self.trust.datacenter, &name("api")),
            service: Some(name("api")),
            serial: Serial::random().expect("serial"),
            root: self.trust.bundle.spki_pins()[0],
            not_before: now,
            not_after: now + lives,
        }
    }

    fn enter(&self, peer: &PeerIdentity) -> Registered {
        let judgeable = Judgeable {
            what: What::Connection,
            direction: Direction::Outbound,
            peer: peer.clone(),
            service: name("api"),
            port: PortName::main(),
        };
        self.connections.register(judgeable).expect("room")
    }
}

fn name(text: &str) -> ServiceName {
    text.parse().expect("name")
}

fn snapshot(sequence: u64, trust: Arc<Trust>) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        sequence,
        position: Positions::default(),
        trust,
        rules: Arc::new(RuleSet::compile(DefaultPolicy::Deny, [])),
        protocol: Protocol::Tcp,
        own_settings: Arc::new(postern_traffic::ServiceSettings::of("api".parse().expect("service"))),
        jwt: Arc::new([]),
        upstreams: HashMap::new(),
    })
}

async fn ends(registered: &mut Registered) -> Closed {
    tokio::time::timeout(PATIENCE, registered.closed()).await.expect("closed in time")
}

#[tokio::test]
async fn a_connection_ends_with_the_newest_certificate_of_its_peer_and_not_before() {
    let world = World::new();
    let begun = Instant::now();
    let (first, second) = (Duration::from_millis(500), Duration::from_millis(1_500));
    let renewed = PeerIdentity::new(world.peer(first));
    let mut goes_on = world.enter(&renewed);
    let mut expires = world.enter(&PeerIdentity::new(world.peer(first)));
    renewed.renew(world.peer(second), SystemTime::now());

    assert_eq!(ends(&mut expires).await, Closed::Untrusted("expired"));
    drop(expires);
    assert_eq!(ends(&mut goes_on).await, Closed::Untrusted("expired"));

    assert!(begun.elapsed() >= second, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_first_certificate_ends_nothing_when_the_next_one_lives_for_long() {
    let world = World::new();
    let renewed = PeerIdentity::new(world.peer(Duration::from_millis(300)));
    let mut goes_on = world.enter(&renewed);
    renewed.renew(world.peer(Duration::from_secs(3_600)), SystemTime::now());

    // Another one that expires later tells when the moment of the first has passed.
    let mut later = world.enter(&PeerIdentity::new(world.peer(Duration::from_millis(800))));
    assert_eq!(ends(&mut later).await, Closed::Untrusted("expired"));
    drop(later);

    let is_open = tokio::time::timeout(Duration::from_millis(50), goes_on.closed()).await.is_err();
    assert!(is_open);
    let next = world.connections.earliest_end().expect("it has an end");
    assert!(next > SystemTime::now() + Duration::from_secs(3_000), "the table looks again when that one ends");
}

#[tokio::test]
async fn a_certificate_that_a_peer_had_before_takes_its_connections_along_when_it_is_revoked() {
    let world = World::new();
    let hour = Duration::from_secs(3_600);
    let renewed = PeerIdentity::new(world.peer(hour));
    let before = renewed.current().serial;
    let mut goes = world.enter(&renewed);
    renewed.renew(world.peer(2 * hour), SystemTime::now());

    let trust = Trust { revoked: [before].into(), ..Trust::clone(&world.trust) };
    world.snapshots.send_replace(snapshot(2, Arc::new(trust)));

    assert_eq!(ends(&mut goes).await, Closed::Untrusted("revoked"));
}

#[tokio::test]
async fn what_has_expired_by_the_clock_of_the_control_plane_ends_when_that_is_heard() {
    let world = World::new();
    let hour = Duration::from_secs(3_600);
    let mut expires = world.enter(&PeerIdentity::new(world.peer(hour)));
    let is_open = tokio::time::timeout(Duration::from_millis(50), expires.closed()).await.is_err();
    assert!(is_open);

    world.clock.observe(SystemTime::now() + 2 * hour);

    assert_eq!(ends(&mut expires).await, Closed::Untrusted("expired"));
}

#[tokio::test]
async fn what_expires_still_ends_when_no_snapshot_comes_any_more() {
    let mut world = World::new();
    let mut expires = world.enter(&PeerIdentity::new(world.peer(Duration::from_millis(1_500))));
    world.snapshots = watch::channel(snapshot(1, world.trust.clone())).0;

    assert_eq!(ends(&mut expires).await, Closed::Untrusted("expired"));
}

#[tokio::test]
async fn a_connection_whose_requests_would_have_to_be_judged_is_denied_since_nothing_here_sees_them() {
    let world = World::new();
    let judged = |mode: &str| {
        let text = format!("intentions: [{{source: api, destination: web, mode: {mode}, permissions: [{{action: allow}}]}}]");
        let read = postern_intentions::file::parse(&text, "test.yaml").expect("a file");
        let entry = |intention| Entry { revision: 1, content: EntryContent::Understood(Arc::new(intention)) };
        let rules = RuleSet::compile(DefaultPolicy::Allow, read.intentions.into_iter().map(entry));
        let only = Arc::into_inner(snapshot(1, world.trust.clone())).expect("held by nobody else");
        let snapshot = Snapshot { rules: Arc::new(rules), protocol: Protocol::Http, ..only };
        let peer = PeerIdentity::new(world.peer(PATIENCE));
        let judgeable = Judgeable {
            what: What::Connection,
            direction: Direction::Inbound,
            peer,
            service: name("api"),
            port: PortName::main(),
        };
        let decision = judgeable.decide(&name("web"), &snapshot, SystemTime::now());
        (decision.allowed(), decision.would_deny)
    };
    assert_eq!(judged("enforce"), (false, false));
    assert_eq!(judged("audit"), (true, true));
}
