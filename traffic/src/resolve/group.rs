//! The instances of one subset that serve one port, nearest first.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;

use crate::balance::Picker;
use crate::settings::Policy;

/// Instances by their index in the list of the service, with a way to pick among them.
#[derive(Debug)]
pub(crate) struct Group {
    /// Nearest first.
    members: Box<[u32]>,
    /// What each member weighs beside the heaviest, from 0 to 1; none where all weigh the same.
    shares: Option<Box<[f64]>>,
    /// From the nearest members to all of them; at least one.
    levels: Box<[Level]>,
    /// The level to pick from and the generation of ejections in which it was found.
    chosen: AtomicU64,
}

/// The first so many members.
#[derive(Debug)]
struct Level {
    members: u32,
    picker: Picker,
}

/// What to pick by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) policy: Policy,
    /// Where turns begin.
    pub(crate) start: u64,
}

const NO_LEVEL: u32 = u32::MAX;

impl Group {
    /// `members` nearest first; `ends` says how many of them are in each level, in rising order, the last: all of them. `id`
    /// gives the id of a member, `weight` what it weighs.
    pub(crate) fn new<'i>(
        members: Vec<u32>,
        ends: &[usize],
        rule: Rule,
        id: impl Fn(u32) -> &'i str,
        weight: impl Fn(u32) -> u32,
    ) -> Self {
        let mut ends: Vec<usize> = ends.iter().copied().filter(|end| *end > 0).collect();
        ends.dedup();
        let level = |end: usize| {
            let ids = members[..end].iter().map(|member| id(*member));
            Level { members: end as u32, picker: Picker::new(rule.policy, ids, rule.start) }
        };
        let levels = ends.into_iter().map(level).collect();
        let shares = shares(&members, weight);
        Self { members: members.into(), shares, levels, chosen: AtomicU64::new(u64::MAX) }
    }

    /// Whether any member is usable.
    pub(crate) fn has_usable(&self, generation: u32, usable: impl Fn(u32) -> bool) -> bool {
        self.level(generation, usable).is_some()
    }

    /// Picks a usable member, one that was not tried before if there is one, the nearer ones first.
    pub(crate) fn pick<R: Rng + ?Sized>(
        &self,
        generation: u32,
        key: Option<u64>,
        how: &Ways<impl Fn(u32) -> bool, impl Fn(u32) -> bool, impl Fn(u32) -> f64>,
        rng: &mut R,
    ) -> Option<u32> {
        let level = self.level(generation, &how.usable)?;
        let untried = |index| (how.usable)(index) && !(how.tried)(index);
        // Rather another instance far away than the same one again.
        let anywhere = || self.levels.last().filter(|last| last.members > level.members);
        self.pick_in(level, key, untried, &how.cost, rng)
            .or_else(|| anywhere().and_then(|last| self.pick_in(last, key, untried, &how.cost, rng)))
            .or_else(|| self.pick_in(level, key, &how.usable, &how.cost, rng))
    }

    /// Picks any member, usable or not.
    pub(crate) fn pick_any<R: Rng + ?Sized>(
        &self,
        key: Option<u64>,
        how: &Ways<impl Fn(u32) -> bool, impl Fn(u32) -> bool, impl Fn(u32) -> f64>,
        rng: &mut R,
    ) -> Option<u32> {
        let all = self.levels.last()?;
        let untried = self.pick_in(all, key, |index| !(how.tried)(index), &how.cost, rng);
        untried.or_else(|| self.pick_in(all, key, |_| true, &how.cost, rng))
    }

    fn pick_in<R: Rng + ?Sized>(
        &self,
        level: &Level,
        key: Option<u64>,
        accepts: impl Fn(u32) -> bool,
        cost: impl Fn(u32) -> f64,
        rng: &mut R,
    ) -> Option<u32> {
        // Places that a picker gives are below `level.members`, and so below the number of members.
        let index = |place: u32| self.members[place as usize];
        let (accepts, cost) = (|place| accepts(index(place)), |place| cost(index(place)));
        let picked = match &self.shares {
            None => level.picker.pick(level.members, key, accepts, cost, rng),
            Some(shares) => level.picker.pick_by_weight(level.members, key, accepts, cost, |place| shares[place as usize], rng),
        };
        picked.map(index)
    }

    /// The nearest level of which at least half is usable; if there is none, all members as long as any is usable. Counted
    /// once for each generation.
    fn level(&self, generation: u32, usable: impl Fn(u32) -> bool) -> Option<&Level> {
        let chosen = self.chosen.load(Ordering::Relaxed);
        if (chosen >> 32) as u32 == generation && chosen != u64::MAX {
            return self.levels.get(chosen as u32 as usize);
        }
        let count = |level: &Level| self.members[..level.members as usize].iter().filter(|index| usable(**index)).count();
        let is_enough = |level: &Level| {
            let usable = count(level);
            usable > 0 && usable * 2 >= level.members as usize
        };
        let last = self.levels.len().wrapping_sub(1);
        let found = self.levels.iter().position(is_enough).or_else(|| {
            let any = self.levels.last().is_some_and(|all| count(all) > 0);
            any.then_some(last)
        });
        let level = found.map_or(NO_LEVEL, |found| found as u32);
        self.chosen.store((u64::from(generation) << 32) | u64::from(level), Ordering::Relaxed);
        found.and_then(|found| self.levels.get(found))
    }
}

/// What each member weighs beside the heaviest.
fn shares(members: &[u32], weight: impl Fn(u32) -> u32) -> Option<Box<[f64]>> {
    let weights: Vec<u32> = members.iter().map(|member| weight(*member)).collect();
    let heaviest = weights.iter().copied().max().filter(|heaviest| *heaviest > 0)?;
    if weights.iter().all(|weight| *weight == heaviest) {
        return None;
    }
    Some(weights.iter().map(|weight| f64::from(*weight) / f64::from(heaviest)).collect())
}

/// How members are told apart, by their index in the list of the service.
pub(crate) struct Ways<U, T, C> {
    pub(crate) usable: U,
    pub(crate) tried: T,
    pub(crate) cost: C,
}
