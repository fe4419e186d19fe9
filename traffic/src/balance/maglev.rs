//! Consistent hashing by a table (Eisenbud et al., «Maglev», NSDI 2016 §3.4): even shares, and one look-up a pick.

use super::hash;

/// Entries of the table, a prime. Always the same, however few instances there are: with another size nearly every key would
/// move. 128 KiB.
const SIZE: usize = 65_537;
/// Hashes that are tried before a key whose instance is refused goes to any other.
const TRIES: u64 = 16;

/// A table of instances. A key belongs to the instance at its hash.
#[derive(Debug)]
pub(crate) struct Maglev {
    /// Places of instances among the members.
    table: Box<[u16]>,
    members: u32,
}

impl Maglev {
    /// Of instances by their ids, the first 65,535 of them. The same ids make the same table, in whatever order.
    pub(crate) fn new<'i>(ids: impl Iterator<Item = &'i str>) -> Self {
        let mut ids: Vec<(&str, u16)> = ids.zip(0..u16::MAX).collect();
        // Turns are taken in the order of the ids.
        ids.sort_unstable();
        let mut preferences: Vec<Preferences> = ids.iter().map(|(id, place)| Preferences::of(id, *place)).collect();
        let members = preferences.len() as u32;
        const FREE: u16 = u16::MAX;
        let mut table = vec![FREE; if preferences.is_empty() { 0 } else { SIZE }].into_boxed_slice();
        let mut filled = 0;
        while filled < table.len() {
            for preference in preferences.iter_mut().take(table.len() - filled) {
                let entry = loop {
                    let next = preference.next();
                    if table[next] == FREE {
                        break next;
                    }
                };
                table[entry] = preference.place;
                filled += 1;
            }
        }
        Self { table, members }
    }

    /// The place of the instance that the key belongs to. If it is not accepted, that of one which the key always falls to
    /// instead, as long as the same ones are accepted.
    pub(crate) fn pick(&self, key: u64, accepts: impl Fn(u32) -> bool) -> Option<u32> {
        if self.table.is_empty() {
            return None;
        }
        let at = |key: u64| u32::from(self.table[(key % SIZE as u64) as usize]);
        let first = at(key);
        if accepts(first) {
            return Some(first);
        }
        let others = (1..TRIES).map(|nth| at(hash::again(key, nth)));
        let all = (1..self.members).map(|step| (first + step) % self.members);
        others.chain(all).find(|place| accepts(*place))
    }
}

/// The entries that an instance wants, in its order: every entry once.
struct Preferences {
    place: u16,
    next: usize,
    skip: usize,
}

impl Preferences {
    fn of(id: &str, place: u16) -> Self {
        Self {
            place,
            next: (hash::of_instance(id, 0) % SIZE as u64) as usize,
            skip: (hash::of_instance(id, 1) % (SIZE as u64 - 1)) as usize + 1,
        }
    }

    fn next(&mut self) -> usize {
        let next = self.next;
        self.next = (next + self.skip) % SIZE;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(n: usize) -> Vec<String> {
        (0..n).map(|n| format!("api-{n}")).collect()
    }

    fn maglev(ids: &[String]) -> Maglev {
        Maglev::new(ids.iter().map(String::as_str))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn shares_differ_by_at_most_one_entry(n in 1_usize..60) {
            let table = maglev(&ids(n)).table;
            let mut shares = vec![0; n];
            table.iter().for_each(|place| shares[usize::from(*place)] += 1);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{:?}", shares);
        }

        #[test]
        fn an_instance_that_leaves_moves_few_keys(n in 3_usize..40, leaving in any::<prop::sample::Index>()) {
            let before = ids(n);
            let mut after = before.clone();
            after.remove(leaving.index(n));
            let (table_before, table_after) = (maglev(&before).table, maglev(&after).table);
            let owners = table_before.iter().zip(table_after.iter());
            let moved = owners.filter(|(was, is)| before[usize::from(**was)] != after[usize::from(**is)]).count();
            prop_assert!(moved as f64 <= 1.5 * SIZE as f64 / n as f64, "{} of {} keys moved, {} instances", moved, SIZE, n);
        }

        #[test]
        fn the_order_of_the_instances_does_not_matter(n in 1_usize..20, turn in 0_usize..20, key: u64) {
            let (ids, mut turned) = (ids(n), ids(n));
            turned.rotate_left(turn % n);
            let owner = |ids: &[String]| maglev(ids).pick(key, |_| true).map(|place| ids[place as usize].clone());
            prop_assert_eq!(owner(&ids), owner(&turned));
        }

        #[test]
        fn a_key_always_finds_an_accepted_instance(n in 1_usize..30, key: u64, only in any::<prop::sample::Index>()) {
            let only = only.index(n) as u32;
            let maglev = maglev(&ids(n));
            prop_assert_eq!(maglev.pick(key, |place| place == only), Some(only));
            prop_assert_eq!(maglev.pick(key, |_| false), None);
        }
    }

    #[test]
    fn no_instances_no_pick() {
        assert_eq!(maglev(&[]).pick(7, |_| true), None);
    }
}
