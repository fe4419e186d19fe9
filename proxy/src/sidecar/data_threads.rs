//! The threads that carry traffic, apart from the one that talks to the control plane and the disk.
//!
//! Each worker is a thread with a runtime of one thread, and has its own buffers and tunnels. All accept from the same
//! listeners.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::ProxyError;
use crate::connections::Cut;
use crate::data_plane::{DataPlane, DataPlaneConfig, Shared, keep_house};
use crate::sightings::Sightings;

/// The workers of a sidecar. Dropping this ends them at once.
#[derive(Debug)]
pub struct DataThreads {
    drain: watch::Sender<Option<Duration>>,
    /// Closed when the last worker has ended; a worker sends nothing.
    ended: mpsc::Receiver<()>,
    enforced: watch::Receiver<u64>,
    open: Arc<AtomicUsize>,
    sightings: Arc<Sightings>,
    cut: Arc<Cut>,
    /// What is done once for all workers, until the last of them has ended. Dropping it ends it.
    _upkeep: JoinSet<()>,
}

/// What a worker is told, and tells.
struct Worker {
    draining: watch::Receiver<Option<Duration>>,
    started: oneshot::Sender<Result<(), String>>,
    _ended: mpsc::Sender<()>,
}

impl DataThreads {
    /// Starts `workers` threads and the data plane on them.
    ///
    /// # Errors
    /// Where the system gives no thread, or a listener cannot be used.
    pub async fn start(workers: usize, config: DataPlaneConfig) -> Result<Self, ProxyError> {
        let system = |source| ProxyError::System { what: "cannot start the threads that carry traffic", source };
        let shared = Shared::new(&config);
        let (drain, draining) = watch::channel(None);
        let (end, ended) = mpsc::channel(1);
        let (enforced_sender, enforced) = watch::channel(0);
        let (open, cut) = (shared.open_counter(), shared.cut());
        let sightings = shared.sightings();
        let mut others = Vec::new();
        for _ in 1..workers {
            others.push(config.for_another_worker().map_err(system)?);
        }
        let upkeep = upkeep(&config, &shared, enforced_sender);
        for config in std::iter::once(config).chain(others) {
            let (start, started) = oneshot::channel();
            let worker = Worker { draining: draining.clone(), started: start, _ended: end.clone() };
            let runtime = Builder::new_current_thread().enable_all().build().map_err(system)?;
            let shared = shared.clone();
            let thread = move || {
                runtime.block_on(worker.run(config, shared));
                runtime.shutdown_background();
            };
            std::thread::Builder::new().name("data".into()).spawn(thread).map_err(system)?;
            match started.await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Err(ProxyError::Configuration(why)),
                Err(_) => return Err(system(io::Error::other("the thread ended"))),
            }
        }
        Ok(Self { drain, ended, enforced, open, sightings, cut, _upkeep: upkeep })
    }

    /// The number of the snapshot that every open connection was judged by.
    pub fn enforced(&self) -> watch::Receiver<u64> {
        self.enforced.clone()
    }

    /// The number of open connections.
    pub fn open_connections(&self) -> Arc<AtomicUsize> {
        self.open.clone()
    }

    /// What the workers saw of calls.
    pub fn sightings(&self) -> Arc<Sightings> {
        self.sightings.clone()
    }

    /// Where can be read how much snapshots have closed.
    pub fn cut(&self) -> Arc<Cut> {
        self.cut.clone()
    }

    /// Waits for an end that nobody asked for.
    pub async fn ended(&mut self) {
        // Nothing is ever sent: this is the end of the last worker.
        let _ = self.ended.recv().await;
    }

    /// Lets open connections end for at most `deadline`, then closes them.
    pub async fn drain(mut self, deadline: Duration) {
        if self.drain.send(Some(deadline)).is_ok() {
            self.ended().await;
        }
    }
}

/// Judging and logging, apart from the threads that carry traffic: a deny waits for no transfer.
fn upkeep(config: &DataPlaneConfig, shared: &Shared, enforced: watch::Sender<u64>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(shared.clone().keep_judging(config.snapshots.clone(), config.clock.clone(), enforced));
    tasks.spawn(keep_house(config.access_log.clone(), config.metrics.clone()));
    tasks
}

impl Worker {
    async fn run(mut self, config: DataPlaneConfig, shared: Shared) {
        let data_plane = match DataPlane::start(config, shared).await {
            Ok(data_plane) => data_plane,
            Err(error) => {
                // Who asked has given up where this fails.
                let _ = self.started.send(Err(error.to_string()));
                return;
            }
        };
        if self.started.send(Ok(())).is_err() {
            return;
        }
        // Without a deadline it is dropped, and everything ends at once.
        let deadline = self.draining.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
        if let Some(deadline) = deadline {
            data_plane.drain(deadline).await;
        }
    }
}
