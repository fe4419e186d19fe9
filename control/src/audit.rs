//! The audit log: who did what, in files that cannot be rewritten unseen.
//!
//! An entry is part of the store transaction that it tells of ([`AuditEntry::op`]), so nothing happens without one. A
//! task moves entries from the store to append-only JSON lines; an entry leaves the store only when its line is durable.
//! Each line has a number and the SHA-256 of the line before it, over segments too: [`verify_chain`] finds a line that
//! was changed, removed or moved. A removed end shows against the [`AuditHead`] that the store keeps.

mod log;
mod segment;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::verify::{ChainError, ChainReport, verify_chain, verify_chain_to};
pub use self::writer::{AuditStatus, AuditWriter, spawn_writer};
use crate::store::{Op, Store, StoreError};

/// The keys of entries that are not in the log yet.
pub const PREFIX: &str = "audit/";

/// The key of the [`AuditHead`].
pub const HEAD_KEY: &str = "audit-head";

/// One thing that somebody did. Names, numbers and reasons only: never a key, a token or a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// Who: a token's id, `uid 1000`, or `control-plane`.
    pub who: String,
    /// From where: an address or `socket`.
    pub from: String,
    /// What: `intention.set`, `token.create`, `svid.issue`, …
    pub what: String,
    /// To what, and how.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
    /// Why, in the words of who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl AuditEntry {
    /// The operation that makes the entry part of a transaction. Each call is a new entry, with a key of its own.
    pub fn op(&self) -> Op {
        // The parts are all text, numbers and JSON, which always can be written.
        let value = serde_json::to_vec(self).unwrap_or_default();
        Op::put(self.new_key(), value)
    }

    /// In the order of time, then of calls; two processes never make the same.
    fn new_key(&self) -> Bytes {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let millis = self.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        format!("{PREFIX}{millis:012x}-{call:08x}-{}", uuid::Uuid::new_v4().simple()).into()
    }
}

/// The last line that was durable when entries were last removed from the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// The number of the line.
    pub n: u64,
    /// Its SHA-256, in hexadecimal.
    pub hash: String,
}

impl AuditHead {
    /// What the store knows of the log; `None` before anything was written.
    ///
    /// # Errors
    /// Those of the store; [`StoreError::Corrupt`] if the record cannot be read.
    pub async fn load(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        let Some(kv) = store.get(HEAD_KEY.as_bytes()).await? else { return Ok(None) };
        let head = serde_json::from_slice(&kv.value);
        head.map(Some).map_err(|error| StoreError::Corrupt(format!("the record {HEAD_KEY} is damaged: {error}")))
    }
}

/// Settings of the log.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// A segment that has reached this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// How long a segment is kept after the next one began.
    pub retention: Duration,
    /// How long to wait after an error before the next attempt.
    pub retry: Duration,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, retention: Duration::from_secs(400 * 24 * 3600), retry: Duration::from_secs(1) }
    }
}

/// Why the log could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The disk refused.
    #[error("cannot {what} {}: {source}; entries wait in the store until it can", path.display())]
    Io {
        /// The verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// The store refused.
    #[error("the audit log cannot take entries from the store: {0}")]
    Store(#[from] StoreError),
}

mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de, ser};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    pub(super) fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let text = OffsetDateTime::from(*at).format(&Rfc3339).map_err(ser::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(SystemTime::from).map_err(de::Error::custom)
    }
}
