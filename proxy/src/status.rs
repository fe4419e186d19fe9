//! Whether this sidecar can serve traffic, and if not, why: what `/ready` says.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use postern_api::convert::{millis, time};
use tokio::sync::watch;

/// What the parts of the sidecar have told of themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// How far the sidecar has come.
    pub stage: Stage,
    /// When the SVID ends.
    pub svid_not_after: Option<SystemTime>,
    /// Why the last enrolment or renewal did not succeed.
    pub identity_problem: Option<String>,
    /// Whether the stream to the control plane is open.
    pub connected: bool,
    /// Why it is not.
    pub control_problem: Option<String>,
    /// Whether a snapshot is held that traffic can be judged by.
    pub has_snapshot: bool,
}

/// How far a sidecar has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has no SVID yet.
    #[default]
    Enrolling,
    /// It carries traffic.
    Running,
    /// It drains.
    Stopping,
}

/// The facts, shared. Cloning shares them.
#[derive(Clone)]
pub struct Status {
    facts: Arc<watch::Sender<Facts>>,
    /// Milliseconds since the Unix epoch; 0: never.
    confirmed: Arc<AtomicU64>,
}

impl Default for Status {
    fn default() -> Self {
        Self { facts: Arc::new(watch::channel(Facts::default()).0), confirmed: Arc::default() }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.borrow().fmt(f)
    }
}

impl Status {
    /// Tells something new. Waiters wake only where it makes a difference.
    pub fn tell(&self, change: impl FnOnce(&mut Facts)) {
        self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
    }

    /// The control plane was heard at `now`: the snapshot is as fresh as it can be.
    pub fn confirm(&self, now: SystemTime) {
        self.confirmed.store(millis(now), Ordering::Relaxed);
    }

    /// How long ago the snapshot was known to be fresh; zero before there is one.
    pub fn age(&self, now: SystemTime) -> Duration {
        match self.confirmed.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            confirmed => now.duration_since(time(confirmed)).unwrap_or_default(),
        }
    }

    /// The facts as they are.
    pub fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    /// To wait for changes.
    pub fn subscribe(&self) -> watch::Receiver<Facts> {
        self.facts.subscribe()
    }
}

impl Facts {
    /// Whether traffic can be served at `now`.
    ///
    /// # Errors
    /// Why it cannot, for people.
    pub fn readiness(&self, now: SystemTime) -> Result<(), String> {
        let with = |what: &str, why: &Option<String>| match why {
            Some(why) => format!("{what}: {why}"),
            None => what.to_owned(),
        };
        match (self.stage, self.svid_not_after) {
            (Stage::Stopping, _) => Err("shutting down".into()),
            (Stage::Enrolling, _) | (_, None) => Err(with("no SVID yet", &self.identity_problem)),
            (Stage::Running, Some(end)) if end <= now => Err(with("the SVID has expired", &self.identity_problem)),
            (Stage::Running, _) if !self.has_snapshot => {
                Err(with("no snapshot from the control plane yet", &self.control_problem))
            }
            (Stage::Running, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_svid_is_not_ready_and_says_why() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let facts = Facts {
            stage: Stage::Running,
            svid_not_after: Some(end),
            identity_problem: Some("revoked".into()),
            has_snapshot: true,
            ..Facts::default()
        };
        assert_eq!(facts.readiness(end - Duration::from_secs(1)), Ok(()));
        assert_eq!(facts.readiness(end), Err("the SVID has expired: revoked".into()));
    }

    #[test]
    fn without_a_snapshot_nothing_is_ready() {
        let facts = Facts {
            stage: Stage::Running,
            svid_not_after: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(100)),
            ..Facts::default()
        };
        assert!(facts.readiness(SystemTime::UNIX_EPOCH).is_err());
    }
}
