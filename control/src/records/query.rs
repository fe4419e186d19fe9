//! Prepared queries, as they are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A question for instances that has a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// A UUID.
    pub id: String,
    /// By which it is found, without regard to case; empty: by its id alone.
    #[serde(default)]
    pub name: String,
    /// It answers for every name that begins with its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<QueryTemplate>,
    /// What is asked for. In a template these texts hold `${…}`.
    pub service: QueriedService,
    /// How long DNS may keep an answer, as Go writes it; empty: not at all.
    #[serde(default)]
    pub ttl: String,
    /// The revision that made it, where a later one changed it.
    #[serde(default)]
    pub created_in: Option<u64>,
}

/// How a template takes a name apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryTemplate {
    /// For `${match(N)}`; empty: there is none.
    #[serde(default)]
    pub regexp: String,
    /// Tags that come out empty are not asked for.
    #[serde(default)]
    pub remove_empty_tags: bool,
}

/// Which instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueriedService {
    /// The service.
    pub service: String,
    /// Only those with a sidecar.
    #[serde(default)]
    pub connect: bool,
    /// Only those whose checks all pass; otherwise those that are not critical.
    #[serde(default)]
    pub only_passing: bool,
    /// Checks that are not looked at.
    #[serde(default)]
    pub ignore_check_ids: Vec<String>,
    /// The node whose instances come first; `_agent` is that of the control plane.
    #[serde(default)]
    pub near: String,
    /// They have these tags, and none with `!` before it.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Their node has these labels.
    #[serde(default)]
    pub node_meta: BTreeMap<String, String>,
    /// They have these labels.
    #[serde(default)]
    pub service_meta: BTreeMap<String, String>,
    /// Datacenters to turn to, of which there is one.
    #[serde(default)]
    pub datacenters: Vec<String>,
}
