//! What can go wrong in a store.

use std::io;
use std::path::PathBuf;

use super::types::LeaseId;

/// Why a store could not do what it was asked. Cheap to clone: one failed write fails every transaction of its group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The history asked for is no longer kept.
    #[error("history before revision {oldest} is no longer kept; read the keys anew and watch from there")]
    Compacted {
        /// The oldest revision that can be watched from.
        oldest: u64,
    },
    /// A revision that does not exist yet.
    #[error("revision {asked} does not exist yet; the store is at {revision}")]
    FutureRevision {
        /// The revision asked for.
        asked: u64,
        /// Where the store is.
        revision: u64,
    },
    /// More compares or operations than one transaction may have.
    #[error("{count} operations in one transaction; at most {max} are allowed, write in chunks")]
    TooManyOps {
        /// How many there were.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// More bytes than one transaction may have.
    #[error("a transaction of {size} bytes; at most {max} are allowed, write in chunks")]
    TooLarge {
        /// Bytes of all keys and values.
        size: usize,
        /// How many there may be.
        max: usize,
    },
    /// Two operations of one list touch the same key.
    #[error("key {key:?} is changed twice in one transaction")]
    DuplicateKey {
        /// The key, with bytes that are no UTF-8 replaced.
        key: String,
    },
    /// An operation or compare without a key.
    #[error("a key is empty; only a prefix may be")]
    EmptyKey,
    /// The lease has ended or never was.
    #[error("{0} has ended or never existed; grant a new one")]
    LeaseNotFound(LeaseId),
    /// The store is closed or closing.
    #[error("the store is closed")]
    Closed,
    /// Another process has the store open.
    #[error(
        "{} is locked by another process; another control plane runs with this data directory: stop it, or choose another --data-dir",
        path.display()
    )]
    Locked {
        /// The file of the store.
        path: PathBuf,
    },
    /// The file was written by a version that stores differently.
    #[error(
        "{} has schema version {found}, this version reads {supported}; start the version that wrote it",
        path.display()
    )]
    Schema {
        /// The file of the store.
        path: PathBuf,
        /// What the file says.
        found: u64,
        /// What this version reads.
        supported: u64,
    },
    /// The disk or the operating system refused.
    #[error("{what}: {why}")]
    Io {
        /// What was attempted, and where.
        what: String,
        /// The operating system's kind of error.
        kind: io::ErrorKind,
        /// The operating system's words, and the cure if there is one.
        why: String,
    },
    /// What was read cannot have been written by this store.
    #[error("{0}")]
    Corrupt(String),
}

impl StoreError {
    pub(crate) fn io(what: impl Into<String>, error: &io::Error) -> Self {
        Self::Io { what: what.into(), kind: error.kind(), why: error.to_string() }
    }
}
