//! Envoy for requests: `http_connection_manager` on both sides; on the server side the HTTP RBAC filter, with the path settings
//! that Envoy's documentation asks for where rules name paths, and the caller's identity written for the service.

use std::path::Path;

use serde_json::{Value, json};

use super::{EXTENSION, access_log, the_caller};
use crate::layer::Protocol;
use crate::permission::{METHODS, PREFIX, UNARY};

/// The filters of the client-side proxy.
pub fn outbound(cluster: &str, log: &Path, protocol: Protocol) -> Value {
    json!([connection_manager(manager(cluster, log, protocol), vec![router()])])
}

/// The filters of the server-side proxy.
pub fn inbound(cluster: &str, log: &Path, protocol: Protocol) -> Value {
    let policy = json!({"permissions": [permission(protocol)], "principals": [the_caller()]});
    let rbac = json!({
        "@type": format!("{EXTENSION}.filters.http.rbac.v3.RBAC"),
        "rules": {"action": "ALLOW", "policies": {"callers": policy}},
    });
    let mut settings = manager(cluster, log, protocol);
    settings["normalize_path"] = true.into();
    settings["merge_slashes"] = true.into();
    settings["path_with_escaped_slashes_action"] = "REJECT_REQUEST".into();
    settings["forward_client_cert_details"] = "SANITIZE_SET".into();
    settings["set_current_client_cert_details"] = json!({"uri": true});
    json!([connection_manager(settings, vec![json!({"name": "envoy.filters.http.rbac", "typed_config": rbac}), router()])])
}

/// For clusters: HTTP/2, instead of the HTTP/1.1 that is the default.
pub fn speak_http2() -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": format!("{EXTENSION}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}

fn permission(protocol: Protocol) -> Value {
    if protocol == Protocol::Grpc {
        return all([path(json!({"exact": UNARY})), method("POST")]);
    }
    let methods: Vec<Value> = METHODS.into_iter().map(method).collect();
    all([path(json!({"prefix": PREFIX})), json!({"or_rules": {"rules": methods}})])
}

fn all(rules: [Value; 2]) -> Value {
    json!({"and_rules": {"rules": rules}})
}

fn path(matcher: Value) -> Value {
    json!({"url_path": {"path": matcher}})
}

fn method(name: &str) -> Value {
    json!({"header": {"name": ":method", "string_match": {"exact": name}}})
}

fn router() -> Value {
    let settings = json!({"@type": format!("{EXTENSION}.filters.http.router.v3.Router")});
    json!({"name": "envoy.filters.http.router", "typed_config": settings})
}

fn connection_manager(mut settings: Value, filters: Vec<Value>) -> Value {
    settings["http_filters"] = filters.into();
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": settings})
}

/// With one route for everything.
fn manager(cluster: &str, log: &Path, protocol: Protocol) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    json!({
        "@type": format!("{EXTENSION}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": cluster,
        "codec_type": if protocol.is_http2() { "HTTP2" } else { "HTTP1" },
        "route_config": {"virtual_hosts": [{"name": cluster, "domains": ["*"], "routes": [route]}]},
        "access_log": access_log(log),
    })
}
