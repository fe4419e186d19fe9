//! Watches: what was committed, delivered to whoever follows.
//!
//! A watcher has no queue. It knows the revision that it wants next and takes it from the window of recent batches
//! that all share, or from the engine's history when it is further behind; so a slow watcher costs nothing, and one
//! that is slower than the history is kept gets [`StoreError::Compacted`].

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::error::StoreError;
use super::types::Batch;

/// How many batches a watcher takes at a time.
pub(super) const READ_AHEAD: usize = 256;

/// An engine's memory of what was committed.
pub(super) trait History: Send + Sync + 'static {
    /// The batches from `from` on without gaps, at most about [`READ_AHEAD`], at least one if `from` is committed.
    fn read(&self, from: u64) -> BoxFuture<'static, Result<Vec<Arc<Batch>>, StoreError>>;
}

/// How many recent batches are kept in memory for watchers.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowLimits {
    pub batches: usize,
    pub bytes: usize,
}

/// Where an engine publishes what it has committed.
pub(super) struct Feed {
    revision: watch::Sender<u64>,
    window: Arc<RwLock<Window>>,
}

struct Window {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    limits: WindowLimits,
    /// The oldest revision that the engine keeps.
    oldest: u64,
}

impl Feed {
    pub fn new(revision: u64, oldest: u64, limits: WindowLimits) -> Self {
        let window = Window { batches: VecDeque::new(), bytes: 0, limits, oldest };
        Self { revision: watch::Sender::new(revision), window: Arc::new(RwLock::new(window)) }
    }

    /// The last revision that was published.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Makes committed batches, which follow on what was published before, known to watchers.
    pub fn publish(&self, batches: impl IntoIterator<Item = Arc<Batch>>) {
        let mut last = None;
        {
            let mut window = self.window.write();
            for batch in batches {
                last = Some(batch.revision);
                window.push(batch);
            }
        }
        if let Some(revision) = last {
            self.revision.send_replace(revision);
        }
    }

    /// Tells watchers that history before `oldest` is gone.
    pub fn compacted(&self, oldest: u64) {
        let mut window = self.window.write();
        window.oldest = oldest;
        while window.batches.front().is_some_and(|batch| batch.revision < oldest) {
            window.pop();
        }
    }

    pub fn watch(&self, prefix: &[u8], from: u64, history: Arc<dyn History>) -> BoxStream<'static, Result<Batch, StoreError>> {
        let watcher = Watcher {
            prefix: Bytes::copy_from_slice(prefix),
            next: from.max(1),
            taken: VecDeque::new(),
            revision: self.revision.subscribe(),
            window: Arc::clone(&self.window),
            history,
        };
        stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(batch) => Some((Ok(batch), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }
}

impl Window {
    fn push(&mut self, batch: Arc<Batch>) {
        self.bytes += weight(&batch);
        self.batches.push_back(batch);
        while self.batches.len() > self.limits.batches || self.bytes > self.limits.bytes {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= weight(&batch);
        }
    }

    /// The batches from `from` on; `None` if the window begins later.
    fn read(&self, from: u64) -> Result<Option<Vec<Arc<Batch>>>, StoreError> {
        if from < self.oldest {
            return Err(StoreError::Compacted { oldest: self.oldest });
        }
        let Some(first) = self.batches.front() else { return Ok(None) };
        let Some(skip) = from.checked_sub(first.revision) else { return Ok(None) };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(Some(self.batches.iter().skip(skip).take(READ_AHEAD).cloned().collect()))
    }
}

fn weight(batch: &Batch) -> usize {
    const EVENT: usize = 96;
    batch.events.iter().map(|event| EVENT + event.key.len() + event.value.as_ref().map_or(0, Bytes::len)).sum()
}

struct Watcher {
    prefix: Bytes,
    /// The first revision that was not taken yet.
    next: u64,
    taken: VecDeque<Arc<Batch>>,
    revision: watch::Receiver<u64>,
    window: Arc<RwLock<Window>>,
    history: Arc<dyn History>,
}

impl Watcher {
    /// The next batch with something under the prefix.
    async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            while let Some(batch) = self.taken.pop_front() {
                if let Some(batch) = under(&self.prefix, &batch) {
                    return Ok(batch);
                }
            }
            if self.next <= *self.revision.borrow_and_update() {
                self.take().await?;
            } else {
                self.revision.changed().await.map_err(|_| StoreError::Closed)?;
            }
        }
    }

    async fn take(&mut self) -> Result<(), StoreError> {
        // A new store is at revision 1, in which nothing happened.
        self.next = self.next.max(2);
        if self.next > *self.revision.borrow() {
            return Ok(());
        }
        let recent = self.window.read().read(self.next)?;
        let batches = match recent {
            Some(batches) if !batches.is_empty() => batches,
            _ => self.history.read(self.next).await?,
        };
        let Some(last) = batches.last() else {
            return Err(StoreError::Corrupt(format!("the log has no revision {}", self.next)));
        };
        self.next = last.revision + 1;
        self.taken = batches.into();
        Ok(())
    }
}

fn under(prefix: &[u8], batch: &Batch) -> Option<Batch> {
    let events: Vec<_> = batch.events.iter().filter(|event| event.key.starts_with(prefix)).cloned().collect();
    (!events.is_empty()).then_some(Batch { revision: batch.revision, events })
}
