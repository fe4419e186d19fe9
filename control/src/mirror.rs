//! The view that reads are served from: all mirrored records of the store in memory, kept current by one watch.
//!
//! Whoever must not miss a change registers as an [`Observer`]: it is called while the view is still locked, so what it
//! marks and what a reader of the view sees are always of the same revision. Everyone else subscribes and, when it
//! lagged, reads all again.
//!
//! A change set (`records::change_set`) is one change in one revision here, however many chunks it was written in: the
//! chunks that come before it are kept and heeded by nobody, and moving them afterwards changes nothing.

mod access;
mod catalog;
mod change_sets;
mod settings;
mod topics;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::{Mutex, RwLock};
use postern_intentions::Party;
use postern_names::{PortName, ServiceName};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinHandle;

pub use self::access::{ANONYMOUS, AccessView, Bearer};
pub use self::catalog::{CatalogView, NodeView};
pub use self::change_sets::{ChangeSets, SetInForce, StagedChunk};
pub use self::settings::{SettingsView, providers_in};
pub use self::topics::{Topic, Topics, Waiting};
pub use self::view::View;
use crate::records::RecordKey;
use crate::store::{Batch, Store, StoreError};

/// Changes that a subscriber may fall behind before it must read all again.
const SUBSCRIBER_BACKLOG: usize = 1024;
/// Pause before a broken watch is opened again.
const RETRY: Duration = Duration::from_millis(200);

/// What one revision changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// The revision of the view from here on.
    pub revision: u64,
    /// Mirrored keys that were put or deleted.
    pub keys: Vec<RecordKey>,
    /// Services whose instances changed: those of the records before and after.
    pub services: Vec<ServiceName>,
    /// JWT providers that the intentions of a destination began or ceased to name.
    pub providers: Vec<(Party, PortName)>,
    /// The view was loaded anew: anything may have changed, and `keys` is empty.
    pub everything: bool,
}

impl Change {
    fn touch(&mut self, services: impl IntoIterator<Item = ServiceName>) {
        for service in services {
            if !self.services.contains(&service) {
                self.services.push(service);
            }
        }
    }

    /// Whether it is about services, instances, nodes or checks.
    pub fn touches_catalog(&self) -> bool {
        let is_of_catalog = |key: &RecordKey| {
            matches!(
                key,
                RecordKey::Instance(_)
                    | RecordKey::Service(_)
                    | RecordKey::Node(_)
                    | RecordKey::Registered(..)
                    | RecordKey::Check(..)
            )
        };
        self.everything || self.keys.iter().any(is_of_catalog)
    }
}

/// Is told of each change before anyone can read it. It runs under the view's lock: mark and wake, nothing more.
pub trait Observer: Send + Sync {
    /// `view` already holds `change`.
    fn changed(&self, view: &View, change: &Change);
}

/// Why the mirror did not start.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The store cannot be read.
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    /// A store without `meta/cluster`: it was never initialised.
    #[error(
        "the store holds no meta/cluster record: it was not initialised; start with an empty data directory or restore a snapshot"
    )]
    NoCluster,
    /// A record that must be understood is not.
    #[error(transparent)]
    Unreadable(#[from] crate::records::UnreadableRecord),
}

/// The store in memory.
pub struct Mirror {
    view: RwLock<View>,
    revision: watch::Sender<u64>,
    changes: broadcast::Sender<Arc<Change>>,
    observers: RwLock<Vec<Arc<dyn Observer>>>,
    topics: Topics,
    /// Who waits for which revision.
    waiters: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
    follower: Mutex<Option<JoinHandle<()>>>,
}

impl Mirror {
    /// Reads the whole store, then follows it until the mirror is dropped or the store is closed.
    ///
    /// # Errors
    /// [`MirrorError`]: the store fails, or was never initialised.
    pub async fn start(store: Arc<dyn Store>) -> Result<Arc<Self>, MirrorError> {
        let view = load(store.as_ref()).await?;
        let mirror = Arc::new(Self {
            revision: watch::Sender::new(view.revision),
            view: RwLock::new(view),
            changes: broadcast::Sender::new(SUBSCRIBER_BACKLOG),
            observers: RwLock::new(Vec::new()),
            topics: Topics::default(),
            waiters: Mutex::default(),
            follower: Mutex::new(None),
        });
        let follower = tokio::spawn(follow(Arc::downgrade(&mirror), store));
        *mirror.follower.lock() = Some(follower);
        Ok(mirror)
    }

    /// Reads the view. Nothing may block or await in `f`: changes wait for it.
    pub fn read<R>(&self, f: impl FnOnce(&View) -> R) -> R {
        f(&self.view.read())
    }

    /// The revision of the view.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Waits until the view holds `revision`.
    pub async fn reached(&self, revision: u64) {
        if self.revision() >= revision {
            return;
        }
        let reached = {
            let mut waiters = self.waiters.lock();
            // Looked at again under the lock: whoever publishes a revision wakes after it is set.
            if self.revision() >= revision {
                return;
            }
            let (sender, reached) = oneshot::channel();
            waiters.entry(revision).or_default().push(sender);
            reached
        };
        // The sender lives in self, so this ends only when the revision is there.
        let _ = reached.await;
    }

    /// Changes from now on. A receiver that lagged must read all again.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.changes.subscribe()
    }

    /// Has `observer` called at each change from now on.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.observers.write().push(observer);
    }

    /// Who waits for changes of what.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    fn apply(&self, batch: &Batch) {
        let change = {
            let mut view = self.view.write();
            let change = view.apply(batch);
            self.tell_observers(&view, &change);
            change
        };
        self.publish(change);
    }

    fn replace(&self, fresh: View) {
        let change = {
            let mut view = self.view.write();
            *view = fresh;
            let change = Change { revision: view.revision, everything: true, ..Change::default() };
            self.tell_observers(&view, &change);
            change
        };
        self.publish(change);
    }

    fn tell_observers(&self, view: &View, change: &Change) {
        for observer in self.observers.read().iter() {
            observer.changed(view, change);
        }
        self.topics.changed(change);
    }

    /// Wakes those alone whose revision is there: many wait when many write.
    fn wake_waiters(&self, revision: u64) {
        let mut waiters = self.waiters.lock();
        while let Some(first) = waiters.first_entry().filter(|first| *first.key() <= revision) {
            for waiter in first.remove() {
                // Who gave up is told nothing.
                let _ = waiter.send(());
            }
        }
    }

    fn publish(&self, change: Change) {
        self.revision.send_replace(change.revision);
        self.wake_waiters(change.revision);
        // No subscriber is fine.
        let _ = self.changes.send(Arc::new(change));
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.lock().take() {
            follower.abort();
        }
    }
}

async fn load(store: &dyn Store) -> Result<View, MirrorError> {
    let range = store.range(b"", 0).await?;
    View::load(range.revision, &range.kvs)
}

/// Applies every batch of the watch; opens it again where it broke, and loads all again where revisions were compacted away.
async fn follow(mirror: std::sync::Weak<Mirror>, store: Arc<dyn Store>) {
    let Some(mut from) = mirror.upgrade().map(|mirror| mirror.revision() + 1) else { return };
    loop {
        let mut batches = store.watch(b"", from);
        while let Some(batch) = batches.next().await {
            let Some(mirror) = mirror.upgrade() else { return };
            match batch {
                Ok(batch) => {
                    from = batch.revision + 1;
                    mirror.apply(&batch);
                }
                Err(StoreError::Closed) => return,
                Err(StoreError::Compacted { oldest }) => {
                    tracing::warn!(from, oldest, "the store compacted revisions that were not read yet: reading all again");
                    match load(store.as_ref()).await {
                        Ok(view) => {
                            from = view.revision + 1;
                            mirror.replace(view);
                        }
                        Err(error) => tracing::error!(%error, "the store cannot be read again; trying on"),
                    }
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "the watch of the store broke; opening it again");
                    break;
                }
            }
        }
        if mirror.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests;
