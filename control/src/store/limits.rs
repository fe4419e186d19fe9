//! What a transaction may contain. The same in every engine, so that what passes on one passes on all.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::error::StoreError;
use super::types::{Compare, Op, Txn};

/// How many compares, and how many operations of each list, a transaction may have (etcd: `--max-txn-ops`).
pub const MAX_OPS: usize = 128;

/// How many bytes all keys and values of a transaction may have.
pub const MAX_TXN_BYTES: usize = 1 << 20;

/// The time a lease really gets: whole milliseconds, from one to ten years.
pub(super) fn lease_ttl(asked: Duration) -> Duration {
    const LONGEST: u64 = 10 * 365 * 24 * 3600 * 1000;
    let millis = u64::try_from(asked.as_millis()).unwrap_or(LONGEST);
    Duration::from_millis(millis.clamp(1, LONGEST))
}

/// Refuses a transaction that no engine would take.
pub(super) fn check(txn: &Txn) -> Result<(), StoreError> {
    for count in [txn.compares.len(), txn.then.len(), txn.otherwise.len()] {
        if count > MAX_OPS {
            return Err(StoreError::TooManyOps { count, max: MAX_OPS });
        }
    }
    let ops = || txn.then.iter().chain(&txn.otherwise);
    let size = txn.compares.iter().map(compare_bytes).sum::<usize>() + ops().map(op_bytes).sum::<usize>();
    if size > MAX_TXN_BYTES {
        return Err(StoreError::TooLarge { size, max: MAX_TXN_BYTES });
    }
    if txn.compares.iter().any(|compare| compare.key().is_empty()) || ops().any(has_empty_key) {
        return Err(StoreError::EmptyKey);
    }
    check_distinct(&txn.then)?;
    check_distinct(&txn.otherwise)
}

fn compare_bytes(compare: &Compare) -> usize {
    match compare {
        Compare::Value(key, value) => key.len() + value.len(),
        Compare::ModRevision(key, ..) | Compare::Version(key, ..) => key.len(),
    }
}

fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Delete(key) | Op::DeletePrefix(key) => key.len(),
    }
}

fn has_empty_key(op: &Op) -> bool {
    match op {
        Op::Put { key, .. } | Op::Delete(key) => key.is_empty(),
        Op::DeletePrefix(_) => false,
    }
}

/// No key may be touched twice, by name or by prefix.
fn check_distinct(ops: &[Op]) -> Result<(), StoreError> {
    let mut keys: BTreeSet<&Bytes> = BTreeSet::new();
    let mut prefixes: BTreeSet<&Bytes> = BTreeSet::new();
    for op in ops {
        let fresh = match op {
            Op::Put { key, .. } | Op::Delete(key) => keys.insert(key),
            Op::DeletePrefix(prefix) => prefixes.insert(prefix),
        };
        if !fresh {
            return Err(duplicate(op));
        }
    }
    for prefix in &prefixes {
        // In byte order, the first at or after a prefix begins with it if any does.
        let from = (Bound::Included(*prefix), Bound::Unbounded);
        let key = keys.range::<Bytes, _>(from).next().filter(|key| key.starts_with(prefix));
        let after = (Bound::Excluded(*prefix), Bound::Unbounded);
        let longer = prefixes.range::<Bytes, _>(after).next().filter(|longer| longer.starts_with(prefix));
        if let Some(twice) = key.or(longer) {
            return Err(StoreError::DuplicateKey { key: String::from_utf8_lossy(twice).into_owned() });
        }
    }
    Ok(())
}

fn duplicate(op: &Op) -> StoreError {
    let key = match op {
        Op::Put { key, .. } | Op::Delete(key) | Op::DeletePrefix(key) => key,
    };
    StoreError::DuplicateKey { key: String::from_utf8_lossy(key).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str) -> Op {
        Op::put(key.to_owned(), "v")
    }

    fn prefix(prefix: &str) -> Op {
        Op::DeletePrefix(prefix.to_owned().into())
    }

    fn then(ops: Vec<Op>) -> Txn {
        Txn { then: ops, ..Txn::default() }
    }

    #[test]
    fn a_list_has_at_most_128_entries() {
        let ops = |count| (0..count).map(|n| put(&n.to_string())).collect::<Vec<_>>();
        assert_eq!(check(&then(ops(128))), Ok(()));
        let refused = Err(StoreError::TooManyOps { count: 129, max: 128 });
        assert_eq!(check(&then(ops(129))), refused);
        assert_eq!(check(&Txn { otherwise: ops(129), ..Txn::default() }), refused);
        let compares = (0..129).map(|_| Compare::absent("k")).collect();
        assert_eq!(check(&Txn { compares, ..Txn::default() }), refused);
    }

    #[test]
    fn a_transaction_has_at_most_a_mebibyte() {
        let of = |size: usize| Txn::new().then(Op::put("k", vec![0; size - 1]));
        assert_eq!(check(&of(MAX_TXN_BYTES)), Ok(()));
        let refused = |size| Err(StoreError::TooLarge { size, max: MAX_TXN_BYTES });
        assert_eq!(check(&of(MAX_TXN_BYTES + 1)), refused(MAX_TXN_BYTES + 1));
        let both = of(MAX_TXN_BYTES).when(Compare::Value("a".into(), "b".into()));
        assert_eq!(check(&both), refused(MAX_TXN_BYTES + 2));
    }

    #[test]
    fn no_key_is_touched_twice_by_name_or_by_prefix() {
        let refused = [
            vec![put("a"), put("a")],
            vec![put("a"), Op::delete("a")],
            vec![prefix("a"), prefix("a")],
            vec![prefix("a/"), put("a/b")],
            vec![Op::delete("a/b"), put("z"), prefix("a/")],
            vec![prefix("a/"), prefix("a/b/")],
            vec![prefix(""), put("z")],
            vec![prefix("a"), put("a")],
        ];
        for ops in refused {
            assert!(matches!(check(&then(ops.clone())), Err(StoreError::DuplicateKey { .. })), "{ops:?}");
        }
        let allowed = [vec![put("a"), put("b")], vec![prefix("a/"), put("a"), put("a0")], vec![prefix("a/"), prefix("b/")]];
        for ops in allowed {
            assert_eq!(check(&then(ops.clone())), Ok(()), "{ops:?}");
        }
        let in_both_lists = Txn::new().then(put("a")).otherwise(put("a"));
        assert_eq!(check(&in_both_lists), Ok(()));
    }

    #[test]
    fn a_key_is_not_empty() {
        assert_eq!(check(&then(vec![put("")])), Err(StoreError::EmptyKey));
        assert_eq!(check(&Txn::new().when(Compare::exists(""))), Err(StoreError::EmptyKey));
    }

    #[test]
    fn a_lease_lasts_from_a_millisecond_to_ten_years() {
        assert_eq!(lease_ttl(Duration::ZERO), Duration::from_millis(1));
        assert_eq!(lease_ttl(Duration::from_micros(2500)), Duration::from_millis(2));
        assert_eq!(lease_ttl(Duration::MAX), Duration::from_secs(10 * 365 * 24 * 3600));
    }
}
