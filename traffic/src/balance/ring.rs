//! Consistent hashing on a ring (Karger et al., STOC 1997), with many points for each instance as in ketama.

use super::hash;

/// Points for each instance. The share of an instance differs from the mean by a twelfth of it (one standard deviation).
const POINTS: u64 = 160;

/// Points of instances on a circle of hashes. A key belongs to the instance whose point comes next.
#[derive(Debug)]
pub(crate) struct Ring {
    /// In order, each with the place of its instance among the members.
    points: Box<[(u64, u32)]>,
}

impl Ring {
    /// Of instances by their ids. The same ids make the same ring, in whatever order.
    pub(crate) fn new<'i>(ids: impl Iterator<Item = &'i str>) -> Self {
        let points_of = |(place, id): (u32, &'i str)| (0..POINTS).map(move |nth| (hash::of_instance(id, nth), place, id));
        let mut points: Vec<(u64, u32, &str)> = (0_u32..).zip(ids).flat_map(points_of).collect();
        // Two points at one place would be in the order of the list, were it not for the id.
        points.sort_unstable_by_key(|(point, _, id)| (*point, *id));
        Self { points: points.into_iter().map(|(point, place, _)| (point, place)).collect() }
    }

    /// The place of the first instance from the key on that is accepted.
    pub(crate) fn pick(&self, key: u64, accepts: impl Fn(u32) -> bool) -> Option<u32> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        let (before, from) = self.points.split_at(start);
        from.iter().chain(before).map(|(_, place)| *place).find(|place| accepts(*place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: u64 = 20_000;

    fn ids(n: usize) -> Vec<String> {
        (0..n).map(|n| format!("api-{n}")).collect()
    }

    fn ring(ids: &[String]) -> Ring {
        Ring::new(ids.iter().map(String::as_str))
    }

    fn owner<'i>(ring: &Ring, ids: &'i [String], key: u64) -> &'i str {
        &ids[ring.pick(hash::of_key(&key.to_le_bytes()), |_| true).expect("an owner") as usize]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn an_instance_that_leaves_moves_its_own_keys_alone_and_few_of_them(n in 2_usize..40, leaving in any::<prop::sample::Index>()) {
            let before = ids(n);
            let mut after = before.clone();
            let gone = after.remove(leaving.index(n));
            let (ring_before, ring_after) = (ring(&before), ring(&after));
            let mut moved = 0;
            for key in 0..KEYS {
                let (was, is) = (owner(&ring_before, &before, key), owner(&ring_after, &after, key));
                if was != is {
                    prop_assert_eq!(was, gone.as_str());
                    moved += 1;
                }
            }
            prop_assert!(moved as f64 <= 1.5 * KEYS as f64 / n as f64, "{} of {} keys moved, {} instances", moved, KEYS, n);
        }

        /// The naive model: of all points, the one with the least distance from the key.
        #[test]
        fn a_key_belongs_to_the_next_accepted_point(n in 1_usize..6, key: u64, refused in any::<u8>()) {
            let ids = ids(n);
            let accepts = |place: u32| refused & (1 << place) == 0;
            let points = ids.iter().enumerate().flat_map(|(place, id)| {
                (0..POINTS).map(move |nth| (hash::of_instance(id, nth).wrapping_sub(key), place as u32))
            });
            let nearest = points.filter(|(_, place)| accepts(*place)).min();
            prop_assert_eq!(ring(&ids).pick(key, accepts), nearest.map(|(_, place)| place));
        }

        #[test]
        fn the_order_of_the_instances_does_not_matter(n in 1_usize..20, turn in 0_usize..20, key: u64) {
            let (ids, mut turned) = (ids(n), ids(n));
            turned.rotate_left(turn % n);
            prop_assert_eq!(owner(&ring(&ids), &ids, key), owner(&ring(&turned), &turned, key));
        }
    }
}
