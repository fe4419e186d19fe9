//! The part of a sidecar that carries traffic: its listeners, its open connections, and the task that judges them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use postern_ca::{SpiffeId, SvidSource, TrustSource};
use postern_names::{InstanceId, PortName, ServiceName, TrustDomain};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::connections::{Connections, Cut, keep_judging};
use crate::http::inbound::{HttpInbound, Locals};
use crate::http::instances::Instances;
use crate::http::mirror::MOST as MOST_MIRRORS;
use crate::http::outbound::HttpOutbound;
use crate::http::own::OwnService;
use crate::http::pool::PoolContext;
use crate::http::serve::Server;
use crate::inbound::Inbound;
use crate::limits::Admission;
use crate::outbound::Outbound;
use crate::sightings::{Counter, Sightings};
use crate::snapshot::SnapshotSource;
use crate::spans::SpanSink;
use crate::transport::accept::Acceptor;
use crate::transport::dial::{Dialler, DiallerContext};
use crate::transport::tunnel::{Budgets, PeerTunnels, TunnelLimits, Tunnels};
use crate::upstreams::Upstreams;

pub use crate::access_log::{AccessLog, LineFormat, LogMode, Sink};
pub use crate::limits::Limits;
pub use crate::local::LocalTarget;
pub use crate::metrics::Metrics;
pub use crate::outbound::{UpstreamListener, UpstreamSpec};
pub use crate::transport::{RecordLayerKind, TransportMode};

/// How often series of peers that are gone are looked for.
const FORGETTING: Duration = Duration::from_secs(60);
/// How often buffers that nobody needs are looked for.
const TRIMMING: Duration = Duration::from_secs(10);
/// How long connections that were told to close at the end of a drain may take to do so.
const CLOSING: Duration = Duration::from_secs(1);

/// All that a data plane needs.
pub struct DataPlaneConfig {
    /// The service beside this sidecar.
    pub service: ServiceName,
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// This copy of the service.
    pub instance: InstanceId,
    /// Where it runs, REGION[/ZONE]; empty: not told.
    pub locality: String,
    /// The current SVID.
    pub svid: SvidSource,
    /// What is trusted now. It is replaced before the snapshot that has it is published.
    pub trust: TrustSource,
    /// The snapshots to enforce.
    pub snapshots: SnapshotSource,
    /// The time that everything expires by.
    pub clock: Arc<Clock>,
    /// Where other services connect; none for an instance that only calls.
    pub inbound: Option<std::net::TcpListener>,
    /// Where the service listens, by port.
    pub locals: BTreeMap<PortName, LocalTarget>,
    /// Where the service finds those that it calls.
    pub upstreams: Vec<(UpstreamSpec, UpstreamListener)>,
    /// How other instances are dialled, and whether tunnels are accepted.
    pub transport: TransportMode,
    /// What seals and opens records.
    pub record_layer: RecordLayerKind,
    /// How much of everything is served.
    pub limits: Limits,
    /// Where connections are logged.
    pub access_log: AccessLog,
    /// Where spans of requests go.
    pub spans: Option<SpanSink>,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
}

/// A data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// A listener that was handed over cannot be used.
    #[error("cannot use the listener of {what}: {error}")]
    Listener {
        /// Which one.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// The TLS server name of an upstream would be longer than DNS allows.
    #[error("the upstream {0} has no valid TLS server name under this trust domain; its names are too long together")]
    ServerName(UpstreamSpec),
}

/// What the workers of one sidecar share: limits hold for all of them together.
#[derive(Clone)]
pub struct Shared {
    connections: Arc<Connections>,
    admission: Arc<Admission>,
    upstreams: Arc<Upstreams>,
    own: Arc<OwnService>,
    peer_tunnels: Arc<PeerTunnels>,
    budgets: Arc<Budgets>,
    sightings: Arc<Sightings>,
}

impl Shared {
    /// For workers with this configuration.
    pub fn new(config: &DataPlaneConfig) -> Self {
        let limits = &config.limits;
        let connections = Connections::new(config.service.clone(), limits.max_connections, limits.max_connections_per_peer);
        Self {
            sightings: Sightings::new(config.service.clone(), connections.clone(), limits.counts_calls),
            connections,
            admission: Admission::new(limits),
            upstreams: Upstreams::new(config.instance.clone(), config.locality.clone()),
            own: Arc::default(),
            peer_tunnels: PeerTunnels::new(limits.tunnels_per_address),
            budgets: Budgets::new(limits.unread, limits.unread_per_peer),
        }
    }

    /// Connections that are open now, both directions.
    pub fn open_connections(&self) -> usize {
        self.connections.open()
    }

    /// What all workers saw of calls.
    pub fn sightings(&self) -> Arc<Sightings> {
        self.sightings.clone()
    }

    /// Where their number can be read at any time.
    pub fn open_counter(&self) -> Arc<AtomicUsize> {
        self.connections.open_counter()
    }

    /// Where can be read at any time how much snapshots have closed.
    pub fn cut(&self) -> Arc<Cut> {
        self.connections.cut()
    }

    /// Judges every open connection again at each snapshot, whichever worker has it, and tells the sequence number of the
    /// newest snapshot by which all were judged. Runs until it is dropped.
    pub async fn keep_judging(self, snapshots: SnapshotSource, clock: Arc<Clock>, enforced: watch::Sender<u64>) {
        tokio::join!(keep_judging(self.connections, snapshots, clock, enforced), self.upstreams.keep_judging());
    }
}

impl DataPlaneConfig {
    /// The same for another worker, which accepts from the same listeners.
    ///
    /// # Errors
    /// When the system gives no more file descriptors.
    pub fn for_another_worker(&self) -> io::Result<Self> {
        let upstreams = self.upstreams.iter().map(|(upstream, listener)| Ok((upstream.clone(), listener.try_clone()?)));
        Ok(Self {
            service: self.service.clone(),
            trust_domain: self.trust_domain.clone(),
            instance: self.instance.clone(),
            locality: self.locality.clone(),
            svid: self.svid.clone(),
            trust: self.trust.clone(),
            snapshots: self.snapshots.clone(),
            clock: self.clock.clone(),
            inbound: self.inbound.as_ref().map(std::net::TcpListener::try_clone).transpose()?,
            locals: self.locals.clone(),
            upstreams: upstreams.collect::<io::Result<_>>()?,
            transport: self.transport,
            record_layer: self.record_layer,
            limits: self.limits.clone(),
            access_log: self.access_log.clone(),
            spans: self.spans.clone(),
            metrics: self.metrics.clone(),
        })
    }
}

/// A running data plane. Dropping it ends everything at once; [`DataPlane::drain`] ends it in order.
pub struct DataPlane {
    stopping: CancellationToken,
    shared: Shared,
    listeners: JoinSet<()>,
    tunnels: Arc<Tunnels>,
    // Dropped with the data plane, which ends its tasks.
    _upkeep: JoinSet<()>,
}

impl DataPlane {
    /// Starts to serve, on the current tokio runtime, which has one thread: buffers and tunnels belong to it. Connections
    /// are judged by [`Shared::keep_judging`], which runs once for all workers.
    ///
    /// # Errors
    /// When a listener cannot be used or an upstream has no valid server name; nothing is left running.
    pub async fn start(config: DataPlaneConfig, shared: Shared) -> Result<Self, DataPlaneError> {
        let stopping = CancellationToken::new();
        let mut upkeep = JoinSet::new();
        upkeep.spawn(trim_buffers());
        let http_limits = Arc::new(config.limits.http.clone());
        let pools = PoolContext { limits: http_limits.clone(), tasks: TaskTracker::new() };
        let server = Server { limits: http_limits, stopping: stopping.clone(), tasks: pools.tasks.clone() };
        let tunnels = Tunnels::new(
            config.limits.tunnels_per_instance,
            config.limits.tunnel_idle,
            config.snapshots.clone(),
            stopping.clone(),
            config.metrics.clone(),
        );
        let mut listeners = JoinSet::new();
        let seen = shared.sightings.counter();
        let parts = Parts { shared: &shared, tunnels: &tunnels, stopping: &stopping, server, pools, seen };
        spawn_listeners(config, &parts, &mut listeners, &mut upkeep)?;
        Ok(Self { stopping, shared, listeners, tunnels, _upkeep: upkeep })
    }

    /// Accepts no more, lets open connections end by themselves for `deadline`, and then closes what is left.
    pub async fn drain(mut self, deadline: Duration) {
        self.stopping.cancel();
        let until = Instant::now() + deadline;
        if tokio::time::timeout_at(until, self.all_over()).await.is_ok() {
            return;
        }
        tracing::info!(connections = self.shared.open_connections(), "closing the connections that are still open");
        self.shared.connections.close_all();
        if tokio::time::timeout(CLOSING, self.all_over()).await.is_err() {
            self.listeners.shutdown().await;
        }
    }

    async fn all_over(&mut self) {
        all_ended(&mut self.listeners).await;
        self.tunnels.ended().await;
    }
}

/// What is looked after once for all workers: the log tells what it left out, series of peers that are gone are forgotten.
pub async fn keep_house(log: AccessLog, metrics: Arc<Metrics>) {
    tokio::join!(log.tell_left_out(), forget_peers(metrics));
}

async fn all_ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// What the listeners of one worker have in common.
struct Parts<'a> {
    shared: &'a Shared,
    tunnels: &'a Arc<Tunnels>,
    stopping: &'a CancellationToken,
    server: Server,
    pools: PoolContext,
    seen: Arc<Counter>,
}

fn spawn_listeners(
    config: DataPlaneConfig,
    parts: &Parts<'_>,
    listeners: &mut JoinSet<()>,
    upkeep: &mut JoinSet<()>,
) -> Result<(), DataPlaneError> {
    let Parts { shared, tunnels, stopping, server, pools, seen } = parts;
    let tunnel_limits = TunnelLimits::default();
    let dialling = Arc::new(DiallerContext {
        trust_domain: config.trust_domain.clone(),
        svid: config.svid.clone(),
        trust: config.trust.clone(),
        clock: config.clock.clone(),
        limits: config.limits.clone(),
        tunnel_limits,
        mode: config.transport,
        record_layer: config.record_layer,
        metrics: config.metrics.clone(),
        tunnels: (*tunnels).clone(),
        budgets: shared.budgets.clone(),
    });
    let instances = Instances::new(
        dialling.clone(),
        shared.connections.clone(),
        config.snapshots.clone(),
        config.clock.clone(),
        config.metrics.clone(),
        pools.clone(),
    );
    let mirrors = Arc::new(Semaphore::new(MOST_MIRRORS));
    let trimmed = instances.clone();
    upkeep.spawn(trim(move || trimmed.trim()));
    for (upstream, listener) in config.upstreams {
        let dialler = Dialler::new(dialling.clone(), &upstream.service, &upstream.port)
            .map_err(|_| DataPlaneError::ServerName(upstream.clone()))?;
        let unusable = |error| DataPlaneError::Listener { what: format!("the upstream {upstream}"), error };
        let outbound = Arc::new(Outbound {
            service: config.service.clone(),
            upstream: upstream.clone(),
            dialler,
            upstreams: shared.upstreams.clone(),
            connections: shared.connections.clone(),
            snapshots: config.snapshots.clone(),
            clock: config.clock.clone(),
            limits: config.limits.clone(),
            log: config.access_log.clone(),
            spans: config.spans.clone(),
            metrics: config.metrics.clone(),
            seen: seen.clone(),
            stopping: (*stopping).clone(),
            http: HttpOutbound { server: server.clone(), instances: instances.clone(), mirrors: mirrors.clone() },
        });
        match listener {
            UpstreamListener::Tcp(listener) => listeners.spawn(outbound.serve_tcp(tcp(listener).map_err(unusable)?)),
            UpstreamListener::Unix(path, listener) => {
                listener.set_nonblocking(true).map_err(unusable)?;
                listeners.spawn(outbound.serve_unix(path, UnixListener::from_std(listener).map_err(unusable)?))
            }
        };
    }
    if let Some(listener) = config.inbound {
        let listener = tcp(listener).map_err(|error| DataPlaneError::Listener { what: "other services".to_owned(), error })?;
        let http = Arc::new(HttpInbound {
            service: config.service.clone(),
            instance: config.instance.clone(),
            id: SpiffeId::service(&config.trust_domain, &config.trust.load().datacenter, &config.service),
            connections: shared.connections.clone(),
            snapshots: config.snapshots.clone(),
            clock: config.clock.clone(),
            log: config.access_log.clone(),
            spans: config.spans.clone(),
            metrics: config.metrics.clone(),
            seen: seen.clone(),
            server: Server { limits: Arc::new(server.limits.with_room_for_a_sidecar()), ..server.clone() },
            locals: Locals::new(config.locals.clone(), config.limits.local_dial, pools.clone()),
            own: shared.own.clone(),
            tokens: Mutex::default(),
        });
        let trimmed = http.clone();
        upkeep.spawn(trim(move || trimmed.locals.trim()));
        let inbound = Arc::new(Inbound {
            http,
            acceptor: Acceptor::new(config.service.clone(), &dialling),
            tunnels: shared.peer_tunnels.clone(),
            service: config.service,
            instance: config.instance,
            admission: shared.admission.clone(),
            locals: config.locals,
            connections: shared.connections.clone(),
            snapshots: config.snapshots,
            clock: config.clock,
            limits: config.limits,
            log: config.access_log,
            metrics: config.metrics,
            seen: seen.clone(),
            stopping: (*stopping).clone(),
        });
        listeners.spawn(inbound.serve(listener));
    }
    Ok(())
}

fn tcp(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Gives buffers that a burst has left back to the system. Asleep while there are none would be cheaper only on paper: it
/// is one wake-up in ten seconds.
async fn trim_buffers() {
    trim(crate::transport::buffers::trim).await;
}

async fn trim(mut trim: impl FnMut() + Send) {
    let mut ticks = tokio::time::interval(TRIMMING);
    loop {
        ticks.tick().await;
        trim();
    }
}

async fn forget_peers(metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(FORGETTING);
    loop {
        ticks.tick().await;
        metrics.forget_unseen();
    }
}
