//! Shares of the requests.

use postern_names::ServiceName;
use rand::Rng;

use super::RoutingError;
use crate::settings::{Percent, Split};

/// The split of a service, ready to draw from.
#[derive(Debug, Default)]
pub(crate) struct Shares(Box<[Share]>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Share {
    /// In hundredths of a percent, this share and all before it.
    up_to: u32,
    pub(crate) service: Option<ServiceName>,
    pub(crate) subset: Option<Box<str>>,
}

impl Shares {
    /// # Errors
    /// [`RoutingError::Shares`] if there are shares and they do not add up to 100 percent.
    pub(crate) fn compile(splits: &[Split]) -> Result<Self, RoutingError> {
        let share = |up_to: &mut u32, split: &Split| {
            *up_to += u32::from(split.weight.hundredths());
            Some(Share { up_to: *up_to, service: split.service.clone(), subset: split.subset.as_deref().map(Box::from) })
        };
        let shares: Box<[Share]> = splits.iter().scan(0, share).collect();
        match shares.last() {
            Some(last) if last.up_to != u32::from(Percent::ALL.hundredths()) => {
                Err(RoutingError::Shares { total: (f64::from(last.up_to) / 100.0).to_string() })
            }
            Some(_) | None => Ok(Self(shares)),
        }
    }

    /// One share, as often as its weight says; none if there are no shares.
    pub(crate) fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Option<&Share> {
        if self.0.len() <= 1 {
            return self.0.first();
        }
        let drawn = rng.random_range(0..u32::from(Percent::ALL.hundredths()));
        self.0.iter().find(|share| drawn < share.up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn splits(hundredths: &[u32]) -> Vec<Split> {
        let split = |(nth, hundredths): (usize, &u32)| Split {
            weight: Percent::try_from(f64::from(*hundredths) / 100.0).expect("a percentage"),
            service: None,
            subset: Some(format!("s{nth}")),
        };
        hundredths.iter().enumerate().map(split).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn every_share_gets_within_one_point_of_its_weight(cuts in prop::collection::btree_set(0_u32..=10_000, 0..5), seed: u64) {
            let ends: Vec<u32> = cuts.into_iter().chain([10_000]).collect();
            let mut start = 0;
            let weights: Vec<u32> = ends.iter().map(|end| end - std::mem::replace(&mut start, *end)).collect();
            let shares = Shares::compile(&splits(&weights)).expect("shares");
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut drawn = vec![0_u32; weights.len()];
            for _ in 0..40_000 {
                let share = shares.draw(rng).and_then(|share| share.subset.as_deref()).expect("a share");
                drawn[share[1..].parse::<usize>().expect("a number")] += 1;
            }
            for (drawn, weight) in drawn.iter().zip(&weights) {
                // Four standard deviations of 40,000 draws at most.
                prop_assert!((f64::from(*drawn) / 400.0 - f64::from(*weight) / 100.0).abs() < 1.0, "{:?} of {:?}", drawn, weights);
                prop_assert!(*weight != 0 || *drawn == 0);
            }
        }
    }

    #[test]
    fn the_smallest_share_is_one_in_ten_thousand() {
        let shares = Shares::compile(&splits(&[9_999, 1])).expect("shares");
        let rng = &mut StdRng::seed_from_u64(1);
        let drawn =
            (0..1_000_000).filter(|_| shares.draw(rng).is_some_and(|share| share.subset.as_deref() == Some("s1"))).count();
        assert!((60..140).contains(&drawn), "{drawn}");
    }

    #[test]
    fn shares_add_up_to_everything() {
        for weights in [&[5_000, 4_999][..], &[5_000, 5_001], &[0]] {
            assert!(matches!(Shares::compile(&splits(weights)), Err(RoutingError::Shares { .. })), "{weights:?}");
        }
        assert!(Shares::compile(&[]).expect("no shares").draw(&mut StdRng::seed_from_u64(1)).is_none());
    }
}
