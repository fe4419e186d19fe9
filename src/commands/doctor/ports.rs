//! Ports of this host that Postern would take, and who has them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;

use postern_api::http::{Finding, Severity};
use postern_control::dns::{self, DnsListen};
use postern_control::doctor::ports::{holder_of, is_taken};
use postern_names::Address;

use crate::cli::Command;
use crate::data_dir::Environment;
use crate::settings;

/// Sidecars take the first that is free.
const OF_SIDECARS: [(&str, RangeInclusive<u16>, IpAddr); 2] = [
    ("--listen", 21_000..=21_255, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    ("--admin", 19_000..=19_255, IpAddr::V4(Ipv4Addr::LOCALHOST)),
];

/// What would keep a control plane from starting here: addresses that `meshctl control` asks for in this environment and
/// that somebody has. Nothing, where the control plane is said to be elsewhere.
pub fn in_the_way(environment: Environment<'_>) -> Vec<Finding> {
    if environment("POSTERN_HTTP").is_some_and(|place| !place.is_empty()) {
        return Vec::new();
    }
    let line = ["meshctl".into(), "control".into()];
    // Settings that cannot be read are told by `meshctl control`.
    let Ok(loaded) = settings::load(&line, environment) else { return Vec::new() };
    let Command::Control(args) = loaded.cli.command else { return Vec::new() };
    let mut findings: Vec<Finding> =
        [("--http", &args.http), ("--grpc", &args.grpc)].into_iter().filter_map(|(flag, address)| taken(flag, address)).collect();
    findings.extend(match args.dns.unwrap_or_default() {
        DnsListen::Off => None,
        DnsListen::At(address) => taken("--dns", &address),
        // Without its usual port the control plane starts all the same.
        DnsListen::Usual => taken("--dns", &dns::usual()).map(|finding| Finding { severity: Severity::Warning, ..finding }),
    });
    findings
}

fn taken(flag: &str, address: &Address) -> Option<Finding> {
    let Address::Tcp { host, port } = address else { return None };
    let mut resolved = (host.as_str(), *port).to_socket_addrs().ok()?;
    if !resolved.any(is_taken) {
        return None;
    }
    let by = holder_of(*port).map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
    Some(Finding {
        severity: Severity::Error,
        code: "port_taken".into(),
        subject: address.to_string(),
        message: format!("{by} has {address}, where the control plane would listen ({flag})"),
        cure: format!("stop it, or start the control plane with another {flag}"),
    })
}

/// Ranges in which no sidecar would find a port.
pub fn all_taken() -> Vec<Finding> {
    OF_SIDECARS.into_iter().filter_map(|(flag, ports, host)| none_free(flag, ports, host)).collect()
}

fn none_free(flag: &str, mut ports: RangeInclusive<u16>, host: IpAddr) -> Option<Finding> {
    let (first, last) = (*ports.start(), *ports.end());
    ports.all(|port| is_taken(SocketAddr::new(host, port))).then(|| Finding {
        severity: Severity::Warning,
        code: "ports_exhausted".into(),
        subject: format!("{first}-{last}"),
        message: format!("no port of {first} to {last} is free: a further sidecar on this host does not start"),
        cure: format!("give it {flag}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_the_control_plane_would_ask_for_is_named_with_its_holder() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let environment = |name: &str| match name {
            "POSTERN_CONTROL_HTTP" => Some(address.clone()),
            "POSTERN_CONTROL_GRPC" => Some("127.0.0.1:0".to_owned()),
            _ => None,
        };
        let findings = in_the_way(&environment);
        let [finding] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!((finding.code.as_str(), finding.subject.as_str()), ("port_taken", address.as_str()));
        assert!(finding.message.contains(&format!("(pid {})", std::process::id())), "{}", finding.message);
        assert!(finding.cure.contains("--http"), "{}", finding.cure);
        let elsewhere =
            |name: &str| if name == "POSTERN_HTTP" { Some("https://10.0.0.1:8500".into()) } else { environment(name) };
        assert!(in_the_way(&elsewhere).is_empty());
    }

    #[test]
    fn a_range_is_exhausted_only_when_none_of_it_is_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(none_free("--admin", port..=port, host).unwrap().cure.contains("--admin"));
        drop(taken);
        assert!(none_free("--admin", port..=port, host).is_none());
    }
}
