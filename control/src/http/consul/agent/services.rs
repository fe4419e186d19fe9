//! Instances on the node of the control plane.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use postern_names::InstanceId;
use serde_json::{Map, Value, json};

use super::super::super::{Api, Shared};
use super::super::answer::Answer;
use super::super::blocking::by_hash;
use super::super::call::Call;
use super::super::catalog::{catalog, datacenter, require_leaving};
use super::super::error::ConsulError;
use super::super::shape::{self, Selection, may_see_service};
use super::definition::{ServiceForm, audited, read_json};
use crate::acl::{Access, Resource};
use crate::mirror::Topic;
use crate::records::TaggedAddress;
use crate::registry::catalog::{Entry, Leaving, Registering};

pub(super) async fn list(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Service(""))?;
    let selection = Selection::of(&call)?;
    let services: Map<String, Value> = api.mirror.read(|view| {
        let entries = catalog(&api, view).entries_on(&api.registry.home().node);
        let seen = entries.iter().filter(|entry| may_see_service(&call, entry.service.as_str()));
        seen.map(|entry| (entry.id.clone(), shape::agent_service(entry, datacenter(view)))).collect()
    });
    Answer::json(&call, &selection.filtered_map(services)?)
}

/// The instance of this id on our node.
pub(super) fn ours(api: &Api, id: &str) -> Option<Entry> {
    api.mirror.read(|view| catalog(api, view).entry(&api.registry.home().node, id))
}

pub(super) async fn show(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/agent/service/", "service ID")?;
    let unknown = || ConsulError::not_found(format!("unknown service ID: {id}"));
    let Some(entry) = ours(&api, &id) else {
        call.require(Access::Read, Resource::Service(&id))?;
        return Err(unknown());
    };
    call.require(Access::Read, Resource::Service(entry.service.as_str()))?;
    by_hash(&api, &call, &[Topic::Service(entry.service.clone())], |view| {
        let entry = catalog(&api, view).entry(&api.registry.home().node, &id);
        let mut written = entry.map_or(Value::Null, |entry| shape::agent_service(&entry, datacenter(view)));
        if let Value::Object(fields) = &mut written {
            fields.insert("ContentHash".into(), Value::Null);
        }
        written
    })
    .await
}

pub(super) async fn register(State(api): Shared, call: Call, body: Body) -> Result<Answer, ConsulError> {
    let form: ServiceForm = read_json(body).await?;
    let mut service = form.validate(&api.registry.home().node)?;
    call.require(Access::Write, Resource::Service(service.record.service.as_str()))?;
    // Who takes over an id must be allowed to write what had it.
    if let Some(before) = ours(&api, &service.record.id) {
        call.require(Access::Write, Resource::Service(before.service.as_str()))?;
    }
    let record = &mut service.record;
    TaggedAddress::add_families(&mut record.tagged_addresses, &record.address, record.port);
    service.replaces_checks = call.text("replace-existing-checks").is_some_and(|value| value != "false");
    let checks = form.checks(&service.record, api.registry.allows_script_checks())?;
    let entry = audited(&call, "service.register", json!({ "service": service.record.service, "id": service.record.id }));
    let registering = Registering { node: None, service: Some(service), checks };
    api.registry.register_without_sidecar(&registering, &[entry.op()]).await?;
    Ok(Answer::nothing(&call, StatusCode::OK))
}

pub(super) async fn deregister(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/agent/service/deregister/", "service ID")?;
    let node = &api.registry.home().node;
    let leaving = Leaving::Service(&id);
    require_leaving(&api, &call, node, leaving)?;
    let unknown = || {
        let text = format!("Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name.");
        ConsulError::not_found(text)
    };
    let entry = ours(&api, &id).ok_or_else(unknown)?;
    let log = audited(&call, "service.deregister", json!({ "service": entry.service, "id": id }));
    if entry.has_sidecar {
        let instance: InstanceId = id.parse().map_err(|_| unknown())?;
        api.registry.leave(&instance, vec![log.op()]).await?;
        api.sidecars.close_instance(&instance);
    } else {
        api.registry.deregister_without_sidecar(node, leaving, &[log.op()]).await?;
    }
    Ok(Answer::nothing(&call, StatusCode::OK))
}

/// `?enable=true&reason=…`: the reason, or `None` where maintenance ends.
fn maintenance_of(call: &Call) -> Result<Option<String>, ConsulError> {
    match call.text("enable") {
        None | Some("") => Err(ConsulError::bad_request("Missing value for enable")),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(call.text("reason").unwrap_or_default().to_owned())),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(None),
        Some(other) => Err(ConsulError::bad_request(format!("Invalid value for enable: {other:?}"))),
    }
}

pub(super) async fn maintenance(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/agent/service/maintenance/", "service ID")?;
    let home = &api.registry.home().node;
    let entry = api.mirror.read(|view| match call.text("node") {
        Some(node) => catalog(&api, view).entry(node, &id),
        // The id of a sidecar's instance is unique in the mesh, wherever it is.
        None => catalog(&api, view).entry(home, &id).or_else(|| {
            let (record, _) = view.instances.get(&id.parse::<InstanceId>().ok()?)?;
            catalog(&api, view).entry(record.node_name(), &id)
        }),
    });
    let Some(entry) = entry else {
        call.require(Access::Write, Resource::Service(&id))?;
        let text = format!("Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name.");
        return Err(ConsulError::not_found(text));
    };
    call.require(Access::Write, Resource::Service(entry.service.as_str()))?;
    let reason = maintenance_of(&call)?;
    let details = json!({ "service": entry.service, "id": id, "enable": reason.is_some() });
    let mut log = audited(&call, "service.maintenance", details);
    log.reason.clone_from(&reason);
    api.registry.set_maintenance(&entry.node, Some(&id), reason.as_deref(), &[log.op()]).await?;
    Ok(Answer::nothing(&call, StatusCode::OK))
}

pub(super) async fn node_maintenance(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let node = call.text("node").unwrap_or(&api.registry.home().node).to_owned();
    call.require(Access::Write, Resource::Node(&node))?;
    let reason = maintenance_of(&call)?;
    if api.mirror.read(|view| catalog(&api, view).node(&node)).is_none() {
        return Err(ConsulError::not_found(format!("Unknown node {node:?}")));
    }
    let mut log = audited(&call, "node.maintenance", json!({ "node": node, "enable": reason.is_some() }));
    log.reason.clone_from(&reason);
    api.registry.set_maintenance(&node, None, reason.as_deref(), &[log.op()]).await?;
    Ok(Answer::nothing(&call, StatusCode::OK))
}
