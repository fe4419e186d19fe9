//! nginx. It shows the subject of a client's certificate but none of its SANs: callers are told apart by the common name, which
//! holds the SPIFFE ID, and the server by its DNS name. `stream.rs` and `http.rs` hold the settings of a layer.

mod http;
mod stream;

use std::process::Command;

use crate::certificates::{CLIENT, Certificates, server};
use crate::layer::Protocol;
use crate::pair::{Pair, Site, directory, free_addresses};
use crate::process::Process;

/// One master and one worker process a proxy.
pub fn start(site: Site<'_>) -> anyhow::Result<Pair> {
    let directory = directory()?;
    let entries = free_addresses(site.servers)?;
    let inbound = free_addresses(site.servers)?;
    let start = |name: &str, servers: &str| -> anyhow::Result<Process> {
        let own = directory.path().join(name);
        std::fs::create_dir(&own)?;
        let file = own.join("nginx.conf");
        let module = match site.protocol {
            Protocol::Tcp => stream::around(servers),
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => http::around(servers, site.protocol),
        };
        std::fs::write(&file, module)?;
        let mut command = Command::new(&site.tools.nginx);
        command.arg("-p").arg(&own).arg("-c").arg(&file);
        Process::start(&mut command, &directory.path().join(format!("{name}.log")))
    };
    let mut sidecars = Vec::new();
    let mut client = String::new();
    for (number, (entry, target)) in entries.iter().zip(&inbound).enumerate() {
        let name = server(number);
        let (outbound, inbound) = match site.protocol {
            Protocol::Tcp => (stream::outbound(*entry, *target, &name, site), stream::inbound(*target, &name, site)),
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
                (http::outbound(*entry, *target, &name, site), http::inbound(*target, &name, site))
            }
        };
        sidecars.push(start(&name, &inbound)?);
        client += &outbound;
    }
    sidecars.push(start(CLIENT, &client)?);
    Ok(Pair { entries, inbound, sidecars, companions: Vec::new(), directory })
}

/// The TLS of a server-side proxy.
fn tls_of_server(own: &str, certificates: &Certificates) -> String {
    format!(
        "    ssl_protocols TLSv1.3;
    ssl_certificate {};
    ssl_certificate_key {};
    ssl_client_certificate {};
    ssl_verify_client on;
    ssl_verify_depth 3;
",
        certificates.chain(own).display(),
        certificates.key(own).display(),
        certificates.root().display(),
    )
}

/// The TLS of the client-side proxy, by directives that begin with `prefix`.
fn tls_of_client(prefix: &str, host: &str, certificates: &Certificates) -> String {
    format!(
        "    {prefix}_ssl_protocols TLSv1.3;
    {prefix}_ssl_certificate {};
    {prefix}_ssl_certificate_key {};
    {prefix}_ssl_trusted_certificate {};
    {prefix}_ssl_verify on;
    {prefix}_ssl_verify_depth 3;
    {prefix}_ssl_name {host};
    {prefix}_ssl_server_name on;
",
        certificates.chain(CLIENT).display(),
        certificates.key(CLIENT).display(),
        certificates.root().display(),
    )
}

/// Names of files are taken below the directory of the proxy.
const PROCESS: &str = "daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {
  worker_connections 18000;
}
";
