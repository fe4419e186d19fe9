//! How well an instance on our node is, in a status code: 200 passing, 429 warning, 503 critical or in maintenance.

use axum::extract::State;
use axum::http::StatusCode;
use postern_checks::Status;
use serde_json::{Value, json};

use super::super::super::{Api, Shared};
use super::super::answer::Answer;
use super::super::call::Call;
use super::super::catalog::{catalog, datacenter};
use super::super::error::ConsulError;
use super::super::shape;
use crate::acl::{Access, Resource};
use crate::mirror::View;
use crate::registry::catalog::{Entry, SERF_HEALTH};

struct Health {
    word: &'static str,
    code: StatusCode,
    written: Value,
}

pub(super) async fn by_name(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let name = call.name_after("/v1/agent/health/service/name/", "service name")?;
    call.require(Access::Read, Resource::Service(&name))?;
    let all: Vec<Health> = api.mirror.read(|view| {
        let entries = catalog(&api, view).entries_on(&api.registry.home().node);
        entries.iter().filter(|entry| entry.service.as_str() == name).map(|entry| health(&api, view, entry)).collect()
    });
    let worst = all.iter().max_by_key(|health| (severity(health), health.word == "maintenance"));
    let (code, word) = worst.map_or((StatusCode::NOT_FOUND, None), |health| (health.code, Some(health.word)));
    let text = word.map_or_else(|| format!("ServiceName {name} Not Found"), ToOwned::to_owned);
    answer(&call, code, text, &all.iter().map(|health| &health.written).collect::<Vec<_>>())
}

pub(super) async fn by_id(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/agent/health/service/id/", "service id")?;
    let found = api.mirror.read(|view| {
        let entry = catalog(&api, view).entry(&api.registry.home().node, &id)?;
        Some((entry.service.clone(), health(&api, view, &entry)))
    });
    match found {
        Some((service, health)) => {
            call.require(Access::Read, Resource::Service(service.as_str()))?;
            answer(&call, health.code, health.word.to_owned(), &health.written)
        }
        None => {
            call.require(Access::Read, Resource::Service(&id))?;
            let text = format!("ServiceId {id} not found");
            answer(&call, StatusCode::NOT_FOUND, text.clone(), &text)
        }
    }
}

fn severity(health: &Health) -> u16 {
    match health.code {
        StatusCode::SERVICE_UNAVAILABLE => 2,
        StatusCode::TOO_MANY_REQUESTS => 1,
        _ => 0,
    }
}

fn health(api: &Api, view: &View, entry: &Entry) -> Health {
    let catalog = catalog(api, view);
    // As in the list of its checks, the agent's own health is none.
    let checks: Vec<Value> = catalog.checks_of(entry).iter().filter(|check| check.id != SERF_HEALTH).map(shape::check).collect();
    let (word, code) = if view.catalog.is_in_maintenance(&entry.node, &entry.id) {
        ("maintenance", StatusCode::SERVICE_UNAVAILABLE)
    } else {
        match catalog.status_of(entry) {
            Status::Passing => ("passing", StatusCode::OK),
            Status::Warning => ("warning", StatusCode::TOO_MANY_REQUESTS),
            Status::Critical => ("critical", StatusCode::SERVICE_UNAVAILABLE),
        }
    };
    let written = json!({
        "AggregatedStatus": word,
        "Service": shape::agent_service(entry, datacenter(view)),
        "Checks": checks,
    });
    Health { word, code, written }
}

fn answer(call: &Call, code: StatusCode, text: String, written: &impl serde::Serialize) -> Result<Answer, ConsulError> {
    match call.text("format") {
        Some("text") => Ok(Answer::bytes(call, "text/plain; charset=utf-8", text).status(code)),
        _ => Ok(Answer::json(call, written)?.status(code)),
    }
}
