//! What Consul has and a Postern mesh has no counterpart of: answered with 501 and one sentence, never with a made-up
//! success.

use axum::Router;
use axum::routing::any;
use std::sync::Arc;

use super::super::Api;
use super::error::ConsulError;

/// Routes and why they are not there.
const ABSENT: &[(&str, &str)] = &[
    ("/v1/acl/auth-method/{*name}", NO_AUTH_METHODS),
    ("/v1/acl/auth-method", NO_AUTH_METHODS),
    ("/v1/acl/auth-methods", NO_AUTH_METHODS),
    ("/v1/acl/binding-rule/{*id}", NO_AUTH_METHODS),
    ("/v1/acl/binding-rule", NO_AUTH_METHODS),
    ("/v1/acl/binding-rules", NO_AUTH_METHODS),
    ("/v1/acl/login", NO_AUTH_METHODS),
    ("/v1/acl/logout", NO_AUTH_METHODS),
    ("/v1/acl/replication", "There are no other datacenters to replicate tokens to."),
    ("/v1/acl/templated-policies", "There are no templated policies; write the rules out."),
    ("/v1/acl/templated-policy/{*name}", "There are no templated policies; write the rules out."),
    ("/v1/agent/force-leave/{node}", NO_GOSSIP),
    ("/v1/agent/host", "The control plane tells nothing of its host; `meshctl doctor` tells what it needs of it."),
    ("/v1/agent/join/{address}", NO_GOSSIP),
    ("/v1/agent/leave", "Stop the process of the control plane instead."),
    ("/v1/agent/metrics", "Metrics are at /metrics, for Prometheus."),
    ("/v1/agent/metrics/stream", "Metrics are at /metrics, for Prometheus."),
    ("/v1/agent/monitor", "Logs go to standard error of the control plane."),
    ("/v1/agent/reload", "Send SIGHUP to the process instead."),
    ("/v1/agent/token/{kind}", "The control plane uses no token of its own."),
    ("/v1/agent/version", "The version is in /v1/agent/self and in the header `server`."),
    ("/v1/catalog/gateway-services/{gateway}", NO_GATEWAYS),
    ("/v1/coordinate/node/{node}", NO_DISTANCES),
    ("/v1/coordinate/update", NO_DISTANCES),
    ("/v1/discovery-chain/{service}", "Routes, splits and failover are shown by `meshctl service config show`."),
    ("/v1/exported-services", NO_PEERS),
    ("/v1/health/ingress/{service}", NO_GATEWAYS),
    ("/v1/imported-services", NO_PEERS),
    ("/v1/internal/{*path}", "These routes are internal to Consul."),
    ("/v1/namespace", ONE_NAMESPACE),
    ("/v1/namespace/{name}", ONE_NAMESPACE),
    ("/v1/namespaces", ONE_NAMESPACE),
    ("/v1/operator/area", NO_PEERS),
    ("/v1/operator/area/{*path}", NO_PEERS),
    ("/v1/operator/autopilot/{*path}", NO_RAFT),
    ("/v1/operator/keyring", NO_GOSSIP),
    ("/v1/operator/license", "Postern needs no licence key."),
    ("/v1/operator/raft/peer", NO_RAFT),
    ("/v1/operator/raft/transfer-leader", NO_RAFT),
    ("/v1/operator/segment", NO_GOSSIP),
    ("/v1/operator/usage", "Instances and services are counted at /metrics."),
    ("/v1/operator/utilization", "Instances and services are counted at /metrics."),
    ("/v1/partition", ONE_NAMESPACE),
    ("/v1/partition/{name}", ONE_NAMESPACE),
    ("/v1/partitions", ONE_NAMESPACE),
    ("/v1/peering", NO_PEERS),
    ("/v1/peering/{*path}", NO_PEERS),
    ("/v1/peerings", NO_PEERS),
];

const NO_AUTH_METHODS: &str = "There are no auth methods: tokens are made by an operator.";
const NO_DISTANCES: &str = "No distances between nodes are measured.";
const NO_GATEWAYS: &str = "There are no gateways.";
const NO_GOSSIP: &str = "There is no gossip pool: sidecars and agents register with the control plane.";
const NO_PEERS: &str = "There is no peering with other clusters.";
const NO_RAFT: &str = "There is no Raft: one control plane has the store.";
const ONE_NAMESPACE: &str = "There is one namespace and one partition, default.";

/// The routes of all that is not there.
pub(super) fn routes() -> Router<Arc<Api>> {
    ABSENT.iter().fold(Router::new(), |router, (path, sentence)| {
        let sentence = *sentence;
        router.route(path, any(move || async move { ConsulError::absent(sentence) }))
    })
}
