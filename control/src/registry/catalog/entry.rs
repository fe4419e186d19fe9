//! A node, an instance and a check, as whoever looks for them sees them.

use std::collections::BTreeMap;

use postern_checks::Status;
use postern_names::ServiceName;

use crate::records::{InstanceRecord, RegisteredRecord, TaggedAddress, Weights};

/// A host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// A host name or IP address; empty where none is known.
    pub address: String,
    /// Where else it can be reached.
    pub tagged_addresses: BTreeMap<String, String>,
    /// Labels.
    pub meta: BTreeMap<String, String>,
    /// The revision that made it.
    pub create: u64,
    /// The revision that last changed it.
    pub modify: u64,
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it runs.
    pub node: String,
    /// Unique on its node.
    pub id: String,
    /// Of which service.
    pub service: ServiceName,
    /// By which it can be found.
    pub tags: Vec<String>,
    /// A host name or IP address; empty: that of its node.
    pub address: String,
    /// 0: none.
    pub port: u16,
    /// Where else it can be reached.
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// Labels.
    pub meta: BTreeMap<String, String>,
    /// What it gets.
    pub weights: Weights,
    /// As it was registered.
    pub enable_tag_override: bool,
    /// REGION[/ZONE], or empty.
    pub locality: String,
    /// Its address is that of a sidecar, which speaks mutual TLS: it is an endpoint of upstreams.
    pub has_sidecar: bool,
    /// The revision that made it.
    pub create: u64,
    /// The revision that last changed it.
    pub modify: u64,
}

/// A check and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Of which node.
    pub node: String,
    /// Unique on its node.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it says.
    pub status: Status,
    /// For people.
    pub notes: String,
    /// In its words.
    pub output: String,
    /// The instance that it is of; empty: the node.
    pub service_id: String,
    /// The service of that instance.
    pub service: String,
    /// The tags of that instance.
    pub tags: Vec<String>,
    /// `http`, `ttl`, …; empty where it is not known.
    pub kind: String,
    /// Between two probes, as Go writes it; empty: none.
    pub interval: String,
    /// The longest that a probe may take, as Go writes it; empty: none.
    pub timeout: String,
    /// The revision that made it.
    pub create: u64,
    /// The revision that last changed it.
    pub modify: u64,
}

impl Default for Check {
    fn default() -> Self {
        let empty = String::new;
        Self {
            node: empty(),
            id: empty(),
            name: empty(),
            status: Status::Critical,
            notes: empty(),
            output: empty(),
            service_id: empty(),
            service: empty(),
            tags: Vec::new(),
            kind: empty(),
            interval: empty(),
            timeout: empty(),
            create: 0,
            modify: 0,
        }
    }
}

impl Entry {
    /// An instance with a sidecar.
    pub(super) fn of_instance(record: &InstanceRecord, revision: u64) -> Self {
        let address = record.address.as_deref().unwrap_or_default();
        Self {
            node: record.node_name().to_owned(),
            id: record.id.to_string(),
            service: record.service.clone(),
            tags: record.tags.clone(),
            address: host_of(address).unwrap_or_default(),
            port: address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0),
            tagged_addresses: BTreeMap::new(),
            meta: record.meta.clone(),
            weights: record.weights,
            enable_tag_override: false,
            locality: record.locality.clone(),
            has_sidecar: true,
            create: revision,
            modify: revision,
        }
    }

    /// An instance without one.
    pub(super) fn of_registered(record: &RegisteredRecord, revision: u64) -> Self {
        Self {
            node: record.node.clone(),
            id: record.id.clone(),
            service: record.service.clone(),
            tags: record.tags.clone(),
            address: record.address.clone(),
            port: record.port,
            tagged_addresses: record.tagged_addresses.clone(),
            meta: record.meta.clone(),
            weights: record.weights,
            enable_tag_override: record.enable_tag_override,
            locality: record.locality.clone(),
            has_sidecar: false,
            create: record.created_in.unwrap_or(revision),
            modify: revision,
        }
    }
}

/// HOST of HOST:PORT, without brackets.
pub(super) fn host_of(address: &str) -> Option<String> {
    let (host, _) = address.rsplit_once(':')?;
    Some(host.trim_matches(['[', ']']).to_owned()).filter(|host| !host.is_empty())
}
