//! What can be found by DNS, and how the registry records it.

use std::net::IpAddr;

use crate::mirror::{Mirror, View};
use crate::records::InstanceRecord;

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

/// What questions are answered from.
pub trait Catalog {
    /// The datacenter of this mesh.
    fn datacenter(&self) -> String;
    /// A number that grows with every change.
    fn serial(&self) -> u64;
    /// All registered instances of a service, healthy or not; names are compared without case.
    fn service(&self, name: &str) -> Vec<Found>;
    /// Where a node is; empty where there is none of this name.
    fn node(&self, name: &str) -> Vec<Host>;
    /// The nodes with this address, and the services with an instance there.
    fn at(&self, address: IpAddr) -> (Vec<String>, Vec<String>);
}

impl Catalog for Mirror {
    fn datacenter(&self) -> String {
        self.read(|view| view.cluster.datacenter.to_string())
    }

    fn serial(&self) -> u64 {
        self.revision()
    }

    fn service(&self, name: &str) -> Vec<Found> {
        let Ok(name) = name.to_ascii_lowercase().parse() else { return Vec::new() };
        self.read(|view| view.instances_of(&name).filter_map(|(record, _)| found(record)).collect())
    }

    fn node(&self, name: &str) -> Vec<Host> {
        self.read(|view| {
            let there = present(view).filter(|record| record.node.eq_ignore_ascii_case(name));
            let mut hosts: Vec<Host> = there.filter_map(|record| Some(host_and_port(record)?.0)).collect();
            hosts.sort();
            hosts.dedup();
            hosts
        })
    }

    fn at(&self, address: IpAddr) -> (Vec<String>, Vec<String>) {
        let at = Host::Ip(address);
        self.read(|view| {
            let there = || present(view).filter(|record| host_and_port(record).is_some_and(|(host, _)| host == at));
            let nodes = there().map(|record| record.node.clone()).filter(|node| !node.is_empty());
            (distinct(nodes), distinct(there().map(|record| record.service.to_string())))
        })
    }
}

fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

fn present(view: &View) -> impl Iterator<Item = &InstanceRecord> {
    view.instances.values().map(|(record, _)| record).filter(|record| !record.left)
}

/// An instance that has not left and can be dialled.
fn found(record: &InstanceRecord) -> Option<Found> {
    let (host, port) = host_and_port(record).filter(|_| !record.left)?;
    Some(Found { host, port, tags: Vec::new(), weight: 1, is_healthy: record.healthy, has_sidecar: true })
}

fn host_and_port(record: &InstanceRecord) -> Option<(Host, u16)> {
    let (host, port) = record.address.as_deref()?.rsplit_once(':')?;
    Some((host_of(host), port.parse().ok()?))
}

/// `10.0.0.1`, `[::1]` or a name.
fn host_of(text: &str) -> Host {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_or_else(|_| Host::Name(text.to_owned()), |ip: IpAddr| Host::Ip(ip.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name() {
        assert_eq!(host_of("10.0.0.1"), Host::Ip("10.0.0.1".parse().unwrap()));
        assert_eq!(host_of("[fd00::1]"), Host::Ip("fd00::1".parse().unwrap()));
        assert_eq!(host_of("db.example.com"), Host::Name("db.example.com".into()));
    }
}
