//! When COMMAND is stopped and started again. No I/O.

use std::time::Duration;

use tokio::time::Instant;

/// From one start again to the next stop: what changes in between is in force with that.
const PAUSE: Duration = Duration::from_secs(5);

/// Where a restart stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarts {
    stage: Stage,
    not_before: Instant,
    kill_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Due,
    /// Until then it may end by itself.
    Stopping(Instant),
    Killed,
}

/// What is to be done to COMMAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask it to end.
    Terminate,
    /// It did not end in time.
    Kill,
}

impl Restarts {
    /// COMMAND has just been started for the first time.
    pub fn new(kill_timeout: Duration, now: Instant) -> Self {
        Self { stage: Stage::Running, not_before: now, kill_timeout }
    }

    /// Something changed that it has to be started again for.
    pub fn ask(&mut self) {
        if self.stage == Stage::Running {
            self.stage = Stage::Due;
        }
    }

    /// When [`Restarts::step`] has something to do; `None`: when it is asked, or COMMAND ends.
    pub fn at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Running | Stage::Killed => None,
            Stage::Due => Some(self.not_before),
            Stage::Stopping(until) => Some(until),
        }
    }

    /// What is to be done now.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        match self.stage {
            Stage::Due if now >= self.not_before => {
                self.stage = Stage::Stopping(now + self.kill_timeout);
                Some(Step::Terminate)
            }
            Stage::Stopping(until) if now >= until => {
                self.stage = Stage::Killed;
                Some(Step::Kill)
            }
            _ => None,
        }
    }

    /// Whether COMMAND was asked to end, so that it can be started again.
    pub fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Stopping(_) | Stage::Killed)
    }

    /// It was started again.
    pub fn started(&mut self, now: Instant) {
        self.stage = Stage::Running;
        self.not_before = now + PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_to_end_then_killed_then_left_alone_for_a_while() {
        let kill_timeout = Duration::from_secs(2);
        let begin = Instant::now();
        let mut restarts = Restarts::new(kill_timeout, begin);
        assert_eq!(restarts.at(), None);
        restarts.ask();
        assert_eq!(restarts.at(), Some(begin), "the first is at once");
        assert_eq!(restarts.step(begin), Some(Step::Terminate));
        assert_eq!(restarts.step(begin), None);
        assert!(restarts.is_under_way());
        assert_eq!(restarts.at(), Some(begin + kill_timeout));
        assert_eq!(restarts.step(begin + kill_timeout), Some(Step::Kill));
        assert_eq!(restarts.at(), None, "only its end is waited for");

        let again = begin + kill_timeout;
        restarts.started(again);
        for _ in 0..3 {
            restarts.ask();
        }
        assert_eq!(restarts.step(again + PAUSE - Duration::from_millis(1)), None, "too soon after the last");
        assert_eq!(restarts.at(), Some(again + PAUSE));
        assert_eq!(restarts.step(again + PAUSE), Some(Step::Terminate));
        restarts.started(again + PAUSE);
        assert_eq!(restarts.at(), None, "three changes are one restart");
    }
}
