//! What a name asks for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// The domains that are ours, as their only label.
const DOMAINS: [&str; 2] = ["consul", "mesh"];

/// Whose a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// One of ours.
    Ours {
        /// `consul.` or `mesh.`, as it was written.
        domain: Name,
        /// What it stands for.
        wanted: Wanted,
    },
    /// An address, by `in-addr.arpa` or `ip6.arpa`.
    Reverse(IpAddr),
    /// Somebody else's.
    Foreign,
}

/// What a name of ours stands for. All text is lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The domain itself.
    Apex,
    /// `ns.<domain>`: this server.
    NameServer,
    /// A name that holds nothing itself, as `service.<domain>`: there are names below it.
    Inner,
    /// Instances of a service.
    Service {
        /// Its name.
        name: String,
        /// Only those with this tag.
        tag: Option<String>,
    },
    /// Sidecars of a service.
    Connect(String),
    /// What a prepared query finds.
    Query(String),
    /// A node.
    Node(String),
    /// The address that is written in the name.
    Address(IpAddr),
    /// No name of ours.
    Nothing,
}

/// Reads a name. Our datacenter may be named; another one has no names here.
pub fn read(name: &Name, datacenter: &str) -> Asked {
    let labels: Vec<String> = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        [rest @ .., last] if DOMAINS.contains(last) => {
            Asked::Ours { domain: name.trim_to(1), wanted: wanted(rest, &datacenter.to_ascii_lowercase()) }
        }
        [rest @ .., "in-addr", "arpa"] => reverse_v4(rest).map_or(Asked::Foreign, Asked::Reverse),
        [rest @ .., "ip6", "arpa"] => reverse_v6(rest).map_or(Asked::Foreign, Asked::Reverse),
        _ => Asked::Foreign,
    }
}

fn wanted(labels: &[&str], datacenter: &str) -> Wanted {
    match labels {
        [] => Wanted::Apex,
        ["ns"] => Wanted::NameServer,
        ["dc"] => Wanted::Inner,
        [rest @ .., kind] if is_kind(kind) => of_kind(kind, rest),
        [rest @ .., dc, "dc"] | [rest @ .., dc] if *dc == datacenter => match rest {
            [] => Wanted::Inner,
            [rest @ .., kind] if is_kind(kind) => of_kind(kind, rest),
            _ => Wanted::Nothing,
        },
        _ => Wanted::Nothing,
    }
}

fn is_kind(label: &str) -> bool {
    matches!(label, "service" | "connect" | "query" | "node" | "addr")
}

fn of_kind(kind: &str, labels: &[&str]) -> Wanted {
    match (kind, labels) {
        (_, []) => Wanted::Inner,
        ("service", _) => service(labels),
        ("connect", [.., name]) => Wanted::Connect((*name).to_owned()),
        ("query", _) => Wanted::Query(labels.join(".")),
        ("node", _) => Wanted::Node(labels.join(".")),
        ("addr", [address]) => written(address).map_or(Wanted::Nothing, Wanted::Address),
        _ => Wanted::Nothing,
    }
}

/// `web`, `v1.web`, or by RFC 2782 `_web._v1` and `_web._tcp`, which is any tag.
fn service(labels: &[&str]) -> Wanted {
    match labels {
        [one] if one.starts_with('_') => Wanted::Inner,
        [name, tag] if let (Some(name), Some(tag)) = (name.strip_prefix('_'), tag.strip_prefix('_')) => {
            let tag = (!matches!(tag, "tcp" | "udp")).then(|| tag.to_owned());
            Wanted::Service { name: name.to_owned(), tag }
        }
        [tags @ .., name] => {
            let tag = (!tags.is_empty()).then(|| tags.join("."));
            Wanted::Service { name: (*name).to_owned(), tag }
        }
        [] => Wanted::Inner,
    }
}

/// An address as a label: its bytes in hexadecimal.
pub fn label_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => format!("{:08x}", u32::from(v4)),
        IpAddr::V6(v6) => format!("{:032x}", u128::from(v6)),
    }
}

fn written(label: &str) -> Option<IpAddr> {
    if !label.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match label.len() {
        8 => Some(Ipv4Addr::from(u32::from_str_radix(label, 16).ok()?).into()),
        32 => Some(Ipv6Addr::from(u128::from_str_radix(label, 16).ok()?).into()),
        _ => None,
    }
}

fn reverse_v4(labels: &[&str]) -> Option<IpAddr> {
    let [d, c, b, a] = labels else { return None };
    format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn reverse_v6(labels: &[&str]) -> Option<IpAddr> {
    if labels.len() != 32 {
        return None;
    }
    let mut bits = 0_u128;
    for label in labels.iter().rev() {
        let digit = label.chars().next().filter(|_| label.len() == 1)?.to_digit(16)?;
        bits = (bits << 4) | u128::from(digit);
    }
    Some(IpAddr::V6(Ipv6Addr::from(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Wanted {
        match read(&Name::from_ascii(text).unwrap(), "dc1") {
            Asked::Ours { wanted, .. } => wanted,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn service(name: &str, tag: Option<&str>) -> Wanted {
        Wanted::Service { name: name.into(), tag: tag.map(Into::into) }
    }

    #[test]
    fn every_form_of_a_name_is_read() {
        for (text, wanted) in [
            ("consul.", Wanted::Apex),
            ("MESH.", Wanted::Apex),
            ("ns.consul.", Wanted::NameServer),
            ("service.consul.", Wanted::Inner),
            ("dc1.consul.", Wanted::Inner),
            ("dc1.dc.consul.", Wanted::Inner),
            ("node.dc1.mesh.", Wanted::Inner),
            ("web.service.consul.", service("web", None)),
            ("WeB.Service.mesh.", service("web", None)),
            ("web.service.dc1.consul.", service("web", None)),
            ("web.service.dc1.dc.consul.", service("web", None)),
            ("v1.web.service.consul.", service("web", Some("v1"))),
            ("a.b.web.service.consul.", service("web", Some("a.b"))),
            ("_web._v1.service.consul.", service("web", Some("v1"))),
            ("_web._tcp.service.consul.", service("web", None)),
            ("_web._udp.service.dc1.consul.", service("web", None)),
            ("_tcp.service.consul.", Wanted::Inner),
            ("web.connect.consul.", Wanted::Connect("web".into())),
            ("geo-db.query.consul.", Wanted::Query("geo-db".into())),
            ("a.b.query.dc1.mesh.", Wanted::Query("a.b".into())),
            ("query.consul.", Wanted::Inner),
            ("host-1.node.consul.", Wanted::Node("host-1".into())),
            ("host-1.example.com.node.dc1.consul.", Wanted::Node("host-1.example.com".into())),
            ("7f000001.addr.consul.", Wanted::Address("127.0.0.1".parse().unwrap())),
            ("fd000000000000000000000000000001.addr.dc1.consul.", Wanted::Address("fd00::1".parse().unwrap())),
            ("7f00001.addr.consul.", Wanted::Nothing),
            ("web.service.dc2.consul.", Wanted::Nothing),
            ("web.service.dc2.dc.consul.", Wanted::Nothing),
            ("web.virtual.consul.", Wanted::Nothing),
            ("web.consul.", Wanted::Nothing),
        ] {
            assert_eq!(of(text), wanted, "{text}");
        }
    }

    #[test]
    fn reverse_names_are_addresses() {
        for (text, address) in
            [("1.0.0.127.in-addr.arpa.", Some("127.0.0.1")), ("0.0.127.in-addr.arpa.", None), ("01.0.0.127.in-addr.arpa.", None)]
        {
            let asked = read(&Name::from_ascii(text).unwrap(), "dc1");
            let wanted = address.map_or(Asked::Foreign, |address| Asked::Reverse(address.parse().unwrap()));
            assert_eq!(asked, wanted, "{text}");
        }
        let digits: String = label_of("fd00::1".parse().unwrap()).chars().rev().flat_map(|digit| [digit, '.']).collect();
        let asked = read(&Name::from_ascii(format!("{digits}ip6.arpa.")).unwrap(), "dc1");
        assert_eq!(asked, Asked::Reverse("fd00::1".parse().unwrap()));
    }

    #[test]
    fn what_is_not_ours_is_foreign() {
        for text in [".", "com.", "example.com.", "consul.example.com.", "web.service.consul.example.com."] {
            assert_eq!(read(&Name::from_ascii(text).unwrap(), "dc1"), Asked::Foreign, "{text}");
        }
    }
}
