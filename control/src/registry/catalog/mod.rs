//! Everything that can be found, whoever registered it: nodes, instances with a sidecar and without, and their checks.
//!
//! An instance with a sidecar stands at its sidecar's address, which speaks mutual TLS (Consul would call it
//! Connect-native). One without stands at the address that it was registered with.

mod entry;
pub mod operations;
mod register;

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use postern_checks::{Kind, Status, duration};
use postern_names::{InstanceId, ServiceName};

pub use self::entry::{Check, Entry, Node};
pub use self::register::{Leaving, Registering, RegisteringService};
use super::Home;
use crate::mirror::{NodeView, View};
use crate::records::{CheckRecord, InstanceRecord, NodeRecord};

/// The check that the control plane passes as long as it answers.
pub const SERF_HEALTH: &str = "serfHealth";

/// The catalog as one view shows it.
#[derive(Clone, Copy)]
pub struct Catalog<'a> {
    view: &'a View,
    home: &'a Home,
}

impl<'a> Catalog<'a> {
    /// The catalog of this view; `home` is the node of the control plane.
    pub fn new(view: &'a View, home: &'a Home) -> Self {
        Self { view, home }
    }

    /// Every node, in the order of their names.
    pub fn nodes(&self) -> Vec<Node> {
        let named = self.view.catalog.nodes().map(|(name, node)| self.make_node(name, Some(node)));
        let home = self.view.catalog.node(&self.home.node).is_none().then(|| self.make_node(&self.home.node, None));
        let mut nodes: Vec<Node> = named.flatten().chain(home.flatten()).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<Node> {
        self.make_node(name, self.view.catalog.node(name))
    }

    /// The services that have an instance, with the tags of their instances.
    pub fn services(&self) -> BTreeMap<ServiceName, BTreeSet<String>> {
        let mut services: BTreeMap<ServiceName, BTreeSet<String>> = BTreeMap::new();
        for name in self.view.service_names() {
            for (record, _) in self.view.instances_of(&name).filter(|(record, _)| can_be_found(record)) {
                services.entry(name.clone()).or_default().extend(record.tags.iter().cloned());
            }
            for (record, _) in self.view.catalog.registered_of(&name) {
                services.entry(name.clone()).or_default().extend(record.tags.iter().cloned());
            }
        }
        services
    }

    /// The instances of a service, in the order of their nodes and ids.
    pub fn entries_of(&self, service: &ServiceName) -> Vec<Entry> {
        let with_sidecar = self.view.instances_of(service).filter(|(record, _)| can_be_found(record));
        let with_sidecar = with_sidecar.map(|(record, revision)| Entry::of_instance(record, *revision));
        let registered = self.view.catalog.registered_of(service);
        let registered = registered.map(|(record, revision)| Entry::of_registered(record, *revision));
        let mut entries: Vec<Entry> = with_sidecar.chain(registered).collect();
        entries.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
        entries
    }

    /// The instances on a node, in the order of their ids.
    pub fn entries_on(&self, node: &str) -> Vec<Entry> {
        let Some(node) = self.view.catalog.node(node) else { return Vec::new() };
        let with_sidecar = node.instances.iter().filter_map(|id| self.view.instances.get(id));
        let with_sidecar = with_sidecar.filter(|(record, _)| can_be_found(record));
        let with_sidecar = with_sidecar.map(|(record, revision)| Entry::of_instance(record, *revision));
        let registered = node.registered.values().map(|(record, revision)| Entry::of_registered(record, *revision));
        let mut entries: Vec<Entry> = with_sidecar.chain(registered).collect();
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        entries
    }

    /// One instance of a node.
    pub fn entry(&self, node: &str, id: &str) -> Option<Entry> {
        if let Some((record, revision)) = self.view.catalog.node(node)?.registered.get(id) {
            return Some(Entry::of_registered(record, *revision));
        }
        let (record, revision) = self.view.instances.get(&id.parse::<InstanceId>().ok()?)?;
        (record.node_name() == node && can_be_found(record)).then(|| Entry::of_instance(record, *revision))
    }

    /// The checks of an instance and those of its node, which count for it too.
    pub fn checks_of(&self, entry: &Entry) -> Vec<Check> {
        let mut checks = self.checks_of_node(&entry.node);
        checks.extend(self.own_checks_of(entry));
        checks
    }

    /// The checks of an instance alone.
    pub fn own_checks_of(&self, entry: &Entry) -> Vec<Check> {
        let told = entry.id.parse::<InstanceId>().ok().and_then(|id| self.view.instances.get(&id)).filter(|_| entry.has_sidecar);
        let told = told.map(|(record, revision)| told_checks(record, *revision)).unwrap_or_default();
        let node = self.view.catalog.node(&entry.node);
        let registered = node.into_iter().flat_map(|node| node.checks_of(&entry.id));
        let registered = registered.map(|(record, revision)| check(record, *revision, Some(entry)));
        told.into_iter().chain(registered).collect()
    }

    /// The checks of a node itself.
    pub fn checks_of_node(&self, name: &str) -> Vec<Check> {
        let serf = (name == self.home.node).then(|| Check {
            node: name.to_owned(),
            id: SERF_HEALTH.into(),
            name: "Serf Health Status".into(),
            status: Status::Passing,
            output: "Agent alive and reachable".into(),
            create: 1,
            modify: 1,
            ..Check::default()
        });
        let node = self.view.catalog.node(name);
        let registered = node.into_iter().flat_map(|node| node.checks_of(""));
        serf.into_iter().chain(registered.map(|(record, revision)| check(record, *revision, None))).collect()
    }

    /// The checks of a node and of every instance on it.
    pub fn checks_on(&self, name: &str) -> Vec<Check> {
        let entries = self.entries_on(name);
        let own = entries.iter().flat_map(|entry| self.own_checks_of(entry));
        self.checks_of_node(name).into_iter().chain(own).collect()
    }

    /// The worst of all checks that count for an instance.
    pub fn status_of(&self, entry: &Entry) -> Status {
        self.checks_of(entry).iter().map(|check| check.status).max().unwrap_or(Status::Passing)
    }

    fn make_node(&self, name: &str, node: Option<&NodeView>) -> Option<Node> {
        if name == self.home.node {
            let address = node.and_then(|node| node.record.as_ref()).map_or(&self.home.address, |(record, _)| &record.address);
            let made = Node { address: address.clone(), ..self.described(name, node) };
            return Some(Node { create: made.create.max(1), modify: made.modify.max(1), ..made });
        }
        let node = node?;
        if node.record.is_some() {
            return Some(self.described(name, Some(node)));
        }
        // A node without a record is there as long as one of its instances is.
        let present = node.instances.iter().filter_map(|id| self.view.instances.get(id)).filter(|(record, _)| !record.left);
        let mut present = present.peekable();
        present.peek()?;
        let revisions: Vec<u64> = present.clone().map(|(_, revision)| *revision).collect();
        let addresses = present.flat_map(|(record, _)| [record.address.as_deref(), Some(record.metrics.as_str())]);
        let address = addresses.flatten().find_map(entry::host_of).unwrap_or_default();
        Some(Node {
            address,
            create: revisions.iter().min().copied().unwrap_or(1),
            modify: revisions.iter().max().copied().unwrap_or(1),
            ..self.described(name, Some(node))
        })
    }

    /// A node by a record that is not stored yet.
    fn node_of(&self, record: &NodeRecord, modify: u64) -> Node {
        let NodeRecord { node, id, address, tagged_addresses, meta, created_in } = record.clone();
        let id = if id.is_empty() { self.id_of(&node) } else { id };
        Node { name: node, id, address, tagged_addresses, meta, create: created_in.unwrap_or(modify), modify }
    }

    fn described(&self, name: &str, node: Option<&NodeView>) -> Node {
        let bare = Node { name: name.to_owned(), id: self.id_of(name), ..Node::default() };
        let Some((record, revision)) = node.and_then(|node| node.record.as_ref()) else { return bare };
        let NodeRecord { id, address, tagged_addresses, meta, created_in, .. } = record.clone();
        let id = if id.is_empty() { bare.id } else { id };
        let create = created_in.unwrap_or(*revision);
        Node { name: bare.name, id, address, tagged_addresses, meta, create, modify: *revision }
    }

    /// A UUID that a node keeps as long as the mesh lasts.
    fn id_of(&self, node: &str) -> String {
        let hash = digest(&SHA256, format!("{}/{node}", self.view.cluster.cluster_id).as_bytes());
        let bytes: [u8; 16] = hash.as_ref().first_chunk().copied().unwrap_or_default();
        uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
    }
}

/// One that only calls has nothing to be found at.
fn can_be_found(record: &InstanceRecord) -> bool {
    !record.left && record.address.is_some()
}

fn check(record: &CheckRecord, revision: u64, entry: Option<&Entry>) -> Check {
    let (interval, timeout) = match record.definition.as_ref().map(|definition| &definition.kind) {
        Some(Kind::Probe(_, schedule)) => (duration::text(schedule.interval), duration::text(schedule.timeout)),
        _ => (String::new(), String::new()),
    };
    Check {
        node: record.node.clone(),
        id: record.id.clone(),
        name: record.name.clone(),
        status: record.status,
        notes: record.notes.clone(),
        output: record.output.clone(),
        service_id: record.service_id.clone(),
        service: entry.map(|entry| entry.service.to_string()).unwrap_or_default(),
        tags: entry.map(|entry| entry.tags.clone()).unwrap_or_default(),
        kind: record.kind.clone(),
        interval,
        timeout,
        create: record.created_in.unwrap_or(revision),
        modify: revision,
    }
}

/// What a sidecar tells of its instance, as checks.
fn told_checks(record: &InstanceRecord, revision: u64) -> Vec<Check> {
    let bare = || Check {
        node: record.node_name().to_owned(),
        service_id: record.id.to_string(),
        service: record.service.to_string(),
        tags: record.tags.clone(),
        create: revision,
        modify: revision,
        ..Check::default()
    };
    let mut checks: Vec<Check> = record
        .checks
        .iter()
        .map(|told| Check {
            id: told.id.clone(),
            name: told.name.clone(),
            status: told.status,
            notes: told.notes.clone(),
            output: told.output.clone(),
            kind: told.kind.clone(),
            ..bare()
        })
        .collect();
    let worst = record.checks.iter().map(|told| told.status).max();
    if worst.is_none() {
        checks.push(Check {
            id: format!("service:{}", record.id),
            name: format!("Service '{}' check", record.service),
            status: if record.healthy { Status::Passing } else { Status::Critical },
            output: if record.healthy {
                "the service accepts connections"
            } else {
                "the service does not answer, or nothing is heard of its sidecar"
            }
            .into(),
            kind: "tcp".into(),
            ..bare()
        });
    } else {
        let is_silent = !record.healthy && worst != Some(Status::Critical);
        checks.push(Check {
            id: format!("sidecar:{}", record.id),
            name: "Sidecar".into(),
            status: if is_silent { Status::Critical } else { Status::Passing },
            output: if is_silent { "nothing is heard of the sidecar" } else { "the sidecar is heard of" }.into(),
            kind: "sidecar".into(),
            ..bare()
        });
    }
    checks
}
