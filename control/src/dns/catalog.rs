//! What can be found by DNS, and how the registry records it.

use std::net::IpAddr;
use std::sync::Arc;

use postern_api::consul::duration;
use postern_checks::Status;

use crate::mirror::Mirror;
use crate::queries::run::run;
use crate::queries::template::rendered;
use crate::registry::Registry;
use crate::registry::catalog::{Catalog as Entries, Entry};

/// Where an instance or a node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// By address.
    Ip(IpAddr),
    /// By a name that somebody else's DNS knows.
    Name(String),
}

/// An instance of a service, as DNS sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub host: Host,
    /// Its port; 0 where it has none.
    pub port: u16,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its share among those of its service, for SRV.
    pub weight: u16,
    /// Whether it may be answered: only what can be called is.
    pub is_healthy: bool,
    /// Whether it is reached through a sidecar.
    pub has_sidecar: bool,
}

/// What a prepared query finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queried {
    /// Instances that may be answered, the preferred ones first.
    pub found: Vec<Found>,
    /// Seconds for which the answer may be kept.
    pub ttl: u32,
}

/// What questions are answered from.
pub trait Catalog {
    /// The datacenter of this mesh.
    fn datacenter(&self) -> String;
    /// A number that grows with every change.
    fn serial(&self) -> u64;
    /// All registered instances of a service, healthy or not; names are compared without case.
    fn service(&self, name: &str) -> Vec<Found>;
    /// What a prepared query finds; `None` where there is none that answers for this name.
    fn query(&self, name: &str) -> Option<Queried>;
    /// Where a node is; empty where there is none of this name.
    fn node(&self, name: &str) -> Vec<Host>;
    /// The nodes with this address, and the services with an instance there.
    fn at(&self, address: IpAddr) -> (Vec<String>, Vec<String>);
}

/// The registry, as DNS asks it.
pub struct Registered {
    mirror: Arc<Mirror>,
    registry: Arc<Registry>,
}

impl Registered {
    /// Everything that is registered, with a sidecar or without.
    pub fn new(mirror: Arc<Mirror>, registry: Arc<Registry>) -> Self {
        Self { mirror, registry }
    }
}

impl Catalog for Registered {
    fn datacenter(&self) -> String {
        self.mirror.read(|view| view.cluster.datacenter.to_string())
    }

    fn serial(&self) -> u64 {
        self.mirror.revision()
    }

    fn service(&self, name: &str) -> Vec<Found> {
        let Ok(name) = name.to_ascii_lowercase().parse() else { return Vec::new() };
        self.mirror.read(|view| {
            let catalog = Entries::new(view, self.registry.home());
            catalog.entries_of(&name).iter().filter_map(|entry| found(&catalog, entry)).collect()
        })
    }

    fn query(&self, name: &str) -> Option<Queried> {
        self.mirror.read(|view| {
            let (query, _) = view.queries.answering(name)?;
            let query = rendered(query, name).ok()?;
            let home = self.registry.home();
            let catalog = Entries::new(view, home);
            let instances = run(&catalog, &home.node, &query.service, &query.service.near, &mut rand::rng());
            let found = instances.iter().filter_map(|instance| found(&catalog, &instance.entry));
            // The query has decided who is well.
            let found = found.map(|found| Found { is_healthy: true, ..found }).collect();
            let ttl = duration::parse(&query.ttl).map_or(0, |ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX));
            Some(Queried { found, ttl })
        })
    }

    fn node(&self, name: &str) -> Vec<Host> {
        self.mirror.read(|view| {
            let catalog = Entries::new(view, self.registry.home());
            let spelled = || view.catalog.nodes().map(|(node, _)| node).find(|node| node.eq_ignore_ascii_case(name));
            let node = catalog.node(name).or_else(|| catalog.node(spelled()?));
            node.and_then(|node| host_of(&node.address)).into_iter().collect()
        })
    }

    fn at(&self, address: IpAddr) -> (Vec<String>, Vec<String>) {
        let is_there = |text: &str| host_of(text) == Some(Host::Ip(address));
        self.mirror.read(|view| {
            let (mut nodes, mut services) = (Vec::new(), Vec::new());
            for (record, _) in view.instances.values().filter(|(record, _)| !record.left) {
                let host = record.address.as_deref().and_then(|address| address.rsplit_once(':')).map(|(host, _)| host);
                if host.is_some_and(is_there) {
                    nodes.push(record.node_name().to_owned());
                    services.push(record.service.to_string());
                }
            }
            for (name, node) in view.catalog.nodes() {
                let is_here = node.record.as_ref().is_some_and(|(record, _)| is_there(&record.address));
                nodes.extend(is_here.then(|| name.clone()));
                let own = |text: &str| if text.is_empty() { is_here } else { is_there(text) };
                let registered = node.registered.values().filter(|(record, _)| own(&record.address));
                services.extend(registered.map(|(record, _)| record.service.to_string()));
            }
            (distinct(nodes), distinct(services))
        })
    }
}

fn distinct(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

/// An instance that can be dialled; its own address, else that of its node.
fn found(catalog: &Entries<'_>, entry: &Entry) -> Option<Found> {
    let own = host_of(&entry.address);
    let host = own.or_else(|| host_of(&catalog.node(&entry.node)?.address))?;
    let status = catalog.status_of(entry);
    let weight = if status == Status::Passing { entry.weights.passing } else { entry.weights.warning };
    Some(Found {
        host,
        port: entry.port,
        tags: entry.tags.clone(),
        weight: u16::try_from(weight).unwrap_or(u16::MAX),
        // A warning is not yet a reason to stay away.
        is_healthy: status != Status::Critical,
        has_sidecar: entry.has_sidecar,
    })
}

/// `10.0.0.1`, `fd00::1`, `[fd00::1]` or a name; nothing where it is empty.
fn host_of(text: &str) -> Option<Host> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(Host::Ip(ip.to_canonical())),
        Err(_) => (!text.is_empty()).then(|| Host::Name(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name() {
        assert_eq!(host_of("10.0.0.1"), Some(Host::Ip("10.0.0.1".parse().unwrap())));
        assert_eq!(host_of("[fd00::1]"), Some(Host::Ip("fd00::1".parse().unwrap())));
        assert_eq!(host_of("fd00::1"), host_of("[fd00::1]"));
        assert_eq!(host_of(""), None);
        assert_eq!(host_of("db.example.com"), Some(Host::Name("db.example.com".into())));
    }
}
