//! `/v1/session/…`: who holds locks.

use std::time::Duration;

use axum::extract::State;
use postern_api::consul::duration;
use serde::Serialize;

use super::super::{Api, Shared};
use super::answer::Answer;
use super::blocking::by_index;
use super::body::Json;
use super::call::Call;
use super::error::ConsulError;
use super::fields::Fields;
use crate::acl::{Access, Resource};
use crate::mirror::Topic;
use crate::sessions::{Behaviour, NODE_CHECK, NewSession, ServiceCheck, SessionError, SessionRecord};

/// The lock-delay of a session that says none.
const LOCK_DELAY: Duration = Duration::from_secs(15);
/// Numbers below are seconds, others nanoseconds: how Consul tells them apart.
const SECONDS_BELOW: u64 = 1000;

/// A session as Consul's API writes it.
#[derive(Debug, Serialize)]
struct SessionEntry {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Node")]
    node: String,
    /// Nanoseconds.
    #[serde(rename = "LockDelay")]
    lock_delay: u64,
    #[serde(rename = "Behavior")]
    behaviour: Behaviour,
    #[serde(rename = "TTL")]
    ttl: String,
    #[serde(rename = "NodeChecks")]
    node_checks: Vec<String>,
    #[serde(rename = "ServiceChecks")]
    service_checks: Option<Vec<CheckName>>,
    #[serde(rename = "CreateIndex")]
    create_index: u64,
    #[serde(rename = "ModifyIndex")]
    modify_index: u64,
}

#[derive(Debug, Serialize)]
struct CheckName {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Namespace")]
    namespace: &'static str,
}

#[derive(Debug, Serialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

impl SessionEntry {
    fn new(id: &str, record: &SessionRecord, revision: u64) -> Self {
        let checks = record.service_checks.iter().map(|check| CheckName { id: check.id.clone(), namespace: "" });
        Self {
            id: id.to_owned(),
            name: record.name.clone(),
            node: record.node.clone(),
            lock_delay: u64::try_from(record.lock_delay.as_nanos()).unwrap_or(u64::MAX),
            behaviour: record.behaviour,
            ttl: record.ttl.clone(),
            node_checks: record.node_checks.clone(),
            service_checks: (!record.service_checks.is_empty()).then(|| checks.collect()),
            create_index: revision,
            modify_index: revision,
        }
    }
}

/// `PUT /v1/session/create`
pub(super) async fn create(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    let new = wanted(&api, &body)?;
    call.require(Access::Write, Resource::Session(&new.node))?;
    let id = api.sessions.create(new).await?;
    Answer::json(&call, &Created { id })
}

fn wanted(api: &Api, body: &Fields) -> Result<NewSession, ConsulError> {
    let node = body.text("Node")?;
    let checks = [body.texts("NodeChecks")?, body.texts("Checks")?].concat();
    let names_checks = body.get("NodeChecks").is_some() || body.get("Checks").is_some();
    let service_check = |value: &serde_json::Value| Ok(ServiceCheck { id: Fields::of(value.clone())?.text("ID")? });
    Ok(NewSession {
        name: body.text("Name")?,
        node: if node.is_empty() { api.registry.home().node.clone() } else { node },
        lock_delay: lock_delay(body)?,
        behaviour: match body.text("Behavior")?.as_str() {
            "" | "release" => Behaviour::Release,
            "delete" => Behaviour::Delete,
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(ConsulError::bad_request(format!("Invalid Behavior setting '{other}', it is release or delete")));
            }
        },
        ttl: ttl(&body.text("TTL")?)?,
        node_checks: if names_checks { checks } else { vec![NODE_CHECK.into()] },
        service_checks: body.list("ServiceChecks")?.iter().map(service_check).collect::<Result<_, ConsulError>>()?,
    })
}

fn lock_delay(body: &Fields) -> Result<Duration, ConsulError> {
    let number = body.get("LockDelay").and_then(serde_json::Value::as_u64);
    match number.filter(|number| *number < SECONDS_BELOW) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Ok(body.duration("LockDelay")?.unwrap_or(LOCK_DELAY)),
    }
}

fn ttl(text: &str) -> Result<Option<(String, Duration)>, ConsulError> {
    if text.is_empty() {
        return Ok(None);
    }
    let shown: String = text.chars().take(40).collect();
    let ttl = duration::parse(text);
    let ttl = ttl.ok_or_else(|| ConsulError::bad_request(format!("Session TTL '{shown}' invalid: it is not a duration")))?;
    Ok((!ttl.is_zero()).then(|| (text.to_owned(), ttl)))
}

/// `PUT /v1/session/destroy/{id}`
pub(super) async fn destroy(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/session/destroy/", "session")?;
    call.require(Access::Write, Resource::Session(&node_of(&api, &id)))?;
    api.sessions.destroy(&id).await?;
    Answer::json(&call, &true)
}

/// `PUT /v1/session/renew/{id}`
pub(super) async fn renew(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/session/renew/", "session")?;
    call.require(Access::Write, Resource::Session(&node_of(&api, &id)))?;
    api.sessions.renew(&id)?;
    Answer::json(&call, &of_id(&api, &id))
}

fn node_of(api: &Api, id: &str) -> String {
    api.mirror.read(|view| view.sessions.get(id).map(|(record, _)| record.node.clone())).unwrap_or_default()
}

fn of_id(api: &Api, id: &str) -> Vec<SessionEntry> {
    api.mirror.read(|view| view.sessions.get(id).map(|(record, at)| SessionEntry::new(id, record, *at))).into_iter().collect()
}

/// `GET /v1/session/info/{id}`
pub(super) async fn info(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let id = call.name_after("/v1/session/info/", "session")?;
    call.require(Access::Read, Resource::Session(&node_of(&api, &id)))?;
    listed(&api, &call, |other, _| other == id).await
}

/// `GET /v1/session/node/{node}`
pub(super) async fn of_node(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let node = call.name_after("/v1/session/node/", "node name")?;
    call.require(Access::Read, Resource::Session(&node))?;
    listed(&api, &call, |_, record| record.node == node).await
}

/// `GET /v1/session/list`
pub(super) async fn list(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Session(""))?;
    let may_read = |record: &SessionRecord| call.authority.may(Access::Read, Resource::Session(&record.node));
    listed(&api, &call, |_, record| may_read(record)).await
}

async fn listed(api: &Api, call: &Call, which: impl Fn(&str, &SessionRecord) -> bool) -> Result<Answer, ConsulError> {
    let (index, sessions) = by_index(api, call, &[Topic::Sessions], |view| {
        let those = view.sessions.iter().filter(|(id, (record, _))| which(id, record));
        let sessions: Vec<_> = those.map(|(id, (record, at))| SessionEntry::new(id, record, *at)).collect();
        (view.sessions.index(), sessions)
    })
    .await;
    Ok(Answer::json(call, &sessions)?.at(index))
}

impl From<SessionError> for ConsulError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Invalid(text) => Self::bad_request(text),
            SessionError::NotFound(_) => Self::not_found(error.to_string()),
            SessionError::Missing(_) | SessionError::TooMany => Self::refused(error.to_string()),
            SessionError::Keys(error) => Self::from(error),
            SessionError::Store(error) => Self::from(error),
            SessionError::Unwritable(error) => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(body: &str) -> Option<u64> {
        let fields = Fields::read(body.as_bytes()).unwrap();
        lock_delay(&fields).ok().map(|delay| delay.as_secs())
    }

    #[test]
    fn a_lock_delay_is_read_as_consul_reads_it() {
        assert_eq!(delay("{}"), Some(15));
        assert_eq!(delay(r#"{"LockDelay":"5s"}"#), Some(5));
        assert_eq!(delay(r#"{"LockDelay":20}"#), Some(20), "a small number is seconds");
        assert_eq!(delay(r#"{"LockDelay":2000000000}"#), Some(2), "a large one nanoseconds");
        assert_eq!(delay(r#"{"LockDelay":0}"#), Some(0));
        assert_eq!(delay(r#"{"LockDelay":"soon"}"#), None);
    }

    #[test]
    fn a_time_to_live_keeps_how_it_was_written() {
        assert_eq!(ttl("1m").unwrap(), Some(("1m".into(), Duration::from_secs(60))));
        assert_eq!(ttl("").unwrap(), None);
        assert_eq!(ttl("0s").unwrap(), None);
        assert!(ttl("soon").is_err());
    }
}
