//! HAProxy. Version 2.6 has no fetch for a SAN: callers are told apart by the common name, which holds the SPIFFE ID, and the
//! server by its DNS name.

use std::fmt::Write;
use std::process::Command;

use crate::certificates::{CLIENT, dns_name, server, spiffe_id};
use crate::layer::Protocol;
use crate::pair::{Pair, Site, directory, free_addresses};
use crate::permission::{METHODS, PREFIX, UNARY};
use crate::process::Process;

/// One process a proxy, one thread each.
pub fn start(site: Site<'_>) -> anyhow::Result<Pair> {
    let directory = directory()?;
    let entries = free_addresses(site.servers)?;
    let inbound = free_addresses(site.servers)?;
    let root = site.certificates.root();
    let start = |name: &str, settings: &str| -> anyhow::Result<Process> {
        let file = directory.path().join(format!("{name}.cfg"));
        std::fs::write(&file, settings)?;
        // Without its master process.
        let mut command = Command::new(&site.tools.haproxy);
        Process::start(command.arg("-db").arg("-f").arg(&file), &directory.path().join(format!("{name}.log")))
    };
    let mut sidecars = Vec::new();
    let words = words(site.protocol);
    let common = common(site.protocol);
    let mut client = common.clone();
    for (number, (entry, target)) in entries.iter().zip(&inbound).enumerate() {
        let name = server(number);
        let mut settings = common.clone();
        write!(
            settings,
            "frontend inbound
  bind {target} ssl crt {} ca-file {} verify required{}
{}  default_backend service
backend service
  server service {}{}
",
            site.certificates.chain_and_key(&name).display(),
            root.display(),
            words.tls,
            rules(site.protocol),
            site.service,
            words.plain,
        )?;
        sidecars.push(start(&name, &settings)?);
        write!(
            client,
            "frontend to-{name}
  bind {entry}{}
  default_backend {name}
backend {name}
  server {name} {target} ssl crt {} ca-file {} verify required verifyhost {host} sni str({host}){}
",
            words.plain,
            site.certificates.chain_and_key(CLIENT).display(),
            root.display(),
            words.tls,
            host = dns_name(&name),
        )?;
    }
    sidecars.push(start(CLIENT, &client)?);
    Ok(Pair { entries, inbound, sidecars, companions: Vec::new(), directory })
}

/// What is added to `bind` and `server`.
struct Words {
    tls: &'static str,
    plain: &'static str,
}

fn words(protocol: Protocol) -> Words {
    match protocol {
        Protocol::Tcp => Words { tls: "", plain: "" },
        Protocol::Http => Words { tls: " alpn http/1.1", plain: "" },
        Protocol::Http2 | Protocol::Grpc => Words { tls: " alpn h2", plain: " proto h2" },
    }
}

/// The default of `http-reuse` would give each first request of a connection an upstream connection of its own.
fn common(protocol: Protocol) -> String {
    let mode = match protocol {
        Protocol::Tcp => "  mode tcp\n  option tcplog\n",
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => "  mode http\n  option httplog\n  http-reuse always\n",
    };
    format!(
        "global
  nbthread 1
  log stdout format raw daemon info
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
{mode}  log global
  timeout connect 30s
  timeout client 1h
  timeout server 1h
"
    )
}

/// Who may call, and at L7 what.
fn rules(protocol: Protocol) -> String {
    let caller = format!("{{ ssl_c_s_dn(CN) -m str {} }}", spiffe_id(CLIENT));
    let permission = match protocol {
        Protocol::Tcp => return format!("  tcp-request content reject unless {caller}\n"),
        Protocol::Http | Protocol::Http2 => format!("{{ path_beg {PREFIX} }} {{ method {} }}", METHODS.join(" ")),
        Protocol::Grpc => format!("{{ path {UNARY} }} {{ method POST }}"),
    };
    format!(
        "  http-request deny unless {caller} {permission}
  http-request set-header x-forwarded-client-cert %[ssl_c_s_dn(CN)]
"
    )
}
