//! The hash of consistent hashing: XXH64 (the xxHash specification, v0.1.1), the same in every process and version, because
//! sidecars have to agree on where a key belongs.

use twox_hash::XxHash64;

/// Of a key that a request carries.
pub(crate) fn of_key(key: &[u8]) -> u64 {
    XxHash64::oneshot(0, key)
}

/// Of an instance, the nth of many.
pub(crate) fn of_instance(id: &str, nth: u64) -> u64 {
    // Seed 0 is for keys.
    XxHash64::oneshot(nth + 1, id.as_bytes())
}

/// Another hash of a hash.
pub(crate) fn again(hash: u64, nth: u64) -> u64 {
    XxHash64::oneshot(nth, &hash.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specification_for_ever() {
        assert_eq!(of_key(b""), 0xef46_db37_51d8_e999);
        assert_eq!(of_key(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_ne!(of_instance("api-1", 0), of_instance("api-1", 1));
    }
}
