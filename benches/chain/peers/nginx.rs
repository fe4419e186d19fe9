//! nginx' stream module. It shows the subject of a client's certificate but none of its SANs: callers are told apart by
//! the common name, which holds the SPIFFE ID, and the server by its DNS name. A caller that no entry of the map names is
//! sent to a socket that nobody listens on.

use std::fmt::Write;
use std::process::Command;

use crate::certificates::{CLIENT, dns_name, server, spiffe_id};
use crate::pair::{Pair, Site, directory, free_addresses};
use crate::process::Process;

/// One master and one worker process a proxy.
pub fn start(site: Site<'_>) -> anyhow::Result<Pair> {
    let directory = directory()?;
    let entries = free_addresses(site.servers)?;
    let inbound = free_addresses(site.servers)?;
    let root = site.certificates.root();
    let start = |name: &str, servers: &str| -> anyhow::Result<Process> {
        let own = directory.path().join(name);
        std::fs::create_dir(&own)?;
        let file = own.join("nginx.conf");
        std::fs::write(&file, around(servers))?;
        let mut command = Command::new(&site.tools.nginx);
        command.arg("-p").arg(&own).arg("-c").arg(&file);
        Process::start(&mut command, &directory.path().join(format!("{name}.log")))
    };
    let mut sidecars = Vec::new();
    let mut client = String::new();
    for (number, (entry, target)) in entries.iter().zip(&inbound).enumerate() {
        let name = server(number);
        let settings = format!(
            "  map $ssl_client_s_dn $local {{
    \"CN={}\" {};
    default unix:/nonexistent/refused;
  }}
  server {{
    listen {target} ssl backlog=4096;
    ssl_protocols TLSv1.3;
    ssl_certificate {};
    ssl_certificate_key {};
    ssl_client_certificate {};
    ssl_verify_client on;
    ssl_verify_depth 3;
    proxy_timeout 1h;
    proxy_pass $local;
  }}
",
            spiffe_id(CLIENT),
            site.service,
            site.certificates.chain(&name).display(),
            site.certificates.key(&name).display(),
            root.display(),
        );
        sidecars.push(start(&name, &settings)?);
        write!(
            client,
            "  server {{
    listen {entry} backlog=4096;
    proxy_timeout 1h;
    proxy_pass {target};
    proxy_ssl on;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_certificate {};
    proxy_ssl_certificate_key {};
    proxy_ssl_trusted_certificate {};
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 3;
    proxy_ssl_name {host};
    proxy_ssl_server_name on;
  }}
",
            site.certificates.chain(CLIENT).display(),
            site.certificates.key(CLIENT).display(),
            root.display(),
            host = dns_name(&name),
        )?;
    }
    sidecars.push(start(CLIENT, &client)?);
    Ok(Pair { entries, inbound, sidecars, companions: Vec::new(), directory })
}

/// Names of files are taken below the directory of the proxy.
fn around(servers: &str) -> String {
    format!(
        "load_module {};
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{
  worker_connections 18000;
}}
stream {{
  # A SPIFFE ID is longer than the default admits.
  map_hash_bucket_size 256;
  log_format line '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time \"$upstream_addr\"';
  access_log access.log line;
{servers}}}
",
        crate::install::NGINX_STREAM,
    )
}
