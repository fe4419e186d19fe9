//! Consul's HTTP API, so that tools and client libraries made for it work unchanged. `docs/consul-api.md` says of every
//! endpoint whether it is the same, differs or is not there.
//!
//! A route takes a [`Call`](call::Call) (who asks, and the parameters that all routes share), asks it whether the request
//! may do what it wants, and gives an [`Answer`](answer::Answer) or a [`ConsulError`](error::ConsulError). A route that
//! can be waited on asks through `blocking`.
//!
//! | module | what it holds |
//! |---|---|
//! | `call`, `body`, `fields` | what a request says |
//! | `answer`, `error` | how it is answered |
//! | `blocking`, `renderings` | answers that wait for something newer, each made once for all who wait for it |
//! | `filter`, `shape` | `?filter=`, and how nodes, instances and checks are written |
//! | `agent`, `catalog`, `health` | what can be found, and what registers |
//! | `absent` | what Consul has and is not here: 501 |
//! | `acl`, `config`, `connect`, `event`, `intentions`, `kv`, `operator`, `query`, `session`, `snapshot`, `status`, `txn` | the routes |

mod absent;
mod acl;
pub mod agent;
pub mod answer;
pub mod blocking;
pub mod body;
pub mod call;
mod catalog;
mod config;
mod connect;
pub mod error;
mod event;
pub mod fields;
pub mod filter;
mod health;
mod intentions;
mod kv;
mod operator;
mod query;
pub mod renderings;
mod session;
mod shape;
mod snapshot;
mod status;
pub mod txn;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{get, post, put};

use self::error::ConsulError;
use super::Api;

/// The first path segments under `/v1/` that belong to Consul's API. No resource of our own has one of them.
const SEGMENTS: &[&str] = &[
    "acl",
    "agent",
    "catalog",
    "config",
    "connect",
    "coordinate",
    "discovery-chain",
    "event",
    "exported-services",
    "health",
    "imported-services",
    "internal",
    "kv",
    "namespace",
    "namespaces",
    "operator",
    "partition",
    "partitions",
    "peering",
    "peerings",
    "query",
    "session",
    "snapshot",
    "status",
    "txn",
];

/// Whether a path belongs to Consul's API.
pub fn owns(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/v1/") else { return false };
    let segment = rest.split('/').next().unwrap_or_default();
    SEGMENTS.binary_search(&segment).is_ok()
}

/// All routes of Consul's API.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/kv", get(kv::get).put(kv::put).delete(kv::delete))
        .route("/v1/kv/", get(kv::get).put(kv::put).delete(kv::delete))
        .route("/v1/kv/{*key}", get(kv::get).put(kv::put).delete(kv::delete))
        .route("/v1/txn", put(txn::apply))
        .route("/v1/session/create", put(session::create))
        .route("/v1/session/destroy/{id}", put(session::destroy))
        .route("/v1/session/renew/{id}", put(session::renew))
        .route("/v1/session/info/{id}", get(session::info))
        .route("/v1/session/node/{node}", get(session::of_node))
        .route("/v1/session/list", get(session::list))
        .route("/v1/event/fire/{name}", put(event::fire))
        .route("/v1/event/list", get(event::list))
        .route("/v1/operator/raft/configuration", get(operator::raft_configuration))
        .route("/v1/coordinate/nodes", get(operator::coordinates))
        .route("/v1/coordinate/datacenters", get(operator::datacenters))
        .route("/v1/status/leader", get(status::leader))
        .route("/v1/status/peers", get(status::peers))
        .route("/v1/acl/bootstrap", put(acl::bootstrap))
        .route("/v1/acl/tokens", get(acl::tokens))
        .route("/v1/acl/token", put(acl::create_token))
        .route("/v1/acl/token/self", get(acl::own_token))
        .route("/v1/acl/token/{accessor}", get(acl::read_token).put(acl::update_token).delete(acl::delete_token))
        .route("/v1/acl/token/{accessor}/clone", put(acl::clone_token))
        .route("/v1/acl/policies", get(acl::policies))
        .route("/v1/acl/policy", put(acl::create_policy))
        .route("/v1/acl/policy/name/{name}", get(acl::named_policy))
        .route("/v1/acl/policy/{id}", get(acl::read_policy).put(acl::update_policy).delete(acl::delete_policy))
        .route("/v1/acl/roles", get(acl::roles))
        .route("/v1/acl/role", put(acl::create_role))
        .route("/v1/acl/role/name/{name}", get(acl::named_role))
        .route("/v1/acl/role/{id}", get(acl::read_role).put(acl::update_role).delete(acl::delete_role))
        .route("/v1/snapshot", get(snapshot::save).put(snapshot::restore))
        .merge(agent::routes())
        .merge(catalog::routes())
        .merge(health::routes())
        .route("/v1/connect/intentions", get(intentions::list).post(intentions::create))
        .route("/v1/connect/intentions/match", get(intentions::matching))
        .route("/v1/connect/intentions/check", get(intentions::check))
        .route("/v1/connect/intentions/exact", get(intentions::exact).put(intentions::set_exact).delete(intentions::delete_exact))
        .route("/v1/connect/intentions/{id}", get(intentions::by_id).put(intentions::set_by_id).delete(intentions::delete_by_id))
        .route("/v1/query", get(query::list).post(query::create))
        .route("/v1/query/{id}", get(query::get).put(query::set).delete(query::delete))
        .route("/v1/query/{id}/execute", get(query::execute))
        .route("/v1/query/{id}/explain", get(query::explain))
        .route("/v1/config", put(config::apply))
        .route("/v1/config/{kind}", get(config::list))
        .route("/v1/config/{kind}/{name}", get(config::get).delete(config::delete))
        .route("/v1/connect/ca/roots", get(connect::roots))
        .route("/v1/connect/ca/configuration", get(connect::configuration).put(connect::set_configuration))
        .route("/v1/agent/connect/ca/roots", get(connect::roots))
        .route("/v1/agent/connect/ca/leaf/{service}", get(connect::leaf))
        .route("/v1/agent/connect/authorize", post(connect::authorize))
        .merge(absent::routes())
}

/// 404 for a path of Consul's that no version of it has.
pub(super) fn unknown_route() -> ConsulError {
    ConsulError::not_found("Invalid URL path: not a recognized HTTP API endpoint")
}

/// 405, as Consul words it; the header `allow` is added by the router.
pub(super) fn wrong_method(request: &Request) -> ConsulError {
    ConsulError::new(StatusCode::METHOD_NOT_ALLOWED, format!("method {} not allowed", request.method()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_consul_are_told_from_ours() {
        assert!(SEGMENTS.is_sorted());
        for path in ["/v1/kv/a", "/v1/kv", "/v1/kv/", "/v1/status/leader", "/v1/connect/intentions"] {
            assert!(owns(path), "{path}");
        }
        for path in ["/v1/mesh", "/v1/intentions", "/kv/a", "/v1/", "/v1/kvs", "/", "/v2/kv/a"] {
            assert!(!owns(path), "{path}");
        }
    }
}
