//! What can be done with keys, and how it is refused.

use bytes::Bytes;

use super::entry::Entry;

/// How many operations a transaction may have.
pub const MAX_OPS: usize = 128;
/// How many bytes a value may have.
pub const MAX_VALUE_BYTES: usize = 512 << 10;
/// How many bytes a key may have.
pub const MAX_KEY_BYTES: usize = 4096;

/// One operation. The verbs of Consul's transactions; a `PUT` or `DELETE` of one key is a transaction of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvOp {
    /// Puts a value, whatever was there; a lock stays.
    Set {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The flags.
        flags: u64,
    },
    /// Puts a value if the key was last changed in this revision; 0: if there is no such key.
    Cas {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The flags.
        flags: u64,
        /// The revision.
        index: u64,
    },
    /// Puts a value and takes the lock for a session, if nobody else has it.
    Lock {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The flags.
        flags: u64,
        /// Who takes it.
        session: String,
    },
    /// Puts a value and gives the lock up, if this session has it.
    Unlock {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The flags.
        flags: u64,
        /// Who has it.
        session: String,
    },
    /// Reads a key that must exist.
    Get(Bytes),
    /// Reads a key; one that does not exist reads as empty.
    GetOrEmpty(Bytes),
    /// Reads all keys that begin so.
    GetTree(Bytes),
    /// The key was last changed in this revision.
    CheckIndex {
        /// The key.
        key: Bytes,
        /// The revision.
        index: u64,
    },
    /// The key is locked by this session.
    CheckSession {
        /// The key.
        key: Bytes,
        /// The session.
        session: String,
    },
    /// There is no such key.
    CheckNotExists(Bytes),
    /// Deletes a key, if there is one.
    Delete(Bytes),
    /// Deletes all keys that begin so.
    DeleteTree(Bytes),
    /// Deletes a key if it was last changed in this revision.
    DeleteCas {
        /// The key.
        key: Bytes,
        /// The revision.
        index: u64,
    },
}

impl KvOp {
    /// The key or prefix that it is about.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Set { key, .. }
            | Self::Cas { key, .. }
            | Self::Lock { key, .. }
            | Self::Unlock { key, .. }
            | Self::CheckIndex { key, .. }
            | Self::CheckSession { key, .. }
            | Self::DeleteCas { key, .. } => key,
            Self::Get(key)
            | Self::GetOrEmpty(key)
            | Self::GetTree(key)
            | Self::CheckNotExists(key)
            | Self::Delete(key)
            | Self::DeleteTree(key) => key,
        }
    }

    /// Whether it is about all keys that begin with its key.
    pub fn is_about_a_tree(&self) -> bool {
        matches!(self, Self::GetTree(_) | Self::DeleteTree(_))
    }

    /// Whether it changes nothing.
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Get(_)
                | Self::GetOrEmpty(_)
                | Self::GetTree(_)
                | Self::CheckIndex { .. }
                | Self::CheckSession { .. }
                | Self::CheckNotExists(_)
        )
    }

    /// The value that it puts.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Set { value, .. } | Self::Cas { value, .. } | Self::Lock { value, .. } | Self::Unlock { value, .. } => {
                Some(value)
            }
            _ => None,
        }
    }
}

/// A key as an operation found or left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvResult {
    /// Which operation it is of, from 0.
    pub op: usize,
    /// The key.
    pub key: Bytes,
    /// Its entry.
    pub entry: Entry,
    /// It is changed by this transaction: its index is that of the commit.
    pub is_changed: bool,
    /// Its value, where the operation was to read it.
    pub value: Option<Vec<u8>>,
}

/// Why an operation was refused; with it the whole transaction was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpError {
    /// Which one, from 0.
    pub op: usize,
    /// In Consul's words.
    pub what: String,
    /// Whether the key was in another state than the operation wanted, rather than the operation impossible in itself.
    pub is_state: bool,
}

/// What became of a list of operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of them are done, and durable.
    Done {
        /// The revision that they are part of, or that they were read at.
        revision: u64,
        /// What they give, in their order; deletions give nothing.
        results: Vec<KvResult>,
    },
    /// None of them is.
    Refused(Vec<OpError>),
}
