//! How long to wait before another try: full jitter under a ceiling that doubles.

use std::time::Duration;

use rand::Rng;

/// Random waits whose ceiling doubles at each failure.
#[derive(Debug, Clone)]
pub struct Backoff {
    floor: Duration,
    ceiling: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits of at most `floor` at first, at most `ceiling` in the end.
    pub fn new(floor: Duration, ceiling: Duration) -> Self {
        let ceiling = ceiling.max(floor);
        Self { floor, ceiling, next: floor }
    }

    /// The next wait: anything from nothing to the present ceiling.
    pub fn wait(&mut self, rng: &mut impl Rng) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(self.ceiling);
        full_jitter(most, rng)
    }

    /// After a success the waits are short again.
    pub fn reset(&mut self) {
        self.next = self.floor;
    }
}

/// Anything from nothing to `most`.
pub fn full_jitter(most: Duration, rng: &mut impl Rng) -> Duration {
    most.mul_f64(rng.random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn waits_stay_under_a_ceiling_that_doubles_and_starts_anew_after_a_success() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        for most in [200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            assert!(backoff.wait(&mut rng) <= Duration::from_millis(most));
        }
        backoff.reset();
        assert!(backoff.wait(&mut rng) <= Duration::from_millis(200));
    }
}
