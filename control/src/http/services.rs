//! Services, their instances, and where Prometheus finds them.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use axum::extract::State;
use axum::{Extension, Json};
use postern_api::http::{
    CheckState, Deregistered, Instance, PrometheusTarget, RegisteredInstance, ServiceDetail, ServiceSummary,
};
use postern_checks::Status;
use postern_intentions::Party;
use postern_names::{InstanceId, ServiceName};
use serde::Deserialize;
use serde_json::json;

use super::auth::refusal;
use super::error::ApiError;
use super::input::{Name, Query};
use super::intentions::{sort, stored};
use super::service_config::of_service;
use super::{Api, Shared, rfc3339};
use crate::acl::{Access, Authority, Resource};
use crate::audit::AuditEntry;
use crate::mirror::View;
use crate::policy::Author;
use crate::push::SidecarStatus;
use crate::records::{InstanceRecord, IntentionRecord, NODE_MAINTENANCE};
use crate::registry::catalog::{Catalog, Entry};

/// Open streams by instance.
pub(super) type Streams = HashMap<InstanceId, SidecarStatus>;

pub(super) fn streams(api: &Api) -> Streams {
    api.sidecars.list().into_iter().map(|status| (status.instance.clone(), status)).collect()
}

/// `GET /v1/services`
pub(super) async fn list(State(api): Shared, Extension(authority): Extension<Authority>) -> Json<Vec<ServiceSummary>> {
    let streams = streams(&api);
    let may_read = |name: &ServiceName| authority.may(Access::Read, Resource::Service(name.as_str()));
    Json(
        api.mirror
            .read(|view| view.service_names().into_iter().filter(may_read).map(|name| summary(view, &streams, name)).collect()),
    )
}

fn summary(view: &View, streams: &Streams, name: ServiceName) -> ServiceSummary {
    let present = || view.instances_of(&name).map(|(record, _)| record).filter(|record| !record.left);
    let is_well = |node: &str, id: &str| view.catalog.status(node, id) != Status::Critical;
    let registered = || view.catalog.registered_of(&name).map(|(record, _)| record);
    let healthy = present().filter(|record| record.healthy && is_well(record.node_name(), record.id.as_str())).count();
    ServiceSummary {
        protocol: view.known_protocol(&name),
        instances: present().count() + registered().count(),
        healthy: healthy + registered().filter(|record| is_well(&record.node, &record.id)).count(),
        connected: present().filter(|record| streams.contains_key(&record.id)).count(),
        without_sidecar: registered().count(),
        name,
    }
}

fn registered(catalog: &Catalog<'_>, name: &ServiceName) -> Vec<RegisteredInstance> {
    let entries = catalog.entries_of(name).into_iter().filter(|entry| !entry.has_sidecar);
    let written = entries.map(|entry| {
        let node = catalog.node(&entry.node);
        let address =
            if entry.address.is_empty() { node.map(|node| node.address).unwrap_or_default() } else { entry.address.clone() };
        let status = catalog.status_of(&entry);
        let checks = checks(catalog, &entry);
        RegisteredInstance {
            health: health_word(status, &checks).into(),
            id: entry.id,
            node: entry.node,
            address,
            port: entry.port,
            tags: entry.tags,
            checks,
        }
    });
    written.collect()
}

fn checks(catalog: &Catalog<'_>, entry: &Entry) -> Vec<CheckState> {
    let checks = catalog.checks_of(entry).into_iter();
    let checks = checks.map(|check| {
        let output = if check.output.is_empty() { check.notes } else { check.output };
        CheckState { id: check.id, status: check.status.to_string(), output }
    });
    checks.collect()
}

fn health_word(status: Status, checks: &[CheckState]) -> &'static str {
    let is_maintenance = |check: &CheckState| check.id.starts_with("_service_maintenance:") || check.id == NODE_MAINTENANCE;
    match status {
        Status::Critical if checks.iter().any(is_maintenance) => "maintenance",
        Status::Critical => "critical",
        Status::Warning => "warning",
        Status::Passing => "healthy",
    }
}

/// `GET /v1/services/{name}`
pub(super) async fn show(
    State(api): Shared,
    Extension(authority): Extension<Authority>,
    Name(name): Name<ServiceName>,
) -> Result<Json<ServiceDetail>, ApiError> {
    let streams = streams(&api);
    let now = SystemTime::now();
    let detail = api.mirror.read(|view| {
        let is_known = view.known_protocol(&name).is_some()
            || view.settings.services.contains_key(&name)
            || view.instances_of(&name).next().is_some()
            || view.catalog.registered_of(&name).next().is_some();
        is_known.then(|| {
            let to = [Party::Service(name.clone()), Party::Any];
            let pairs = to.iter().flat_map(|destination| view.pairs_to(destination));
            let live = pairs.filter_map(|pair| view.intentions.get(pair)).filter(|(record, _)| record.intention.is_live(now));
            let may_read = |record: &IntentionRecord| {
                authority.may(Access::Read, Resource::Intentions(&record.intention.destination.to_string()))
            };
            let live = live.filter(|(record, _)| may_read(record));
            let mut inbound: Vec<_> = live.map(|(record, revision)| stored(record, *revision)).collect();
            sort(&mut inbound);
            let mut instances: Vec<_> =
                view.instances_of(&name).map(|(record, _)| instance(&api, view, &streams, record)).collect();
            instances.sort_by(|a, b| a.id.cmp(&b.id));
            for instance in &mut instances {
                instance.upstreams.retain(|name| authority.may(Access::Read, Resource::Service(name.as_str())));
            }
            ServiceDetail {
                protocol: view.known_protocol(&name),
                name: name.clone(),
                instances,
                registered: registered(&Catalog::new(view, api.registry.home()), &name),
                inbound,
                config: of_service(view, &name),
            }
        })
    });
    let hint = "`meshctl service list` shows those that are registered";
    detail.map(Json).ok_or_else(|| ApiError::not_found(format!("no service {name} is registered")).hint(hint))
}

/// An instance as the API shows it.
pub(super) fn instance(api: &Api, view: &View, streams: &Streams, record: &InstanceRecord) -> Instance {
    let catalog = Catalog::new(view, api.registry.home());
    let entry = catalog.entry(record.node_name(), record.id.as_str());
    let checks = entry.as_ref().map(|entry| checks(&catalog, entry)).unwrap_or_default();
    let status = entry.map_or(Status::Passing, |entry| catalog.status_of(&entry));
    let stream = streams.get(&record.id);
    let newest = view.lineages.get(&record.lineage).and_then(|lineage| view.issuances.get(&lineage.newest));
    Instance {
        id: record.id.clone(),
        service: record.service.clone(),
        address: record.address.clone(),
        health: match record {
            _ if record.left => "left",
            _ if !record.healthy && status != Status::Critical => "critical",
            _ => health_word(status, &checks),
        }
        .into(),
        connected: stream.is_some(),
        since: rfc3339(stream.map_or(record.state_since, |stream| stream.since)),
        ports: record.ports.clone(),
        meta: record.meta.clone(),
        locality: record.locality.clone(),
        node: record.node.clone(),
        version: stream.map(|stream| stream.version.clone()).unwrap_or_default(),
        revision: stream.map_or(0, |stream| stream.authority),
        svid_not_after: newest.map(|issuance| rfc3339(issuance.not_after)),
        tags: record.tags.clone(),
        upstreams: stream.map(|stream| stream.upstreams.clone()).unwrap_or_default(),
        checks,
    }
}

/// What a deregistration says in its query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeregisterQuery {
    revoke: bool,
}

/// `DELETE /v1/instances/{id}`
pub(super) async fn deregister(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    Name(id): Name<InstanceId>,
    Query(query): Query<DeregisterQuery>,
) -> Result<Json<Deregistered>, ApiError> {
    let unknown = || ApiError::not_found(format!("no instance {id} is registered")).hint("`meshctl status` shows those that are");
    let record = api.mirror.read(|view| view.instances.get(&id).map(|(record, _)| record.clone())).ok_or_else(unknown)?;
    authority.require(Access::Write, Resource::Service(record.service.as_str())).map_err(|denied| refusal(&authority, denied))?;
    let entry = AuditEntry {
        at: SystemTime::now(),
        who: author.who.clone(),
        from: author.from.clone(),
        what: "instance.deregister".into(),
        details: json!({ "instance": id, "service": record.service, "revoke": query.revoke }),
        reason: None,
    };
    let mut revision = api.registry.leave(&id, vec![entry.op()]).await?.ok_or_else(unknown)?;
    if query.revoke {
        revision = revision.max(api.identity.revoke_instance(&id, &author).await?);
    }
    api.sidecars.close_instance(&id);
    Ok(Json(Deregistered { id, service: record.service, revoked: query.revoke, revision }))
}

/// `GET /v1/prometheus/targets`
pub(super) async fn prometheus_targets(State(api): Shared) -> Json<Vec<PrometheusTarget>> {
    let host = &api.surroundings.host;
    Json(api.mirror.read(|view| {
        let present =
            view.instances.values().map(|(record, _)| record).filter(|record| !record.left && !record.metrics.is_empty());
        let reachable = present.filter(|record| !is_loopback_elsewhere(record, host));
        reachable.map(|record| target(view, record)).collect()
    }))
}

/// A loopback target of another host would be one of ours if Prometheus scraped it.
pub(crate) fn is_loopback_elsewhere(record: &InstanceRecord, host: &str) -> bool {
    use std::str::FromStr;
    let address = crate::settings::Address::from_str(&record.metrics);
    record.node != host && address.is_ok_and(|address| address.is_loopback())
}

fn target(view: &View, record: &InstanceRecord) -> PrometheusTarget {
    let labels = [
        ("service", record.service.to_string()),
        ("service_instance", record.id.to_string()),
        ("datacenter", view.cluster.datacenter.to_string()),
    ];
    let labels: BTreeMap<String, String> = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    PrometheusTarget { targets: vec![record.metrics.clone()], labels }
}
