//! `catalog/…`: what is registered, whether it is well or not.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, put};
use postern_checks::{CheckForm, loose};
use postern_names::ServiceName;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::{Api, Shared};
use super::agent::definition::{ServiceForm, audited, check_record, read_json};
use super::answer::Answer;
use super::blocking::shared;
use super::call::Call;
use super::error::ConsulError;
use super::health::nothing;
use super::shape::{self, Selection, may_see_node, may_see_service, service_name};
use crate::acl::{Access, Resource};
use crate::mirror::{Topic, View};
use crate::records::NodeRecord;
use crate::registry::catalog::{Catalog, Entry, Leaving, Registering};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/catalog/datacenters", get(datacenters))
        .route("/v1/catalog/nodes", get(nodes))
        .route("/v1/catalog/services", get(services))
        .route("/v1/catalog/service/{name}", get(service))
        .route("/v1/catalog/connect/{name}", get(connect))
        .route("/v1/catalog/node/{*name}", get(node))
        .route("/v1/catalog/node-services/{*name}", get(node_services))
        .route("/v1/catalog/register", put(register))
        .route("/v1/catalog/deregister", put(deregister))
}

async fn datacenters(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Node(""))?;
    Answer::json(&call, &api.mirror.read(|view| [view.cluster.datacenter.to_string()]))
}

async fn nodes(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Node(""))?;
    let selection = Selection::of(&call)?;
    let index = |view: &View| view.catalog.revision();
    shared(&api, &call, &[Topic::Catalog], index, |view| {
        let nodes = catalog(&api, view).nodes();
        let wanted = nodes.iter().filter(|node| may_see_node(&call, &node.name) && selection.wants_node(node));
        let written = wanted.map(|node| shape::node(node, datacenter(view))).collect();
        selection.filtered(written)
    })
    .await
}

async fn services(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Service(""))?;
    let selection = Selection::of(&call)?;
    let index = |view: &View| view.catalog.revision();
    shared(&api, &call, &[Topic::Catalog], index, |view| services_of(&api, &call, view, &selection)).await
}

fn services_of(
    api: &Api,
    call: &Call,
    view: &View,
    selection: &Selection,
) -> Result<BTreeMap<ServiceName, Vec<String>>, ConsulError> {
    let catalog = catalog(api, view);
    let mut services: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
    if !call.has("filter") && !call.has("node-meta") {
        let all = catalog.services().into_iter().filter(|(name, _)| may_see_service(call, name.as_str()));
        return Ok(all.map(|(name, tags)| (name, tags.into_iter().collect())).collect());
    }
    for name in catalog.services().into_keys().filter(|name| may_see_service(call, name.as_str())) {
        for entry in catalog.entries_of(&name) {
            let Some(node) = catalog.node(&entry.node).filter(|node| selection.wants_node(node)) else { continue };
            if selection.filtered(vec![shape::catalog_service(&entry, &node, datacenter(view))])?.is_empty() {
                continue;
            }
            let tags = services.entry(name.clone()).or_default();
            tags.extend(entry.tags.iter().filter(|tag| !tags.contains(tag)).cloned().collect::<Vec<_>>());
        }
    }
    Ok(services)
}

async fn service(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    instances(&api, &call, "/v1/catalog/service/", |_| true).await
}

async fn connect(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    instances(&api, &call, "/v1/catalog/connect/", |entry| entry.has_sidecar).await
}

async fn instances(api: &Api, call: &Call, prefix: &str, wanted: impl Fn(&Entry) -> bool) -> Result<Answer, ConsulError> {
    let name = call.name_after(prefix, "service name")?;
    call.require(Access::Read, Resource::Service(&name))?;
    let selection = Selection::of(call)?;
    let Some(name) = service_name(&name) else {
        return nothing(api, call).await;
    };
    let topics = [Topic::Service(name.clone())];
    let index = |view: &View| view.catalog.revision_of(&name);
    shared(api, call, &topics, index, |view| {
        let catalog = catalog(api, view);
        let entries = catalog.entries_of(&name);
        let entries = entries.iter().filter(|entry| wanted(entry) && selection.wants_tags(entry));
        let written = entries.filter_map(|entry| {
            let node = catalog.node(&entry.node).filter(|node| may_see_node(call, &node.name) && selection.wants_node(node))?;
            Some(shape::catalog_service(entry, &node, datacenter(view)))
        });
        selection.filtered(written.collect())
    })
    .await
}

async fn node(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    on_node(&api, &call, "/v1/catalog/node/", |node, services| match node {
        None => Value::Null,
        Some(node) => {
            let by_id = services.into_iter().map(|service| (service["ID"].as_str().unwrap_or_default().to_owned(), service));
            json!({ "Node": node, "Services": by_id.collect::<Map<_, _>>() })
        }
    })
    .await
}

async fn node_services(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    on_node(&api, &call, "/v1/catalog/node-services/", |node, services| json!({ "Node": node, "Services": services })).await
}

async fn on_node(
    api: &Api,
    call: &Call,
    prefix: &str,
    write: impl Fn(Option<Value>, Vec<Value>) -> Value,
) -> Result<Answer, ConsulError> {
    let name = call.name_after(prefix, "node name")?;
    call.require(Access::Read, Resource::Node(&name))?;
    let selection = Selection::of(call)?;
    let index = |view: &View| view.catalog.revision();
    shared(api, call, &[Topic::Catalog], index, |view| {
        let catalog = catalog(api, view);
        let node = catalog.node(&name).map(|node| shape::node(&node, datacenter(view)));
        let entries = catalog.entries_on(&name);
        let seen = entries.iter().filter(|entry| may_see_service(call, entry.service.as_str()));
        let services = selection.filtered(seen.map(shape::node_service).collect());
        services.map(|services| write(node, services))
    })
    .await
}

/// What `catalog/register` takes: a node, an instance on it, and checks that somebody else runs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RegisterForm {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    tagged_addresses: BTreeMap<String, String>,
    node_meta: BTreeMap<String, String>,
    service: Option<ServiceForm>,
    check: Option<ToldCheck>,
    #[serde(deserialize_with = "loose::list")]
    checks: Vec<ToldCheck>,
    skip_node_update: bool,
}

/// A check that somebody else runs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ToldCheck {
    #[serde(rename = "CheckID")]
    check_id: String,
    name: String,
    status: String,
    notes: String,
    output: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
}

async fn register(State(api): Shared, call: Call, body: Body) -> Result<Answer, ConsulError> {
    let form: RegisterForm = read_json(body).await?;
    if form.node.is_empty() || (form.address.is_empty() && !form.skip_node_update) {
        return Err(ConsulError::bad_request("Must provide node and address"));
    }
    call.require(Access::Write, Resource::Node(&form.node))?;
    let service = match &form.service {
        None => None,
        Some(service) => {
            let service = service.validate(&form.node)?;
            call.require(Access::Write, Resource::Service(service.record.service.as_str()))?;
            Some(service)
        }
    };
    let node = NodeRecord {
        node: form.node.clone(),
        id: form.id.clone(),
        address: form.address.clone(),
        tagged_addresses: form.tagged_addresses.clone(),
        meta: form.node_meta.clone(),
        created_in: None,
    };
    let is_known = api.mirror.read(|view| catalog(&api, view).node(&form.node).is_some());
    if form.skip_node_update && form.address.is_empty() && !is_known {
        return Err(ConsulError::bad_request("Must provide address if SkipNodeUpdate is set and the node is not known"));
    }
    let mut checks = Vec::new();
    for told in form.check.iter().chain(&form.checks) {
        let form_of_check = CheckForm {
            check_id: if told.check_id.is_empty() { told.name.clone() } else { told.check_id.clone() },
            name: told.name.clone(),
            status: told.status.clone(),
            notes: told.notes.clone(),
            ..CheckForm::default()
        };
        let of = if told.service_id.is_empty() { "" } else { &told.service_id };
        require_of_service(&api, &call, &form.node, of, service.as_ref().map(|service| &service.record))?;
        let mut record = check_record(&form_of_check, &form.node, of, None)?;
        record.output = postern_checks::shortened(told.output.as_bytes());
        checks.push(record);
    }
    let registering = Registering { node: (!form.skip_node_update || !is_known).then_some(node), service, checks };
    let entry = audited(
        &call,
        "catalog.register",
        json!({ "node": form.node, "service": registering.service.as_ref().map(|s| &s.record.id) }),
    );
    api.registry.register_without_sidecar(&registering, &[entry.op()]).await?;
    Answer::json(&call, &true)
}

fn require_of_service(
    api: &Api,
    call: &Call,
    node: &str,
    id: &str,
    registered_now: Option<&crate::records::RegisteredRecord>,
) -> Result<(), ConsulError> {
    if id.is_empty() || registered_now.is_some_and(|record| record.id == id) {
        return Ok(());
    }
    let service = api.mirror.read(|view| catalog(api, view).entry(node, id).map(|entry| entry.service));
    let Some(service) = service else {
        return Err(ConsulError::bad_request(format!("Unknown service ID '{id}' on node '{node}'")));
    };
    call.require(Access::Write, Resource::Service(service.as_str()))
}

/// What `catalog/deregister` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DeregisterForm {
    node: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    #[serde(rename = "CheckID")]
    check_id: String,
}

async fn deregister(State(api): Shared, call: Call, body: Body) -> Result<Answer, ConsulError> {
    let form: DeregisterForm = read_json(body).await?;
    if form.node.is_empty() {
        return Err(ConsulError::bad_request("Must provide node"));
    }
    let leaving = match (form.service_id.as_str(), form.check_id.as_str()) {
        ("", "") => Leaving::Node,
        ("", check) => Leaving::Check(check),
        (service, _) => Leaving::Service(service),
    };
    require_leaving(&api, &call, &form.node, leaving)?;
    let details = json!({ "node": form.node, "service": form.service_id, "check": form.check_id });
    let entry = audited(&call, "catalog.deregister", details);
    api.registry.deregister_without_sidecar(&form.node, leaving, &[entry.op()]).await?;
    Answer::json(&call, &true)
}

/// To write an instance is to write its service; a node and what is of it alone is the node's.
pub(super) fn require_leaving(api: &Api, call: &Call, node: &str, leaving: Leaving<'_>) -> Result<(), ConsulError> {
    let service = api.mirror.read(|view| {
        let id = match leaving {
            Leaving::Node => return None,
            Leaving::Service(id) => id.to_owned(),
            Leaving::Check(id) => view.catalog.node(node)?.checks.get(id)?.0.service_id.clone(),
        };
        catalog(api, view).entry(node, &id).map(|entry| entry.service)
    });
    match service {
        Some(service) => call.require(Access::Write, Resource::Service(service.as_str())),
        None => call.require(Access::Write, Resource::Node(node)),
    }
}

/// The catalog of a view.
pub(super) fn catalog<'a>(api: &'a Api, view: &'a View) -> Catalog<'a> {
    Catalog::new(view, api.registry.home())
}

/// The name of this datacenter.
pub(super) fn datacenter(view: &View) -> &str {
    view.cluster.datacenter.as_str()
}
