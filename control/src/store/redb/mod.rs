//! The durable engine: one file, one writer.
//!
//! All changes go through one thread that takes everything that waits into one redb transaction (group commit), so the
//! price of an fsync is shared. What it has made durable it publishes to watchers, then it answers. Reads are redb's
//! own snapshots and wait for nobody. After an error of the disk the next change first rescues what is durable
//! (`rescue`).

mod open;
mod rescue;
mod tables;
#[cfg(test)]
mod tests;
mod work;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ::redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};
use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use self::tables::{KV, LOG, META, OLDEST, REVISION, damaged};
use self::writer::{Answer, Request, Writer};
use super::Store;
use super::error::StoreError;
use super::feed::{Feed, History, READ_AHEAD, WindowLimits};
use super::limits;
use super::types::{Batch, Kv, LeaseId, Range, StoreSettings, Txn, TxnResult};

/// How many requests may wait for the writer; more wait for a place.
const QUEUE: usize = 4096;

/// What watchers that keep up are served from.
const WINDOW: WindowLimits = WindowLimits { batches: 4096, bytes: 16 << 20 };

/// A store in one file. It is closed, after what waits has been committed, when it is dropped.
pub struct RedbStore {
    file: Arc<DataFile>,
    feed: Arc<Feed>,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore").field("path", &self.file.path).finish_non_exhaustive()
    }
}

/// Opens the store again after its file failed.
type Reopen = Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>;

/// The database, until it is closed.
struct DataFile {
    path: PathBuf,
    /// Why there is none: closed, or failed and not opened again yet. Locked for writing only to close or reopen it.
    database: RwLock<Result<Database, StoreError>>,
    reopen: Reopen,
    /// Why no change is taken, while none is.
    failing: Mutex<Option<StoreError>>,
}

struct Queue {
    requests: mpsc::Sender<Request>,
    places: Arc<Semaphore>,
}

impl RedbStore {
    /// Opens the store in the file `path`, and makes a new one if there is none. The directory must exist.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::Schema`] if another version wrote it,
    /// [`StoreError::Corrupt`] if it is damaged or no store, [`StoreError::Io`].
    pub fn open(path: impl AsRef<Path>, settings: &StoreSettings) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let database = open::open(path, settings)?;
        let reopen = {
            let (path, settings) = (path.to_owned(), settings.clone());
            move || rescue::rescue(&path, &settings)
        };
        Self::start(path, database, Box::new(reopen), settings)
    }

    /// Makes a store in a new file that holds these records at this revision, without a history.
    ///
    /// # Errors
    /// As those of [`RedbStore::open`].
    pub fn create_with(path: &Path, revision: u64, kvs: &[Kv], settings: &StoreSettings) -> Result<(), StoreError> {
        open::create_with(path, revision, kvs, settings)
    }

    fn start(path: &Path, database: Database, reopen: Reopen, settings: &StoreSettings) -> Result<Self, StoreError> {
        let file =
            Arc::new(DataFile { path: path.to_owned(), database: RwLock::new(Ok(database)), reopen, failing: Mutex::new(None) });
        let state = file.read(writer::State::load)?;
        let feed = Arc::new(Feed::new(state.revision, state.oldest, WINDOW));
        let (requests, queue) = mpsc::channel();
        let writer = Writer::new(Arc::clone(&file), Arc::clone(&feed), settings.clone(), state);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&queue))
            .map_err(|error| StoreError::io("cannot start the thread that writes the store", &error))?;
        let places = Arc::new(Semaphore::new(QUEUE));
        Ok(Self { file, feed, queue: Arc::new(Queue { requests, places }), writer: Mutex::new(Some(thread)) })
    }

    /// Commits what waits, then closes the file; it can be opened again when this returns. Blocks for as long as that
    /// takes (some milliseconds).
    pub fn close(&self) {
        self.queue.places.close();
        let _ = self.queue.requests.send(Request::Stop);
        if let Some(thread) = self.writer.lock().take() {
            let _ = thread.join();
        }
        *self.file.database.write() = Err(StoreError::Closed);
    }

    /// Ends the leases whose time is over by the clock, without waiting for the store to notice; gives the revision.
    pub fn expire_leases(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.ask(Request::Expire)
    }

    /// Forgets the history that need not be kept by the settings, without waiting for the next time.
    pub fn compact_by_retention(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        self.ask(Request::Retain)
    }

    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(Answer<T>) -> Request + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let queue = Arc::clone(&self.queue);
        async move {
            let place = Arc::clone(&queue.places).acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let (sender, answer) = oneshot::channel();
            queue.requests.send(request(Answer::new(sender, place))).map_err(|_| StoreError::Closed)?;
            answer.await.unwrap_or(Err(StoreError::Closed))
        }
        .boxed()
    }

    fn read<T, F>(&self, read: F) -> BoxFuture<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    {
        let file = Arc::clone(&self.file);
        blocking(move || file.read(read))
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl DataFile {
    /// Reads as of the last durable change.
    fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.read();
        let database = database.as_ref().map_err(Clone::clone)?;
        read(&database.begin_read().map_err(|error| self.error(error))?)
    }

    /// Gives the failed file up for a copy of what it holds.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self.database.write();
        // Closed first: the copy needs what redb still writes then, and the lock that it holds.
        *database = Err(StoreError::Closed);
        *database = (self.reopen)();
        database.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// What redb said, in our words.
    fn error(&self, error: impl Into<::redb::Error>) -> StoreError {
        open::storage_error(&self.path, error.into())
    }
}

/// Disk reads do not belong on a thread that serves connections.
fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> BoxFuture<'static, Result<T, StoreError>> {
    async move {
        match tokio::task::spawn_blocking(read).await {
            Ok(result) => result,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => Err(StoreError::Closed),
        }
    }
    .boxed()
}

fn number(meta: &ReadOnlyTable<&'static str, u64>, name: &'static str) -> Result<u64, StoreError> {
    let stored = meta.get(name).map_err(damaged)?;
    stored.map(|value| value.value()).ok_or_else(|| StoreError::Corrupt(format!("the store has no {name}")))
}

fn range(txn: &ReadTransaction, prefix: &[u8], limit: usize) -> Result<Range, StoreError> {
    let revision = number(&txn.open_table(META).map_err(damaged)?, REVISION)?;
    let table = txn.open_table(KV).map_err(damaged)?;
    let mut kvs = Vec::new();
    for entry in table.range(prefix..).map_err(damaged)? {
        let (key, value) = entry.map_err(damaged)?;
        if !key.value().starts_with(prefix) {
            break;
        }
        if limit != 0 && kvs.len() == limit {
            return Ok(Range { kvs, revision, more: true });
        }
        kvs.push(tables::decode_kv(key.value(), value.value())?);
    }
    Ok(Range { kvs, revision, more: false })
}

fn get(txn: &ReadTransaction, key: &[u8]) -> Result<Option<Kv>, StoreError> {
    let table = txn.open_table(KV).map_err(damaged)?;
    let value = table.get(key).map_err(damaged)?;
    value.map(|value| tables::decode_kv(key, value.value())).transpose()
}

fn history(txn: &ReadTransaction, from: u64) -> Result<Vec<Arc<Batch>>, StoreError> {
    /// A watcher that is far behind takes as much as this at a time, so that many of them do not cost much memory.
    const BYTES: usize = 4 << 20;
    let oldest = number(&txn.open_table(META).map_err(damaged)?, OLDEST)?;
    if from < oldest {
        return Err(StoreError::Compacted { oldest });
    }
    let log = txn.open_table(LOG).map_err(damaged)?;
    let mut batches = Vec::new();
    let mut bytes = 0;
    for row in log.range(from..).map_err(damaged)?.take(READ_AHEAD) {
        let (revision, row) = row.map_err(damaged)?;
        let expected = from + batches.len() as u64;
        if revision.value() != expected {
            return Err(StoreError::Corrupt(format!("the log has no revision {expected}")));
        }
        batches.push(Arc::new(tables::decode_row(expected, row.value())?));
        bytes += row.value().len();
        if bytes > BYTES {
            break;
        }
    }
    Ok(batches)
}

impl Store for RedbStore {
    fn range(&self, prefix: &[u8], limit: usize) -> BoxFuture<'static, Result<Range, StoreError>> {
        let prefix = prefix.to_vec();
        self.read(move |txn| range(txn, &prefix, limit))
    }

    fn get(&self, key: &[u8]) -> BoxFuture<'static, Result<Option<Kv>, StoreError>> {
        let key = key.to_vec();
        self.read(move |txn| get(txn, &key))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'static, Result<TxnResult, StoreError>> {
        if let Err(error) = limits::check(&txn) {
            return future::ready(Err(error)).boxed();
        }
        self.ask(move |answer| Request::Txn(txn, answer))
    }

    fn watch(&self, prefix: &[u8], from: u64) -> BoxStream<'static, Result<Batch, StoreError>> {
        self.feed.watch(prefix, from, Arc::new(Arc::downgrade(&self.file)))
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'static, Result<LeaseId, StoreError>> {
        let ttl = limits::lease_ttl(ttl);
        self.ask(move |answer| Request::Grant(ttl, answer))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'static, Result<Duration, StoreError>> {
        self.ask(move |answer| Request::KeepAlive(lease, answer))
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.ask(move |answer| Request::Revoke(lease, answer))
    }

    fn compact(&self, revision: u64) -> BoxFuture<'static, Result<(), StoreError>> {
        self.ask(move |answer| Request::Compact(revision, answer))
    }

    fn revision(&self) -> u64 {
        self.feed.revision()
    }

    fn failing(&self) -> Option<StoreError> {
        self.file.failing.lock().clone()
    }
}

impl History for Weak<DataFile> {
    fn read(&self, from: u64) -> BoxFuture<'static, Result<Vec<Arc<Batch>>, StoreError>> {
        match self.upgrade() {
            Some(file) => blocking(move || file.read(|txn| history(txn, from))),
            None => future::ready(Err(StoreError::Closed)).boxed(),
        }
    }
}
