//! The task that moves entries from the store to the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::log::{Log, Waiting};
use super::{AuditEntry, AuditError, AuditHead, AuditSettings, HEAD_KEY, PREFIX};
use crate::store::{MAX_OPS, Op, Store, StoreError, Txn};

/// How many entries are moved at a time: their deletions and the new head are one transaction.
const AT_ONCE: usize = MAX_OPS - 1;

/// How many entries are looked at at a time.
const PAGE: usize = 16 * AT_ONCE;

/// How the task is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditStatus {
    /// The store's revision up to which every entry is in the log.
    pub revision: u64,
    /// Why entries wait in the store, while they do.
    pub failing: Option<String>,
}

/// The task. Ends when it is dropped; what it has not moved stays in the store.
pub struct AuditWriter {
    task: JoinHandle<()>,
    stop: CancellationToken,
    status: watch::Receiver<AuditStatus>,
}

impl AuditWriter {
    /// How the task is doing, now and from now on.
    pub fn status(&self) -> watch::Receiver<AuditStatus> {
        self.status.clone()
    }

    /// Ends the task after what it is writing.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // A panic of the task was reported when it happened.
        let _ = (&mut self.task).await;
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts to move entries from the store to the log in `directory`, which is made if it is missing. Errors do not end
/// the task: entries wait in the store, [`AuditStatus::failing`] says why, and it tries again.
pub fn spawn_writer(store: Arc<dyn Store>, directory: PathBuf, settings: AuditSettings) -> AuditWriter {
    let stop = CancellationToken::new();
    let (status, receiver) = watch::channel(AuditStatus::default());
    let mover = Mover { store, directory, settings, stop: stop.clone(), status };
    AuditWriter { task: tokio::spawn(mover.run()), stop, status: receiver }
}

struct Mover {
    store: Arc<dyn Store>,
    directory: PathBuf,
    settings: AuditSettings,
    stop: CancellationToken,
    status: watch::Sender<AuditStatus>,
}

impl Mover {
    async fn run(self) {
        loop {
            match self.move_until_stopped().await {
                Ok(()) | Err(AuditError::Store(StoreError::Closed)) => return,
                Err(error) => {
                    tracing::error!(%error, "the audit log is not written");
                    self.status.send_modify(|status| status.failing = Some(error.to_string()));
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(self.settings.retry) => {}
            }
        }
    }

    /// Opens the log and moves entries until it is told to stop. After an error the log is opened anew, which finds
    /// out what is in it.
    async fn move_until_stopped(&self) -> Result<(), AuditError> {
        let (mut waiting, mut revision) = self.waiting().await?;
        let head = AuditHead::load(&*self.store).await?;
        let mut log = self.open(head, waiting.clone()).await?;
        loop {
            while !waiting.is_empty() {
                for chunk in waiting.chunks(AT_ONCE) {
                    log = append(log, chunk.to_vec()).await?;
                    self.remove(chunk, log.head()).await?;
                    if self.stop.is_cancelled() {
                        return Ok(());
                    }
                }
                (waiting, revision) = self.waiting().await?;
            }
            self.status.send_replace(AuditStatus { revision, failing: None });
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                more = self.next_entry(revision) => more?,
            }
            (waiting, revision) = self.waiting().await?;
        }
    }

    /// The oldest entries in the store, in the order of their transactions, and the revision they were read at.
    async fn waiting(&self) -> Result<(Vec<Waiting>, u64), AuditError> {
        let range = self.store.range(PREFIX.as_bytes(), PAGE).await?;
        let mut kvs = range.kvs;
        kvs.sort_by(|a, b| (a.mod_revision, &a.key).cmp(&(b.mod_revision, &b.key)));
        let waiting = kvs.iter().map(|kv| Waiting {
            id: String::from_utf8_lossy(&kv.key[PREFIX.len()..]).into_owned(),
            revision: kv.mod_revision,
            entry: serde_json::from_slice(&kv.value).unwrap_or_else(|_| unreadable(&kv.value)),
        });
        Ok((waiting.collect(), range.revision))
    }

    async fn open(&self, head: Option<AuditHead>, waiting: Vec<Waiting>) -> Result<Log, AuditError> {
        let (directory, settings) = (self.directory.clone(), self.settings.clone());
        let path = self.directory.clone();
        on_disk(&path, move || Log::open(&directory, &settings, head.as_ref(), &waiting, SystemTime::now())).await
    }

    /// Removes entries whose lines are durable, and remembers the last line.
    async fn remove(&self, moved: &[Waiting], head: &AuditHead) -> Result<(), AuditError> {
        let head = serde_json::to_vec(head).unwrap_or_default();
        let mut txn = Txn::new().then(Op::put(HEAD_KEY, head));
        txn.then.extend(moved.iter().map(|waiting| Op::delete(format!("{PREFIX}{}", waiting.id))));
        self.store.txn(txn).await?;
        Ok(())
    }

    /// Waits until an entry was added after `revision`.
    async fn next_entry(&self, revision: u64) -> Result<(), AuditError> {
        let mut changes = self.store.watch(PREFIX.as_bytes(), revision + 1);
        while let Some(change) = changes.next().await {
            match change {
                Ok(batch) if batch.events.iter().any(|event| event.value.is_some()) => return Ok(()),
                Ok(_) => {}
                // Whatever happened meanwhile, the entries are in the store.
                Err(StoreError::Compacted { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Closed.into())
    }
}

/// What stands for an entry that another version wrote in another form.
fn unreadable(value: &[u8]) -> AuditEntry {
    AuditEntry {
        at: SystemTime::now(),
        who: "unknown".into(),
        from: "unknown".into(),
        what: "audit.unreadable".into(),
        details: String::from_utf8_lossy(value).into(),
        reason: None,
    }
}

async fn append(mut log: Log, waiting: Vec<Waiting>) -> Result<Log, AuditError> {
    let path = log.directory().to_owned();
    on_disk(&path, move || {
        log.append(&waiting, SystemTime::now())?;
        Ok(log)
    })
    .await
}

async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(AuditError::Io { what: "write", path: path.to_owned(), source: std::io::Error::other(error) }),
    }
}
