//! Nodes, instances and checks that were registered by whoever runs no sidecar, and what sidecars tell of their checks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use postern_checks::{Definition, Status};
use postern_names::ServiceName;
use serde::{Deserialize, Serialize};

/// How much an instance gets of what goes to its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    /// While it is passing.
    pub passing: u32,
    /// While it is in warning.
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

impl Weights {
    /// Whether they are those of an instance that says nothing of them.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where else something can be reached, such as `wan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedAddress {
    /// A host name or IP address.
    pub address: String,
    /// Its port; 0 for a node.
    #[serde(default)]
    pub port: u16,
}

impl TaggedAddress {
    /// What an agent of Consul adds to an instance of its own that has an IP address: `lan_ipv4` and `wan_ipv4`, or `lan_ipv6` and
    /// `wan_ipv6`, where they are not given.
    pub fn add_families(tagged: &mut BTreeMap<String, Self>, address: &str, port: u16) {
        let Ok(ip) = address.parse::<IpAddr>() else { return };
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        for network in ["lan", "wan"] {
            let place = || Self { address: address.to_owned(), port };
            tagged.entry(format!("{network}_{family}")).or_insert_with(place);
        }
    }
}

/// A host that was registered. One that has sidecars needs no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub node: String,
    /// A UUID, where one was given.
    #[serde(default)]
    pub id: String,
    /// A host name or IP address.
    pub address: String,
    /// Where else it can be reached.
    #[serde(default)]
    pub tagged_addresses: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// The revision that made it, where a later one changed it.
    #[serde(default)]
    pub created_in: Option<u64>,
}

/// An instance without a sidecar: for discovery alone, never an endpoint of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredRecord {
    /// Where it runs.
    pub node: String,
    /// Unique on its node.
    pub id: String,
    /// Of which service.
    pub service: ServiceName,
    /// By which it can be found.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A host name or IP address; empty: that of its node.
    #[serde(default)]
    pub address: String,
    /// 0: none.
    #[serde(default)]
    pub port: u16,
    /// Where else it can be reached.
    #[serde(default)]
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// Labels.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// What it gets.
    #[serde(default)]
    pub weights: Weights,
    /// Told back, and of no effect.
    #[serde(default)]
    pub enable_tag_override: bool,
    /// REGION[/ZONE], or empty.
    #[serde(default)]
    pub locality: String,
    /// The revision that made it, where a later one changed it.
    #[serde(default)]
    pub created_in: Option<u64>,
}

/// A check that was registered, and its status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// Of which node.
    pub node: String,
    /// Unique on its node.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default)]
    pub notes: String,
    /// What it says.
    pub status: Status,
    /// In its words.
    #[serde(default)]
    pub output: String,
    /// The instance that it is of; empty: the node.
    #[serde(default)]
    pub service_id: String,
    /// The kind of check: `http`, `ttl`, …; empty where somebody else runs it.
    #[serde(default)]
    pub kind: String,
    /// What the control plane does to know; absent where somebody else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    /// Since when the status is what it is.
    #[serde(with = "super::as_millis")]
    pub status_since: SystemTime,
    /// The revision that made it, where a later one changed it.
    #[serde(default)]
    pub created_in: Option<u64>,
}

/// The id of the check that stands for the maintenance of an instance.
pub fn service_maintenance(id: &str) -> String {
    format!("_service_maintenance:{id}")
}

/// The id of the check that stands for the maintenance of a node.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";

impl CheckRecord {
    /// Whether it stands for maintenance: what it is of is in no set.
    pub fn is_maintenance(&self) -> bool {
        self.id == NODE_MAINTENANCE || self.id.strip_prefix("_service_maintenance:") == Some(&self.service_id)
    }
}

/// A check that a sidecar runs, as it told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceCheck {
    /// Unique in its instance.
    pub id: String,
    /// For people.
    pub name: String,
    /// `http`, `tcp`, …
    pub kind: String,
    /// For people.
    #[serde(default)]
    pub notes: String,
    /// What it says.
    pub status: Status,
    /// In its words.
    #[serde(default)]
    pub output: String,
}
