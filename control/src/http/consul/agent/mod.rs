//! `agent/…`: the control plane as the agent of its host. What registers here is on its node, and the control plane runs
//! its checks.
//!
//! | module | what it holds |
//! |---|---|
//! | `definition` | what registers: instances and checks as they are written |
//! | `services`, `checks` | the routes |
//! | `health` | how well an instance is, in a status code |
//! | `own` | what the agent says of itself |

mod checks;
pub mod definition;
mod health;
mod own;
mod services;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, put};

use super::super::Api;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/agent/self", get(own::own))
        .route("/v1/agent/members", get(own::members))
        .route("/v1/agent/maintenance", put(services::node_maintenance))
        .route("/v1/agent/services", get(services::list))
        .route("/v1/agent/service/register", put(services::register))
        .route("/v1/agent/service/deregister/{*id}", put(services::deregister))
        .route("/v1/agent/service/maintenance/{*id}", put(services::maintenance))
        .route("/v1/agent/service/{*id}", get(services::show))
        .route("/v1/agent/checks", get(checks::list))
        .route("/v1/agent/check/register", put(checks::register))
        .route("/v1/agent/check/deregister/{*id}", put(checks::deregister))
        .route("/v1/agent/check/pass/{*id}", put(checks::pass))
        .route("/v1/agent/check/warn/{*id}", put(checks::warn))
        .route("/v1/agent/check/fail/{*id}", put(checks::fail))
        .route("/v1/agent/check/update/{*id}", put(checks::update))
        .route("/v1/agent/health/service/name/{name}", get(health::by_name))
        .route("/v1/agent/health/service/id/{*id}", get(health::by_id))
}
