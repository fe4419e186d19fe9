//! Connections to the instances of upstreams: one pool for each instance and version of HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use postern_names::{PortName, ServiceName};
use postern_traffic::{InstanceStats, Limit};

use super::pool::{Connect, Connected, Pool, PoolContext, Version};
use super::wire::Wire;
use crate::clock::Clock;
use crate::connections::{Connections, Judgeable, What};
use crate::metrics::{Direction, Metrics};
pub(crate) use crate::outbound::Unreached;
use crate::outbound::UpstreamSpec;
use crate::snapshot::{Endpoint, SnapshotSource};
use crate::transport::dial::{DialError, Dialler, DiallerContext, Target};
use crate::transport::tunnel::Reason;

/// Which pool. What is known of an instance is one object for as long as the instance is known, so its address stands for
/// the instance: no name is compared for a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    stats: usize,
    port: PortName,
    version: Version,
}

/// The connections to one instance, while it stays where it is.
struct Placed {
    address: String,
    pool: Arc<Pool<Instance>>,
    /// As long as it is here, no other instance can have its place.
    _stats: Arc<InstanceStats>,
}

/// Pools of one worker.
pub(crate) struct Instances {
    dialling: Arc<DiallerContext>,
    connections: Arc<Connections>,
    snapshots: SnapshotSource,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    context: PoolContext,
    diallers: Mutex<HashMap<(ServiceName, PortName), Arc<Dialler>>>,
    pools: Mutex<HashMap<Place, Placed>>,
}

/// Dials one instance.
pub(crate) struct Instance {
    dialler: Arc<Dialler>,
    target: Target,
    connections: Arc<Connections>,
    snapshots: SnapshotSource,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    /// How many connections to it there may be.
    room: Arc<Limit>,
}

impl Connect for Instance {
    type Error = Unreached;

    async fn connect(&self) -> Result<Connected, Unreached> {
        let failed = |error| Unreached::Dial { instance: self.target.instance.clone(), error };
        let permit = self.room.acquire().map_err(Unreached::Overloaded)?;
        let dialled = self.dialler.dial(&self.target, &[]).await;
        let (stream, _) = dialled.map_err(|error| {
            if let DialError::Handshake(error) = &error {
                self.metrics.handshake_failed(Direction::Outbound, error.word());
            }
            failed(error)
        })?;
        let judgeable = Judgeable {
            what: What::HttpConnection,
            direction: Direction::Outbound,
            peer: stream.peer().clone(),
            service: stream.peer_service().clone(),
            port: stream.port().clone(),
        };
        let Ok(registered) = self.connections.register(judgeable) else {
            stream.reset(Reason::Cancelled);
            return Err(Unreached::NoneHealthy);
        };
        let snapshot = self.snapshots.borrow().clone();
        if let Err(refusal) = registered.judgeable().still_trusted(&snapshot, self.clock.now()) {
            stream.reset(Reason::Cancelled);
            self.metrics.handshake_failed(Direction::Outbound, refusal.word());
            return Err(failed(DialError::Handshake(Arc::new(crate::transport::HandshakeError::Refused(refusal)))));
        }
        let (bytes_in, bytes_out) = self.metrics.connection(Direction::Outbound, stream.peer_service()).bytes();
        Ok(Connected {
            wire: Wire::from(stream).counted(bytes_in, bytes_out),
            registered: Some(registered),
            permit: Some(permit),
        })
    }
}

impl Instances {
    /// None yet.
    pub(crate) fn new(
        dialling: Arc<DiallerContext>,
        connections: Arc<Connections>,
        snapshots: SnapshotSource,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
        context: PoolContext,
    ) -> Arc<Self> {
        let (diallers, pools) = (Mutex::default(), Mutex::default());
        Arc::new(Self { dialling, connections, snapshots, clock, metrics, context, diallers, pools })
    }

    /// The connections to one instance.
    ///
    /// # Errors
    /// When the service has no valid TLS server name.
    pub(crate) fn pool(
        &self,
        service: &ServiceName,
        port: &PortName,
        endpoint: &Endpoint,
        stats: &Arc<InstanceStats>,
        version: Version,
    ) -> Result<Arc<Pool<Instance>>, Unreached> {
        let place = Place { stats: Arc::as_ptr(stats) as usize, port: port.clone(), version };
        let mut pools = self.pools.lock();
        if let Some(placed) = pools.get(&place).filter(|placed| placed.address == endpoint.address) {
            return Ok(placed.pool.clone());
        }
        let instance = Instance {
            dialler: self.dialler(&UpstreamSpec { service: service.clone(), port: port.clone() })?,
            target: endpoint.target(),
            connections: self.connections.clone(),
            snapshots: self.snapshots.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            room: stats.connections().clone(),
        };
        let pool = Pool::new(instance, version, self.context.clone());
        pools.insert(place, Placed { address: endpoint.address.clone(), pool: pool.clone(), _stats: stats.clone() });
        Ok(pool)
    }

    /// Who dials this port of this service.
    ///
    /// # Errors
    /// When the service has no valid TLS server name.
    pub(crate) fn dialler(&self, upstream: &UpstreamSpec) -> Result<Arc<Dialler>, Unreached> {
        let mut diallers = self.diallers.lock();
        let key = (upstream.service.clone(), upstream.port.clone());
        if let Some(dialler) = diallers.get(&key) {
            return Ok(dialler.clone());
        }
        let dialler =
            Dialler::new(self.dialling.clone(), &upstream.service, &upstream.port).map_err(|_| Unreached::NoServerName)?;
        diallers.insert(key, dialler.clone());
        Ok(dialler)
    }

    /// Closes what nobody has used for a while.
    pub(crate) fn trim(&self) {
        self.pools.lock().retain(|_, placed| {
            placed.pool.trim();
            Arc::strong_count(&placed.pool) > 1 || !placed.pool.is_empty()
        });
    }
}
