//! What was changed in intentions and default: a record for each change, and the changed pairs beside it.
//!
//! | key | value |
//! |---|---|
//! | `history/BASE` | [`HistoryRecord`]: one change |
//! | `history-part/BASE/NNNNNN` | its pairs, as a chunk of [`StagedChange`](super::change_set::StagedChange)s |
//!
//! BASE is the revision of the change before it, which no two changes share: each compares it. The revision of the change
//! is the one that wrote the record. The pairs of a change set are written where its chunks are moved; until then they are
//! in the set.

use std::time::SystemTime;

use bytes::Bytes;
use postern_intentions::DefaultPolicy;
use serde::{Deserialize, Serialize};

/// What the keys of all records begin with.
pub const PREFIX: &str = "history/";

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// The revision of the change before it; 0: there was none.
    pub base: u64,
    /// When.
    #[serde(with = "super::as_millis")]
    pub at: SystemTime,
    /// Who: a token's id, `uid:N`, or `control-plane`.
    pub who: String,
    /// From where: an address, or `unix`.
    pub from: String,
    /// What they did: `intention.set`, `intention.apply`, …
    pub what: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The default before and after, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<(DefaultPolicy, DefaultPolicy)>,
    /// In how many parts the pairs are.
    pub parts: u32,
    /// Bytes of all parts.
    pub bytes: u64,
    /// The change set that it was made by, where it was too large for a transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_set: Option<String>,
}

/// The key of the record of the change after `base`.
pub fn record_key(base: u64) -> Bytes {
    format!("{PREFIX}{base:016x}").into()
}

/// The key of a part of that change.
pub fn part_key(base: u64, number: u32) -> Bytes {
    format!("history-part/{base:016x}/{number:06}").into()
}

/// What the keys of all its parts begin with.
pub fn parts_prefix(base: u64) -> Bytes {
    format!("history-part/{base:016x}/").into()
}
