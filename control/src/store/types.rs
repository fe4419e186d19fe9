//! Keys, transactions, events and settings of a store.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

/// A key with its value and where it stands in the store's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kv {
    /// The key, never empty.
    pub key: Bytes,
    /// Its value, may be empty.
    pub value: Bytes,
    /// The revision that created it. A key that was deleted and put again is a new key.
    pub create_revision: u64,
    /// The revision that changed it last.
    pub mod_revision: u64,
    /// How often it was put since it was created, from 1.
    pub version: u64,
    /// The lease whose end deletes it.
    pub lease: Option<LeaseId>,
}

/// A lease of one store. Never given twice by the same store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {}", self.0)
    }
}

/// What a key must be like for a transaction to take its `then` list. The actual number stands on the left:
/// `Version(key, Greater, 0)` holds for a key that exists. A key that does not exist has version 0 and modification
/// revision 0, and no value equals its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The revision that changed the key last.
    ModRevision(Bytes, Ordering, u64),
    /// How often the key was put since it was created.
    Version(Bytes, Ordering, u64),
    /// The key exists and has this value.
    Value(Bytes, Bytes),
}

impl Compare {
    /// The key does not exist.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::Version(key.into(), Ordering::Equal, 0)
    }

    /// The key exists.
    pub fn exists(key: impl Into<Bytes>) -> Self {
        Self::Version(key.into(), Ordering::Greater, 0)
    }

    /// The key was last changed in this revision (0: it does not exist).
    pub fn unchanged(key: impl Into<Bytes>, mod_revision: u64) -> Self {
        Self::ModRevision(key.into(), Ordering::Equal, mod_revision)
    }

    /// The key it looks at.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::ModRevision(key, ..) | Self::Version(key, ..) | Self::Value(key, _) => key,
        }
    }

    /// Whether it holds for what is stored under its key.
    pub(crate) fn holds(&self, stored: Option<Stored<'_>>) -> bool {
        match self {
            Self::ModRevision(_, ordering, number) => stored.map_or(0, |it| it.mod_revision).cmp(number) == *ordering,
            Self::Version(_, ordering, number) => stored.map_or(0, |it| it.version).cmp(number) == *ordering,
            Self::Value(_, value) => stored.is_some_and(|it| it.value == value),
        }
    }
}

/// What a compare looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub mod_revision: u64,
    pub version: u64,
    pub value: &'a [u8],
}

impl<'a> From<&'a Kv> for Stored<'a> {
    fn from(kv: &'a Kv) -> Self {
        Self { mod_revision: kv.mod_revision, version: kv.version, value: &kv.value }
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Creates or replaces a key. Without a lease it is detached from the one that it had.
    Put {
        /// The key, not empty.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The lease whose end deletes the key.
        lease: Option<LeaseId>,
    },
    /// Deletes a key. Nothing happens if there is none.
    Delete(Bytes),
    /// Deletes all keys that begin with these bytes (none: all keys).
    DeletePrefix(Bytes),
}

impl Op {
    /// Creates or replaces a key that no lease ends.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete(key.into())
    }
}

/// If all compares hold, `then`, else `otherwise`. Each list has at most [`MAX_OPS`](super::MAX_OPS) entries, no two
/// operations of a list touch the same key, and all keys and values together have at most
/// [`MAX_TXN_BYTES`](super::MAX_TXN_BYTES) bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold. None: `then` is taken.
    pub compares: Vec<Compare>,
    /// Applied if they hold.
    pub then: Vec<Op>,
    /// Applied if one does not.
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// A transaction that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a compare.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation for when the compares hold.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.then.push(op);
        self
    }

    /// Adds an operation for when a compare does not hold.
    #[must_use]
    pub fn otherwise(mut self, op: Op) -> Self {
        self.otherwise.push(op);
        self
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the compares held.
    pub succeeded: bool,
    /// The revision of the store after it: its own if it changed something.
    pub revision: u64,
    /// When it was applied, by the clock of this machine.
    pub committed_at: SystemTime,
}

/// Keys as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The keys, in byte order.
    pub kvs: Vec<Kv>,
    /// The revision of the store that they were read at.
    pub revision: u64,
    /// Whether the limit left keys out.
    pub more: bool,
}

/// One key's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Bytes,
    /// Its new value; `None` when it was deleted.
    pub value: Option<Bytes>,
    /// The revision of the change.
    pub mod_revision: u64,
    /// The revision that created the key; 0 when it was deleted.
    pub create_revision: u64,
}

/// All changes of one revision under the prefix that is watched, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: u64,
    /// Its changes, at least one, one a key.
    pub events: Vec<Event>,
}

/// Where a store takes the time from that leases end by. Tests hand in their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Instant + Send + Sync>);

impl Clock {
    /// A clock that asks `now`, which must never go backwards.
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> Instant {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(Instant::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How much history a store keeps for watches. A revision is forgotten when it is beyond one of the three; the current
/// keys are always kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How many revisions, at least 1.
    pub revisions: u64,
    /// How old a revision may get.
    pub age: Duration,
    /// How many bytes all of them may have.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { revisions: 100_000, age: Duration::from_secs(3600), bytes: 256 << 20 }
    }
}

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// How much history is kept.
    pub retention: Retention,
    /// How often is looked for history that need not be kept.
    pub compact_every: Duration,
    /// After an error of the disk: how long changes are refused before one of them opens the store again.
    pub reopen_after: Duration,
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
    /// The clock that leases end by.
    pub clock: Clock,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            compact_every: Duration::from_secs(60),
            reopen_after: Duration::from_secs(1),
            cache_bytes: 64 << 20,
            clock: Clock::default(),
        }
    }
}
