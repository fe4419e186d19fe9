//! Choices that need no table: one random, one after the other, and the better of two random ones.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::Rng;

/// Random draws before every member is looked at. Where half of them are accepted, one draw in 256 gets that far.
const DRAWS: usize = 8;

/// One of the accepted places below `members`, each as likely as the others.
pub(crate) fn random<R: Rng + ?Sized>(members: u32, accepts: impl Fn(u32) -> bool, rng: &mut R) -> Option<u32> {
    if members == 0 {
        return None;
    }
    let mut last = 0;
    for _ in 0..DRAWS {
        last = rng.random_range(0..members);
        if accepts(last) {
            return Some(last);
        }
    }
    (1..=members).map(|step| (last + step) % members).find(|place| accepts(*place))
}

/// Of two random accepted places the one that costs less (Mitzenmacher, «The Power of Two Choices», 2001).
pub(crate) fn cheaper_of_two<R: Rng + ?Sized>(
    members: u32,
    accepts: impl Fn(u32) -> bool,
    cost: impl Fn(u32) -> f64,
    rng: &mut R,
) -> Option<u32> {
    let one = random(members, &accepts, rng)?;
    let other = random(members, |place| place != one && accepts(place), rng);
    Some(other.filter(|other| cost(*other) < cost(one)).unwrap_or(one))
}

/// Of two random accepted places the second where it costs less, for itself and for what it weighs: where nothing is busy
/// the first stays, and shares are those of the draws; where all are, the work is shared by weight.
pub(crate) fn cheaper_by_weight<R: Rng + ?Sized>(
    members: u32,
    accepts: impl Fn(u32) -> bool,
    cost: impl Fn(u32) -> f64,
    share: impl Fn(u32) -> f64,
    rng: &mut R,
) -> Option<u32> {
    let one = random(members, &accepts, rng)?;
    let other = random(members, |place| place != one && accepts(place), rng);
    let is_cheaper = |other: u32| cost(other) < cost(one) && cost(other) * share(one) < cost(one) * share(other);
    Some(other.filter(|other| is_cheaper(*other)).unwrap_or(one))
}

/// The next accepted place after the one that was given last. A place that is passed over has had its turn, so that its turns
/// fall to all others alike and not to the next one.
pub(crate) fn next(members: u32, accepts: impl Fn(u32) -> bool, turn: &AtomicUsize) -> Option<u32> {
    let mut turns = (0..members).map(|_| (turn.fetch_add(1, Ordering::Relaxed) % members as usize) as u32);
    // Other workers take turns too: these may have been the same place again and again.
    turns.find(|place| accepts(*place)).or_else(|| (0..members).find(|place| accepts(*place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    proptest! {
        #[test]
        fn what_is_chosen_is_accepted_and_something_is_if_anything_is(accepted in prop::collection::vec(any::<bool>(), 0..40), seed: u64) {
            let members = accepted.len() as u32;
            let accepts = |place: u32| accepted[place as usize];
            let rng = &mut StdRng::seed_from_u64(seed);
            let turn = AtomicUsize::new(seed as usize);
            let chosen = [
                random(members, accepts, rng),
                cheaper_of_two(members, accepts, f64::from, rng),
                next(members, accepts, &turn),
            ];
            for place in chosen {
                prop_assert_eq!(place.is_some(), accepted.contains(&true));
                prop_assert!(place.is_none_or(accepts));
            }
        }

        #[test]
        fn the_dearest_of_several_is_never_chosen(members in 2_u32..30, seed: u64) {
            let rng = &mut StdRng::seed_from_u64(seed);
            for _ in 0..50 {
                let chosen = cheaper_of_two(members, |_| true, f64::from, rng);
                prop_assert!(chosen.is_some_and(|chosen| chosen != members - 1));
            }
        }

        #[test]
        fn turns_are_equal(accepted in prop::collection::vec(any::<bool>(), 1..20), rounds in 1_usize..5, start in 0_usize..1_000) {
            let turn = AtomicUsize::new(start);
            let number = accepted.iter().filter(|accepted| **accepted).count();
            let mut times = vec![0; accepted.len()];
            for _ in 0..rounds * number {
                times[next(accepted.len() as u32, |place| accepted[place as usize], &turn).expect("one") as usize] += 1;
            }
            for (times, accepted) in times.iter().zip(&accepted) {
                prop_assert_eq!(*times, if *accepted { rounds } else { 0 });
            }
        }
    }

    #[test]
    fn random_choices_are_even() {
        let rng = &mut StdRng::seed_from_u64(3);
        let mut times = [0_u32; 10];
        for _ in 0..100_000 {
            times[random(10, |_| true, rng).expect("one") as usize] += 1;
        }
        assert!(times.iter().all(|times| (9_500..10_500).contains(times)), "{times:?}");
    }
}
