//! The certificate of the HTTP API: which names it carries, and where handshakes find the newest.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use postern_ca::ServerNames;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::settings::Address;

/// Where handshakes read the certificate of the moment: a renewal is one swap. Empty, every handshake fails.
#[derive(Debug, Default)]
pub struct CertificateSlot(ArcSwapOption<CertifiedKey>);

impl CertificateSlot {
    /// Handshakes that begin now show this one.
    pub fn store(&self, certificate: Arc<CertifiedKey>) {
        self.0.store(Some(certificate));
    }

    /// The certificate of the moment.
    pub fn load(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for CertificateSlot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.load()
    }
}

/// Where the HTTP API can be found. What it answers to changes with the host's interfaces, so it is asked anew at every
/// renewal of the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachable {
    host_name: String,
    asked: Option<String>,
    bound: IpAddr,
}

impl Reachable {
    /// `address` as `--http` says it, `bound` as the kernel took it.
    pub fn new(host_name: &str, address: &Address, bound: IpAddr) -> Self {
        let asked = match address {
            Address::Tcp { host, .. } if host.parse::<IpAddr>().is_err() => Some(host.clone()),
            _ => None,
        };
        Self { host_name: host_name.to_owned(), asked, bound }
    }

    /// Every name and address that leads here now.
    pub fn names(&self) -> ServerNames {
        let mut dns: Vec<String> = vec![self.host_name.to_ascii_lowercase()];
        dns.extend(self.asked.iter().map(|name| name.to_ascii_lowercase()));
        let mut ips = BTreeSet::from([self.bound.to_canonical()]);
        if self.bound.is_unspecified() {
            ips = interfaces();
            ips.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
            dns.push("localhost".into());
            ips.retain(|ip| self.bound.is_ipv6() || ip.is_ipv4());
        }
        dns.sort();
        dns.dedup();
        ServerNames { dns, ips: ips.into_iter().collect() }
    }
}

/// The addresses of this host. Link-local ones are left out: nobody can dial them without naming an interface.
fn interfaces() -> BTreeSet<IpAddr> {
    let found = match nix::ifaddrs::getifaddrs() {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "the addresses of this host cannot be read; the certificate of the HTTP API names few");
            return BTreeSet::new();
        }
    };
    let of = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    found.filter_map(of).filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(address: &str, bound: &str) -> ServerNames {
        Reachable::new("Mesh-1", &address.parse().unwrap(), bound.parse().unwrap()).names()
    }

    #[test]
    fn one_address_is_named_with_the_host_and_the_name_that_was_asked_for() {
        let names = reachable("control.example.com:8500", "10.0.0.5");
        assert_eq!(names.dns, ["control.example.com", "mesh-1"]);
        assert_eq!(names.ips, ["10.0.0.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(reachable("10.0.0.5:8500", "::ffff:10.0.0.5").ips, names.ips);
    }

    #[test]
    fn every_address_means_all_that_lead_here() {
        let names = reachable(":8500", "::");
        assert_eq!(names.dns, ["localhost", "mesh-1"]);
        for ip in ["127.0.0.1", "::1"] {
            assert!(names.ips.contains(&ip.parse().unwrap()), "{names:?}");
        }
        assert!(names.ips.iter().all(|ip| !ip.is_unspecified()), "{names:?}");
        assert!(reachable("0.0.0.0:8500", "0.0.0.0").ips.iter().all(IpAddr::is_ipv4));
    }
}
