//! How long an instance takes: a moving average that believes bad news at once and good news slowly.
//!
//! This is the peak-EWMA of Finagle (`com.twitter.finagle.loadbalancer.p2c.PeakEwma`) and tower (`tower::load::PeakEwma`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// In which a value falls to 1/e where nothing new is seen.
const DECAY: Duration = Duration::from_secs(10);
/// Latencies below this are all the same, so that an instance that was idle for long is still told by its open requests.
const LEAST: f64 = 1.0;

/// The average in microseconds (`f32`, upper half) and the millisecond of its last update (lower half): one number, so that a
/// reader never sees the one without the other. 0: nothing was seen yet.
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

#[derive(Debug, Clone, Copy)]
struct Average {
    micros: f32,
    at_ms: u32,
}

impl Latency {
    /// One more answer, `now` after the epoch of whoever holds this. Above the average it becomes the average; below, it
    /// counts with the weight of the time since the last one.
    pub(crate) fn observe(&self, latency: Duration, now: Duration) {
        let seen = micros(latency);
        self.update(now, |average, weight| if seen >= average { seen } else { average * weight + seen * (1.0 - weight) });
    }

    /// For requests that failed: the average becomes no less, not even by the time that has gone by. An instance that fails
    /// fast is not fast, and would else become the cheapest of all while it does nothing but fail.
    pub(crate) fn observe_failure(&self, latency: Duration, now: Duration) {
        let seen = micros(latency);
        self.update(now, |average, _| seen.max(average));
    }

    /// The average in microseconds as it is `now`, at least 1; none if nothing was seen yet.
    pub(crate) fn read(&self, now: Duration) -> Option<f64> {
        let average = Average::unpack(self.0.load(Ordering::Relaxed))?;
        Some((f64::from(average.micros) * average.weight(now)).max(LEAST))
    }

    fn update(&self, now: Duration, next: impl Fn(f64, f64) -> f64) {
        let next = |packed: u64| {
            let before = Average::unpack(packed);
            let micros = before.map_or_else(|| next(0.0, 0.0), |before| next(f64::from(before.micros), before.weight(now)));
            // Within the same millisecond a lower value has no weight: the time of the last update stays what it is.
            Some(Average { micros: micros as f32, at_ms: millis(now) }.pack())
        };
        // Never fails: `next` always has a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

impl Average {
    fn unpack(packed: u64) -> Option<Self> {
        (packed != 0).then(|| Self { micros: f32::from_bits((packed >> 32) as u32), at_ms: packed as u32 })
    }

    fn pack(self) -> u64 {
        (u64::from(self.micros.max(LEAST as f32).to_bits()) << 32) | u64::from(self.at_ms)
    }

    /// What is left of the average `now`, 0 to 1. Clocks of workers may differ by a millisecond: never more than 1.
    fn weight(self, now: Duration) -> f64 {
        let elapsed = millis(now).wrapping_sub(self.at_ms);
        if elapsed > u32::MAX / 2 { 1.0 } else { (-f64::from(elapsed) / DECAY.as_millis() as f64).exp() }
    }
}

fn micros(latency: Duration) -> f64 {
    latency.as_secs_f64() * 1e6
}

/// Wraps after 49 days; an instance that answers more seldom than once in 24 has a wrong weight once.
fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    proptest! {
        /// The naive model: the same in two `f64`s.
        #[test]
        fn the_packed_average_is_the_average(steps in prop::collection::vec((0_u32..5_000, 1_u32..500_000), 1..200)) {
            let (latency, mut model, mut now) = (Latency::default(), None::<(f64, u32)>, 0);
            for (gap, seen) in steps {
                now += gap;
                latency.observe(Duration::from_micros(u64::from(seen)), MS * now);
                let seen = f64::from(seen);
                model = Some((model.map_or(seen, |(average, at)| {
                    let weight = (-f64::from(now - at) / 10_000.0).exp();
                    if seen >= average { seen } else { average * weight + seen * (1.0 - weight) }
                }), now));
                let expected = model.map(|(average, _)| average).expect("set above");
                let read = latency.read(MS * now).expect("something was seen");
                prop_assert!((read - expected).abs() <= expected * 1e-3, "{} is not {}", read, expected);
            }
        }

        #[test]
        fn failures_never_make_an_instance_look_faster(before in 1_u64..1_000_000, failed in 0_u64..1_000_000, gap in 0_u32..60_000) {
            let latency = Latency::default();
            latency.observe(Duration::from_micros(before), Duration::ZERO);
            let expected = before.max(failed) as f64;
            latency.observe_failure(Duration::from_micros(failed), MS * (gap / 2));
            latency.observe_failure(Duration::from_micros(failed), MS * gap);
            let read = latency.read(MS * gap).expect("seen");
            prop_assert!((read - expected).abs() <= expected * 1e-3, "{} is not {}", read, expected);
        }
    }

    #[test]
    fn bad_news_counts_at_once_and_is_forgotten_slowly() {
        let latency = Latency::default();
        assert_eq!(latency.read(Duration::ZERO), None);
        latency.observe(MS, Duration::ZERO);
        latency.observe(MS * 200, MS);
        assert_eq!(latency.read(MS), Some(200_000.0));
        let after_ten_seconds = latency.read(MS * 10_001).expect("seen");
        assert!((after_ten_seconds - 200_000.0 / std::f64::consts::E).abs() < 1.0, "{after_ten_seconds}");
        assert_eq!(latency.read(Duration::from_secs(3_600)), Some(1.0));
    }
}
