//! `health/…`: what is registered, with what its checks say.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use postern_checks::Status;
use serde_json::{Value, json};

use super::super::{Api, Shared};
use super::answer::Answer;
use super::blocking::{for_nothing_new, shared};
use super::call::Call;
use super::catalog::{catalog, datacenter};
use super::error::ConsulError;
use super::shape::{self, Selection, may_see_check, may_see_node, service_name};
use crate::acl::{Access, Resource};
use crate::mirror::{Topic, View};
use crate::registry::catalog::Entry;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/health/node/{*name}", get(node))
        .route("/v1/health/checks/{name}", get(checks))
        .route("/v1/health/service/{name}", get(service))
        .route("/v1/health/connect/{name}", get(connect))
        .route("/v1/health/state/{state}", get(state))
}

async fn node(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let name = call.name_after("/v1/health/node/", "node name")?;
    call.require(Access::Read, Resource::Node(&name))?;
    let selection = Selection::of(&call)?;
    let index = |view: &View| view.catalog.revision();
    shared(&api, &call, &[Topic::Catalog], index, |view| {
        let checks = catalog(&api, view).checks_on(&name);
        let seen = checks.iter().filter(|check| may_see_check(&call, check));
        selection.filtered(seen.map(shape::check).collect())
    })
    .await
}

async fn checks(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let name = call.name_after("/v1/health/checks/", "service name")?;
    call.require(Access::Read, Resource::Service(&name))?;
    let selection = Selection::of(&call)?;
    let Some(name) = service_name(&name) else { return nothing(&api, &call).await };
    let topics = [Topic::Service(name.clone())];
    let index = |view: &View| view.catalog.revision_of(&name);
    shared(&api, &call, &topics, index, |view| {
        let catalog = catalog(&api, view);
        let entries = catalog.entries_of(&name);
        let on_wanted = entries.iter().filter(|entry| {
            catalog.node(&entry.node).is_some_and(|node| may_see_node(&call, &node.name) && selection.wants_node(&node))
        });
        let checks = on_wanted.flat_map(|entry| catalog.own_checks_of(entry)).map(|check| shape::check(&check)).collect();
        selection.filtered(checks)
    })
    .await
}

async fn service(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    instances(&api, &call, "/v1/health/service/", |_| true).await
}

async fn connect(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    instances(&api, &call, "/v1/health/connect/", |entry| entry.has_sidecar).await
}

async fn instances(api: &Api, call: &Call, prefix: &str, wanted: impl Fn(&Entry) -> bool) -> Result<Answer, ConsulError> {
    let name = call.name_after(prefix, "service name")?;
    call.require(Access::Read, Resource::Service(&name))?;
    let selection = Selection::of(call)?;
    let only_passing = only_passing(call)?;
    let Some(name) = service_name(&name) else { return nothing(api, call).await };
    let topics = [Topic::Service(name.clone())];
    let index = |view: &View| view.catalog.revision_of(&name);
    shared(api, call, &topics, index, |view| {
        let catalog = catalog(api, view);
        let entries = catalog.entries_of(&name);
        let entries = entries.iter().filter(|entry| wanted(entry) && selection.wants_tags(entry));
        let written = entries.filter_map(|entry| {
            let node = catalog.node(&entry.node).filter(|node| may_see_node(call, &node.name) && selection.wants_node(node))?;
            let checks = catalog.checks_of(entry);
            if only_passing && checks.iter().any(|check| check.status != Status::Passing) {
                return None;
            }
            let checks: Vec<Value> = checks.iter().map(shape::check).collect();
            let node = shape::node(&node, datacenter(view));
            Some(json!({ "Node": node, "Service": shape::node_service(entry), "Checks": checks }))
        });
        selection.filtered(written.collect())
    })
    .await
}

/// `?passing`, with or without a boolean.
fn only_passing(call: &Call) -> Result<bool, ConsulError> {
    match call.text("passing") {
        None => Ok(false),
        Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(_) => Err(ConsulError::bad_request("Invalid value for ?passing")),
    }
}

async fn state(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let wanted = call.name_after("/v1/health/state/", "check state")?;
    call.require(Access::List, Resource::Node(""))?;
    if wanted != "any" && wanted.parse::<Status>().is_err() {
        return Err(ConsulError::bad_request(format!("Invalid check state {wanted:?}: write any, passing, warning or critical")));
    }
    let selection = Selection::of(&call)?;
    let index = |view: &View| view.catalog.revision();
    shared(&api, &call, &[Topic::Catalog], index, |view| {
        let catalog = catalog(&api, view);
        let nodes = catalog.nodes();
        let checks = nodes.iter().filter(|node| selection.wants_node(node)).flat_map(|node| catalog.checks_on(&node.name));
        let checks = checks.filter(|check| wanted == "any" || check.status.as_str() == wanted);
        let seen = checks.filter(|check| may_see_check(&call, check));
        selection.filtered(seen.map(|check| shape::check(&check)).collect())
    })
    .await
}

/// What there is of a service by a name that none can have: nothing, now and later.
pub(super) async fn nothing(api: &Api, call: &Call) -> Result<Answer, ConsulError> {
    let index = for_nothing_new(api, call).await;
    Ok(Answer::json(call, &Value::Array(Vec::new()))?.at(index))
}
