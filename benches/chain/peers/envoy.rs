//! Envoy: `tcp_proxy` over TLS transport sockets, and the network RBAC filter on the server side.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::certificates::{CLIENT, Certificates, dns_name, server, spiffe_id};
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
    sidecars.push(start(CLIENT, client_side(&entries, &inbound, site.certificates, directory.path()))?);
    Ok(Pair { entries, inbound, sidecars, companions: Vec::new(), directory })
}

fn client_side(entries: &[SocketAddr], inbound: &[SocketAddr], certificates: &Certificates, logs: &Path) -> Value {
    let mut listeners = Vec::new();
    let mut clusters = Vec::new();
    for (number, (entry, target)) in entries.iter().zip(inbound).enumerate() {
        let name = server(number);
        let chain = json!({"filters": [tcp_proxy(&name, &logs.join(format!("{CLIENT}.access")))]});
        listeners.push(json!({"name": name, "address": address(*entry), "filter_chains": [chain]}));
        let tls = json!({
            "@type": format!("{EXTENSION}.transport_sockets.tls.v3.UpstreamTlsContext"),
            "sni": dns_name(&name),
            "common_tls_context": common_tls(certificates, CLIENT, &name),
        });
        let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": tls});
        clusters.push(cluster(&name, *target, Some(socket)));
    }
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

fn server_side(name: &str, listen: SocketAddr, site: Site<'_>, logs: &Path) -> Value {
    let tls = json!({
        "@type": format!("{EXTENSION}.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": common_tls_of_any_peer(site.certificates, name),
    });
    let principal = json!({"authenticated": {"principal_name": {"exact": spiffe_id(CLIENT)}}});
    let policy = json!({"permissions": [{"any": true}], "principals": [principal]});
    let rbac = json!({
        "@type": format!("{EXTENSION}.filters.network.rbac.v3.RBAC"),
        "stat_prefix": "rbac",
        "rules": {"action": "ALLOW", "policies": {"callers": policy}},
    });
    let chain = json!({
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "filters": [
            {"name": "envoy.filters.network.rbac", "typed_config": rbac},
            tcp_proxy("service", &logs.join(format!("{name}.access"))),
        ],
    });
    let listener = json!({"name": "inbound", "address": address(listen), "filter_chains": [chain]});
    json!({"static_resources": {"listeners": [listener], "clusters": [cluster("service", site.service, None)]}})
}

fn tcp_proxy(cluster: &str, log: &Path) -> Value {
    let file = json!({"@type": format!("{EXTENSION}.access_loggers.file.v3.FileAccessLog"), "path": log});
    let settings = json!({
        "@type": format!("{EXTENSION}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": cluster,
        "cluster": cluster,
        "access_log": [{"name": "envoy.access_loggers.file", "typed_config": file}],
    });
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": settings})
}

/// The default of 1,024 connections would refuse the idle ones.
fn cluster(name: &str, target: SocketAddr, transport_socket: Option<Value>) -> Value {
    let limits = json!({"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000});
    let endpoint = json!({"endpoint": {"address": address(target)}});
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    if let Some(socket) = transport_socket {
        cluster["transport_socket"] = socket;
    }
    cluster
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn common_tls_of_any_peer(certificates: &Certificates, own: &str) -> Value {
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": certificates.chain(own)},
            "private_key": {"filename": certificates.key(own)},
        }],
        "validation_context": {"trusted_ca": {"filename": certificates.root()}},
    })
}

fn common_tls(certificates: &Certificates, own: &str, peer: &str) -> Value {
    let mut tls = common_tls_of_any_peer(certificates, own);
    tls["validation_context"]["match_typed_subject_alt_names"] =
        json!([{"san_type": "URI", "matcher": {"exact": spiffe_id(peer)}}]);
    tls
}
