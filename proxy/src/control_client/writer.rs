//! Writes snapshots to disk, the newest first and never an older one after it, away from traffic.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::state::{StateDir, StoredSnapshot};

/// How long after a failure the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A snapshot to be kept, with the sequence number that it was published under.
type Wanted = Option<(u64, Arc<StoredSnapshot>)>;

/// Takes snapshots and tells which is on disk.
#[derive(Debug)]
pub struct SnapshotWriter {
    wanted: watch::Sender<Wanted>,
    written: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl SnapshotWriter {
    /// Starts the task that writes into `state`.
    pub fn start(state: Arc<StateDir>) -> Self {
        let (wanted, requests) = watch::channel(None);
        let (told, written) = watch::channel(0);
        Self { wanted, written, task: tokio::spawn(write_all(state, requests, told)) }
    }

    /// Asks for a snapshot to be kept. What was asked for before and is not begun is left out.
    pub fn keep(&self, sequence: u64, snapshot: StoredSnapshot) {
        self.wanted.send_replace(Some((sequence, Arc::new(snapshot))));
    }

    /// The sequence number of the snapshot that is on disk.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }

    /// Waits until all that was asked for is on disk.
    pub async fn finish(self) {
        drop(self.wanted);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that writes snapshots did not end well");
        }
    }
}

async fn write_all(state: Arc<StateDir>, mut requests: watch::Receiver<Wanted>, told: watch::Sender<u64>) {
    while requests.changed().await.is_ok() {
        let Some((sequence, snapshot)) = requests.borrow_and_update().clone() else { continue };
        let state = state.clone();
        match tokio::task::spawn_blocking(move || state.keep_snapshot(&snapshot)).await {
            Ok(Ok(())) => {
                told.send_replace(sequence);
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the snapshot is not on disk, so it is not acknowledged; trying again");
                requests.mark_changed();
                tokio::time::sleep(RETRY).await;
                // Without an owner there is nobody left to tell.
                if requests.has_changed().is_err() {
                    return;
                }
            }
            Err(error) => tracing::error!(%error, "writing the snapshot panicked"),
        }
    }
}
