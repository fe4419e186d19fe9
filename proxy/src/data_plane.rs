//! The part of a sidecar that carries traffic: its listeners, its open connections, and the task that judges them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use postern_ca::{SvidSource, TrustSource};
use postern_names::{InstanceId, PortName, ServiceName, TrustDomain};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::balance::Loads;
use crate::clock::Clock;
use crate::connections::{Connections, keep_judging};
use crate::inbound::Inbound;
use crate::outbound::Outbound;
use crate::snapshot::SnapshotSource;
use crate::transport::direct::{DirectAcceptor, DirectDialler};

pub use crate::access_log::{AccessLog, LogMode};
pub use crate::limits::Limits;
pub use crate::local::LocalTarget;
pub use crate::metrics::Metrics;
pub use crate::outbound::{UpstreamListener, UpstreamSpec};

/// How often series of peers that are gone are looked for.
const FORGETTING: Duration = Duration::from_secs(60);
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
    /// How much of everything is served.
    pub limits: Limits,
    /// Where connections are logged.
    pub access_log: AccessLog,
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

/// A running data plane. Dropping it ends everything at once; [`DataPlane::drain`] ends it in order.
pub struct DataPlane {
    stopping: CancellationToken,
    connections: Arc<Connections>,
    enforced: watch::Receiver<u64>,
    listeners: JoinSet<()>,
    // Dropped with the data plane, which ends its tasks.
    _upkeep: JoinSet<()>,
}

impl DataPlane {
    /// Starts to serve, on the current tokio runtime.
    ///
    /// # Errors
    /// When a listener cannot be used or an upstream has no valid server name; nothing is left running.
    pub async fn start(config: DataPlaneConfig) -> Result<Self, DataPlaneError> {
        let connections =
            Connections::new(config.service.clone(), config.limits.max_connections, config.limits.max_connections_per_peer);
        let stopping = CancellationToken::new();
        let (enforced_sender, enforced) = watch::channel(0);
        let mut upkeep = JoinSet::new();
        let judging = keep_judging(connections.clone(), config.snapshots.clone(), config.clock.clone(), enforced_sender);
        upkeep.spawn(judging);
        let log = config.access_log.clone();
        upkeep.spawn(async move { log.tell_left_out().await });
        upkeep.spawn(forget_peers(config.metrics.clone()));
        let mut listeners = JoinSet::new();
        spawn_listeners(config, &connections, &stopping, &mut listeners)?;
        Ok(Self { stopping, connections, enforced, listeners, _upkeep: upkeep })
    }

    /// The sequence number of the newest snapshot by which every open connection was judged.
    pub fn enforced(&self) -> watch::Receiver<u64> {
        self.enforced.clone()
    }

    /// Connections that are open now, both directions.
    pub fn open_connections(&self) -> usize {
        self.connections.open()
    }

    /// Accepts no more, lets open connections end by themselves for `deadline`, and then closes what is left.
    pub async fn drain(mut self, deadline: Duration) {
        self.stopping.cancel();
        let until = Instant::now() + deadline;
        let ended = tokio::time::timeout_at(until, all_ended(&mut self.listeners)).await;
        if ended.is_ok() {
            return;
        }
        tracing::info!(connections = self.connections.open(), "closing the connections that are still open");
        self.connections.close_all();
        if tokio::time::timeout(CLOSING, all_ended(&mut self.listeners)).await.is_err() {
            self.listeners.shutdown().await;
        }
    }
}

async fn all_ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

fn spawn_listeners(
    config: DataPlaneConfig,
    connections: &Arc<Connections>,
    stopping: &CancellationToken,
    listeners: &mut JoinSet<()>,
) -> Result<(), DataPlaneError> {
    let loads = Arc::new(Loads::default());
    for (upstream, listener) in config.upstreams {
        let dialler = DirectDialler::new(
            &upstream.service,
            &upstream.port,
            &config.trust_domain,
            config.svid.clone(),
            config.trust.clone(),
            config.clock.clone(),
        )
        .map_err(|_| DataPlaneError::ServerName(upstream.clone()))?;
        let unusable = |error| DataPlaneError::Listener { what: format!("the upstream {upstream}"), error };
        let outbound = Arc::new(Outbound {
            service: config.service.clone(),
            instance: config.instance.clone(),
            upstream: upstream.clone(),
            svid: config.svid.clone(),
            dialler,
            loads: loads.clone(),
            connections: connections.clone(),
            snapshots: config.snapshots.clone(),
            clock: config.clock.clone(),
            limits: config.limits.clone(),
            log: config.access_log.clone(),
            metrics: config.metrics.clone(),
            stopping: stopping.clone(),
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
        let inbound = Arc::new(Inbound {
            acceptor: DirectAcceptor::new(
                config.service.clone(),
                config.trust_domain,
                config.svid,
                config.trust,
                config.clock.clone(),
            ),
            service: config.service,
            instance: config.instance,
            admission: crate::limits::Admission::new(&config.limits),
            locals: config.locals,
            connections: connections.clone(),
            snapshots: config.snapshots,
            clock: config.clock,
            limits: config.limits,
            log: config.access_log,
            metrics: config.metrics,
            stopping: stopping.clone(),
        });
        listeners.spawn(inbound.serve(listener));
    }
    Ok(())
}

fn tcp(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn forget_peers(metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(FORGETTING);
    loop {
        ticks.tick().await;
        metrics.forget_unseen();
    }
}
