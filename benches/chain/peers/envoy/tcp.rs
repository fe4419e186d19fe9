//! Envoy for bytes: `tcp_proxy`, and the network RBAC filter on the server side.

use std::path::Path;

use serde_json::{Value, json};

use super::{EXTENSION, access_log, the_caller};

/// The filters of the client-side proxy.
pub fn outbound(cluster: &str, log: &Path) -> Value {
    json!([tcp_proxy(cluster, log)])
}

/// The filters of the server-side proxy.
pub fn inbound(cluster: &str, log: &Path) -> Value {
    let policy = json!({"permissions": [{"any": true}], "principals": [the_caller()]});
    let rbac = json!({
        "@type": format!("{EXTENSION}.filters.network.rbac.v3.RBAC"),
        "stat_prefix": "rbac",
        "rules": {"action": "ALLOW", "policies": {"callers": policy}},
    });
    json!([{"name": "envoy.filters.network.rbac", "typed_config": rbac}, tcp_proxy(cluster, log)])
}

fn tcp_proxy(cluster: &str, log: &Path) -> Value {
    let settings = json!({
        "@type": format!("{EXTENSION}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": cluster,
        "cluster": cluster,
        "access_log": access_log(log),
    });
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": settings})
}
