//! What time it is for everything that expires.
//!
//! Now is the later of the local clock and the control plane's last word plus the monotonic time since: a clock that is
//! set back prolongs nothing, and what has expired stays expired.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use postern_api::convert::{millis, time};
use tokio::sync::Notify;

/// No word from the control plane yet.
const UNHEARD: i64 = i64::MIN;

/// The sidecar's clock. Shared by every task; reading takes no lock.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// The control plane's time at `started`, in milliseconds since the Unix epoch, as its latest heartbeats tell.
    floor_at_start: AtomicI64,
    moved: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that has heard nothing from the control plane.
    pub fn new() -> Self {
        Self { started: Instant::now(), floor_at_start: AtomicI64::new(UNHEARD), moved: Notify::new() }
    }

    /// The time that expiry is judged by.
    pub fn now(&self) -> SystemTime {
        self.now_given(SystemTime::now(), self.started.elapsed())
    }

    /// Takes the server's time from a heartbeat. An earlier one than is known is ignored.
    pub fn observe(&self, server: SystemTime) {
        self.observe_after(server, self.started.elapsed());
    }

    /// Waits until the control plane has told a later time than was known. One task at a time waits for it.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// The latest time the control plane has told, carried on by the monotonic clock; `None` before the first word.
    pub fn server_time(&self) -> Option<SystemTime> {
        self.floor(self.started.elapsed())
    }

    fn now_given(&self, local: SystemTime, since_start: Duration) -> SystemTime {
        self.floor(since_start).map_or(local, |floor| local.max(floor))
    }

    fn observe_after(&self, server: SystemTime, since_start: Duration) {
        let server = i64::try_from(millis(server)).unwrap_or(i64::MAX);
        let floor = server.saturating_sub(whole_millis(since_start));
        if self.floor_at_start.fetch_max(floor, Ordering::Relaxed) < floor {
            self.moved.notify_one();
        }
    }

    fn floor(&self, since_start: Duration) -> Option<SystemTime> {
        let at_start = self.floor_at_start.load(Ordering::Relaxed);
        (at_start != UNHEARD).then(|| time(u64::try_from(at_start.saturating_add(whole_millis(since_start))).unwrap_or(0)))
    }
}

fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_set_back_prolongs_nothing() {
        let clock = Clock::new();
        clock.observe_after(at(1_000), Duration::from_secs(10));

        let set_back = at(5);

        assert_eq!(clock.now_given(set_back, Duration::from_secs(70)), at(1_060));
    }

    #[test]
    fn a_local_clock_that_is_ahead_is_believed() {
        let clock = Clock::new();
        clock.observe_after(at(1_000), Duration::ZERO);

        assert_eq!(clock.now_given(at(5_000), Duration::from_secs(1)), at(5_000));
    }

    #[test]
    fn an_earlier_word_of_the_control_plane_is_ignored() {
        let clock = Clock::new();
        clock.observe_after(at(1_000), Duration::ZERO);
        clock.observe_after(at(500), Duration::from_secs(1));

        assert_eq!(clock.now_given(at(0), Duration::from_secs(1)), at(1_001));
    }

    #[test]
    fn before_the_first_word_the_local_clock_counts() {
        assert_eq!(Clock::new().now_given(at(7), Duration::from_secs(99)), at(7));
    }
}
