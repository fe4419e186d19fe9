//! HAProxy in mode tcp. Version 2.6 has no fetch for a SAN: callers are told apart by the common name, which holds the
//! SPIFFE ID, and the server by its DNS name.

use std::fmt::Write;
use std::process::Command;

use crate::certificates::{CLIENT, dns_name, server, spiffe_id};
use crate::pair::{Pair, Site, directory, free_addresses};
use crate::process::Process;

const COMMON: &str = "\
global
  nbthread 1
  log stdout format raw daemon info
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  log global
  option tcplog
  timeout connect 5s
  timeout client 1h
  timeout server 1h
";

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
    let mut client = COMMON.to_owned();
    for (number, (entry, target)) in entries.iter().zip(&inbound).enumerate() {
        let name = server(number);
        let mut settings = COMMON.to_owned();
        write!(
            settings,
            "frontend inbound
  bind {target} ssl crt {} ca-file {} verify required
  tcp-request content reject unless {{ ssl_c_s_dn(CN) -m str {} }}
  default_backend service
backend service
  server service {}
",
            site.certificates.chain_and_key(&name).display(),
            root.display(),
            spiffe_id(CLIENT),
            site.service,
        )?;
        sidecars.push(start(&name, &settings)?);
        write!(
            client,
            "frontend to-{name}
  bind {entry}
  default_backend {name}
backend {name}
  server {name} {target} ssl crt {} ca-file {} verify required verifyhost {host} sni str({host})
",
            site.certificates.chain_and_key(CLIENT).display(),
            root.display(),
            host = dns_name(&name),
        )?;
    }
    sidecars.push(start(CLIENT, &client)?);
    Ok(Pair { entries, inbound, sidecars, companions: Vec::new(), directory })
}
