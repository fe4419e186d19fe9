//! One try of a request on an instance, from the pick to the end of its answer.

use std::sync::Arc;
use std::time::Instant;

use super::InstanceStats;
use crate::Outcome;
use crate::eject::{Ejection, Ejector};

/// A request that is open on an instance: counted until it is dropped, which is when the last byte of the answer has gone.
#[derive(Debug)]
#[must_use]
pub struct OpenRequest {
    stats: Arc<InstanceStats>,
    ejector: Arc<Ejector>,
    began: Instant,
    is_answered: bool,
}

impl OpenRequest {
    pub(crate) fn new(stats: Arc<InstanceStats>, ejector: Arc<Ejector>, now: Instant) -> Self {
        stats.begin();
        Self { stats, ejector, began: now, is_answered: false }
    }

    /// What is known of the instance.
    pub fn stats(&self) -> &Arc<InstanceStats> {
        &self.stats
    }

    /// The head of an answer came whose outcome is not known yet, as with gRPC: this is the latency that is balanced by. Only
    /// the first call counts.
    pub fn answered(&mut self, now: Instant) {
        if !self.is_answered {
            self.is_answered = true;
            self.stats.answered(now.saturating_duration_since(self.began), now);
        }
    }

    /// How the try ended, to be said once: with the head of an answer, for gRPC with its status, or without an answer. The
    /// request stays open until this is dropped. Returns an ejection that it led to, for the log.
    pub fn ended(&mut self, outcome: Outcome, now: Instant) -> Option<Ejection> {
        let latency = now.saturating_duration_since(self.began);
        match outcome {
            Outcome::Status(_) | Outcome::GrpcStatus(_) if !outcome.is_failure() => self.answered(now),
            Outcome::ConnectFailure | Outcome::Reset { .. } if !self.is_answered => self.stats.unreached(latency, now),
            Outcome::Overloaded => return None,
            // An error that comes fast does not make the instance fast.
            _ if outcome.is_failure() && !self.is_answered => self.stats.unanswered(latency, now),
            _ => {}
        }
        self.is_answered = true;
        if outcome.is_failure() {
            let in_a_row = self.stats.failed();
            self.ejector.failed(&self.stats, in_a_row, now)
        } else {
            self.stats.succeeded();
            None
        }
    }

    /// The caller went away before an answer came: neither a success nor a failure, but the instance takes at least this long.
    pub fn abandoned(&mut self, now: Instant) {
        if !self.is_answered {
            self.is_answered = true;
            self.stats.unanswered(now.saturating_duration_since(self.began), now);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.stats.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OutlierEjection;
    use std::time::Duration;

    fn open(now: Instant) -> OpenRequest {
        let stats = Arc::new(InstanceStats::new("api-1".parse().expect("an id"), 8, now));
        OpenRequest::new(stats, Arc::new(Ejector::new(&OutlierEjection::default(), now)), now)
    }

    #[test]
    fn the_head_of_the_answer_is_the_latency_and_its_end_the_end() {
        let start = Instant::now();
        let later = |millis| start + Duration::from_millis(millis);
        let mut request = open(start);
        let stats = request.stats().clone();
        request.answered(later(5));
        request.answered(later(50));
        assert_eq!(request.ended(Outcome::GrpcStatus(0), later(500)), None);
        assert_eq!(stats.latency(later(5)), Some(Duration::from_millis(5)));
        assert_eq!((stats.open(), stats.take_counts()), (1, (1, 0)));
        drop(request);
        assert_eq!(stats.open(), 0);
    }

    #[test]
    fn a_stream_that_breaks_after_its_head_fails_and_is_not_slow() {
        let start = Instant::now();
        let mut request = open(start);
        request.answered(start + Duration::from_millis(5));
        request.ended(Outcome::Reset { before_answer: false }, start + Duration::from_millis(6));
        assert_eq!(request.stats().latency(start), Some(Duration::from_millis(5)));
        assert_eq!(request.stats().take_counts(), (0, 1));
    }

    #[test]
    fn an_error_that_comes_fast_makes_an_instance_no_faster() {
        let start = Instant::now();
        let later = |millis| start + Duration::from_millis(millis);
        for outcome in [Outcome::Status(503), Outcome::GrpcStatus(14), Outcome::PerTryTimeout] {
            let mut first = open(start);
            first.ended(Outcome::Status(200), later(40));
            let stats = first.stats().clone();
            let mut second = OpenRequest::new(stats.clone(), first.ejector.clone(), later(10_000));
            second.ended(outcome, later(10_001));
            assert_eq!(stats.latency(later(10_001)), Some(Duration::from_millis(40)), "{outcome:?}");
        }
    }

    #[test]
    fn a_breaker_says_nothing_of_the_instance() {
        let now = Instant::now();
        let mut request = open(now);
        request.ended(Outcome::Overloaded, now);
        assert_eq!((request.stats().latency(now), request.stats().take_counts()), (None, (0, 0)));
    }

    #[test]
    fn a_caller_that_goes_away_says_how_long_it_waited() {
        let start = Instant::now();
        let later = |millis| start + Duration::from_millis(millis);
        let mut request = open(start);
        request.abandoned(later(300));
        assert_eq!(request.stats().latency(later(300)), Some(Duration::from_millis(300)));
        assert_eq!(request.stats().take_counts(), (0, 0));
    }
}
