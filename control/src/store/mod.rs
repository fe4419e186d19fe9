//! What the control plane remembers: a key-value store with etcd's semantics and limits.
//!
//! One revision counts for the whole store and rises by one with each transaction that changes something; all events of
//! a transaction share it. A transaction compares, then applies one of two lists of operations, wholly or not at all,
//! and is answered only when it is durable. A watch delivers every revision from the one asked for, in order, without
//! gaps, one [`Batch`] a revision, never split. A new store is at revision 1, so its first change makes revision 2.
//!
//! | module | what it holds |
//! |---|---|
//! | `types` | keys, transactions, events, settings |
//! | `limits` | what a transaction may contain, the same in every engine |
//! | `feed` | watches: the recent past from memory, the older from the engine's log |
//! | `memory` | [`MemoryStore`], the model the other engines are compared with |
//! | `redb` | [`RedbStore`], the durable engine |

mod error;
mod feed;
mod limits;
mod memory;
mod redb;
mod types;

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use self::error::StoreError;
pub use self::limits::{MAX_OPS, MAX_TXN_BYTES};
pub use self::memory::MemoryStore;
pub use self::redb::RedbStore;
pub use self::types::{Batch, Clock, Compare, Event, Kv, LeaseId, Op, Range, Retention, StoreSettings, Txn, TxnResult};

/// A store with etcd's semantics. Every engine behaves the same; one conformance suite says so.
///
/// The futures do not borrow the store. A future that is dropped before it is ready may or may not have taken effect,
/// as with any answer that is lost.
pub trait Store: Send + Sync + 'static {
    /// The keys that begin with `prefix`, in byte order, at most `limit` of them (0 = all), as of one revision.
    fn range(&self, prefix: &[u8], limit: usize) -> BoxFuture<'static, Result<Range, StoreError>>;

    /// The key, if it exists.
    fn get(&self, key: &[u8]) -> BoxFuture<'static, Result<Option<Kv>, StoreError>>;

    /// Compares and applies, atomically. Ready when the result is durable.
    fn txn(&self, txn: Txn) -> BoxFuture<'static, Result<TxnResult, StoreError>>;

    /// Every batch with a key under `prefix` from revision `from` on (inclusive; 0 and 1 = from the beginning), for
    /// ever. To follow what a [`Range`] has shown, watch from its revision + 1. Batches without such a key are left
    /// out. A revision that lies ahead is waited for.
    ///
    /// The stream ends after the first error: [`StoreError::Compacted`] when `from`, or where a slow reader is, is no
    /// longer kept (read again with [`Store::range`], then watch), [`StoreError::Closed`] when the store is closed.
    fn watch(&self, prefix: &[u8], from: u64) -> BoxStream<'static, Result<Batch, StoreError>>;

    /// A lease that ends after `ttl` unless it is kept alive. Its end deletes every key that is attached to it, in one
    /// revision. A restart of the store gives every lease its full `ttl` again.
    fn grant(&self, ttl: Duration) -> BoxFuture<'static, Result<LeaseId, StoreError>>;

    /// Starts the lease's time anew, and says how long that is. Costs no durable write.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'static, Result<Duration, StoreError>>;

    /// Ends the lease now, and deletes its keys in one revision. Gives the revision of the store after it.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'static, Result<u64, StoreError>>;

    /// Forgets the history before `revision`, which becomes the oldest that can be watched from. Keys are not
    /// affected. Nothing happens when that much is already forgotten.
    fn compact(&self, revision: u64) -> BoxFuture<'static, Result<(), StoreError>>;

    /// The revision of the last durable change.
    fn revision(&self) -> u64;

    /// Why no change is taken at the moment, if none is. Each change tries again.
    fn failing(&self) -> Option<StoreError> {
        None
    }
}
