//! What `/metrics` tells of the push.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Is called with the time from a change to its acknowledgement.
pub type ObservePush = Box<dyn Fn(Duration) + Send + Sync>;

/// Counters of the push; cheap to read at any time.
#[derive(Default)]
pub struct PushStats {
    /// Open streams.
    pub sidecars: AtomicI64,
    /// Messages sent on a lane.
    pub pushes: AtomicU64,
    /// Messages acknowledged.
    pub acknowledged: AtomicU64,
    /// Resources that a sidecar did not understand.
    pub nacks: AtomicU64,
    /// Streams that were ended since nothing was acknowledged in time.
    pub ack_timeouts: AtomicU64,
    /// Streams that were refused.
    pub refused: AtomicU64,
    /// TLS handshakes on the sidecars' port that failed.
    pub handshake_failures: AtomicU64,
    /// Connections closed because their address had too many without a certificate.
    pub over_address_limit: AtomicU64,
    observe: OnceLock<ObservePush>,
}

impl PushStats {
    /// Has `observe` called at each acknowledgement; the first call counts.
    pub fn observe_with(&self, observe: ObservePush) {
        // A second observer would count everything twice.
        let _ = self.observe.set(observe);
    }

    pub(crate) fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn pushed(&self, took: Duration) {
        self.count(&self.acknowledged);
        if let Some(observe) = self.observe.get() {
            observe(took);
        }
    }
}
