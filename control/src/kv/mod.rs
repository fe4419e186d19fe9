//! The key-value store: configuration that is shared, and locks.
//!
//! A value is sealed before it leaves for the store, bound to its key, and stays sealed in the view: it is opened each
//! time it is read. That costs less than a microsecond for a value of a kilobyte, and a copy of this process's memory
//! holds no more plain values than were being read.
//!
//! Every change, whether one `PUT` or a transaction of 128 operations, is a list of [`KvOp`]s that one evaluator turns into
//! one transaction of the store.
//!
//! | module | what it holds |
//! |---|---|
//! | `entry` | a key's value, flags and lock, as stored |
//! | `view` | all entries at one revision, their indexes, and what was deleted lately |
//! | `op` | what can be done, and how it is refused |
//! | `evaluate` | what operations come to, one after the other |
//! | `draft` | the evaluated changes as one transaction of the store |
//! | `keeper` | [`KeyValues`]: reads, and changes until they are durable |

mod draft;
mod entry;
mod evaluate;
mod keeper;
mod op;
mod view;

pub use self::entry::{Entry, KV_PREFIX, StoredEntry, kv_key};
pub use self::keeper::{Beside, KeyValues, KvError};
pub use self::op::{KvOp, KvResult, MAX_KEY_BYTES, MAX_OPS, MAX_VALUE_BYTES, OpError, Outcome};
pub use self::view::KvView;

#[cfg(test)]
mod tests;
