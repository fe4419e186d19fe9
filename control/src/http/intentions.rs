//! Intentions, the default policy, and what the evaluator says.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::{Extension, Json};
use postern_api::http::{
    Applied, ApplyRequest, DecideRequest, Decided, DefaultRequest, Held, HeldBy, Intentions, SetRequest, StoredIntention, Written,
};
use postern_api::key::ResourceKey;
use postern_api::question::{AskedRequest, CalledService, judge};
use postern_intentions::{PairKey, Party, Protocol};
use postern_names::ServiceName;
use postern_traffic::ServiceSettings;
use serde::{Deserialize, Serialize};

use super::auth::refusal;
use super::error::ApiError;
use super::input::{Input, LargeInput, Pair, Query};
use super::{Api, Shared, rfc3339};
use super::{demand, effects};
use crate::acl::{Access, Authority, Resource};
use crate::mirror::View;
use crate::policy::{Author, Deletion, Touched};
use crate::push::{SidecarStatus, Sidecars};
use crate::records::IntentionRecord;

/// `GET /v1/intentions`
pub(super) async fn list(State(api): Shared, Extension(authority): Extension<Authority>) -> Json<Intentions> {
    let now = SystemTime::now();
    Json(api.mirror.read(|view| {
        let may_read = |record: &IntentionRecord| {
            authority.may(Access::Read, Resource::Intentions(&record.intention.destination.to_string()))
        };
        let live = view.intentions.values().filter(|(record, _)| record.intention.is_live(now) && may_read(record));
        let mut intentions: Vec<StoredIntention> = live.map(|(record, revision)| stored(record, *revision)).collect();
        sort(&mut intentions);
        Intentions { default: view.default.0, revision: view.revision, intentions }
    }))
}

/// `GET /v1/intentions/{source}/{destination}`
pub(super) async fn get(State(api): Shared, pair: Pair) -> Result<Json<Vec<StoredIntention>>, ApiError> {
    let now = SystemTime::now();
    let found: Vec<StoredIntention> = api.mirror.read(|view| {
        let of_pair = [false, true].into_iter().filter_map(|temporary| view.intentions.get(&key(&pair, temporary)));
        of_pair.filter(|(record, _)| record.intention.is_live(now)).map(|(record, revision)| stored(record, *revision)).collect()
    });
    if found.is_empty() {
        let pair = postern_api::http::pair(&pair.source, &pair.destination);
        return Err(ApiError::not_found(format!("there is no intention {pair}"))
            .hint("`meshctl intention list` shows those that there are"));
    }
    Ok(Json(found))
}

/// What became of a change, or would.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Written(Box<Written>),
    Planned(Box<Applied>),
}

impl Outcome {
    async fn planned(api: Arc<Api>, authority: Authority, applied: Applied) -> Result<Json<Self>, ApiError> {
        Ok(Json(Self::Planned(Box::new(effects::told(api, authority, applied, None).await?))))
    }

    fn written(written: Written) -> Json<Self> {
        Json(Self::Written(Box::new(written)))
    }
}

/// `PUT /v1/intentions/{source}/{destination}`
pub(super) async fn set(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    pair: Pair,
    Input(request): Input<SetRequest>,
) -> Result<Json<Outcome>, ApiError> {
    let Pair { source, destination } = pair;
    if request.dry_run {
        let planned = api.policy.plan_set(source, destination, request, &author).await?;
        return Outcome::planned(api, authority, planned).await;
    }
    Ok(Outcome::written(api.policy.set(source, destination, request, &author).await?))
}

/// What a deletion says in its query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeleteQuery {
    temporary: bool,
    reason: Option<String>,
    wait_ms: u64,
    dry_run: bool,
    expected_revision: Option<u64>,
}

/// `DELETE /v1/intentions/{source}/{destination}`
pub(super) async fn delete(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    pair: Pair,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Outcome>, ApiError> {
    let DeleteQuery { temporary, reason, wait_ms, dry_run, expected_revision } = query;
    let key = key(&pair, temporary);
    if dry_run {
        let planned = api.policy.plan_delete(&key, expected_revision).await?;
        return Outcome::planned(api, authority, planned).await;
    }
    let deletion = Deletion { reason, wait_ms, expected_revision };
    Ok(Outcome::written(api.policy.delete(key, deletion, &author).await?))
}

/// `PUT /v1/intentions`
pub(super) async fn apply(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    LargeInput(request): LargeInput<ApplyRequest>,
) -> Result<Json<Applied>, ApiError> {
    let (dry_run, since_s) = (request.dry_run, request.since_s);
    let may = |touched: &Touched<'_>| demand::of_apply(&authority, touched).map_err(|denied| refusal(&authority, denied));
    let mut applied = api.policy.apply_if(request, &author, may).await?;
    if !authority.may(Access::Read, Resource::AllIntentions) {
        // Whether `web -> *` gives way to others is for whoever may read what is said of every destination.
        applied.shadowed.retain(|shadowed| !shadowed.intention.ends_with("-> *"));
    }
    Ok(Json(if dry_run { effects::told(api, authority, applied, since_s).await? } else { applied }))
}

/// `PUT /v1/default-policy`
pub(super) async fn set_default(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    Input(request): Input<DefaultRequest>,
) -> Result<Json<Outcome>, ApiError> {
    if request.dry_run {
        let planned = api.policy.plan_default(&request).await?;
        return Outcome::planned(api, authority, planned).await;
    }
    Ok(Outcome::written(api.policy.set_default(request, &author).await?))
}

/// `POST /v1/decide`
pub(super) async fn decide(
    State(api): Shared,
    Extension(authority): Extension<Authority>,
    Input(request): Input<DecideRequest>,
) -> Result<Json<Decided>, ApiError> {
    authority
        .require(Access::Read, Resource::Intentions(request.destination.as_str()))
        .map_err(|denied| refusal(&authority, denied))?;
    let asked = AskedRequest::of(&request).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let (rules, called, mut notes) = api.mirror.read(|view| {
        let rules = view.rules_of_pair(&request.source, &request.destination);
        (rules, called_service(view, &request.destination), notes(view, &request))
    });
    if asked.is_some() && called.protocol == Protocol::Tcp {
        notes.push(format!("{} is tcp: its connections are judged, not requests on them", request.destination));
    }
    let held = held(&api.sidecars, &request);
    notes.extend(held.behind.iter().map(|instance| format!("{instance} does not hold all changes yet")));
    let decided = judge(&rules, &request, asked.as_ref(), called, SystemTime::now());
    notes.extend(decided.notes.iter().cloned());
    let recent = api.traffic.lately(&request.source, &request.destination);
    Ok(Json(Decided { notes, recent, held: Some(held), ..decided }))
}

/// Sidecars that are told one by one.
const MOST_TOLD: usize = 100;

/// What the sidecars of the destination hold of what can match the call.
fn held(sidecars: &Sidecars, request: &DecideRequest) -> Held {
    let of_destination: Vec<SidecarStatus> =
        sidecars.list().into_iter().filter(|sidecar| sidecar.service == request.destination).collect();
    let by: Vec<HeldBy> = of_destination.iter().map(|sidecar| held_by(sidecar, request)).collect();
    let behind: Vec<_> = by.iter().filter(|one| !one.agrees).map(|one| one.instance.clone()).collect();
    Held {
        sidecars: by.len(),
        agree: by.len() - behind.len(),
        behind,
        by: by.into_iter().take(MOST_TOLD).collect(),
        not_connected: sidecars.not_connected(&[Party::Service(request.destination.clone())]),
    }
}

fn held_by(sidecar: &SidecarStatus, request: &DecideRequest) -> HeldBy {
    let is_of_call = |key: &str| match key.parse() {
        Ok(ResourceKey::Intention(pair)) => {
            pair.source.includes(&request.source) && pair.destination.includes(&request.destination)
        }
        _ => false,
    };
    let not_understood = sidecar.nacks.iter().find(|(key, _)| is_of_call(key));
    let why = match not_understood {
        Some((key, why)) => Some(format!("it does not understand {key}: {why}")),
        None => (!sidecar.enforces_all).then(|| "it has not acknowledged the last change yet".to_owned()),
    };
    HeldBy {
        instance: sidecar.instance.clone(),
        revision: sidecar.authority,
        age_s: sidecar.acknowledged_ago.map(|ago| ago.as_secs()),
        agrees: why.is_none(),
        why,
    }
}

/// What the sidecars of a service are told of it. Settings that cannot be read count for nothing there either.
pub(super) fn called_service(view: &View, service: &ServiceName) -> CalledService {
    let paths = view.settings.of(service).map(ServiceSettings::paths).unwrap_or_default();
    CalledService { protocol: view.protocol(service), paths }
}

fn notes(view: &View, request: &DecideRequest) -> Vec<String> {
    let is_known = |name: &ServiceName| view.services.contains_key(name) || view.instances_of(name).next().is_some();
    let unknown = |name: &&ServiceName| !is_known(name);
    let mut names = vec![&request.source];
    if request.destination != request.source {
        names.push(&request.destination);
    }
    names.into_iter().filter(unknown).map(|name| format!("no service {name} is registered")).collect()
}

fn key(pair: &Pair, temporary: bool) -> PairKey {
    PairKey { source: pair.source.clone(), destination: pair.destination.clone(), temporary }
}

/// An intention as the API shows it.
pub(super) fn stored(record: &IntentionRecord, revision: u64) -> StoredIntention {
    StoredIntention {
        precedence: record.intention.precedence().value(),
        revision,
        created_at: rfc3339(record.created_at),
        created_by: record.created_by.clone(),
        reason: record.reason.clone(),
        intention: record.intention.clone(),
    }
}

/// Highest precedence first, then by source and destination, the temporary one of a pair first.
pub(super) fn sort(intentions: &mut [StoredIntention]) {
    let key = |stored: &StoredIntention| -> (Reverse<u8>, Party, Party, bool) {
        let intention = &stored.intention;
        (Reverse(stored.precedence), intention.source.clone(), intention.destination.clone(), !intention.is_temporary())
    };
    intentions.sort_by_cached_key(key);
}
