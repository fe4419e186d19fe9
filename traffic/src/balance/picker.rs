//! The rule by which one of several instances is chosen.

use std::sync::atomic::AtomicUsize;

use rand::Rng;

use super::choose;
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
}
