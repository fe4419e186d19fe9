//! Evaluated changes as one transaction of the store.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::entry::{self, StoredEntry, kv_key};
use super::evaluate::{Evaluation, Pending, PendingEntry};
use crate::mirror::View;
use crate::seal::SealKey;
use crate::store::{self, Compare, Op, Txn};

/// A transaction, and whether it is right only while nobody else writes keys.
#[derive(Debug)]
pub(super) struct Draft {
    pub txn: Txn,
    pub needs_to_be_alone: bool,
    /// Bytes of the keys and values that are put, whatever they replace.
    pub adds: u64,
}

/// What of an evaluation depends on the view; taken while the view is read.
pub(super) struct Plan {
    changes: BTreeMap<Bytes, Pending>,
    trees: Vec<Bytes>,
    compares: BTreeMap<Bytes, u64>,
    needs_to_be_alone: bool,
}

impl Plan {
    /// A tree under which something is put again is deleted key by key: the store touches no key twice.
    pub fn new(evaluation: &mut Evaluation, view: &View) -> Self {
        let mut changes = std::mem::take(&mut evaluation.changes);
        let mut needs_to_be_alone = false;
        let mut whole = Vec::new();
        for tree in std::mem::take(&mut evaluation.trees) {
            changes.retain(|key, pending| *pending != Pending::Gone || !key.starts_with(&tree));
            if !changes.keys().any(|key| key.starts_with(&tree)) {
                whole.push(tree);
                continue;
            }
            needs_to_be_alone = true;
            for (key, _) in view.kv.under(&tree) {
                changes.entry(key.clone()).or_insert(Pending::Gone);
            }
        }
        // What was made and deleted by this transaction never was, and a tree without keys is not worth a write.
        changes.retain(|key, pending| *pending != Pending::Gone || view.kv.get(key).is_some());
        whole.retain(|tree| view.kv.under(tree).next().is_some());
        let compares = std::mem::take(&mut evaluation.compares);
        needs_to_be_alone |= compares.len() > store::MAX_OPS;
        Self { changes, trees: whole, compares, needs_to_be_alone }
    }

    /// Seals what is put.
    pub fn draft(self, seal: &SealKey, cluster_id: &str) -> Draft {
        let mut txn = Txn::new();
        // Beyond the store's limit they are only a safety net: such a transaction is alone.
        txn.compares = self.compares.into_iter().take(store::MAX_OPS).map(|(key, at)| Compare::unchanged(key, at)).collect();
        txn.then.extend(self.trees.iter().map(|tree| Op::DeletePrefix(kv_key(tree))));
        txn.then.extend(self.changes.into_iter().map(|(key, pending)| match pending {
            Pending::Gone => Op::delete(kv_key(&key)),
            Pending::Put(entry) => Op::put(kv_key(&key), sealed(seal, cluster_id, &key, entry).encode()),
        }));
        let put = txn.then.iter().map(|op| if let Op::Put { key, value, .. } = op { key.len() + value.len() } else { 0 });
        let adds = put.sum::<usize>() as u64;
        Draft { txn, needs_to_be_alone: self.needs_to_be_alone, adds }
    }
}

fn sealed(seal: &SealKey, cluster_id: &str, key: &[u8], pending: PendingEntry) -> StoredEntry {
    StoredEntry {
        flags: pending.flags,
        lock_index: pending.lock_index,
        not_before: pending.not_before,
        session: pending.session,
        sealed: entry::seal(seal, cluster_id, key, &pending.value),
    }
}
