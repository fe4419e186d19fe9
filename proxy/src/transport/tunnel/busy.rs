//! Whether one stream takes the tunnel for itself.

use std::time::{Duration, Instant};

const HALF_SECOND: u128 = 500;
const QUIET: Duration = Duration::from_secs(1);

/// The bytes that one stream moved, in the present half second and in the one before.
///
/// Two halves are at most one second, so a sum over the bound is one that was moved within a second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    half: u32,
    present: u32,
    before: u32,
}

impl Moved {
    fn add(&mut self, bytes: usize, half: u32) -> u32 {
        if half != self.half {
            self.before = if half == self.half.wrapping_add(1) { self.present } else { 0 };
            self.present = 0;
            self.half = half;
        }
        self.present = self.present.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.present.saturating_add(self.before)
    }
}

/// Tells when any stream of the tunnel moved more than a bound within a second.
#[derive(Debug)]
pub(super) struct Busyness {
    bound: u32,
    begun: Instant,
    now: Instant,
    half: u32,
    last: Option<Instant>,
}

impl Busyness {
    pub fn new(bound: u32, now: Instant) -> Self {
        Self { bound, begun: now, now, half: 0, last: None }
    }

    /// Once a turn, so that no frame needs to know the time.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        self.half = (now.saturating_duration_since(self.begun).as_millis() / HALF_SECOND) as u32;
    }

    pub fn count(&mut self, moved: &mut Moved, bytes: usize) {
        if moved.add(bytes, self.half) > self.bound {
            self.last = Some(self.now);
        }
    }

    /// Until no stream was over the bound for a second.
    pub fn is_busy(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) < QUIET)
    }
}
