//! How nodes, instances and checks are written: Consul's field names, in its order, with its empty values.

use std::collections::BTreeMap;

use postern_names::ServiceName;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::error::ConsulError;
use super::filter::Filter;
use crate::acl::{Access, Resource};
use crate::records::TaggedAddress;
use crate::registry::catalog::{Check, Entry, Node};

/// A node.
pub fn node(node: &Node, datacenter: &str) -> Value {
    json!({
        "ID": node.id,
        "Node": node.name,
        "Address": node.address,
        "Datacenter": datacenter,
        "TaggedAddresses": tagged_addresses(node),
        "Meta": node.meta,
        "CreateIndex": node.create,
        "ModifyIndex": node.modify,
    })
}

fn tagged_addresses(node: &Node) -> BTreeMap<String, String> {
    let mut tagged = node.tagged_addresses.clone();
    for tag in ["lan", "wan"] {
        tagged.entry(tag.into()).or_insert_with(|| node.address.clone());
    }
    tagged
}

/// An instance as `catalog/service` writes it, with its node.
pub fn catalog_service(entry: &Entry, on: &Node, datacenter: &str) -> Value {
    json!({
        "ID": on.id,
        "Node": on.name,
        "Address": on.address,
        "Datacenter": datacenter,
        "TaggedAddresses": tagged_addresses(on),
        "NodeMeta": on.meta,
        "ServiceKind": "",
        "ServiceID": entry.id,
        "ServiceName": entry.service,
        "ServiceTags": entry.tags,
        "ServiceAddress": entry.address,
        "ServiceTaggedAddresses": service_tagged_addresses(entry),
        "ServiceWeights": weights(entry),
        "ServiceMeta": entry.meta,
        "ServicePort": entry.port,
        "ServiceSocketPath": "",
        "ServiceEnableTagOverride": entry.enable_tag_override,
        "ServiceProxy": proxy(),
        "ServiceConnect": connect(entry),
        "ServiceLocality": locality(entry),
        "CreateIndex": entry.create,
        "ModifyIndex": entry.modify,
    })
}

/// An instance as `health/service`, `catalog/node` and `catalog/node-services` write it.
pub fn node_service(entry: &Entry) -> Value {
    json!({
        "ID": entry.id,
        "Service": entry.service,
        "Tags": entry.tags,
        "Address": entry.address,
        "TaggedAddresses": service_tagged_addresses(entry),
        "Meta": entry.meta,
        "Port": entry.port,
        "Weights": weights(entry),
        "EnableTagOverride": entry.enable_tag_override,
        "Proxy": proxy(),
        "Connect": connect(entry),
        "Locality": locality(entry),
        "PeerName": "",
        "CreateIndex": entry.create,
        "ModifyIndex": entry.modify,
    })
}

/// An instance as an agent writes it.
pub fn agent_service(entry: &Entry, datacenter: &str) -> Value {
    json!({
        "ID": entry.id,
        "Service": entry.service,
        "Tags": entry.tags,
        "Meta": entry.meta,
        "Port": entry.port,
        "Address": entry.address,
        "TaggedAddresses": service_tagged_addresses(entry),
        "Weights": weights(entry),
        "EnableTagOverride": entry.enable_tag_override,
        "Datacenter": datacenter,
    })
}

/// A check.
pub fn check(check: &Check) -> Value {
    json!({
        "Node": check.node,
        "CheckID": check.id,
        "Name": check.name,
        "Status": check.status,
        "Notes": check.notes,
        "Output": check.output,
        "ServiceID": check.service_id,
        "ServiceName": check.service,
        "ServiceTags": check.tags,
        "Type": check.kind,
        "Interval": check.interval,
        "Timeout": check.timeout,
        "ExposedPort": 0,
        "Definition": {},
        "CreateIndex": check.create,
        "ModifyIndex": check.modify,
    })
}

fn service_tagged_addresses(entry: &Entry) -> Value {
    let mut tagged = entry.tagged_addresses.clone();
    // An instance with a sidecar is its agent's own.
    if entry.has_sidecar {
        TaggedAddress::add_families(&mut tagged, &entry.address, entry.port);
    }
    tagged.iter().map(|(tag, place)| (tag.clone(), json!({ "Address": place.address, "Port": place.port }))).collect()
}

fn weights(entry: &Entry) -> Value {
    json!({ "Passing": entry.weights.passing, "Warning": entry.weights.warning })
}

fn proxy() -> Value {
    json!({ "Mode": "", "MeshGateway": {}, "Expose": {} })
}

/// An instance with a sidecar takes mutual TLS at its own address.
fn connect(entry: &Entry) -> Value {
    if entry.has_sidecar { json!({ "Native": true }) } else { json!({}) }
}

fn locality(entry: &Entry) -> Value {
    match entry.locality.split_once('/') {
        _ if entry.locality.is_empty() => Value::Null,
        Some((region, zone)) => json!({ "Region": region, "Zone": zone }),
        None => json!({ "Region": entry.locality, "Zone": "" }),
    }
}

/// What of the catalog a call may see and wants to see.
pub struct Selection {
    tags: Vec<String>,
    node_meta: Vec<(String, String)>,
    filter: Option<Filter>,
}

impl Selection {
    /// `?tag=`, `?node-meta=` and `?filter=`. `?near=` is taken and changes nothing: all is equally near.
    ///
    /// # Errors
    /// 400 where the filter is none.
    pub fn of(call: &Call) -> Result<Self, ConsulError> {
        let node_meta = call.params().all("node-meta").map(|pair| pair.split_once(':').unwrap_or((pair, "")));
        Ok(Self {
            tags: call.params().all("tag").filter(|tag| !tag.is_empty()).map(str::to_lowercase).collect(),
            node_meta: node_meta.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            filter: Filter::of(call)?,
        })
    }

    /// Whether an instance has every tag that was asked for, in any case.
    pub fn wants_tags(&self, entry: &Entry) -> bool {
        self.tags.iter().all(|wanted| entry.tags.iter().any(|tag| tag.to_lowercase() == *wanted))
    }

    /// Whether a node has every label that was asked for.
    pub fn wants_node(&self, node: &Node) -> bool {
        self.node_meta.iter().all(|(key, value)| node.meta.get(key) == Some(value))
    }

    /// Those that the filter lets through.
    ///
    /// # Errors
    /// 400 where the filter names what they do not have.
    pub fn filtered(&self, mut entries: Vec<Value>) -> Result<Vec<Value>, ConsulError> {
        let Some(filter) = &self.filter else { return Ok(entries) };
        let mut kept = Vec::new();
        for entry in entries.drain(..) {
            if filter.holds(&entry)? {
                kept.push(entry);
            }
        }
        Ok(kept)
    }

    /// As [`Selection::filtered`], for entries by name.
    ///
    /// # Errors
    /// 400 where the filter names what they do not have.
    pub fn filtered_map(&self, entries: Map<String, Value>) -> Result<Map<String, Value>, ConsulError> {
        let Some(filter) = &self.filter else { return Ok(entries) };
        let mut kept = Map::new();
        for (name, entry) in entries {
            if filter.holds(&entry)? {
                kept.insert(name, entry);
            }
        }
        Ok(kept)
    }
}

/// Whether a call may see a service.
pub fn may_see_service(call: &Call, service: &str) -> bool {
    call.authority.may(Access::Read, Resource::Service(service))
}

/// Whether a call may see a node.
pub fn may_see_node(call: &Call, node: &str) -> bool {
    call.authority.may(Access::Read, Resource::Node(node))
}

/// Whether a call may see a check: by its instance, or by its node.
pub fn may_see_check(call: &Call, check: &Check) -> bool {
    match check.service.as_str() {
        "" => may_see_node(call, &check.node),
        service => may_see_service(call, service),
    }
}

/// The name of a service; one that cannot be a name here has no instances.
pub fn service_name(text: &str) -> Option<ServiceName> {
    text.parse().ok()
}
