//! Whether the peer is still there.

use std::time::{Duration, Instant};

/// What to do at a timeout.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Bytes came since the timeout was set.
    Alive,
    /// Ask.
    Ask,
    /// The question stayed without an answer.
    Dead,
}

/// Silence is asked about once; silence after the question is the end. One timer, set at most once in `ask_after`.
#[derive(Debug)]
pub(super) struct Liveness {
    ask_after: Duration,
    dead_after: Duration,
    heard: Instant,
    asked: Option<Instant>,
}

impl Liveness {
    pub fn new(ask_after: Duration, dead_after: Duration, now: Instant) -> Self {
        Self { ask_after, dead_after, heard: now, asked: None }
    }

    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    pub fn next_timeout(&self) -> Instant {
        match self.asked {
            Some(asked) => asked + self.dead_after,
            None => self.heard + self.ask_after,
        }
    }

    pub fn on_timeout(&mut self, now: Instant) -> Verdict {
        if now < self.next_timeout() {
            Verdict::Alive
        } else if self.asked.is_some() {
            Verdict::Dead
        } else {
            self.asked = Some(now);
            Verdict::Ask
        }
    }
}
