//! Where workers count, and what they have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use postern_edges::Verdict;
use postern_names::ServiceName;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::call::Sighting;
use super::shapes::Shapes;
use super::table::{self, Table};
use crate::connections::Connections;

/// Counts the calls that one worker sees. Nobody but the reports waits for its lock.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(super) table: Mutex<Table>,
    common: Arc<Common>,
}

/// What all workers count in.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) own: ServiceName,
    pub(super) is_counting: bool,
    pub(super) shapes: Mutex<Shapes>,
    started: Instant,
    /// All calls are told one by one until then, in milliseconds since `started`.
    follow_until_ms: AtomicU64,
    /// There are calls that somebody may be waiting to see.
    is_urgent: AtomicBool,
    became_urgent: Notify,
}

/// What all workers of a sidecar saw.
#[derive(Debug)]
pub struct Sightings {
    pub(super) common: Arc<Common>,
    pub(super) counters: Mutex<Vec<Arc<Counter>>>,
    pub(super) connections: Arc<Connections>,
}

impl Counter {
    /// Counts it. A call of an edge that is known allocates nothing.
    pub(crate) fn count(&self, sighting: &Sighting<'_>) {
        if !self.common.is_counting {
            return;
        }
        let is_call = sighting.amounts.calls > 0;
        let tells = is_call && (sighting.verdict != Verdict::Allow || self.common.follows(sighting.at));
        self.table.lock().count(sighting, &self.common.shapes, tells);
        if is_call && !sighting.verdict.went_through() {
            self.common.is_urgent();
        }
    }
}

impl Common {
    fn ms_since_start(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn follows(&self, at: Instant) -> bool {
        match self.follow_until_ms.load(Ordering::Relaxed) {
            0 => false,
            until => self.ms_since_start(at) < until,
        }
    }

    fn is_urgent(&self) {
        if !self.is_urgent.swap(true, Ordering::AcqRel) {
            self.became_urgent.notify_one();
        }
    }
}

impl Sightings {
    /// Of the service `own`, whose open calls are in `connections`. Nothing is ever seen where it is not counting.
    pub(crate) fn new(own: ServiceName, connections: Arc<Connections>, is_counting: bool) -> Arc<Self> {
        let common = Common {
            own,
            is_counting,
            shapes: Mutex::default(),
            started: Instant::now(),
            follow_until_ms: AtomicU64::new(0),
            is_urgent: AtomicBool::new(false),
            became_urgent: Notify::new(),
        };
        Arc::new(Self { common: Arc::new(common), counters: Mutex::default(), connections })
    }

    /// Where another worker counts.
    pub(crate) fn counter(&self) -> Arc<Counter> {
        let counter = Arc::new(Counter { table: Mutex::new(table::empty()), common: self.common.clone() });
        self.counters.lock().push(counter.clone());
        counter
    }

    /// From now on all calls are told one by one, for so long.
    pub(crate) fn follow(&self, lasts: Duration) {
        let until = if lasts.is_zero() { 0 } else { self.common.ms_since_start(Instant::now() + lasts) };
        self.common.follow_until_ms.store(until, Ordering::Relaxed);
    }

    /// Waits until there are calls that somebody may be waiting to see: denied or failed ones. One task at a time waits.
    pub(crate) async fn urgent(&self) {
        while !self.common.is_urgent.load(Ordering::Acquire) {
            self.common.became_urgent.notified().await;
        }
    }

    /// They are about to be told.
    pub(super) fn is_not_urgent(&self) {
        self.common.is_urgent.store(false, Ordering::Release);
    }
}
