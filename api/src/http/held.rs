//! What the sidecars of a service hold of what the control plane says.

use postern_names::InstanceId;
use serde::{Deserialize, Serialize};

use super::NotConnected;

/// What the connected sidecars of a service hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    /// How many are connected.
    pub sidecars: usize,
    /// How many of them enforce what this answer says.
    pub agree: usize,
    /// Those that do not, or not yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<InstanceId>,
    /// Each of them, at most a hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<HeldBy>,
    /// Instances without an open stream: they enforce what they held when it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_connected: Vec<NotConnected>,
}

/// What one sidecar holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldBy {
    /// Which one.
    pub instance: InstanceId,
    /// The revision that it acknowledged last.
    pub revision: u64,
    /// Seconds since then; absent where it was current when it connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// Whether it enforces what this answer says.
    pub agrees: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
