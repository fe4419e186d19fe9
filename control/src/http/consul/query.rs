//! `query…`: prepared queries.
//!
//! To read or write one takes `query` on its name; one without a name, on any. To carry one out takes to read its service,
//! whoever wrote it.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use postern_api::consul::duration;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::auth::credential_of_consul;
use super::super::{Api, Shared};
use super::answer::Answer;
use super::body::Json;
use super::call::Call;
use super::catalog::{catalog, datacenter};
use super::error::ConsulError;
use super::fields::Fields;
use super::shape::{self, may_see_node};
use crate::acl::{Access, Resource};
use crate::queries::QueryError;
use crate::queries::run::run;
use crate::queries::template::{TemplateError, rendered};
use crate::records::{QueriedService, QueryRecord, QueryTemplate};

/// Texts of one list or map.
const LIST_LIMIT: usize = 64;
/// Bytes of one text.
const TEXT_LIMIT: usize = 512;

impl From<QueryError> for ConsulError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NotFound => Self::not_found(error.to_string()),
            QueryError::NameTaken(_) | QueryError::TooMany => Self::bad_request(error.to_string()),
            QueryError::Contended => Self::refused(error.to_string()),
            QueryError::Store(error) => Self::from(error),
            QueryError::Unwritable(error) => Self::internal(error),
        }
    }
}

impl From<TemplateError> for ConsulError {
    fn from(error: TemplateError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// `GET /v1/query`
pub(super) async fn list(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Query(""))?;
    let may = |query: &QueryRecord| call.authority.may(Access::Read, Resource::Query(&query.name));
    let (index, queries) = api.mirror.read(|view| {
        let seen = view.queries.iter().filter(|(query, _)| may(query));
        let written: Vec<Value> = seen.map(|(query, revision)| written(query, *revision)).collect();
        (view.queries.index(), written)
    });
    Ok(Answer::json(&call, &queries)?.at(index))
}

/// `POST /v1/query`
pub(super) async fn create(
    State(api): Shared,
    call: Call,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Query(&body.text("Name")?))?;
    if !body.text("ID")?.is_empty() {
        return Err(ConsulError::bad_request("ID must be empty when creating a new prepared query"));
    }
    let shown = credential_of_consul(&uri, &headers);
    let id = api.queries.create(read(&api, &body, shown.as_deref())?, &call.author).await?;
    Answer::json(&call, &json!({ "ID": id }))
}

/// `GET /v1/query/{id}`
pub(super) async fn get(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let (query, revision) = by_id(&api, &call, Access::Read)?;
    let index = api.mirror.read(|view| view.queries.index());
    Ok(Answer::json(&call, &[written(&query, revision)])?.at(index))
}

/// `PUT /v1/query/{id}`
pub(super) async fn set(
    State(api): Shared,
    call: Call,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Answer, ConsulError> {
    let (before, _) = by_id(&api, &call, Access::Write)?;
    call.require(Access::Write, Resource::Query(&body.text("Name")?))?;
    let shown = credential_of_consul(&uri, &headers);
    let query = QueryRecord { id: before.id, ..read(&api, &body, shown.as_deref())? };
    api.queries.set(query, &call.author).await?;
    Ok(Answer::bytes(&call, "application/json", Body::empty()))
}

/// `DELETE /v1/query/{id}`
pub(super) async fn delete(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let (query, _) = by_id(&api, &call, Access::Write)?;
    api.queries.delete(&query.id, &call.author).await?;
    Ok(Answer::bytes(&call, "application/json", Body::empty()))
}

/// `GET /v1/query/{id or name}/execute?near=&limit=&connect`
pub(super) async fn execute(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Service(""))?;
    let (mut query, _) = answering(&api, &call, "/execute")?;
    call.require(Access::Read, Resource::Service(&query.service.service))?;
    query.service.connect |= call.text("connect").is_some_and(|text| !matches!(text, "0" | "false"));
    let limit = call.number("limit")?.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let near = call.text("near").filter(|near| !near.is_empty()).unwrap_or(&query.service.near);
    let home = &api.registry.home().node;
    let (index, nodes, own) = api.mirror.read(|view| {
        let found = run(&catalog(&api, view), home, &query.service, near, &mut rand::rng());
        let seen = found.iter().filter(|instance| may_see_node(&call, &instance.node.name));
        let nodes: Vec<Value> = seen
            .take(if limit == 0 { usize::MAX } else { limit })
            .map(|instance| {
                let checks: Vec<Value> = instance.checks.iter().map(shape::check).collect();
                let node = shape::node(&instance.node, datacenter(view));
                json!({ "Node": node, "Service": shape::node_service(&instance.entry), "Checks": checks })
            })
            .collect();
        (view.catalog.revision(), nodes, datacenter(view).to_owned())
    });
    let answer = json!({
        "Service": query.service.service, "Nodes": nodes, "DNS": { "TTL": query.ttl }, "Datacenter": own, "Failovers": 0,
    });
    Ok(Answer::json(&call, &answer)?.at(index))
}

/// `GET /v1/query/{id or name}/explain`
pub(super) async fn explain(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Query(""))?;
    let (query, revision) = answering(&api, &call, "/explain")?;
    call.require(Access::Read, Resource::Query(&query.name))?;
    let index = api.mirror.read(|view| view.queries.index());
    Ok(Answer::json(&call, &json!({ "Query": written(&query, revision) }))?.at(index))
}

fn by_id(api: &Api, call: &Call, access: Access) -> Result<(QueryRecord, u64), ConsulError> {
    let id = call.name_after("/v1/query/", "query ID")?;
    let found = api.mirror.read(|view| view.queries.get(&id).cloned());
    // Whoever may see none learns nothing of which there are.
    call.require(access, Resource::Query(found.as_ref().map_or("", |(query, _)| &query.name)))?;
    found.ok_or_else(|| QueryError::NotFound.into())
}

/// The query that answers for a name, with its texts made from it.
fn answering(api: &Api, call: &Call, suffix: &str) -> Result<(QueryRecord, u64), ConsulError> {
    let rest = call.name_after("/v1/query/", "query name")?;
    let name = rest.strip_suffix(suffix).unwrap_or(&rest);
    let found = api.mirror.read(|view| view.queries.answering(name).cloned());
    let (query, revision) = found.ok_or(QueryError::NotFound)?;
    Ok((rendered(&query, name)?, revision))
}

/// The query that a body says. Libraries write the token that they show into it: it is not kept.
fn read(api: &Api, body: &Fields, shown: Option<&str>) -> Result<QueryRecord, ConsulError> {
    let none = |field: &str, given: bool, why: &str| match given {
        true => Err(ConsulError::bad_request(format!("{field} has no counterpart: {why}"))),
        false => Ok(()),
    };
    let service = body.object("Service")?;
    let failover = service.object("Failover")?;
    none("Session", !body.text("Session")?.is_empty(), "a query stays until it is deleted; leave it out")?;
    let token = body.text("Token")?;
    none(
        "Token",
        !token.is_empty() && Some(token.as_str()) != shown,
        "no secret is kept; whoever carries a query out shows its own token",
    )?;
    none("Service.Peer", !service.text("Peer")?.is_empty(), "there is no peering with other clusters; leave it out")?;
    none("Service.SamenessGroup", !service.text("SamenessGroup")?.is_empty(), "there is no peering; leave it out")?;
    none("Service.Failover.NearestN", failover.number("NearestN")? > 0, "there is one datacenter; leave it out")?;
    let own = api.mirror.read(|view| view.cluster.datacenter.to_string());
    let is_elsewhere = |name: &str| !name.is_empty() && name != own && !name.contains("${");
    let datacenters = failover.texts("Datacenters")?;
    none(
        "Service.Failover.Datacenters",
        datacenters.iter().any(|name| is_elsewhere(name)),
        &format!("there is one datacenter, {own}; fail over between services with `resolver.failover` of their settings"),
    )?;
    for target in failover.list("Targets")? {
        let target = Fields::of(target.clone())?;
        let is_other = !target.text("Peer")?.is_empty() || is_elsewhere(&target.text("Datacenter")?);
        none("Service.Failover.Targets", is_other, "there is one datacenter and no peering; leave it out")?;
    }
    let query = QueryRecord {
        id: String::new(),
        name: body.text("Name")?,
        template: template(&body.object("Template")?)?,
        service: QueriedService {
            service: service.text("Service")?,
            connect: service.flag("Connect")?,
            only_passing: service.flag("OnlyPassing")?,
            ignore_check_ids: service.texts("IgnoreCheckIDs")?,
            near: service.text("Near")?,
            tags: service.texts("Tags")?,
            node_meta: labels(&service, "NodeMeta")?,
            service_meta: labels(&service, "ServiceMeta")?,
            datacenters,
        },
        ttl: body.object("DNS")?.text("TTL")?,
        created_in: None,
    };
    check(&query)?;
    Ok(query)
}

fn template(template: &Fields) -> Result<Option<QueryTemplate>, ConsulError> {
    match template.text("Type")?.as_str() {
        "" => Ok(None),
        "name_prefix_match" => {
            Ok(Some(QueryTemplate { regexp: template.text("Regexp")?, remove_empty_tags: template.flag("RemoveEmptyTags")? }))
        }
        other => Err(ConsulError::bad_request(format!("Bad Template.Type {other:?}: write name_prefix_match"))),
    }
}

fn labels(fields: &Fields, name: &str) -> Result<BTreeMap<String, String>, ConsulError> {
    let of = fields.object(name)?;
    let text = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        _ => Err(ConsulError::bad_request(format!("Request decode failed: {name} must be a map of strings"))),
    };
    of.entries().map(text).collect()
}

fn check(query: &QueryRecord) -> Result<(), ConsulError> {
    let QueryRecord { name, template, service, ttl, .. } = query;
    let refuse = |why: String| Err(ConsulError::bad_request(why));
    if service.service.is_empty() {
        return refuse("Must provide a Service name to query".into());
    }
    if Uuid::parse_str(name).is_ok() {
        return refuse(format!("Name {name:?} is a UUID; give another one, since a query is also found by its ID"));
    }
    if name.contains('/') || name.len() > 255 {
        return refuse("Name is longer than 255 bytes, or has a slash in it".into());
    }
    if !ttl.is_empty() && duration::parse(ttl).is_none() {
        return refuse(format!("Bad DNS TTL '{ttl}': write a duration such as 10s"));
    }
    let lists = [service.tags.len(), service.ignore_check_ids.len(), service.node_meta.len(), service.service_meta.len()];
    if lists.into_iter().any(|length| length > LIST_LIMIT) || service.datacenters.len() > LIST_LIMIT {
        return refuse(format!("a list or a map has more than {LIST_LIMIT} entries"));
    }
    let texts = service.tags.iter().chain(&service.ignore_check_ids).chain([&service.service, &service.near]);
    let texts = texts.chain(service.node_meta.iter().chain(&service.service_meta).flat_map(|(key, value)| [key, value]));
    let regexp = template.as_ref().map(|template| &template.regexp);
    if texts.chain(regexp).any(|text| text.len() > TEXT_LIMIT) {
        return refuse(format!("a text is longer than {TEXT_LIMIT} bytes"));
    }
    // What cannot be filled in is told now, not when somebody asks.
    rendered(query, name)?;
    Ok(())
}

fn written(query: &QueryRecord, revision: u64) -> Value {
    let QueryRecord { id, name, template, service, ttl, created_in } = query;
    let template = template.as_ref().map_or_else(
        || json!({ "Type": "", "Regexp": "", "RemoveEmptyTags": false }),
        |template| {
            json!({ "Type": "name_prefix_match", "Regexp": template.regexp, "RemoveEmptyTags": template.remove_empty_tags })
        },
    );
    json!({
        "ID": id, "Name": name, "Session": "", "Token": "", "Template": template,
        "Service": {
            "Service": service.service,
            "Failover": { "NearestN": 0, "Datacenters": service.datacenters, "Targets": null },
            "OnlyPassing": service.only_passing, "IgnoreCheckIDs": service.ignore_check_ids, "Near": service.near,
            "Tags": service.tags, "NodeMeta": service.node_meta, "ServiceMeta": service.service_meta,
            "Connect": service.connect, "Peer": "", "SamenessGroup": "",
        },
        "DNS": { "TTL": ttl }, "CreateIndex": created_in.unwrap_or(revision), "ModifyIndex": revision,
    })
}
