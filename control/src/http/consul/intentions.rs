//! Intentions in Consul's form. There is one set of intentions; this is another way to say them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::extract::State;
use postern_api::consul::intentions as form;
use postern_api::http::{ApplyRequest, DecideRequest};
use postern_api::question::judge;
use postern_intentions::{Action, Because, DefaultPolicy, Intention, PairKey, Party};
use postern_names::ServiceName;
use serde_json::{Map, Value, json};

use super::super::intentions::called_service;
use super::super::{Api, Shared};
use super::answer::Answer;
use super::blocking::by_index;
use super::body::Json;
use super::call::Call;
use super::error::ConsulError;
use super::fields::Fields;
use crate::acl::{Access, Resource};
use crate::mirror::{Topic, View};
use crate::policy::{Deletion, PolicyError};

impl From<PolicyError> for ConsulError {
    fn from(error: PolicyError) -> Self {
        let text = error.to_string();
        match error {
            PolicyError::Intention(_) | PolicyError::Invalid(_) => Self::bad_request(text),
            PolicyError::NotFound { .. } | PolicyError::Forgotten { .. } => Self::not_found(text),
            PolicyError::Stale { .. } | PolicyError::Contended => Self::refused(text),
            PolicyError::Store(error) => Self::from(error),
            PolicyError::Unwritable(error) => Self::internal(error),
        }
    }
}

/// `GET /v1/connect/intentions`
pub(super) async fn list(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Intentions(""))?;
    let (index, intentions) = by_index(&api, &call, &[Topic::Intentions], |view| (view.policy_revision, governing(view))).await;
    let listed: Vec<Value> = readable(&call, intentions).iter().map(|(intention, at)| form::write(intention, *at)).collect();
    Ok(Answer::json(&call, &listed)?.at(index))
}

/// `GET /v1/connect/intentions/match?by=source|destination&name=…`
pub(super) async fn matching(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let by = call.text("by").unwrap_or_default().to_owned();
    if !matches!(by.as_str(), "source" | "destination") {
        return Err(ConsulError::bad_request("'by' parameter must be one of 'source' or 'destination'"));
    }
    let names: Vec<String> = call.params().all("name").map(ToOwned::to_owned).collect();
    if names.is_empty() {
        return Err(ConsulError::bad_request("required query parameter 'name' not set"));
    }
    for name in &names {
        call.require(Access::Read, Resource::Intentions(name))?;
    }
    let (index, intentions) = by_index(&api, &call, &[Topic::Intentions], |view| (view.policy_revision, governing(view))).await;
    let intentions = readable(&call, intentions);
    let of = |name: &String| -> Result<(String, Vec<Value>), ConsulError> {
        let party = party(name)?;
        let matches = |intention: &Intention| {
            let side = if by == "source" { &intention.source } else { &intention.destination };
            *side == party || *side == Party::Any
        };
        let found = intentions.iter().filter(|(intention, _)| matches(intention));
        Ok((name.clone(), found.map(|(intention, at)| form::write(intention, *at)).collect()))
    };
    let found: BTreeMap<String, Vec<Value>> = names.iter().map(of).collect::<Result<_, _>>()?;
    Ok(Answer::json(&call, &found)?.at(index))
}

/// `GET /v1/connect/intentions/check?source=…&destination=…`: about connections. Where requests are judged one by one, no
/// connection is good for all of them.
pub(super) async fn check(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let name = |param: &str| -> Result<ServiceName, ConsulError> {
        let text = call.text(param).unwrap_or_default();
        text.parse()
            .map_err(|_| ConsulError::bad_request(format!("required query parameter '{param}' not set, or no service name")))
    };
    let (source, destination) = (name("source")?, name("destination")?);
    call.require(Access::Read, Resource::Intentions(destination.as_str()))?;
    let (allowed, _) = is_allowed(&api, source, destination);
    Answer::json(&call, &json!({ "Allowed": allowed }))
}

/// What the evaluator says of a connection, and why.
pub(super) fn is_allowed(api: &Api, source: ServiceName, destination: ServiceName) -> (bool, String) {
    let (rules, called) = api.mirror.read(|view| (view.rules_of_pair(&source, &destination), called_service(view, &destination)));
    let asked = DecideRequest { source, destination, port: None, method: None, path: None, headers: Vec::new() };
    let decided = judge(&rules, &asked, None, called, SystemTime::now());
    let is_per_request = matches!(decided.explanation.decision.because, Because::PerRequest { .. });
    (decided.allowed && !is_per_request, decided.because)
}

/// `GET /v1/connect/intentions/exact?source=…&destination=…`
pub(super) async fn exact(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let (source, destination) = exact_pair(&call)?;
    call.require(Access::Read, Resource::Intentions(&destination.to_string()))?;
    one(&api, &call, |intention| intention.source == source && intention.destination == destination).await
}

/// `PUT /v1/connect/intentions/exact?source=…&destination=…`
pub(super) async fn set_exact(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    let (source, destination) = exact_pair(&call)?;
    set(&api, &call, &source, &destination, &body).await?;
    Answer::json(&call, &true)
}

/// `DELETE /v1/connect/intentions/exact?source=…&destination=…`
pub(super) async fn delete_exact(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let (source, destination) = exact_pair(&call)?;
    delete(&api, &call, source, destination).await
}

/// `POST /v1/connect/intentions`: the form with ids, before 1.9.
pub(super) async fn create(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    let (source, destination) = (party(&body.text("SourceName")?)?, party(&body.text("DestinationName")?)?);
    set(&api, &call, &source, &destination, &body).await?;
    Answer::json(&call, &json!({ "ID": form::id_of(&source, &destination) }))
}

/// `GET /v1/connect/intentions/{id}`
pub(super) async fn by_id(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let (source, destination) = pair_of_id(&api, &call)?;
    call.require(Access::Read, Resource::Intentions(&destination.to_string()))?;
    one(&api, &call, |intention| intention.source == source && intention.destination == destination).await
}

/// `PUT /v1/connect/intentions/{id}`: its pair stays.
pub(super) async fn set_by_id(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    let (source, destination) = pair_of_id(&api, &call)?;
    set(&api, &call, &source, &destination, &body).await?;
    Answer::json(&call, &json!({ "ID": form::id_of(&source, &destination) }))
}

/// `DELETE /v1/connect/intentions/{id}`
pub(super) async fn delete_by_id(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let (source, destination) = pair_of_id(&api, &call)?;
    delete(&api, &call, source, destination).await
}

async fn one(api: &Api, call: &Call, is_it: impl Fn(&Intention) -> bool) -> Result<Answer, ConsulError> {
    let ask = |view: &View| {
        let found = governing(view).into_iter().find(|(intention, _)| is_it(intention));
        (view.policy_revision, found.map(|(intention, at)| form::write(&intention, at)))
    };
    let (index, found) = by_index(api, call, &[Topic::Intentions], ask).await;
    let found = found.ok_or_else(|| ConsulError::not_found("Intention not found"))?;
    Ok(Answer::json(call, &found)?.at(index))
}

async fn set(api: &Api, call: &Call, source: &Party, destination: &Party, body: &Fields) -> Result<(), ConsulError> {
    call.require(Access::Write, Resource::Intentions(&destination.to_string()))?;
    let mut fields: Map<String, Value> = body.entries().map(|(name, value)| (name.clone(), value.clone())).collect();
    fields.retain(|name, _| !name.eq_ignore_ascii_case("SourceName") && !name.eq_ignore_ascii_case("DestinationName"));
    fields.insert("SourceName".into(), source.to_string().into());
    fields.insert("DestinationName".into(), destination.to_string().into());
    let intention = form::read(&Value::Object(fields), otherwise(api)).map_err(|why| ConsulError::bad_request(why.0))?;
    let request = ApplyRequest { intentions: vec![intention], merge: true, ..ApplyRequest::default() };
    api.policy.apply(request, &call.author).await?;
    Ok(())
}

/// Where no permission matches, Consul's clients expect the default policy.
fn otherwise(api: &Api) -> Action {
    api.mirror.read(default_action)
}

pub(super) fn default_action(view: &View) -> Action {
    match view.default.0 {
        DefaultPolicy::Allow => Action::Allow,
        DefaultPolicy::Deny | DefaultPolicy::Audit => Action::Deny,
    }
}

async fn delete(api: &Api, call: &Call, source: Party, destination: Party) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Intentions(&destination.to_string()))?;
    match api.policy.delete(PairKey { source, destination, temporary: false }, Deletion::default(), &call.author).await {
        // What is not there is deleted already.
        Ok(_) | Err(PolicyError::NotFound { .. }) => Answer::json(call, &true),
        Err(error) => Err(error.into()),
    }
}

/// The intention that governs each pair now, in the order of precedence.
fn governing(view: &View) -> Vec<(Intention, u64)> {
    let now = SystemTime::now();
    let mut by_pair: BTreeMap<(Party, Party), (Intention, u64)> = BTreeMap::new();
    // Permanent ones come before the temporary ones that stand in for them.
    let mut live: Vec<_> = view.intentions.values().filter(|(record, _)| record.intention.is_live(now)).collect();
    live.sort_by_key(|(record, _)| record.intention.is_temporary());
    for (record, revision) in live {
        let intention = &record.intention;
        by_pair.insert((intention.source.clone(), intention.destination.clone()), (intention.clone(), *revision));
    }
    let mut governing: Vec<_> = by_pair.into_values().collect();
    governing.sort_by_key(|(intention, _)| std::cmp::Reverse(intention.precedence().value()));
    governing
}

fn readable(call: &Call, intentions: Vec<(Intention, u64)>) -> Vec<(Intention, u64)> {
    let may = |intention: &Intention| call.authority.may(Access::Read, Resource::Intentions(&intention.destination.to_string()));
    intentions.into_iter().filter(|(intention, _)| may(intention)).collect()
}

fn exact_pair(call: &Call) -> Result<(Party, Party), ConsulError> {
    let of = |param: &str| match call.text(param) {
        None | Some("") => Err(ConsulError::bad_request(format!("required query parameter '{param}' not set"))),
        Some(text) => party(text),
    };
    Ok((of("source")?, of("destination")?))
}

/// A name, with Consul's namespace and partition before it where they are `default`.
fn party(text: &str) -> Result<Party, ConsulError> {
    let name = text.strip_prefix("default/default/").or_else(|| text.strip_prefix("default/")).unwrap_or(text);
    name.parse().map_err(|error| ConsulError::bad_request(format!("{error}")))
}

fn pair_of_id(api: &Api, call: &Call) -> Result<(Party, Party), ConsulError> {
    let id = call.name_after("/v1/connect/intentions/", "intention ID")?;
    let found = api.mirror.read(|view| {
        let of_id = |intention: &Intention| form::id_of(&intention.source, &intention.destination) == id;
        governing(view).into_iter().find(|(intention, _)| of_id(intention)).map(|(found, _)| (found.source, found.destination))
    });
    // Whoever may see none learns nothing of which there are.
    call.require(Access::List, Resource::Intentions(""))?;
    found.ok_or_else(|| ConsulError::not_found("Intention not found"))
}
