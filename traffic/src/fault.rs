//! Faults that are injected on purpose, drawn for each request.

use std::time::Duration;

use rand::Rng;

use crate::draw::hits;
use crate::settings::Faults;

/// What is done to one request before it is sent: first the wait, then the error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Injected {
    /// It waits so long.
    pub delay: Option<Duration>,
    /// It is answered with this HTTP status (200 to 599) and not sent; a gRPC call with what gRPC maps it to.
    pub abort: Option<u16>,
}

impl Faults {
    /// Draws what happens to a request. Delay and abort are drawn independently of each other.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Injected {
        let delay = self.delay.filter(|fault| hits(fault.percent, rng)).map(|fault| fault.delay.duration());
        let abort = self.abort.filter(|fault| hits(fault.percent, rng)).map(|fault| fault.status);
        Injected { delay, abort }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Period;
    use crate::settings::{AbortFault, DelayFault, Percent};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn delay_and_abort_are_drawn_apart() {
        let faults = Faults {
            delay: Some(DelayFault { percent: Percent::of(50), delay: Period::millis(200) }),
            abort: Some(AbortFault { percent: Percent::of(50), status: 503 }),
        };
        let rng = &mut StdRng::seed_from_u64(7);
        let mut seen = [0_u32; 4];
        for _ in 0..40_000 {
            let injected = faults.draw(rng);
            assert!(injected.delay.is_none_or(|delay| delay == Duration::from_millis(200)));
            assert!(injected.abort.is_none_or(|status| status == 503));
            seen[usize::from(injected.delay.is_some()) * 2 + usize::from(injected.abort.is_some())] += 1;
        }
        assert!(seen.iter().all(|times| (9_500..10_500).contains(times)), "{seen:?}");
    }

    #[test]
    fn without_faults_nothing_is_injected() {
        assert_eq!(Faults::default().draw(&mut StdRng::seed_from_u64(7)), Injected::default());
    }
}
