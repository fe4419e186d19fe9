//! Nodes, instances without a sidecar and checks, as the view holds them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postern_checks::Status;
use postern_names::{InstanceId, ServiceName};

use crate::records::{CheckRecord, NodeRecord, RegisteredRecord};

/// What is known of one host.
#[derive(Debug, Default)]
pub struct NodeView {
    /// As it was registered.
    pub record: Option<(NodeRecord, u64)>,
    /// Instances without a sidecar, by id.
    pub registered: BTreeMap<String, (RegisteredRecord, u64)>,
    /// Instances with one.
    pub instances: BTreeSet<InstanceId>,
    /// Checks that were registered, by id.
    pub checks: BTreeMap<String, (CheckRecord, u64)>,
    /// The ids of the checks of an instance, or of the node itself under the empty id.
    checks_of: BTreeMap<String, BTreeSet<String>>,
}

/// Nodes, instances without a sidecar, and checks. A number is the revision that last changed the record.
#[derive(Debug, Default)]
pub struct CatalogView {
    nodes: BTreeMap<String, NodeView>,
    by_service: BTreeMap<ServiceName, BTreeSet<(String, String)>>,
    revisions: HashMap<ServiceName, u64>,
    /// The last change of anything in it.
    revision: u64,
    /// The revision that the view was loaded at: what changed before is not known by name.
    floor: u64,
}

impl NodeView {
    /// The checks of an instance, or of the node itself for the empty id.
    pub fn checks_of(&self, id: &str) -> impl Iterator<Item = &(CheckRecord, u64)> {
        self.checks_of.get(id).into_iter().flatten().filter_map(|check| self.checks.get(check))
    }

    fn is_empty(&self) -> bool {
        self.record.is_none() && self.registered.is_empty() && self.instances.is_empty() && self.checks.is_empty()
    }
}

impl CatalogView {
    /// Every node by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&String, &NodeView)> {
        self.nodes.iter()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    /// The services that have instances without a sidecar.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.by_service.keys()
    }

    /// The instances of a service that have no sidecar.
    pub fn registered_of(&self, service: &ServiceName) -> impl Iterator<Item = &(RegisteredRecord, u64)> {
        let ids = self.by_service.get(service).into_iter().flatten();
        ids.filter_map(|(node, id)| self.nodes.get(node)?.registered.get(id))
    }

    /// The revision of the last change of a service, its instances or their checks, gone ones included.
    pub fn revision_of(&self, service: &ServiceName) -> u64 {
        self.revisions.get(service).copied().unwrap_or(0).max(self.floor)
    }

    /// The revision of the last change of anything here.
    pub fn revision(&self) -> u64 {
        self.revision.max(self.floor)
    }

    /// The worst of the registered checks of an instance and of its node.
    pub fn status(&self, node: &str, id: &str) -> Status {
        let Some(node) = self.nodes.get(node) else { return Status::Passing };
        let checks = node.checks_of(id).chain(node.checks_of(""));
        checks.map(|(check, _)| check.status).max().unwrap_or(Status::Passing)
    }

    /// Whether an instance or its node is in maintenance.
    pub fn is_in_maintenance(&self, node: &str, id: &str) -> bool {
        let Some(node) = self.nodes.get(node) else { return false };
        node.checks_of(id).chain(node.checks_of("")).any(|(check, _)| check.is_maintenance())
    }

    pub(super) fn loaded_at(&mut self, revision: u64) {
        self.floor = revision;
    }

    /// Something of these services changed.
    pub(super) fn touched(&mut self, services: &[ServiceName], revision: u64) {
        self.revision = revision;
        for service in services {
            self.revisions.insert(service.clone(), revision);
        }
    }

    pub(super) fn put_node(&mut self, name: &str, record: Option<(NodeRecord, u64)>) -> BTreeSet<ServiceName> {
        self.change(name, |node| node.record = record);
        self.nodes.get(name).map(services_on).unwrap_or_default()
    }

    pub(super) fn put_registered(
        &mut self,
        node_name: &str,
        id: &str,
        record: Option<(RegisteredRecord, u64)>,
    ) -> BTreeSet<ServiceName> {
        let mut touched = BTreeSet::new();
        let place = (node_name.to_owned(), id.to_owned());
        let after = record.as_ref().map(|(record, _)| record.service.clone());
        let before = self.change(node_name, |node| match record {
            Some(record) => node.registered.insert(id.to_owned(), record),
            None => node.registered.remove(id),
        });
        if let Some((before, _)) = before {
            if let Some(places) = self.by_service.get_mut(&before.service) {
                places.remove(&place);
                if places.is_empty() {
                    self.by_service.remove(&before.service);
                }
            }
            touched.insert(before.service);
        }
        if let Some(service) = after {
            self.by_service.entry(service.clone()).or_default().insert(place);
            touched.insert(service);
        }
        touched
    }

    /// Gives whether the services on the node have to be looked at: all of them, or that of one instance.
    pub(super) fn put_check(&mut self, node_name: &str, id: &str, record: Option<(CheckRecord, u64)>) -> BTreeSet<String> {
        self.change(node_name, |node| {
            let mut touched = BTreeSet::new();
            let after = record.as_ref().map(|(record, _)| record.service_id.clone());
            let before = match record {
                Some(record) => node.checks.insert(id.to_owned(), record),
                None => node.checks.remove(id),
            };
            if let Some((before, _)) = before {
                if let Some(ids) = node.checks_of.get_mut(&before.service_id) {
                    ids.remove(id);
                    if ids.is_empty() {
                        node.checks_of.remove(&before.service_id);
                    }
                }
                touched.insert(before.service_id);
            }
            if let Some(service) = after {
                node.checks_of.entry(service.clone()).or_default().insert(id.to_owned());
                touched.insert(service);
            }
            touched
        })
    }

    pub(super) fn put_instance(&mut self, before: Option<&str>, after: Option<&str>, id: &InstanceId) {
        if let Some(node) = before.filter(|node| Some(*node) != after) {
            self.change(node, |node| node.instances.remove(id));
        }
        if let Some(node) = after {
            self.change(node, |node| node.instances.insert(id.clone()));
        }
    }

    fn change<R>(&mut self, name: &str, change: impl FnOnce(&mut NodeView) -> R) -> R {
        let node = self.nodes.entry(name.to_owned()).or_default();
        let changed = change(node);
        if node.is_empty() {
            self.nodes.remove(name);
        }
        changed
    }
}

fn services_on(node: &NodeView) -> BTreeSet<ServiceName> {
    node.registered.values().map(|(record, _)| record.service.clone()).collect()
}
