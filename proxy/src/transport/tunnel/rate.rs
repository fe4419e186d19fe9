//! How often something may happen.

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Counts within seconds: the first begins with the first event, the next with the first event after its end.
#[derive(Debug)]
pub(super) struct Rate {
    most: u32,
    begun: Option<Instant>,
    count: u32,
}

impl Rate {
    pub fn new(most: u32) -> Self {
        Self { most, begun: None, count: 0 }
    }

    /// Counts one event. False when it is one too many for this second.
    #[must_use]
    pub fn allows(&mut self, now: Instant) -> bool {
        match self.begun {
            Some(begun) if now.saturating_duration_since(begun) < SECOND => self.count = self.count.saturating_add(1),
            _ => (self.begun, self.count) = (Some(now), 1),
        }
        self.count <= self.most
    }
}

/// A reserve that fills by the time and is drawn from, so that within any second less than `most` is drawn.
///
/// It holds half of `most` and refills two fifths of it a second; the rest is for answers that bunch up on the way.
#[derive(Debug)]
pub(super) struct Reserve {
    holds: u32,
    a_second: u32,
    left: u32,
    filled: Instant,
}

impl Reserve {
    pub fn new(most: u32, now: Instant) -> Self {
        let holds = (most / 2).max(1);
        Self { holds, a_second: (most / 5 * 2).max(1), left: holds, filled: now }
    }

    pub fn left(&mut self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.filled).min(SECOND);
        let more = (u128::from(self.a_second) * passed.as_micros() / SECOND.as_micros()) as u32;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(self.holds);
            self.filled = now;
        }
        self.left
    }

    pub fn draw(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_allows_its_number_in_a_second_and_again_in_the_next() {
        let now = Instant::now();
        let mut rate = Rate::new(3);
        assert_eq!([(); 5].map(|()| rate.allows(now)), [true, true, true, false, false]);
        assert!(!rate.allows(now + Duration::from_millis(999)));
        assert!(rate.allows(now + SECOND));
    }

    #[test]
    fn a_reserve_gives_less_than_its_number_within_any_second() {
        let begun = Instant::now();
        let mut reserve = Reserve::new(500, begun);
        let mut drawn = 0;
        for millisecond in 0..1_000 {
            while reserve.left(begun + Duration::from_millis(millisecond)) > 0 {
                reserve.draw();
                drawn += 1;
            }
        }
        assert!((400..500).contains(&drawn), "{drawn}");
    }
}
