//! What a transaction may contain. The same in every engine, so that what passes on one passes on all.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

use super::error::StoreError;
use super::types::{Compare, Op, Txn};

/// How many compares, and how many operations of each list, a transaction may have (etcd: `--max-txn-ops`).
pub const MAX_OPS: usize = 128;

/// How many bytes all keys and values of a transaction may have.
pub const MAX_TXN_BYTES: usize = 1 << 20;

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
