//! The threads that carry traffic, apart from the one that talks to the control plane and the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};

use crate::ProxyError;
use crate::data_plane::{DataPlane, DataPlaneConfig};

/// How often open connections are counted for the control plane.
const COUNTING: Duration = Duration::from_secs(2);

/// A data plane on a runtime of its own. Dropping this ends it at once.
#[derive(Debug)]
pub struct DataThread {
    drain: Option<oneshot::Sender<Duration>>,
    ended: oneshot::Receiver<()>,
    enforced: watch::Receiver<u64>,
    open: Arc<AtomicUsize>,
}

impl DataThread {
    /// Starts `workers` threads and the data plane on them.
    ///
    /// # Errors
    /// Where the system gives no thread, or a listener cannot be used.
    pub async fn start(workers: usize, config: DataPlaneConfig) -> Result<Self, ProxyError> {
        let system = |source| ProxyError::System { what: "cannot start the threads that carry traffic", source };
        let runtime = runtime(workers).map_err(system)?;
        let (drain, draining) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (start, started) = oneshot::channel();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = open.clone();
        let thread = move || {
            runtime.block_on(serve(config, start, draining, counted));
            runtime.shutdown_background();
            // Nobody may be waiting any more.
            let _ = end.send(());
        };
        std::thread::Builder::new().name("data".into()).spawn(thread).map_err(system)?;
        match started.await {
            Ok(Ok(enforced)) => Ok(Self { drain: Some(drain), ended, enforced, open }),
            Ok(Err(why)) => Err(ProxyError::Configuration(why)),
            Err(_) => Err(system(io::Error::other("the thread ended"))),
        }
    }

    /// The number of the snapshot that every open connection was judged by.
    pub fn enforced(&self) -> watch::Receiver<u64> {
        self.enforced.clone()
    }

    /// The number of open connections, a few seconds old at most.
    pub fn open_connections(&self) -> Arc<AtomicUsize> {
        self.open.clone()
    }

    /// Waits for an end that nobody asked for.
    pub async fn ended(&mut self) {
        // Either way it has ended.
        let _ = (&mut self.ended).await;
    }

    /// Lets open connections end for at most `deadline`, then closes them.
    pub async fn drain(mut self, deadline: Duration) {
        if let Some(drain) = self.drain.take()
            && drain.send(deadline).is_ok()
        {
            self.ended().await;
        }
    }
}

fn runtime(workers: usize) -> io::Result<Runtime> {
    match workers {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(workers).thread_name("data").enable_all().build(),
    }
}

async fn serve(
    config: DataPlaneConfig,
    start: oneshot::Sender<Result<watch::Receiver<u64>, String>>,
    mut draining: oneshot::Receiver<Duration>,
    open: Arc<AtomicUsize>,
) {
    let data_plane = match DataPlane::start(config).await {
        Ok(data_plane) => data_plane,
        Err(error) => {
            // Who asked has given up where this fails.
            let _ = start.send(Err(error.to_string()));
            return;
        }
    };
    if start.send(Ok(data_plane.enforced())).is_err() {
        return;
    }
    let mut counting = tokio::time::interval(COUNTING);
    let deadline = loop {
        tokio::select! {
            deadline = &mut draining => break deadline,
            _ = counting.tick() => open.store(data_plane.open_connections(), Ordering::Relaxed),
        }
    };
    if let Ok(deadline) = deadline {
        data_plane.drain(deadline).await;
    }
}
