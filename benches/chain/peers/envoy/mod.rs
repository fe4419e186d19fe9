//! Envoy over TLS transport sockets. `tcp.rs` and `http.rs` hold the filters of a layer.

mod http;
mod tcp;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::certificates::{CLIENT, Certificates, dns_name, server, spiffe_id};
use crate::layer::Protocol;
use crate::pair::{Pair, Site, directory, free_addresses};
use crate::process::Process;

const EXTENSION: &str = "type.googleapis.com/envoy.extensions";

/// One process a proxy, one worker each.
pub fn start(site: Site<'_>) -> anyhow::Result<Pair> {
    let directory = directory()?;
    let entries = free_addresses(site.servers)?;
    let inbound = free_addresses(site.servers)?;
    let start = |name: &str, settings: Value| -> anyhow::Result<Process> {
        let file = directory.path().join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_string_pretty(&settings)?)?;
        let mut command = Command::new(&site.tools.envoy);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"]).arg(&file);
        Process::start(&mut command, &directory.path().join(format!("{name}.log")))
    };
    let mut sidecars = Vec::new();
    for (number, address) in inbound.iter().enumerate() {
        let name = server(number);
        sidecars.push(start(&name, server_side(&name, *address, site, directory.path()))?);
    }
    sidecars.push(start(CLIENT, client_side(&entries, &inbound, site, directory.path()))?);
    Ok(Pair { entries, inbound, sidecars, companions: Vec::new(), directory })
}

fn client_side(entries: &[SocketAddr], inbound: &[SocketAddr], site: Site<'_>, logs: &Path) -> Value {
    let mut listeners = Vec::new();
    let mut clusters = Vec::new();
    for (number, (entry, target)) in entries.iter().zip(inbound).enumerate() {
        let name = server(number);
        let log = logs.join(format!("{CLIENT}.access"));
        let filters = match site.protocol {
            Protocol::Tcp => tcp::outbound(&name, &log),
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => http::outbound(&name, &log, site.protocol),
        };
        listeners.push(json!({"name": name, "address": address(*entry), "filter_chains": [{"filters": filters}]}));
        let tls = json!({
            "@type": format!("{EXTENSION}.transport_sockets.tls.v3.UpstreamTlsContext"),
            "sni": dns_name(&name),
            "common_tls_context": common_tls(site, CLIENT, &name),
        });
        let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": tls});
        clusters.push(cluster(&name, *target, site.protocol, Some(socket)));
    }
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

fn server_side(name: &str, listen: SocketAddr, site: Site<'_>, logs: &Path) -> Value {
    let tls = json!({
        "@type": format!("{EXTENSION}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": common_tls_of_any_peer(site, name),
    });
    let log = logs.join(format!("{name}.access"));
    let filters = match site.protocol {
        Protocol::Tcp => tcp::inbound("service", &log),
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => http::inbound("service", &log, site.protocol),
    };
    let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": tls});
    let chain = json!({"transport_socket": socket, "filters": filters});
    let listener = json!({"name": "inbound", "address": address(listen), "filter_chains": [chain]});
    let service = cluster("service", site.service, site.protocol, None);
    json!({"static_resources": {"listeners": [listener], "clusters": [service]}})
}

/// In RBAC: the one caller, by the URI SAN of its certificate.
fn the_caller() -> Value {
    json!({"authenticated": {"principal_name": {"exact": spiffe_id(CLIENT)}}})
}

/// In Envoy's default format.
fn access_log(log: &Path) -> Value {
    let file = json!({"@type": format!("{EXTENSION}.access_loggers.file.v3.FileAccessLog"), "path": log});
    json!([{"name": "envoy.access_loggers.file", "typed_config": file}])
}

/// The default of 1,024 connections would refuse the idle ones, and 2,000 handshakes at once take their time.
fn cluster(name: &str, target: SocketAddr, protocol: Protocol, transport_socket: Option<Value>) -> Value {
    let limits = json!({"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000});
    let endpoint = json!({"endpoint": {"address": address(target)}});
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "30s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    if let Some(socket) = transport_socket {
        cluster["transport_socket"] = socket;
    }
    if protocol.is_http2() {
        cluster["typed_extension_protocol_options"] = http::speak_http2();
    }
    cluster
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn common_tls_of_any_peer(site: Site<'_>, own: &str) -> Value {
    let certificates: &Certificates = site.certificates;
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": certificates.chain(own)},
            "private_key": {"filename": certificates.key(own)},
        }],
        "validation_context": {"trusted_ca": {"filename": certificates.root()}},
        "alpn_protocols": site.protocol.alpn().into_iter().collect::<Vec<_>>(),
    })
}

fn common_tls(site: Site<'_>, own: &str, peer: &str) -> Value {
    let mut tls = common_tls_of_any_peer(site, own);
    tls["validation_context"]["match_typed_subject_alt_names"] =
        json!([{"san_type": "URI", "matcher": {"exact": spiffe_id(peer)}}]);
    tls
}
