//! The warm tunnels to other instances.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postern_names::{InstanceId, ServiceName};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::snapshot::SnapshotSource;
use crate::transport::dial::{DialError, Dialler, Target};

use super::driver::{Driver, Identities};
use super::link::Link;
use super::{OpenError, Role, StreamId, Unopened};

/// How long a stream waits where too many wait for an answer.
const UNANSWERED: Duration = Duration::from_millis(20);

/// The tunnels that this end dials, by the instance that they lead to.
pub(crate) struct Tunnels {
    of_instances: Mutex<HashMap<(ServiceName, InstanceId), Tunnelled>>,
    /// Dials and drivers; dropped, and so ended, with this.
    tasks: Mutex<JoinSet<()>>,
    most: usize,
    idle: Duration,
    changes: SnapshotSource,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
}

/// What there is to one instance.
#[derive(Default)]
struct Tunnelled {
    address: String,
    links: Vec<Arc<Link>>,
    dialling: Option<watch::Receiver<Option<Dialled>>>,
}

type Dialled = Result<Arc<Link>, DialError>;

enum Way {
    Open(Arc<Link>, StreamId),
    Wait(watch::Receiver<Option<Dialled>>),
}

impl Tunnels {
    /// At most `most` tunnels an instance; those without a stream for `idle` are closed.
    pub(crate) fn new(
        most: usize,
        idle: Duration,
        changes: SnapshotSource,
        stopping: CancellationToken,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let of_instances = Mutex::default();
        let tasks = Mutex::new(JoinSet::new());
        Arc::new(Self { of_instances, tasks, most, idle, changes, stopping, metrics })
    }

    /// Opens a stream on a tunnel to `target`, on a new one if none has room; tells whether the tunnel was there before.
    pub(crate) async fn open(
        self: &Arc<Self>,
        dialler: &Arc<Dialler>,
        target: &Target,
    ) -> Result<(Arc<Link>, StreamId, bool), DialError> {
        let deadline = Instant::now() + dialler.most_time();
        let mut was_there = true;
        loop {
            let mut dialling = match self.way(dialler, target) {
                Ok(Way::Open(link, id)) => return Ok((link, id, was_there)),
                Ok(Way::Wait(dialling)) => dialling,
                // Every tunnel has too many streams that wait for an answer, which comes in a moment.
                Err(DialError::Open(Unopened::Refused(OpenError::TooManyUnanswered))) if Instant::now() < deadline => {
                    tokio::time::sleep(UNANSWERED).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            was_there = false;
            let dialled = tokio::time::timeout_at(deadline, dialling.wait_for(Option::is_some)).await;
            let dialled = dialled.map_err(|_| DialError::TimedOut)?;
            // The sender is gone without a word only when the sidecar stops.
            let Ok(dialled) = dialled else { return Err(DialError::TimedOut) };
            if let Some(Err(error)) = &*dialled {
                return Err(error.clone());
            }
        }
    }

    /// A stream on a tunnel that is there, or the dial that is under way; begins one where there is neither.
    fn way(self: &Arc<Self>, dialler: &Arc<Dialler>, target: &Target) -> Result<Way, DialError> {
        let now = Instant::now();
        let mut of_instances = self.of_instances.lock();
        let tunnelled = of_instances.entry((dialler.service().clone(), target.instance.clone())).or_default();
        if tunnelled.address != target.address {
            // The instance has moved; streams that are open stay where they are.
            tunnelled.address.clone_from(&target.address);
            tunnelled.links.clear();
            tunnelled.dialling = None;
        }
        tunnelled.links.retain(|link| !link.has_ended());
        let quiet = tunnelled.links.iter().filter(|link| !link.is_busy(now));
        for link in quiet {
            if let Ok(id) = link.open(dialler.port(), None) {
                return Ok(Way::Open(link.clone(), id));
            }
        }
        if let Some(dialling) = &tunnelled.dialling {
            return Ok(Way::Wait(dialling.clone()));
        }
        if tunnelled.links.len() >= self.most {
            // All are busy or full: the one with the fewest streams carries one more.
            let link = tunnelled.links.iter().min_by_key(|link| link.open_streams()).cloned();
            let link = link.ok_or(DialError::TimedOut)?;
            let id = link.open(dialler.port(), None).map_err(DialError::Open)?;
            return Ok(Way::Open(link, id));
        }
        let (tell, told) = watch::channel(None);
        tunnelled.dialling = Some(told.clone());
        let task = self.clone().dial_and_drive(dialler.clone(), target.clone(), tell);
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
        Ok(Way::Wait(told))
    }

    async fn dial_and_drive(self: Arc<Self>, dialler: Arc<Dialler>, target: Target, tell: watch::Sender<Option<Dialled>>) {
        let key = (dialler.service().clone(), target.instance.clone());
        let dialled = Box::pin(dialler.dial_tunnel(&target)).await;
        let dialled = dialled.and_then(|tunnel| tunnel.ok_or(DialError::NoTunnel));
        let (link, identities) = match dialled {
            Ok(tunnel) => tunnel,
            Err(error) => {
                self.dialled(&key, &target, None);
                tell.send_replace(Some(Err(error)));
                return;
            }
        };
        drop(dialler);
        self.dialled(&key, &target, Some(&link));
        tell.send_replace(Some(Ok(link.clone())));
        drop(tell);
        self.drive(link.clone(), identities).await;
        self.forget(&key, &link);
    }

    async fn drive(&self, link: Arc<Link>, identities: Identities) {
        let _open = self.metrics.tunnel_opened(crate::metrics::Direction::Outbound, link.service());
        let driver = Driver {
            link: link.clone(),
            role: Role::Dialler,
            identities,
            changes: self.changes.clone(),
            stopping: self.stopping.clone(),
            idle: self.idle,
            metrics: self.metrics.clone(),
        };
        // The machine lets only the end that dialled open streams, so nothing is served here.
        let end = driver.run(|stream, _| drop(stream)).await;
        tracing::debug!(peer = %link.service(), reason = end.word, detail = %end.detail, "a tunnel has ended");
    }

    fn dialled(&self, key: &(ServiceName, InstanceId), target: &Target, link: Option<&Arc<Link>>) {
        let mut of_instances = self.of_instances.lock();
        let Some(tunnelled) = of_instances.get_mut(key) else { return };
        if tunnelled.address == target.address {
            tunnelled.dialling = None;
            tunnelled.links.extend(link.cloned());
            if tunnelled.links.is_empty() {
                of_instances.remove(key);
            }
        }
    }

    fn forget(&self, key: &(ServiceName, InstanceId), link: &Arc<Link>) {
        let mut of_instances = self.of_instances.lock();
        let Some(tunnelled) = of_instances.get_mut(key) else { return };
        tunnelled.links.retain(|other| !Arc::ptr_eq(other, link));
        if tunnelled.links.is_empty() && tunnelled.dialling.is_none() {
            of_instances.remove(key);
        }
    }

    /// Waits until every tunnel has ended, which they do once the sidecar stops and their last streams are over.
    pub(crate) async fn ended(&self) {
        std::future::poll_fn(|cx| {
            let mut tasks = self.tasks.lock();
            loop {
                match tasks.poll_join_next(cx) {
                    std::task::Poll::Ready(Some(_)) => {}
                    std::task::Poll::Ready(None) => return std::task::Poll::Ready(()),
                    std::task::Poll::Pending => return std::task::Poll::Pending,
                }
            }
        })
        .await;
    }
}

/// How many tunnels each peer has dialled here. The acceptor knows a peer by its service and its address: which of
/// several instances on one host a tunnel belongs to, no certificate says.
#[derive(Debug)]
pub(crate) struct PeerTunnels {
    most: usize,
    open: Mutex<HashMap<(ServiceName, IpAddr), usize>>,
}

/// A tunnel that was let in; it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct PeerTunnel {
    tunnels: Arc<PeerTunnels>,
    key: (ServiceName, IpAddr),
}

impl PeerTunnels {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// Lets one more tunnel in, unless its peer has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, service: &ServiceName, address: IpAddr) -> Option<PeerTunnel> {
        let key = (service.clone(), address.to_canonical());
        let mut open = self.open.lock();
        let count = open.entry(key.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(PeerTunnel { tunnels: self.clone(), key })
    }
}

impl Drop for PeerTunnel {
    fn drop(&mut self) {
        let mut open = self.tunnels.open.lock();
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}
