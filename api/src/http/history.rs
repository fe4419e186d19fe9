//! The history of intentions and default, and the way back.

use postern_intentions::{DefaultPolicy, Intention};
use serde::{Deserialize, Serialize};

/// One change of intentions or default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The revision that it made.
    pub revision: u64,
    /// RFC 3339.
    pub at: String,
    /// Who: a token id, `uid:N`, or `control-plane`.
    pub who: String,
    /// From where: an address, or `unix`.
    pub from: String,
    /// What they did: `intention.set`, `intention.delete`, `intention.apply`, `intention.rollback`, `intention.expire`,
    /// `default.set`.
    pub what: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Pairs that were new.
    pub added: Vec<Intention>,
    /// Before and after.
    pub changed: Vec<(Intention, Intention)>,
    /// Pairs that went.
    pub removed: Vec<Intention>,
    /// The default before and after, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<(DefaultPolicy, DefaultPolicy)>,
    /// Pairs of which it is not known what they said before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// How many more pairs it changed, where one answer would hold too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Brings permanent intentions and default back to what they were at a revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Any revision that the history goes back to, whether a change made it or not.
    pub revision: u64,
    /// For the audit log and the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Refuse (409) when the store has changed intentions or default since this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
    /// Milliseconds to wait for the connected sidecars concerned; 0 returns at commit.
    #[serde(default)]
    pub wait_ms: u64,
}
