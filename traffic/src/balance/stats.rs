//! What is known of one instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postern_names::InstanceId;

use super::latency::Latency;
use crate::breaker::{Limit, Resource};

/// What an instance costs, in microseconds, of which nothing is known and on which a request is open: more than any that is
/// known, so that one request at a time finds out how fast it is.
const UNKNOWN: f64 = 3.6e9;
/// The latency that a failed connect or a reset counts as, at least: for half a minute others are preferred.
const NO_ANSWER: Duration = Duration::from_secs(1);

/// What this sidecar knows of one instance of a service: atomics, shared by all workers and by every rebuilt
/// [`ServiceTargets`](crate::ServiceTargets) that the instance is part of.
#[derive(Debug)]
pub struct InstanceStats {
    instance: InstanceId,
    epoch: Instant,
    open: AtomicU32,
    latency: Latency,
    connections: Arc<Limit>,
    /// Since the last interval of outlier ejection.
    successes: AtomicU32,
    failures: AtomicU32,
    failures_in_a_row: AtomicU32,
    is_ejected: AtomicBool,
}

impl InstanceStats {
    /// Of an instance of which nothing is known. `now` is not later than its first request.
    pub fn new(instance: InstanceId, connections: u32, now: Instant) -> Self {
        Self {
            instance,
            epoch: now,
            open: AtomicU32::new(0),
            latency: Latency::default(),
            connections: Arc::new(Limit::new(Resource::Connections, connections)),
            successes: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            failures_in_a_row: AtomicU32::new(0),
            is_ejected: AtomicBool::new(false),
        }
    }

    /// Which instance.
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Requests that are open on it.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether it is ejected now.
    pub fn is_ejected(&self) -> bool {
        self.is_ejected.load(Ordering::Acquire)
    }

    /// The moving average of its latency; none before the first answer.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        self.latency.read(self.since_epoch(now)).map(|micros| Duration::from_secs_f64(micros / 1e6))
    }

    /// The breaker of connections to it (`circuit_breakers.connections`).
    pub fn connections(&self) -> &Arc<Limit> {
        &self.connections
    }

    /// What one more request on it costs: its latency times the requests that would be open.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        let open = f64::from(self.open());
        match self.latency.read(self.since_epoch(now)) {
            Some(micros) => micros * (open + 1.0),
            // The first request is free, so that an instance that has just come is tried.
            None if open == 0.0 => 0.0,
            None => UNKNOWN * (open + 1.0),
        }
    }

    pub(crate) fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// The head of an answer came after `latency`.
    pub(crate) fn answered(&self, latency: Duration, now: Instant) {
        self.latency.observe(latency, self.since_epoch(now));
    }

    /// No answer came in `latency`: it takes at least that long.
    pub(crate) fn unanswered(&self, latency: Duration, now: Instant) {
        self.latency.observe_failure(latency, self.since_epoch(now));
    }

    /// It could not be reached, or went away: dear for a while, however fast that was.
    pub(crate) fn unreached(&self, latency: Duration, now: Instant) {
        self.unanswered(latency.max(NO_ANSWER), now);
    }

    pub(crate) fn succeeded(&self) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        // Read first: nearly always it is 0, and a line that is only read stays in every core's cache.
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// How many in a row it was with this one.
    pub(crate) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failures_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Successes and failures since this was asked last.
    pub(crate) fn take_counts(&self) -> (u32, u32) {
        (self.successes.swap(0, Ordering::Relaxed), self.failures.swap(0, Ordering::Relaxed))
    }

    pub(crate) fn eject(&self) {
        self.is_ejected.store(true, Ordering::Release);
    }

    pub(crate) fn readmit(&self) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.is_ejected.store(false, Ordering::Release);
    }

    fn since_epoch(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(now: Instant) -> InstanceStats {
        InstanceStats::new("api-1".parse().expect("an id"), 8, now)
    }

    #[test]
    fn an_unknown_instance_gets_one_request_until_it_has_answered() {
        let now = Instant::now();
        let (known, unknown) = (stats(now), stats(now));
        known.answered(Duration::from_secs(1), now);
        assert!(unknown.cost(now) < known.cost(now));
        unknown.begin();
        assert!(unknown.cost(now) > known.cost(now));
        unknown.answered(Duration::from_millis(1), now);
        assert!(unknown.cost(now) < known.cost(now));
    }

    #[test]
    fn an_open_request_makes_an_instance_dearer() {
        let now = Instant::now();
        let stats = stats(now);
        stats.answered(Duration::from_millis(10), now);
        let before = stats.cost(now);
        stats.begin();
        assert!((stats.cost(now) - 2.0 * before).abs() < 1e-6);
        stats.end();
        assert!((stats.cost(now) - before).abs() < 1e-6);
    }

    #[test]
    fn a_failed_connect_makes_an_instance_dear_however_fast_it_failed() {
        let now = Instant::now();
        let stats = stats(now);
        stats.answered(Duration::from_millis(1), now);
        stats.unreached(Duration::from_micros(50), now);
        assert_eq!(stats.latency(now), Some(NO_ANSWER));
    }
}
