//! Config entries: settings of services, and intentions by their destination, in Consul's form.
//!
//! An entry is a view of what is stored otherwise: it is there as soon as the settings say something of its kind. Several
//! entries of a service are parts of one record, so a change of one raises `ModifyIndex` of all of them.

use axum::extract::State;
use axum::http::StatusCode;
use postern_api::consul::NotCarried;
use postern_api::consul::entry::{self, Entry, Kind, KindError, Part, Surroundings};
use postern_intentions::{Intention, Party};
use postern_names::ServiceName;
use postern_traffic::ServiceSettings;
use serde_json::{Value, json};

use super::super::{Api, Shared};
use super::answer::Answer;
use super::blocking::by_index;
use super::body::Json;
use super::call::Call;
use super::error::ConsulError;
use super::filter::Filter;
use super::intentions::default_action;
use crate::acl::{Access, Resource};
use crate::http::ApiError;
use crate::mirror::{Topic, View};
use crate::policy::{PolicyError, permanent_of};
use crate::service_config::ConfigError;

impl From<KindError> for ConsulError {
    fn from(error: KindError) -> Self {
        match error {
            KindError::Absent(sentence) => Self::absent(sentence),
            KindError::Unknown(_) => Self::bad_request(error.to_string()),
        }
    }
}

/// How an attempt to write an entry ends other than well.
enum Unwritten {
    /// `?cas` is not the index of the entry.
    Stale,
    Failed(ConsulError),
}

impl From<ConsulError> for Unwritten {
    fn from(error: ConsulError) -> Self {
        Self::Failed(error)
    }
}

impl From<ConfigError> for Unwritten {
    fn from(error: ConfigError) -> Self {
        Self::Failed(ApiError::from(error).into())
    }
}

impl From<PolicyError> for Unwritten {
    fn from(error: PolicyError) -> Self {
        Self::Failed(error.into())
    }
}

/// `PUT /v1/config?cas=…`
pub(super) async fn apply(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    let (kind, name) = (body.text("Kind")?, body.text("Name")?);
    let kind = Kind::parse(&kind)?;
    require(&call, Access::Write, kind, &name)?;
    let cas = call.number("cas")?;
    let value = body.into_value();
    let read = api.mirror.read(|view| Entry::read(kind, &value, surroundings(view)));
    let read = read.map_err(|NotCarried(why)| ConsulError::bad_request(format!("{kind} {name}: {why}")))?;
    let done = match read {
        Entry::Settings { service, part } => set_part(&api, &call, &service, &part, cas).await,
        Entry::Intentions { destination, intentions } => set_intentions(&api, &call, destination, intentions, cas).await,
        Entry::ProxyDefaults => check_index(cas, entry::proxy_defaults()["ModifyIndex"].as_u64()),
    };
    Answer::json(&call, &is_done(done)?)
}

/// `GET /v1/config/{kind}`
pub(super) async fn list(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let kind = Kind::parse(&call.name_after("/v1/config/", "config entry kind")?)?;
    let resource = resource(kind, "");
    if kind != Kind::ProxyDefaults {
        call.require(Access::List, resource)?;
    }
    let filter = Filter::of(&call)?;
    let (index, entries) = by_index(&api, &call, topics(kind), |view| (index_of(view, kind), entries(&call, view, kind))).await;
    let mut listed = Vec::with_capacity(entries.len());
    for entry in entries {
        if filter.as_ref().is_none_or(|filter| matches!(filter.holds(&entry), Ok(true))) {
            listed.push(entry);
        }
    }
    Ok(Answer::json(&call, &listed)?.at(index))
}

/// `GET /v1/config/{kind}/{name}`
pub(super) async fn get(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let (kind, name) = kind_and_name(&call)?;
    if kind != Kind::ProxyDefaults {
        require(&call, Access::Read, kind, &name)?;
    }
    let (index, found) = by_index(&api, &call, topics(kind), |view| one(view, kind, &name)).await;
    match found {
        Some(entry) => Ok(Answer::json(&call, &entry)?.at(index)),
        None => {
            let text = format!("Config entry not found for {:?} / {name:?}", kind.word());
            Ok(Answer::bytes(&call, "text/plain; charset=utf-8", text).status(StatusCode::NOT_FOUND).at(index))
        }
    }
}

/// `DELETE /v1/config/{kind}/{name}?cas=…`
pub(super) async fn delete(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let (kind, name) = kind_and_name(&call)?;
    require(&call, Access::Write, kind, &name)?;
    let cas = call.number("cas")?;
    let done = match kind {
        Kind::ProxyDefaults => {
            return Err(ConsulError::absent("proxy-defaults say what always holds here; there is nothing to delete."));
        }
        Kind::ServiceIntentions => match name.parse::<Party>() {
            Ok(destination) => set_intentions(&api, &call, destination, Vec::new(), cas).await,
            Err(_) => check_index(cas, None),
        },
        _ => match name.parse::<ServiceName>() {
            Ok(service) => clear(&api, &call, kind, &service, cas).await,
            Err(_) => check_index(cas, None),
        },
    };
    let is_done = is_done(done)?;
    if cas.is_some() { Answer::json(&call, &is_done) } else { Answer::json(&call, &json!({})) }
}

fn is_done(done: Result<(), Unwritten>) -> Result<bool, ConsulError> {
    match done {
        Ok(()) => Ok(true),
        Err(Unwritten::Stale) => Ok(false),
        Err(Unwritten::Failed(error)) => Err(error),
    }
}

/// Who writes with `?cas=0` wants that there is none yet.
fn check_index(cas: Option<u64>, stored: Option<u64>) -> Result<(), Unwritten> {
    match cas {
        Some(cas) if cas != stored.unwrap_or(0) => Err(Unwritten::Stale),
        _ => Ok(()),
    }
}

async fn set_part(api: &Api, call: &Call, service: &ServiceName, part: &Part, cas: Option<u64>) -> Result<(), Unwritten> {
    let mut alone = ServiceSettings::of(service.clone());
    part.clone().set(&mut alone);
    for other in alone.other_services() {
        // Whoever sends requests to another service must know it.
        call.require(Access::Read, Resource::Service(other.as_str()))?;
    }
    let kind = part.kind();
    let change = |stored: Option<(&ServiceSettings, u64)>| {
        let written = stored.and_then(|(settings, revision)| entry::write(kind, settings, revision));
        check_index(cas, written.as_ref().and_then(|entry| entry["ModifyIndex"].as_u64()))?;
        let mut settings = stored.map_or_else(|| ServiceSettings::of(service.clone()), |(settings, _)| settings.clone());
        if let Some(unsaid) = entry::unsaid(kind, &settings) {
            return Err(Unwritten::Failed(lossy(kind, service.as_str(), &unsaid, "`meshctl service config`")));
        }
        part.clone().set(&mut settings);
        Ok(Some(settings))
    };
    api.service_configs.edit(service, &call.author, change).await
}

/// An entry is not written over what it could not say.
fn lossy(kind: Kind, name: &str, unsaid: &str, command: &str) -> ConsulError {
    ConsulError::bad_request(format!(
        "{kind} {name}: what is stored says more than an entry can ({unsaid}): change it with {command}, or delete the entry first"
    ))
}

async fn clear(api: &Api, call: &Call, kind: Kind, service: &ServiceName, cas: Option<u64>) -> Result<(), Unwritten> {
    let change = |stored: Option<(&ServiceSettings, u64)>| {
        let written = stored.and_then(|(settings, revision)| entry::write(kind, settings, revision));
        check_index(cas, written.as_ref().and_then(|entry| entry["ModifyIndex"].as_u64()))?;
        let Some((settings, _)) = stored else { return Ok(None) };
        let mut settings = settings.clone();
        entry::clear(kind, &mut settings);
        Ok::<_, Unwritten>(Some(settings).filter(|settings| *settings != ServiceSettings::of(service.clone())))
    };
    api.service_configs.edit(service, &call.author, change).await
}

async fn set_intentions(
    api: &Api,
    call: &Call,
    destination: Party,
    intentions: Vec<Intention>,
    cas: Option<u64>,
) -> Result<(), Unwritten> {
    let is_written = !intentions.is_empty();
    let of = destination.clone();
    let check = |view: &View| {
        let stored = permanent_of(view, &of);
        check_index(cas, (!stored.is_empty()).then(|| view.destination_revision(&of)))?;
        let unsaid: Vec<String> = stored
            .iter()
            .flat_map(|intention| {
                let source = &intention.source;
                entry::unsaid_of_intention(intention).into_iter().map(move |unsaid| format!("{source}: {unsaid}"))
            })
            .collect();
        if is_written && !unsaid.is_empty() {
            let error = lossy(Kind::ServiceIntentions, &of.to_string(), &unsaid.join("; "), "`meshctl intention`");
            return Err(Unwritten::Failed(error));
        }
        Ok(())
    };
    api.policy.replace(destination, intentions, &call.author, check).await.map(|_| ())
}

fn surroundings(view: &View) -> Surroundings<'_> {
    Surroundings { otherwise: default_action(view), datacenter: Some(view.cluster.datacenter.as_str()) }
}

fn resource(kind: Kind, name: &str) -> Resource<'_> {
    match kind {
        Kind::ServiceIntentions => Resource::Intentions(name),
        Kind::ProxyDefaults => Resource::Operator,
        _ => Resource::Service(name),
    }
}

fn require(call: &Call, access: Access, kind: Kind, name: &str) -> Result<(), ConsulError> {
    call.require(access, resource(kind, name))
}

fn kind_and_name(call: &Call) -> Result<(Kind, String), ConsulError> {
    let rest = call.name_after("/v1/config/", "config entry kind")?;
    let (kind, name) = rest.split_once('/').unwrap_or((&rest, ""));
    Ok((Kind::parse(kind)?, name.to_owned()))
}

fn topics(kind: Kind) -> &'static [Topic] {
    match kind {
        // The default decides what an entry shows of permissions.
        Kind::ServiceIntentions => &[Topic::Intentions],
        _ => &[Topic::Settings],
    }
}

fn index_of(view: &View, kind: Kind) -> u64 {
    match kind {
        Kind::ServiceIntentions => view.policy_revision,
        Kind::ProxyDefaults => 1,
        _ => view.settings.last_change(),
    }
}

fn entries(call: &Call, view: &View, kind: Kind) -> Vec<Value> {
    let may = |name: &str| call.authority.may(Access::Read, resource(kind, name));
    match kind {
        Kind::ProxyDefaults => vec![entry::proxy_defaults()],
        Kind::ServiceIntentions => {
            let destinations: std::collections::BTreeSet<String> =
                view.intentions.keys().filter(|key| !key.temporary).map(|key| key.destination.to_string()).collect();
            let seen = destinations.iter().filter(|name| may(name));
            seen.filter_map(|name| one(view, kind, name).1).collect()
        }
        _ => {
            let seen = view.settings.services.iter().filter(|(name, _)| may(name.as_str()));
            seen.filter_map(|(_, (record, revision))| entry::write(kind, &record.settings, *revision)).collect()
        }
    }
}

/// An entry, and the index to wait from.
fn one(view: &View, kind: Kind, name: &str) -> (u64, Option<Value>) {
    match kind {
        Kind::ProxyDefaults => {
            let entry = entry::proxy_defaults();
            (1, Some(entry).filter(|entry| entry["Name"] == name))
        }
        Kind::ServiceIntentions => {
            let Ok(destination) = name.parse::<Party>() else { return (view.policy_revision, None) };
            let intentions = permanent_of(view, &destination);
            let intentions: Vec<&Intention> = intentions.iter().collect();
            let revision = view.destination_revision(&destination);
            (view.policy_revision, entry::write_intentions(&destination, &intentions, default_action(view), revision))
        }
        _ => {
            let Ok(service) = name.parse::<ServiceName>() else { return (view.settings.last_change(), None) };
            let stored = view.settings.services.get(&service);
            let written = stored.and_then(|(record, revision)| entry::write(kind, &record.settings, *revision));
            (view.settings.last_change_of(&service), written)
        }
    }
}
