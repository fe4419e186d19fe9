//! A store in memory: the model that says how a store behaves.
//!
//! Written to be plainly right rather than fast: one ordered map, the whole history, leases found by looking through
//! all keys. The other engines are compared with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use parking_lot::{Condvar, Mutex};

use super::Store;
use super::error::StoreError;
use super::feed::{Feed, History, READ_AHEAD, WindowLimits};
use super::limits;
use super::types::{Batch, Clock, Event, Kv, LeaseId, Op, Range, Stored, Txn, TxnResult};

/// A store that is lost with the process, and keeps its history until it is compacted.
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    model: Mutex<Model>,
    /// A lease was granted, or the store is closed.
    changed: Condvar,
    feed: Feed,
    clock: Clock,
}

struct Model {
    revision: u64,
    oldest: u64,
    kvs: BTreeMap<Bytes, Kv>,
    history: BTreeMap<u64, Arc<Batch>>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: u64,
    expires_itself: bool,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_clock(Clock::default())
    }

    /// An empty store whose leases end by this clock.
    pub fn with_clock(clock: Clock) -> Self {
        let model = Model {
            revision: 1,
            oldest: 1,
            kvs: BTreeMap::new(),
            history: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
            expires_itself: false,
            closed: false,
        };
        // Nothing recent is kept apart: every watch reads the history.
        let feed = Feed::new(1, 1, WindowLimits { batches: 0, bytes: 0 });
        Self { shared: Arc::new(Shared { model: Mutex::new(model), changed: Condvar::new(), feed, clock }) }
    }

    /// Ends the leases whose time is over by the clock, without waiting for the store to notice; gives the revision.
    pub fn expire_leases(&self) -> u64 {
        self.shared.with_model(|_| ());
        self.shared.feed.revision()
    }

    /// What a restart does to a durable store: every lease has its full time again.
    pub fn restart(&self) {
        let now = self.shared.clock.now();
        self.shared.with_model(|model| {
            for lease in model.leases.values_mut() {
                lease.deadline = now + lease.ttl;
            }
        });
    }

    fn model<T>(
        &self,
        act: impl FnOnce(&mut Model) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        async move { shared.with_model(act) }.boxed()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.shared.model.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// Ends what is due, acts, and publishes what came of it before anything else can be committed.
    fn with_model<T>(&self, act: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.model.lock();
        let before = model.revision;
        model.expire(self.clock.now());
        let result = act(&mut model);
        self.feed.publish(model.history.range(before + 1..).map(|(_, batch)| Arc::clone(batch)));
        self.feed.compacted(model.oldest);
        result
    }

    /// Ends leases when their time is over, until the store is closed.
    fn expire_until_closed(&self) {
        loop {
            self.with_model(|_| ());
            let mut model = self.model.lock();
            if model.closed {
                return;
            }
            match model.leases.values().map(|lease| lease.deadline).min() {
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(self.clock.now());
                    self.changed.wait_for(&mut model, left);
                }
                None => self.changed.wait(&mut model),
            }
        }
    }
}

impl Model {
    fn txn(&mut self, txn: &Txn) -> Result<TxnResult, StoreError> {
        let succeeded = txn.compares.iter().all(|compare| compare.holds(self.kvs.get(compare.key()).map(Stored::from)));
        self.apply(if succeeded { &txn.then } else { &txn.otherwise })?;
        Ok(TxnResult { succeeded, revision: self.revision, committed_at: SystemTime::now() })
    }

    fn apply(&mut self, ops: &[Op]) -> Result<(), StoreError> {
        for op in ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.leases.contains_key(lease)
            {
                return Err(StoreError::LeaseNotFound(*lease));
            }
        }
        let revision = self.revision + 1;
        let mut events = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    let before = self.kvs.get(key);
                    let kv = Kv {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: before.map_or(revision, |kv| kv.create_revision),
                        mod_revision: revision,
                        version: before.map_or(0, |kv| kv.version) + 1,
                        lease: *lease,
                    };
                    let event = Event {
                        key: key.clone(),
                        value: Some(value.clone()),
                        mod_revision: revision,
                        create_revision: kv.create_revision,
                    };
                    events.insert(key.clone(), event);
                    self.kvs.insert(key.clone(), kv);
                }
                Op::Delete(key) => self.delete(revision, &mut events, |kv| kv.key == *key),
                Op::DeletePrefix(prefix) => self.delete(revision, &mut events, |kv| kv.key.starts_with(prefix)),
            }
        }
        self.record(revision, events);
        Ok(())
    }

    fn delete(&mut self, revision: u64, events: &mut BTreeMap<Bytes, Event>, which: impl Fn(&Kv) -> bool) {
        self.kvs.retain(|key, kv| {
            let deleted = which(kv);
            if deleted {
                let event = Event { key: key.clone(), value: None, mod_revision: revision, create_revision: 0 };
                events.insert(key.clone(), event);
            }
            !deleted
        });
    }

    fn record(&mut self, revision: u64, events: BTreeMap<Bytes, Event>) {
        if !events.is_empty() {
            self.revision = revision;
            self.history.insert(revision, Arc::new(Batch { revision, events: events.into_values().collect() }));
        }
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<u64, StoreError> {
        self.leases.remove(&lease).ok_or(StoreError::LeaseNotFound(lease))?;
        let revision = self.revision + 1;
        let mut events = BTreeMap::new();
        self.delete(revision, &mut events, |kv| kv.lease == Some(lease));
        self.record(revision, events);
        Ok(self.revision)
    }

    fn expire(&mut self, now: Instant) {
        let mut due: Vec<_> =
            self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, lease)| (lease.deadline, *id)).collect();
        due.sort_unstable();
        for (_, lease) in due {
            let _ = self.end_lease(lease);
        }
    }

    fn compact(&mut self, revision: u64) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::FutureRevision { asked: revision, revision: self.revision });
        }
        self.oldest = self.oldest.max(revision);
        self.history = self.history.split_off(&self.oldest);
        Ok(())
    }

    fn range(&self, prefix: &[u8], limit: usize) -> Range {
        let mut under = self.kvs.values().filter(|kv| kv.key.starts_with(prefix)).cloned();
        let limit = if limit == 0 { usize::MAX } else { limit };
        let kvs = under.by_ref().take(limit).collect();
        Range { kvs, revision: self.revision, more: under.next().is_some() }
    }
}

impl Store for MemoryStore {
    fn range(&self, prefix: &[u8], limit: usize) -> BoxFuture<'static, Result<Range, StoreError>> {
        let prefix = prefix.to_vec();
        self.model(move |model| Ok(model.range(&prefix, limit)))
    }

    fn get(&self, key: &[u8]) -> BoxFuture<'static, Result<Option<Kv>, StoreError>> {
        let key = key.to_vec();
        self.model(move |model| Ok(model.kvs.get(key.as_slice()).cloned()))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'static, Result<TxnResult, StoreError>> {
        if let Err(error) = limits::check(&txn) {
            return future::ready(Err(error)).boxed();
        }
        self.model(move |model| model.txn(&txn))
    }

    fn watch(&self, prefix: &[u8], from: u64) -> BoxStream<'static, Result<Batch, StoreError>> {
        self.shared.feed.watch(prefix, from, Arc::new(Arc::downgrade(&self.shared)))
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'static, Result<LeaseId, StoreError>> {
        let ttl = limits::lease_ttl(ttl);
        let shared = Arc::clone(&self.shared);
        async move {
            let now = shared.clock.now();
            let (id, starts) = shared.with_model(|model| {
                model.last_lease += 1;
                let id = LeaseId(model.last_lease);
                model.leases.insert(id, Lease { ttl, deadline: now + ttl });
                (id, !std::mem::replace(&mut model.expires_itself, true))
            });
            if starts {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name("memory-leases".into())
                    .spawn(move || shared.expire_until_closed())
                    .map_err(|error| StoreError::io("cannot start the thread that ends leases", &error))?;
            }
            shared.changed.notify_all();
            Ok(id)
        }
        .boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'static, Result<Duration, StoreError>> {
        let now = self.shared.clock.now();
        self.model(move |model| {
            let held = model.leases.get_mut(&lease).ok_or(StoreError::LeaseNotFound(lease))?;
            held.deadline = now + held.ttl;
            Ok(held.ttl)
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.model(move |model| model.end_lease(lease))
    }

    fn compact(&self, revision: u64) -> BoxFuture<'static, Result<(), StoreError>> {
        self.model(move |model| model.compact(revision))
    }

    fn revision(&self) -> u64 {
        self.shared.feed.revision()
    }
}

impl History for Weak<Shared> {
    fn read(&self, from: u64) -> BoxFuture<'static, Result<Vec<Arc<Batch>>, StoreError>> {
        let Some(shared) = self.upgrade() else { return future::ready(Err(StoreError::Closed)).boxed() };
        let model = shared.model.lock();
        let read = if from < model.oldest {
            Err(StoreError::Compacted { oldest: model.oldest })
        } else {
            Ok(model.history.range(from..).take(READ_AHEAD).map(|(_, batch)| Arc::clone(batch)).collect())
        };
        future::ready(read).boxed()
    }
}
