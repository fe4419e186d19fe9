//! How long calls took: counts in buckets whose bounds grow by the root of two.

/// Buckets of a histogram: two for each doubling from 64 µs to 67 s, one for what is faster, one for what is slower.
pub const BUCKETS: u8 = 42;
/// The upper bound of bucket 0, in microseconds.
const FIRST_US: u64 = 64;

/// The bucket of a duration in microseconds.
pub fn bucket_of(us: u64) -> u8 {
    if us <= FIRST_US {
        return 0;
    }
    // `us` is in (64 · 2^n, 64 · 2^(n+1)].
    let octave = (us - 1).ilog2() - FIRST_US.ilog2();
    let start = FIRST_US << octave;
    let is_upper_half = u128::from(us) * u128::from(us) > 2 * u128::from(start) * u128::from(start);
    u8::try_from(1 + 2 * octave + u32::from(is_upper_half)).unwrap_or(u8::MAX).min(BUCKETS - 1)
}

/// The upper bound of a bucket in microseconds; of the last one, where it begins.
pub fn upper_bound(bucket: u8) -> f64 {
    let bucket = bucket.min(BUCKETS - 2);
    FIRST_US as f64 * 2f64.powf(f64::from(bucket) / 2.0)
}

/// Counts by bucket, only of those that have any. It takes 16 bytes a bucket, at most [`BUCKETS`] of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<(u8, u64)>,
}

impl Histogram {
    /// Counts one call that took `us` microseconds.
    pub fn observe(&mut self, us: u64) {
        self.add(bucket_of(us), 1);
    }

    /// Counts `count` calls in a bucket; one that there is not counts as the last.
    pub fn add(&mut self, bucket: u8, count: u64) {
        if count == 0 {
            return;
        }
        let bucket = bucket.min(BUCKETS - 1);
        match self.counts.binary_search_by_key(&bucket, |(of, _)| *of) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => self.counts.insert(at, (bucket, count)),
        }
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(bucket, count)| self.add(bucket, count));
    }

    /// Buckets that have counts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        self.counts.iter().copied()
    }

    /// Calls that were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The time in milliseconds under which the share `quantile` (0 to 1) of calls stayed: the upper bound of its bucket,
    /// at most 41 % too long. `None` without any.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * quantile.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut seen = 0u64;
        for (bucket, count) in self.iter() {
            seen = seen.saturating_add(count);
            if seen as f64 >= wanted {
                return Some(upper_bound(bucket) / 1_000.0);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_are_two_for_each_doubling() {
        for (us, bucket) in
            [(0, 0), (64, 0), (65, 1), (90, 1), (91, 2), (128, 2), (129, 3), (256, 4), (1 << 26, 40), (u64::MAX, 41)]
        {
            assert_eq!(bucket_of(us), bucket, "{us}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_within_the_bounds_of_its_bucket(us in 0u64..60_000_000) {
            let bucket = bucket_of(us);
            prop_assert!(us as f64 <= upper_bound(bucket) + 1e-6);
            prop_assert!(bucket == 0 || us as f64 > upper_bound(bucket - 1) - 1e-6);
        }

        #[test]
        fn a_quantile_is_the_bound_above_the_true_one(mut all in prop::collection::vec(0u64..30_000_000, 1..200), at in 0f64..1.0) {
            let mut histogram = Histogram::default();
            all.iter().for_each(|us| histogram.observe(*us));
            all.sort_unstable();
            let true_us = all[((all.len() as f64 * at).ceil().max(1.0) as usize) - 1];
            let told = histogram.quantile_ms(at).unwrap();
            prop_assert_eq!(told, upper_bound(bucket_of(true_us)) / 1_000.0);
        }

        #[test]
        fn merging_is_counting_all(a in prop::collection::vec(0u64..1 << 30, 0..50), b in prop::collection::vec(0u64..1 << 30, 0..50)) {
            let of = |all: &[u64]| all.iter().fold(Histogram::default(), |mut histogram, us| { histogram.observe(*us); histogram });
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }
}
