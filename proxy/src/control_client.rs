//! The stream to the control plane: keeps the snapshot fresh and this instance registered.
//!
//! Connect → hello with the positions held → welcome → deltas. A delta is applied, published, enforced by the data plane
//! and written to disk, and only then acknowledged: an acknowledged deny survives kill -9. After the goodbye the stream
//! stays open until the last connection was drained, so that a deny closes those too.

pub(crate) mod backoff;
mod configuration;
pub mod dial;
pub mod health;
mod publisher;
mod registration;
mod resources;
mod seen;
mod session;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use postern_api::convert;
use postern_ca::SvidSource;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use backoff::{Backoff, full_jitter};
pub use publisher::{Known, Published, Publisher};
pub use registration::Instance;
pub use resources::{Applied, DeltaRefused, Lane, Resources};
pub use writer::SnapshotWriter;

use crate::ProxyError;
use crate::clock::Clock;
use crate::configuration::Teller;
use crate::connections::Cut;
use crate::metrics::Metrics;
use crate::settings::Periods;
use crate::sightings::Reports;
use crate::status::Status;
use dial::ControlDialler;
use health::Health;

/// Why the sidecar leaves the mesh; `None` while it stays.
pub type Goodbye = watch::Receiver<Option<String>>;

/// Keeps the stream open for as long as the sidecar lives.
#[derive(Debug)]
pub struct ControlClient {
    /// What this instance tells of itself.
    pub instance: Instance,
    /// How the control plane is reached.
    pub dialler: Arc<ControlDialler>,
    /// mTLS with the current SVID.
    pub tls: Arc<ClientConfig>,
    /// The current SVID: without a valid one nothing is tried.
    pub svid: SvidSource,
    /// The cluster that the SVID was issued by.
    pub cluster_id: String,
    /// What was pushed.
    pub publisher: Publisher,
    /// Which snapshot the data plane enforces.
    pub enforced: watch::Receiver<u64>,
    /// Keeps snapshots on disk.
    pub writer: SnapshotWriter,
    /// What the command beside it asks for.
    pub configuration: Teller,
    /// How well the service is.
    pub health: watch::Receiver<Health>,
    /// How many connections are open.
    pub open_connections: Arc<AtomicUsize>,
    /// What is told of calls.
    pub reports: Reports,
    /// How much snapshots have closed.
    pub cut: Arc<Cut>,
    /// How much of it the control plane was told.
    pub cut_told: (u64, u64),
    /// When to leave.
    pub goodbye: Goodbye,
    /// Is told when nobody is sent to this instance any more.
    pub left: watch::Sender<bool>,
    /// When the last connection was drained: until then a deny has to arrive.
    pub drained: CancellationToken,
    /// Hears the server's time.
    pub clock: Arc<Clock>,
    /// Is told how it goes.
    pub status: Status,
    /// `postern_control_connected`, `postern_snapshot_revision`.
    pub metrics: Arc<Metrics>,
    /// How long to wait for what.
    pub periods: Periods,
    /// Findings for `doctor`, such as a refused position. Empty at first.
    pub warnings: Vec<String>,
}

/// How a session ended.
#[derive(Debug)]
enum Ended {
    /// We said goodbye.
    Goodbye,
    /// The connection was lost or never stood.
    Lost(String),
    /// The control plane asks for time.
    Busy(Duration, String),
    /// The control plane does not want this instance as it is.
    Refused(String),
    /// The same, and it never wanted it: a fault of the settings.
    Misconfigured(String),
}

impl ControlClient {
    /// Runs until the goodbye is said and the last connection drained. What was published is on disk then.
    ///
    /// # Errors
    /// [`ProxyError::Configuration`] where the control plane refuses what this instance declares at its very first
    /// registration; an unreachable control plane is never an error.
    pub async fn run(mut self) -> Result<(), ProxyError> {
        let mut backoff = Backoff::new(self.periods.reconnect_floor, self.periods.reconnect_ceiling);
        loop {
            let ended = match self.wait_for_svid().await {
                Ok(()) => self.session(&mut backoff).await,
                Err(leaving) => leaving,
            };
            self.publisher.forget_unfinished();
            self.metrics.control_connected.set(0);
            let (wait, why) = match ended {
                Ended::Goodbye => break,
                Ended::Misconfigured(why) => return Err(ProxyError::Configuration(why)),
                Ended::Lost(why) => (backoff.wait(&mut rand::rng()), why),
                Ended::Busy(after, why) => (after + full_jitter(self.periods.busy, &mut rand::rng()), why),
                Ended::Refused(why) => (full_jitter(self.periods.busy, &mut rand::rng()), why),
            };
            self.tell_disconnected(&why);
            tokio::select! {
                biased;
                _ = leaving(&mut self.goodbye) => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.writer.finish().await;
        Ok(())
    }

    /// An expired SVID opens no stream: renewal must come first.
    async fn wait_for_svid(&mut self) -> Result<(), Ended> {
        let mut facts = self.status.subscribe();
        while self.svid.load().as_ref().is_none_or(|svid| svid.not_after() <= self.clock.now()) {
            self.tell_disconnected("the SVID has expired");
            tokio::select! {
                biased;
                _ = leaving(&mut self.goodbye) => return Err(Ended::Goodbye),
                _ = facts.changed() => {}
                () = tokio::time::sleep(self.periods.reconnect_ceiling) => {}
            }
        }
        Ok(())
    }

    fn tell_disconnected(&self, why: &str) {
        let facts = self.status.facts();
        if facts.connected || facts.control_problem.as_deref() != Some(why) {
            tracing::warn!(reason = why, "not connected to the control plane; going on with what is known");
        }
        self.status.tell(|facts| {
            facts.connected = false;
            facts.control_problem = Some(why.to_owned());
        });
    }

    /// Hands the newest snapshot to the disk, with the time that it was good at.
    fn keep(&self, sequence: u64) {
        let server_time = self.clock.server_time().map_or(0, convert::millis);
        self.writer.keep(sequence, self.publisher.to_stored(server_time));
    }
}

/// Waits for the reason to leave. An owner that is gone is a reason, too.
async fn leaving(goodbye: &mut Goodbye) -> String {
    match goodbye.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        Err(_) => "the sidecar ends".into(),
    }
}
