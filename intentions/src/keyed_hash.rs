//! A fast hash for the tables of a rule set.
//!
//! The standard hash is several times slower than the look-up it serves. This one multiplies and folds, sixteen bytes at
//! a time, under two keys that are drawn anew for each table, so that nobody can prepare names that collide.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The keys of one table.
#[derive(Debug, Clone)]
pub(crate) struct KeyedState {
    start: u64,
    factor: u64,
}

impl KeyedState {
    /// Fresh keys, from the operating system's randomness.
    pub(crate) fn random() -> Self {
        let random = RandomState::new();
        Self { start: random.hash_one(0_u8), factor: random.hash_one(1_u8) | 1 }
    }
}

impl BuildHasher for KeyedState {
    type Hasher = KeyedHasher;

    #[inline]
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.start, factor: self.factor }
    }
}

pub(crate) struct KeyedHasher {
    state: u64,
    factor: u64,
}

impl KeyedHasher {
    #[inline]
    fn mix(&mut self, a: u64, b: u64) {
        let product = u128::from(self.state ^ a) * u128::from(self.factor ^ b);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
}

/// Eight bytes at a place; the caller has made sure that they are there, what is missing counts as zero.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// As [`word`], of four bytes.
#[inline]
fn half_word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from(u32::from_le_bytes(*chunk)))
}

impl Hasher for KeyedHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let length = bytes.len();
        // Times a large odd number (2⁶⁴ over the golden ratio), so that no byte of a name can make up for a length.
        self.state = self.state.wrapping_add((length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The two reads of a piece may overlap: together with the length they still tell all of its bytes.
        match length {
            0 => {}
            1..=3 => self.mix((u64::from(bytes[0]) << 8) | u64::from(bytes[length / 2]), u64::from(bytes[length - 1])),
            4..=7 => self.mix(half_word(bytes, 0), half_word(bytes, length - 4)),
            8..=16 => self.mix(word(bytes, 0), word(bytes, length - 8)),
            _ => {
                let mut at = 0;
                while at + 16 < length {
                    self.mix(word(bytes, at), word(bytes, at + 8));
                    at += 16;
                }
                self.mix(word(bytes, length - 16), word(bytes, length - 8));
            }
        }
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.state ^= u64::from(byte);
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.mix(word, 0);
    }

    #[inline]
    fn finish(&self) -> u64 {
        // One multiplication leaves similar texts in too few places of the table for some keys; two do not.
        let mut last = Self { state: self.state, factor: self.factor };
        last.mix(self.factor.rotate_left(32), 0);
        last.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Always the same keys, so that a test says the same each time.
    fn known_keys() -> impl Iterator<Item = KeyedState> {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let key = move |n: u64| {
            let mixed = (n.wrapping_mul(step) ^ (n.wrapping_mul(step) >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
        };
        (1..=8).map(move |n| KeyedState { start: key(2 * n), factor: key(2 * n + 1) | 1 })
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
        for state in known_keys() {
            for prefix in ["", "a-", "service-", "a-very-long-name-of-a-service-that-goes-on-and-on-"] {
                assert_spread(&(0..20_000).map(|n| state.hash_one(format!("{prefix}{n}"))).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn hashes_of_pairs_of_small_numbers_differ_in_their_low_and_high_bits() {
        for state in known_keys() {
            assert_spread(&(0..20_000_u64).map(|n| state.hash_one(((n / 100) << 32) | (n % 100))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_byte_of_a_name_counts() {
        let state = KeyedState::random();
        for length in 1..=63 {
            let name = "a".repeat(length);
            let changed = (0..length).map(|at| format!("{}b{}", &name[..at], &name[at + 1..]));
            let hashes: HashSet<u64> = changed.chain([name.clone()]).map(|name| state.hash_one(name)).collect();
            assert_eq!(hashes.len(), length + 1, "{length}");
        }
    }

    #[test]
    fn each_table_has_its_own_keys() {
        assert_ne!(KeyedState::random().hash_one("web"), KeyedState::random().hash_one("web"));
    }
}
