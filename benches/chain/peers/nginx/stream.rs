//! nginx for bytes: its stream module. A caller that no entry of the map names is sent to a socket that nobody listens on.

use std::net::SocketAddr;

use super::{PROCESS, tls_of_client, tls_of_server};
use crate::certificates::{CLIENT, dns_name, spiffe_id};
use crate::pair::Site;

/// A listener of the client-side proxy.
pub fn outbound(entry: SocketAddr, target: SocketAddr, name: &str, site: Site<'_>) -> String {
    let tls = tls_of_client("proxy", &dns_name(name), site.certificates);
    format!(
        "  server {{
    listen {entry} backlog=4096;
    proxy_timeout 1h;
    proxy_pass {target};
    proxy_ssl on;
{tls}  }}
"
    )
}

/// The listener of a server-side proxy.
pub fn inbound(listen: SocketAddr, name: &str, site: Site<'_>) -> String {
    let tls = tls_of_server(name, site.certificates);
    format!(
        "  map $ssl_client_s_dn $local {{
    \"CN={}\" {};
    default unix:/nonexistent/refused;
  }}
  server {{
    listen {listen} ssl backlog=4096;
{tls}    proxy_timeout 1h;
    proxy_pass $local;
  }}
",
        spiffe_id(CLIENT),
        site.service,
    )
}

/// The whole file.
pub fn around(servers: &str) -> String {
    format!(
        "load_module {};
{PROCESS}stream {{
  # A SPIFFE ID is longer than the default admits.
  map_hash_bucket_size 256;
  log_format line '$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time \"$upstream_addr\"';
  access_log access.log line;
{servers}}}
",
        crate::install::NGINX_STREAM,
    )
}
