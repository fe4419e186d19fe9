//! `/v1/event/…`: user events.

use axum::extract::{Request, State};
use data_encoding::BASE64;
use serde::Serialize;

use super::super::Shared;
use super::answer::Answer;
use super::blocking::by_index;
use super::body;
use super::call::Call;
use super::error::ConsulError;
use crate::acl::{Access, Resource};
use crate::events::{MAX_PAYLOAD, UserEvent};
use crate::mirror::Topic;

/// Bytes of a name or filter.
const MAX_TEXT: usize = 256;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventEntry {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    payload: Option<String>,
    node_filter: String,
    service_filter: String,
    tag_filter: String,
    version: u32,
    #[serde(rename = "LTime")]
    time: u64,
}

impl From<UserEvent> for EventEntry {
    fn from(event: UserEvent) -> Self {
        Self {
            id: event.id,
            name: event.name,
            payload: (!event.payload.is_empty()).then(|| BASE64.encode(&event.payload)),
            node_filter: event.node_filter,
            service_filter: event.service_filter,
            tag_filter: event.tag_filter,
            version: 1,
            time: event.index,
        }
    }
}

/// `PUT /v1/event/fire/{name}`
pub(super) async fn fire(State(api): Shared, call: Call, request: Request) -> Result<Answer, ConsulError> {
    let name = call.name_after("/v1/event/fire/", "name")?;
    call.require(Access::Write, Resource::Event(&name))?;
    let filter = |param: &str| call.text(param).unwrap_or_default().to_owned();
    let (node_filter, service_filter, tag_filter) = (filter("node"), filter("service"), filter("tag"));
    if [&name, &node_filter, &service_filter, &tag_filter].iter().any(|text| text.len() > MAX_TEXT) {
        return Err(ConsulError::bad_request(format!("a name or filter of an event has at most {MAX_TEXT} bytes")));
    }
    let payload = body::read(request.into_body(), MAX_PAYLOAD).await?;
    let id = uuid::Uuid::new_v4().to_string();
    let event = api.events.fire(UserEvent { id, name, payload, node_filter, service_filter, tag_filter, index: 0 });
    api.mirror.topics().wake(&Topic::Events);
    Answer::json(&call, &EventEntry { time: 0, ..event.into() })
}

/// `GET /v1/event/list`
pub(super) async fn list(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let name = call.text("name").unwrap_or_default();
    call.require(Access::List, Resource::Event(name))?;
    let (index, events) = by_index(&api, &call, &[Topic::Events], |_| api.events.list(name)).await;
    let may_read = |event: &UserEvent| call.authority.may(Access::Read, Resource::Event(&event.name));
    let events: Vec<EventEntry> = events.into_iter().filter(may_read).map(EventEntry::from).collect();
    Ok(Answer::json(&call, &events)?.at(index))
}
