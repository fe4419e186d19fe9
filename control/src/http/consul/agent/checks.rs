//! Checks on the node of the control plane.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use postern_checks::{CheckForm, Kind, Status};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::super::{Api, Shared};
use super::super::answer::Answer;
use super::super::call::Call;
use super::super::catalog::{catalog, require_leaving};
use super::super::error::ConsulError;
use super::super::shape::{self, Selection, may_see_check};
use super::definition::{audited, check_record, read_json, runnable};
use super::services::ours;
use crate::acl::{Access, Resource};
use crate::records::CheckRecord;
use crate::registry::catalog::{Leaving, Registering, SERF_HEALTH};

pub(super) async fn list(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Service(""))?;
    let selection = Selection::of(&call)?;
    let checks: Map<String, Value> = api.mirror.read(|view| {
        let mut checks = catalog(&api, view).checks_on(&api.registry.home().node);
        for check in &mut checks {
            if let Some(output) = api.registry.newest_output(&check.node, &check.id) {
                check.output = output;
            }
        }
        // The agent's own health is not one of its checks.
        let own = checks.iter().filter(|check| check.id != SERF_HEALTH && may_see_check(&call, check));
        own.map(|check| (check.id.clone(), shape::check(check))).collect()
    });
    Answer::json(&call, &selection.filtered_map(checks)?)
}

pub(super) async fn register(State(api): Shared, call: Call, body: Body) -> Result<Answer, ConsulError> {
    let form: CheckForm = read_json(body).await?;
    let node = &api.registry.home().node;
    if form.name.is_empty() {
        return Err(ConsulError::bad_request("Missing check name"));
    }
    match form.service_id.as_str() {
        "" => call.require(Access::Write, Resource::Node(node))?,
        id => match ours(&api, id) {
            Some(entry) => call.require(Access::Write, Resource::Service(entry.service.as_str()))?,
            None => {
                call.require(Access::Write, Resource::Service(id))?;
                return Err(ConsulError::refused(format!("ServiceID {id:?} does not exist")));
            }
        },
    }
    let definition = runnable(&form, api.registry.allows_script_checks())?;
    let record = check_record(&form, node, &form.service_id, Some(definition))?;
    // Who takes over an id must be allowed to write what had it.
    require_leaving(&api, &call, node, Leaving::Check(&record.id))
        .or_else(|error| if find(&api, &record.id).is_some() { Err(error) } else { Ok(()) })?;
    let log = audited(&call, "check.register", json!({ "check": record.id, "service": record.service_id }));
    let registering = Registering { checks: vec![record], ..Registering::default() };
    api.registry.register_without_sidecar(&registering, &[log.op()]).await?;
    Ok(Answer::nothing(&call, StatusCode::OK))
}

fn find(api: &Api, id: &str) -> Option<CheckRecord> {
    api.mirror.read(|view| view.catalog.node(&api.registry.home().node)?.checks.get(id).map(|(record, _)| record.clone()))
}

fn unknown(id: &str) -> ConsulError {
    ConsulError::not_found(format!("Unknown check ID {id:?}. Ensure that the check ID is passed, not the check name."))
}

pub(super) async fn deregister(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/agent/check/deregister/", "check ID")?;
    let node = &api.registry.home().node;
    require_leaving(&api, &call, node, Leaving::Check(&id))?;
    let log = audited(&call, "check.deregister", json!({ "check": id }));
    match api.registry.deregister_without_sidecar(node, Leaving::Check(&id), &[log.op()]).await? {
        true => Ok(Answer::nothing(&call, StatusCode::OK)),
        false => Err(unknown(&id)),
    }
}

pub(super) async fn pass(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    tell_by_path(&api, &call, "/v1/agent/check/pass/", Status::Passing).await
}

pub(super) async fn warn(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    tell_by_path(&api, &call, "/v1/agent/check/warn/", Status::Warning).await
}

pub(super) async fn fail(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    tell_by_path(&api, &call, "/v1/agent/check/fail/", Status::Critical).await
}

async fn tell_by_path(api: &Api, call: &Call, prefix: &str, status: Status) -> Result<Answer, ConsulError> {
    let id = call.name_after(prefix, "check ID")?;
    tell(api, call, &id, status, call.text("note").unwrap_or_default()).await
}

/// What `agent/check/update` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UpdateForm {
    status: String,
    output: String,
}

pub(super) async fn update(State(api): Shared, call: Call, body: Body) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/agent/check/update/", "check ID")?;
    let form: UpdateForm = read_json(body).await?;
    let status = form.status.parse().map_err(|_| ConsulError::bad_request(format!("Invalid check status: '{}'", form.status)))?;
    tell(&api, &call, &id, status, &form.output).await
}

async fn tell(api: &Api, call: &Call, id: &str, status: Status, output: &str) -> Result<Answer, ConsulError> {
    let node = &api.registry.home().node;
    require_leaving(api, call, node, Leaving::Check(id))?;
    let record = find(api, id).ok_or_else(|| unknown(id))?;
    if !record.definition.is_some_and(|definition| matches!(definition.kind, Kind::Ttl(_))) {
        return Err(ConsulError::refused(format!("CheckID {id:?} does not have associated TTL")));
    }
    match api.registry.tell_check(node, id, status, output).await? {
        true => Ok(Answer::nothing(call, StatusCode::OK)),
        false => Err(unknown(id)),
    }
}
