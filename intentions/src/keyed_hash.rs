//! A fast hash for the tables of a rule set.
//!
//! The standard hash is several times slower than the look-up it serves. This one multiplies and folds, sixteen bytes at
//! a time, under two keys that are drawn anew for each rule set, so that nobody can prepare names that collide.

use std::hash::{BuildHasher, RandomState};

/// The keys of one rule set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    start: u64,
    factor: u64,
}

impl Keys {
    /// Fresh keys, from the operating system's randomness.
    pub(crate) fn random() -> Self {
        let random = RandomState::new();
        Self::new(random.hash_one(0_u8), random.hash_one(1_u8))
    }

    /// The same keys each time: whoever knows them can prepare names that collide.
    pub(crate) fn known() -> Self {
        Self::new(0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9)
    }

    fn new(start: u64, factor: u64) -> Self {
        Self { start, factor: factor | 1 }
    }

    /// The hash of a name.
    #[inline]
    pub(crate) fn of_name(self, name: &[u8]) -> u64 {
        let length = name.len();
        // Times a large odd number (2⁶⁴ over the golden ratio), so that no byte of a name can make up for a length.
        let mut state = self.start.wrapping_add((length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The two reads of a piece may overlap: together with the length they still tell all of its bytes.
        match length {
            0 => {}
            1..=3 => {
                state = self.mix(state, (u64::from(name[0]) << 8) | u64::from(name[length / 2]), u64::from(name[length - 1]));
            }
            4..=7 => state = self.mix(state, half_word(name, 0), half_word(name, length - 4)),
            8..=16 => state = self.mix(state, word(name, 0), word(name, length - 8)),
            _ => {
                let mut at = 0;
                while at + 16 < length {
                    state = self.mix(state, word(name, at), word(name, at + 8));
                    at += 16;
                }
                state = self.mix(state, word(name, length - 16), word(name, length - 8));
            }
        }
        self.finish(state)
    }

    /// The hash of a pair, from the hashes of its names.
    #[inline]
    pub(crate) fn of_pair(self, source: u64, destination: u64) -> u64 {
        // Turned, so that `a -> b` and `b -> a` differ.
        self.finish(self.mix(self.start, source, destination.rotate_left(23)))
    }

    #[inline]
    fn mix(self, state: u64, a: u64, b: u64) -> u64 {
        let product = u128::from(state ^ a) * u128::from(self.factor ^ b);
        (product as u64) ^ ((product >> 64) as u64)
    }

    #[inline]
    fn finish(self, state: u64) -> u64 {
        // One multiplication leaves similar texts in too few places of the table for some keys; two do not.
        self.mix(state, self.factor.rotate_left(32), 0)
    }
}

/// Eight bytes at a place; the caller has made sure that they are there, what is missing counts as zero.
#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// As [`word`], of four bytes.
#[inline]
pub(crate) fn half_word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from(u32::from_le_bytes(*chunk)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Always the same keys, so that a test says the same each time.
    fn known_keys() -> impl Iterator<Item = Keys> {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let key = move |n: u64| {
            let mixed = (n.wrapping_mul(step) ^ (n.wrapping_mul(step) >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
        };
        (1..=8).map(move |n| Keys::new(key(2 * n), key(2 * n + 1))).chain([Keys::known()])
    }

    #[track_caller]
    fn assert_spread(hashes: &[u64]) {
        assert_eq!(hashes.len(), 20_000);
        let distinct = |bits: fn(u64) -> u64| hashes.iter().map(|hash| bits(*hash)).collect::<HashSet<_>>().len();
        assert_eq!(distinct(|hash| hash), 20_000);
        // 20,000 balls in 65,536 bins fall into 17,240 of them on average, give or take some 50.
        assert!(distinct(|hash| hash & 0xffff) > 17_000);
        assert!(distinct(|hash| hash >> 48) > 17_000);
    }

    #[test]
    fn hashes_of_similar_names_differ_in_their_low_and_high_bits() {
        for keys in known_keys() {
            for prefix in ["", "a-", "service-", "a-very-long-name-of-a-service-that-goes-on-and-on-"] {
                assert_spread(&(0..20_000).map(|n| keys.of_name(format!("{prefix}{n}").as_bytes())).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn hashes_of_pairs_of_similar_names_differ_in_their_low_and_high_bits() {
        for keys in known_keys() {
            let names: Vec<u64> = (0..200).map(|n| keys.of_name(format!("service-{n}").as_bytes())).collect();
            assert_spread(&(0..20_000).map(|n| keys.of_pair(names[n / 100], names[n % 100])).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_pair_and_its_reverse_have_different_hashes() {
        for keys in known_keys() {
            let (web, api) = (keys.of_name(b"web"), keys.of_name(b"api"));
            assert_ne!(keys.of_pair(web, api), keys.of_pair(api, web));
        }
    }

    #[test]
    fn every_byte_of_a_name_counts() {
        let keys = Keys::random();
        for length in 1..=63 {
            let name = "a".repeat(length);
            let changed = (0..length).map(|at| format!("{}b{}", &name[..at], &name[at + 1..]));
            let hashes: HashSet<u64> = changed.chain([name.clone()]).map(|name| keys.of_name(name.as_bytes())).collect();
            assert_eq!(hashes.len(), length + 1, "{length}");
        }
    }

    #[test]
    fn each_rule_set_has_its_own_keys() {
        assert_ne!(Keys::random().of_name(b"web"), Keys::random().of_name(b"web"));
    }
}
