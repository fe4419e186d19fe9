//! nginx for requests: `proxy_pass`, or `grpc_pass` for HTTP/2, with kept-alive connections on both legs. A caller that no
//! entry of the map names gets 403, as does a request that no location admits.

use std::net::SocketAddr;

use super::{PROCESS, tls_of_client, tls_of_server};
use crate::certificates::{CLIENT, dns_name, spiffe_id};
use crate::layer::Protocol;
use crate::pair::Site;
use crate::permission::{METHODS, PREFIX, UNARY};

/// A listener of the client-side proxy.
pub fn outbound(entry: SocketAddr, target: SocketAddr, name: &str, site: Site<'_>) -> String {
    let upstream = upstream(name, target);
    let (module, listen, pass) = match site.protocol {
        Protocol::Http2 | Protocol::Grpc => ("grpc", "http2 ", format!("grpc_pass grpcs://{name}")),
        _ => ("proxy", "", format!("proxy_pass https://{name}")),
    };
    let tls = tls_of_client(module, &dns_name(name), site.certificates);
    format!(
        "{upstream}  server {{
    listen {entry} {listen}backlog=4096;
{tls}    location / {{ {pass}; }}
  }}
"
    )
}

/// The listener of a server-side proxy.
pub fn inbound(listen: SocketAddr, name: &str, site: Site<'_>) -> String {
    let upstream = upstream("service", site.service);
    let tls = tls_of_server(name, site.certificates);
    let methods = METHODS.join(" ");
    let (version, location) = match site.protocol {
        Protocol::Grpc => {
            ("http2 ", format!("location = {UNARY} {{ limit_except POST {{ deny all; }} grpc_pass grpc://service; }}"))
        }
        Protocol::Http2 => {
            ("http2 ", format!("location {PREFIX} {{ limit_except {methods} {{ deny all; }} grpc_pass grpc://service; }}"))
        }
        _ => ("", format!("location {PREFIX} {{ limit_except {methods} {{ deny all; }} proxy_pass http://service; }}")),
    };
    format!(
        "{upstream}  map $ssl_client_s_dn $is_caller {{
    \"CN={}\" 1;
    default 0;
  }}
  server {{
    listen {listen} ssl {version}backlog=4096;
{tls}    if ($is_caller = 0) {{ return 403; }}
    {location}
    location / {{ return 403; }}
  }}
",
        spiffe_id(CLIENT),
    )
}

fn upstream(name: &str, target: SocketAddr) -> String {
    format!(
        "  upstream {name} {{
    server {target};
    keepalive 128;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
"
    )
}

/// The whole file. Bodies are streamed: by default a request's is written to disk before it is sent on.
pub fn around(servers: &str, protocol: Protocol) -> String {
    let headers = match protocol {
        Protocol::Http2 | Protocol::Grpc => "  grpc_set_header X-Forwarded-Client-Cert $ssl_client_s_dn;\n",
        _ => {
            "  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-Client-Cert $ssl_client_s_dn;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
"
        }
    };
    format!(
        "{PROCESS}http {{
  # A SPIFFE ID is longer than the default admits.
  map_hash_bucket_size 256;
  access_log access.log combined;
  client_max_body_size 0;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
{headers}{servers}}}
"
    )
}
