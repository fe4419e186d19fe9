//! `POST /v1/suggest`: intentions that allow what was seen.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::{Extension, Json};
use postern_api::http::{Evidence, SuggestRequest, Suggested, Suggestion};
use postern_edges::suggest::{self, Detail};
use postern_edges::{Filter, Sighting, Verdict};
use postern_intentions::file::{Comments, IntentionFile, render_commented};
use postern_intentions::{DefaultPolicy, Intention, PairKey, Rule};

use super::edges::{left_out_note, may_see, since};
use super::error::ApiError;
use super::input::Input;
use super::{Api, Shared, rfc3339};
use crate::acl::Authority;
use crate::policy::effects::called;

/// Pairs that a note names.
const MOST_NAMED: usize = 10;

/// `POST /v1/suggest`
pub(super) async fn suggest(
    State(api): Shared,
    Extension(authority): Extension<Authority>,
    Input(request): Input<SuggestRequest>,
) -> Result<Json<Suggestion>, ApiError> {
    let until = SystemTime::now();
    let since = since(request.since_s, until);
    // Thousands of requests are judged: not on a thread that serves connections.
    let suggesting = tokio::task::spawn_blocking(move || {
        let filter = Filter { service: request.service.clone(), ..Filter::default() };
        let mut seen = api.traffic.sightings(&filter, since);
        seen.retain(|one| may_see(&authority, &one.edge.destination));
        suggestion(&api, &seen, &request, since, until)
    });
    suggesting.await.map(Json).map_err(|error| ApiError::internal(format!("the suggestion was not made: {error}")))
}

fn suggestion(api: &Api, seen: &[Sighting], request: &SuggestRequest, since: SystemTime, until: SystemTime) -> Suggestion {
    let detail = if request.l7 { Detail::Requests } else { Detail::Pairs };
    let called = api.mirror.read(|view| called(view, seen));
    let found = suggest::suggest(seen, detail, |name| called.get(name).copied().unwrap_or_default(), until);
    let left_out = api.traffic.left_out();
    let mut notes = notes(api, &found, seen, request);
    notes.extend(left_out_note(left_out, "what such calls need is not in the file"));
    let file = file(&found, seen, (since, until), &notes);
    let suggested = |one: suggest::Suggested| Suggested {
        evidence: one.needed_for.iter().filter_map(|at| seen.get(*at)).map(evidence).collect(),
        intention: one.intention,
    };
    Suggestion {
        file,
        intentions: found.intentions.into_iter().map(suggested).collect(),
        edges: seen.len(),
        since: rfc3339(since),
        until: rfc3339(until),
        left_out,
        notes,
    }
}

fn evidence(seen: &Sighting) -> Evidence {
    let http = seen.edge.http.as_ref();
    Evidence {
        port: seen.edge.port.clone(),
        method: http.map(|http| http.method.as_str().to_owned()),
        shape: http.map(|http| http.shape.to_string()),
        count: seen.tally.count,
        first_seen: rfc3339(seen.tally.first_seen),
        last_seen: rfc3339(seen.tally.last_seen),
        instances: seen.instances,
    }
}

/// What to know before the file is applied.
fn notes(api: &Api, found: &suggest::Suggestion, seen: &[Sighting], request: &SuggestRequest) -> Vec<String> {
    let mut notes = found.notes.clone();
    if found.intentions.is_empty() {
        notes.push("no call was seen that went through; is `audit` the default, and do sidecars run?".to_owned());
    }
    if let Some(service) = &request.service {
        notes.push(format!("only calls of and to {service} were looked at: apply the file with --merge"));
    }
    let denied =
        seen.iter().filter(|one| one.edge.verdict == Verdict::Deny).fold(0u64, |sum, one| sum.saturating_add(one.tally.count));
    match denied {
        0 => {}
        1 => notes.push("1 call was denied in that time; it is not in the file".to_owned()),
        _ => notes.push(format!("{denied} calls were denied in that time; they are not in the file")),
    }
    let suggested = |key: &PairKey| {
        found.intentions.iter().any(|one| one.intention.source == key.source && one.intention.destination == key.destination)
    };
    let concerns = |key: &PairKey| request.service.is_none() && !key.temporary && !suggested(key);
    let unseen: Vec<String> = api.mirror.read(|view| {
        let unseen = view.intentions.iter().filter(|(key, _)| concerns(key));
        unseen.map(|(_, (record, _))| format!("{} ({})", record.intention.pair(), record.intention.summary())).collect()
    });
    if !unseen.is_empty() {
        let more = unseen
            .len()
            .checked_sub(MOST_NAMED)
            .filter(|more| *more > 0)
            .map(|more| format!(" and {more} more"))
            .unwrap_or_default();
        let named = unseen[..unseen.len().min(MOST_NAMED)].join(", ");
        notes.push(format!("the file leaves out intentions that nothing seen needs: {named}{more}"));
    }
    notes
}

/// The file, with the evidence as comments.
fn file(found: &suggest::Suggestion, seen: &[Sighting], (since, until): (SystemTime, SystemTime), notes: &[String]) -> String {
    let by_pair: BTreeMap<PairKey, &suggest::Suggested> = found.intentions.iter().map(|one| (one.intention.key(), one)).collect();
    let mut head = vec![
        format!("Suggested from {} edges seen from {} to {}.", seen.len(), to_the_second(since), to_the_second(until)),
        "It allows what was seen and nothing else. Try it with `meshctl intention plan -f`.".to_owned(),
    ];
    head.extend(notes.iter().map(|note| format!("Note: {note}.")));
    let of = |intention: &Intention, permission: Option<usize>| {
        let Some(one) = by_pair.get(&intention.key()) else { return Vec::new() };
        let places = match permission {
            None => Some(&one.needed_for),
            Some(at) => one.by_permission.get(at),
        };
        let edges: Vec<&Sighting> = places.into_iter().flatten().filter_map(|at| seen.get(*at)).collect();
        let every_path = match (&intention.rule, permission) {
            (Rule::Permissions { permissions, .. }, Some(at)) => permissions.get(at).is_some_and(suggest::allows_every_path),
            _ => false,
        };
        let mut said = vec![in_words(&edges)];
        said.extend(every_path.then(|| "These paths were too many to tell apart: this rule allows every path.".to_owned()));
        said
    };
    let intentions = found.intentions.iter().map(|one| one.intention.clone()).collect();
    render_commented(&IntentionFile { default: Some(DefaultPolicy::Deny), intentions }, &Comments { head: &head, of: &of })
}

/// `1204 requests at 2 instances, from 2026-03-01T12:00:00Z to 2026-03-01T13:00:00Z`
fn in_words(edges: &[&Sighting]) -> String {
    let count = edges.iter().fold(0u64, |sum, one| sum.saturating_add(one.tally.count));
    let instances = edges.iter().map(|one| one.instances).max().unwrap_or(0);
    let is_http = edges.iter().any(|one| one.edge.http.is_some());
    let what = match (is_http, count) {
        (true, 1) => "request",
        (true, _) => "requests",
        (false, 1) => "connection",
        (false, _) => "connections",
    };
    let at = if instances == 1 { "1 instance".to_owned() } else { format!("{instances} instances") };
    let first = edges.iter().map(|one| one.tally.first_seen).min().map(to_the_second).unwrap_or_default();
    let last = edges.iter().map(|one| one.tally.last_seen).max().map(to_the_second).unwrap_or_default();
    format!("{count} {what} at {at}, from {first} to {last}")
}

fn to_the_second(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()))
}
