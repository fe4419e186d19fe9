//! How much one sidecar may tell: a store that fills up with time.

use tokio::time::Instant;

/// Edges a second. A sidecar tells at most 2,000 every 5 s.
const EDGES: Rate = Rate { a_second: 500.0, most: 5_000.0 };
/// Decisions a second. A sidecar tells at most 100 every 250 ms.
const DECISIONS: Rate = Rate { a_second: 400.0, most: 1_000.0 };
/// Reports of what is open, by kinds of calls, as with edges.
const OPEN: Rate = Rate { a_second: 500.0, most: 5_000.0 };

#[derive(Debug, Clone, Copy)]
struct Rate {
    a_second: f64,
    most: f64,
}

#[derive(Debug)]
struct Left {
    rate: Rate,
    left: f64,
    at: Instant,
}

/// What one stream may still tell.
#[derive(Debug)]
pub struct Allowance {
    edges: Left,
    decisions: Left,
    open: Left,
}

impl Allowance {
    /// All that there is.
    pub fn full(now: Instant) -> Self {
        let of = |rate: Rate| Left { rate, left: rate.most, at: now };
        Self { edges: of(EDGES), decisions: of(DECISIONS), open: of(OPEN) }
    }

    /// Takes up to `wanted` edges, and gives how many.
    pub(super) fn edges(&mut self, wanted: usize, now: Instant) -> usize {
        self.edges.take(wanted, now)
    }

    /// As with edges.
    pub(super) fn decisions(&mut self, wanted: usize, now: Instant) -> usize {
        self.decisions.take(wanted, now)
    }

    /// As with edges.
    pub(super) fn open(&mut self, wanted: usize, now: Instant) -> usize {
        self.open.take(wanted, now)
    }
}

impl Left {
    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + since * self.rate.a_second).min(self.rate.most);
        // It is positive and at most a few thousand.
        let taken = wanted.min(self.left as usize);
        self.left -= taken as f64;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_used_up_comes_back_with_time() {
        let now = Instant::now();
        let mut allowance = Allowance::full(now);
        assert_eq!(allowance.edges(2_000, now), 2_000);
        assert_eq!(allowance.edges(10_000, now), 3_000);
        assert_eq!(allowance.edges(1, now), 0);
        assert_eq!(allowance.decisions(100, now), 100, "each has its own");
        assert_eq!(allowance.edges(10_000, now + Duration::from_secs(4)), 2_000, "all edges of a sidecar every 5 s");
        assert_eq!(allowance.edges(10_000, now + Duration::from_secs(4000)), 5_000);
    }
}
