//! The rule by which one of several instances is chosen.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;

use rand::Rng;

use super::choose;
use super::hash;
use super::maglev::Maglev;
use super::ring::Ring;
use crate::settings::Policy;

/// A policy with what it needs of a fixed list of members. Places are counted from 0.
#[derive(Debug)]
pub(crate) enum Picker {
    LeastRequest,
    RoundRobin(AtomicUsize),
    Random,
    RingHash(Ring),
    Maglev(Maglev),
}

impl Picker {
    /// `start` is where `round_robin` begins: sidecars should differ in it.
    pub(crate) fn new<'i>(policy: Policy, ids: impl Iterator<Item = &'i str>, start: u64) -> Self {
        match policy {
            Policy::LeastRequest => Self::LeastRequest,
            Policy::RoundRobin => Self::RoundRobin(AtomicUsize::new(start as u32 as usize)),
            Policy::Random => Self::Random,
            Policy::RingHash => Self::RingHash(Ring::new(ids)),
            Policy::Maglev => Self::Maglev(Maglev::new(ids)),
        }
    }

    /// One of the accepted members; none only if none is accepted. Without a key, hashing is random.
    pub(crate) fn pick<R: Rng + ?Sized>(
        &self,
        members: u32,
        key: Option<u64>,
        accepts: impl Fn(u32) -> bool,
        cost: impl Fn(u32) -> f64,
        rng: &mut R,
    ) -> Option<u32> {
        match (self, key) {
            (Self::LeastRequest, _) => choose::cheaper_of_two(members, accepts, cost, rng),
            (Self::RoundRobin(turn), _) => choose::next(members, accepts, turn),
            (Self::RingHash(ring), Some(key)) => ring.pick(key, accepts),
            (Self::Maglev(maglev), Some(key)) => maglev.pick(key, accepts),
            (Self::Random, _) | (Self::RingHash(_) | Self::Maglev(_), None) => choose::random(members, accepts, rng),
        }
    }

    /// As [`Picker::pick`], where members weigh differently: `share` is what one weighs beside the heaviest, from 0 to 1. A
    /// member that the policy comes to is passed over as often as it weighs less. With a key that depends on the key alone,
    /// so that it stays where it is.
    pub(crate) fn pick_by_weight<R: Rng + ?Sized>(
        &self,
        members: u32,
        key: Option<u64>,
        accepts: impl Fn(u32) -> bool,
        cost: impl Fn(u32) -> f64,
        share: impl Fn(u32) -> f64,
        rng: &mut R,
    ) -> Option<u32> {
        let hashes = matches!(self, Self::RingHash(_) | Self::Maglev(_));
        let keyed = key.filter(|_| hashes);
        let salt = keyed.unwrap_or_else(|| rng.random());
        let turns = Cell::new(0_u64);
        let accepts_by_weight = |place: u32| {
            let turn = if keyed.is_some() { u64::from(place) } else { turns.replace(turns.get() + 1) };
            accepts(place) && fraction(hash::again(salt, turn)) < share(place)
        };
        let picked = match self {
            Self::LeastRequest => choose::cheaper_by_weight(members, accepts_by_weight, &cost, &share, rng),
            _ => self.pick(members, key, accepts_by_weight, &cost, rng),
        };
        // Everyone was passed over.
        picked.or_else(|| self.pick(members, key, accepts, cost, rng))
    }
}

/// A hash as a number from 0 to 1, 1 left out.
fn fraction(hash: u64) -> f64 {
    // As many bits as the number holds.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const POLICIES: [Policy; 5] = [Policy::LeastRequest, Policy::RoundRobin, Policy::Random, Policy::RingHash, Policy::Maglev];

    fn picks(policy: Policy, weights: &[f64], accepts: impl Fn(u32) -> bool) -> HashMap<u32, u32> {
        let ids: Vec<String> = (0..weights.len()).map(|n| format!("api-{n}")).collect();
        let picker = Picker::new(policy, ids.iter().map(String::as_str), 0);
        let rng = &mut StdRng::seed_from_u64(5);
        let heaviest = weights.iter().copied().fold(0.0, f64::max);
        let share = |place: u32| weights[place as usize] / heaviest;
        let mut times = HashMap::new();
        for number in 0..20_000_u64 {
            let key = Some(hash::again(number, 7));
            let picked = picker.pick_by_weight(weights.len() as u32, key, &accepts, |_| 1.0, share, rng).expect("one");
            *times.entry(picked).or_default() += 1;
        }
        times
    }

    #[test]
    fn what_weighs_more_gets_as_much_more() {
        for policy in POLICIES {
            let times = picks(policy, &[10.0, 1.0, 10.0], |_| true);
            let light = f64::from(times.get(&1).copied().unwrap_or(0)) / 20_000.0;
            assert!((0.02..0.08).contains(&light), "{policy:?}: {light} of 1/21");
            assert!(times.get(&0).is_some_and(|times| *times > 7_000), "{policy:?}: {times:?}");
        }
    }

    #[test]
    fn what_weighs_nothing_gets_only_what_no_other_can_take() {
        for policy in POLICIES {
            assert_eq!(picks(policy, &[1.0, 0.0], |_| true).get(&1), None, "{policy:?}");
            assert_eq!(picks(policy, &[1.0, 0.0], |place| place == 1).get(&1), Some(&20_000), "{policy:?}");
        }
    }

    #[test]
    fn a_key_stays_where_it_is_whatever_the_weights() {
        let ids = ["a", "b", "c"];
        for policy in [Policy::RingHash, Policy::Maglev] {
            let picker = Picker::new(policy, ids.into_iter(), 0);
            let rng = &mut StdRng::seed_from_u64(5);
            let share = |place: u32| [1.0, 0.3, 0.5][place as usize];
            for key in 0..100 {
                let mut pick = || picker.pick_by_weight(3, Some(hash::again(key, 3)), |_| true, |_| 1.0, share, rng);
                let first = pick();
                assert!((0..5).all(|_| pick() == first), "{policy:?} {key}");
            }
        }
    }
}
