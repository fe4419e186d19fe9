//! How long a frame and the answer to it are on their way.

use std::time::{Duration, Instant};

/// A question follows the last answer after this at least, so that PINGs stay far below their limit.
const APART: Duration = Duration::from_millis(500);

/// The round trip of a tunnel, from the last PING that was answered.
///
/// The last and not the shortest counts: where packets are lost, what comes after them is given to the reader only once they
/// were sent again, and so long as that takes the peer must be able to send.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    last: Option<Duration>,
    /// The last question, and when it was sent.
    asked: Option<([u8; 8], Instant)>,
    answered: Option<Instant>,
}

impl RoundTrip {
    /// The round trip, once one was measured.
    pub fn last(&self) -> Option<Duration> {
        self.last
    }

    /// Whether it is time to ask again. One question at a time: what answers it is then known.
    pub fn may_ask(&self, now: Instant) -> bool {
        self.asked.is_none() && self.answered.is_none_or(|at| now.saturating_duration_since(at) >= APART)
    }

    /// A PING with these bytes is sent. One that was sent before needs no answer any more.
    pub fn ask(&mut self, opaque: [u8; 8], now: Instant) {
        self.asked = Some((opaque, now));
    }

    /// The answer to a PING came. One that nobody asked for means nothing.
    pub fn answer(&mut self, opaque: [u8; 8], now: Instant) {
        let Some((_, sent)) = self.asked.filter(|(asked, _)| *asked == opaque) else { return };
        self.asked = None;
        self.answered = Some(now);
        self.last = Some(now.saturating_duration_since(sent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_answer_that_nobody_asked_for_means_nothing() {
        let now = Instant::now();
        let mut round_trip = RoundTrip::default();
        round_trip.answer([1; 8], now);
        round_trip.ask([2; 8], now);
        round_trip.answer([1; 8], now + MS);
        assert_eq!(round_trip.last(), None);
        round_trip.answer([2; 8], now + 2 * MS);
        round_trip.answer([2; 8], now + MS);
        assert_eq!(round_trip.last(), Some(2 * MS));
    }

    #[test]
    fn one_question_is_asked_at_a_time_and_half_a_second_after_the_last_answer() {
        let now = Instant::now();
        let mut round_trip = RoundTrip::default();
        assert!(round_trip.may_ask(now));
        round_trip.ask([1; 8], now);
        assert!(!round_trip.may_ask(now + 10 * APART));
        round_trip.answer([1; 8], now + MS);
        assert!(!round_trip.may_ask(now + APART));
        assert!(round_trip.may_ask(now + APART + MS));
    }
}
