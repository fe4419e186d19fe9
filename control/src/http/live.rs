//! `GET /v1/live`: what happens now, as server-sent events (WHATWG HTML §9.2).
//!
//! A reader is asked for the next event when it took the last. What happens meanwhile waits in places that are bounded: of
//! decisions and changes the last ones, of edges the present counts. Who was too slow for that hears `lagged`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use postern_api::http::{EdgeRow, Edges, LiveChange, SeenDecision};
use postern_edges::{Edge, Filter};
use postern_names::ServiceName;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::edges::{may_see, shown, since, verdicts};
use super::error::ApiError;
use super::input::Query;
use super::{Api, Shared};
use crate::acl::Authority;
use crate::edges::{Follower, NoPlace, OF_HOLDER, Place};
use crate::mirror::Change;
use crate::policy::Author;
use crate::records::RecordKey;

/// How often edges are told, and sidecars are asked to tell their decisions.
const EVERY: Duration = Duration::from_secs(5);
/// A line that means nothing, so that both ends see that the other is there.
const QUIET: Duration = Duration::from_secs(15);
/// A reader with a token shows it again after so long.
const LONGEST: Duration = Duration::from_secs(600);

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LiveQuery {
    since_s: Option<u64>,
    service: Option<ServiceName>,
    source: Option<ServiceName>,
    destination: Option<ServiceName>,
    verdict: Option<String>,
    what: Option<String>,
    for_s: Option<u64>,
}

/// Kinds of events that a reader wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wanted {
    decisions: bool,
    edges: bool,
    changes: bool,
}

/// `GET /v1/live`
pub(super) async fn follow(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    Query(query): Query<LiveQuery>,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(query.what.as_deref())?;
    let verdicts = verdicts(query.verdict.as_deref())?;
    let filter = Filter { service: query.service, source: query.source, destination: query.destination, verdicts };
    let follower = match authority.accessor() {
        _ if authority.is_operator() => Follower::Operator,
        Some(accessor) => Follower::Token(accessor.to_owned()),
        None => Follower::Address(author.from),
    };
    let (place, decisions) = api.traffic.follow(follower).map_err(no_place)?;
    let ends_after = match query.for_s {
        None if authority.is_operator() => None,
        None => Some(LONGEST),
        Some(for_s @ 1..=86_400) => Some(Duration::from_secs(for_s)),
        Some(_) => return Err(ApiError::bad_request("the query: for_s: use 1 to 86400 seconds")),
    };
    let ends_after = if authority.is_operator() { ends_after } else { ends_after.map(|after| after.min(LONGEST)) };
    let reader = Reader::new(api, authority, filter, query.since_s, wanted, ends_after, (place, decisions));
    let events = stream::unfold(reader, |mut reader| async {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

fn no_place(why: NoPlace) -> ApiError {
    let (status, error) = match why {
        NoPlace::AllTaken => {
            (StatusCode::SERVICE_UNAVAILABLE, "as many follow already as this control plane serves at once".to_owned())
        }
        NoPlace::ShareTaken => (
            StatusCode::TOO_MANY_REQUESTS,
            format!("{OF_HOLDER} follow already with this token, or without one from this address: no more may at once"),
        ),
    };
    ApiError::new(status, error).hint("close some of `meshctl tail`, `meshctl top` and pages")
}

impl Wanted {
    fn of(text: Option<&str>) -> Result<Self, ApiError> {
        let Some(text) = text else { return Ok(Self { decisions: true, edges: true, changes: true }) };
        let mut wanted = Self::default();
        for word in text.split(',') {
            match word {
                "decisions" => wanted.decisions = true,
                "edges" => wanted.edges = true,
                "changes" => wanted.changes = true,
                _ => {
                    let word: String = word.chars().take(40).collect();
                    let error =
                        format!("the query: what: {word:?} is not told; use decisions, edges, changes, or several with commas");
                    return Err(ApiError::bad_request(error));
                }
            }
        }
        Ok(wanted)
    }
}

/// One who follows.
struct Reader {
    api: Arc<Api>,
    authority: Authority,
    /// The rights of tokens are those of this revision.
    rights: u64,
    filter: Filter,
    since_s: Option<u64>,
    wanted: Wanted,
    decisions: broadcast::Receiver<Arc<SeenDecision>>,
    changes: broadcast::Receiver<Arc<Change>>,
    every: Interval,
    quiet_at: Instant,
    ends_at: Option<Instant>,
    has_begun: bool,
    /// The rows that it has, by hash.
    told: BTreeMap<Edge, u64>,
    _place: Place,
}

impl Reader {
    fn new(
        api: Arc<Api>,
        authority: Authority,
        filter: Filter,
        since_s: Option<u64>,
        wanted: Wanted,
        ends_after: Option<Duration>,
        (place, decisions): (Place, broadcast::Receiver<Arc<SeenDecision>>),
    ) -> Self {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        Self {
            rights: api.mirror.read(|view| view.access.revision()),
            changes: api.mirror.subscribe(),
            api,
            authority,
            filter,
            since_s,
            wanted,
            decisions,
            every,
            quiet_at: now,
            ends_at: ends_after.map(|after| now + after),
            has_begun: false,
            told: BTreeMap::new(),
            _place: place,
        }
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.has_begun, true) {
            if self.wanted.decisions {
                self.api.sidecars.follow(&self.filter);
            }
            return Some(self.send(":\n\n".to_owned()));
        }
        let api = Arc::clone(&self.api);
        loop {
            if !self.still_may() {
                return None;
            }
            let event = tokio::select! {
                biased;
                () = api.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.ends_at.unwrap_or(self.quiet_at)), if self.ends_at.is_some() => return None,
                decision = self.decisions.recv(), if self.wanted.decisions => match decision {
                    Ok(decision) => self.decision(&decision),
                    Err(broadcast::error::RecvError::Lagged(_)) => Some("event: lagged\ndata: {}\n\n".to_owned()),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                change = self.changes.recv() => match change {
                    Ok(change) => self.change(&change),
                    Err(broadcast::error::RecvError::Lagged(_)) if self.wanted.changes => {
                        Some("event: lagged\ndata: {}\n\n".to_owned())
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => None,
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = self.every.tick() => self.on_tick(),
                () = tokio::time::sleep_until(self.quiet_at) => Some(":\n\n".to_owned()),
            };
            if let Some(event) = event {
                return Some(self.send(event));
            }
        }
    }

    /// Whoever may no longer what it might when it came shows its token again.
    fn still_may(&self) -> bool {
        self.authority.is_operator() || self.api.mirror.read(|view| view.access.revision()) == self.rights
    }

    fn send(&mut self, event: String) -> Bytes {
        self.quiet_at = Instant::now() + QUIET;
        Bytes::from(event)
    }

    fn decision(&self, decision: &SeenDecision) -> Option<String> {
        let is_wanted = self.filter.takes_call(&decision.source, &decision.destination, decision.verdict);
        (is_wanted && may_see(&self.authority, &decision.destination)).then(|| event("decision", decision)).flatten()
    }

    fn change(&self, change: &Change) -> Option<String> {
        let is_told = |key: &RecordKey| {
            matches!(
                key,
                RecordKey::Intention(_)
                    | RecordKey::Default
                    | RecordKey::Service(_)
                    | RecordKey::Settings(_)
                    | RecordKey::Instance(_)
                    | RecordKey::Registered(..)
            )
        };
        let is_told = change.everything || change.keys.iter().any(is_told);
        (self.wanted.changes && is_told).then(|| event("change", &LiveChange { revision: change.revision })).flatten()
    }

    fn on_tick(&mut self) -> Option<String> {
        if self.wanted.decisions {
            self.api.sidecars.follow(&self.filter);
        }
        if self.wanted.edges { self.edges() } else { None }
    }

    /// The rows that are not as they were told.
    fn edges(&mut self) -> Option<String> {
        let now = SystemTime::now();
        let before: BTreeSet<Edge> = self.told.keys().cloned().collect();
        let mut selection = self.api.traffic.select_lively(before, since(self.since_s, now));
        selection.edges.retain(|seen| self.filter.takes(&seen.sighting.edge));
        let Edges { since, until, edges, left_out } = shown(&selection, now, self.api.traffic.left_out(), &self.authority);
        let mut told = BTreeMap::new();
        let mut changed = Vec::new();
        for row in edges {
            let hash = hash_of(&row);
            if self.told.get(&row.edge) != Some(&hash) {
                changed.push(row.clone());
            }
            // What is quiet is forgotten once that was told.
            if row.recent.count > 0 || row.open > 0 {
                told.insert(row.edge, hash);
            }
        }
        self.told = told;
        if changed.is_empty() { None } else { event("edges", &Edges { since, until, edges: changed, left_out }) }
    }
}

fn hash_of(row: &EdgeRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    (row.count, row.errors, row.bytes_in, row.bytes_out, row.recent.count, row.recent.errors, row.open).hash(&mut hasher);
    hasher.finish()
}

fn event<T: Serialize>(name: &str, data: &T) -> Option<String> {
    // JSON has no line breaks of its own.
    match serde_json::to_string(data) {
        Ok(data) => Some(format!("event: {name}\ndata: {data}\n\n")),
        Err(error) => {
            tracing::error!(%error, name, "an event was not told");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_chosen_by_words() {
        let all = Wanted { decisions: true, edges: true, changes: true };
        assert_eq!(Wanted::of(None).unwrap(), all);
        assert_eq!(Wanted::of(Some("changes,edges,decisions")).unwrap(), all);
        assert_eq!(Wanted::of(Some("edges")).unwrap(), Wanted { edges: true, ..Wanted::default() });
        assert!(Wanted::of(Some("edges,all")).unwrap_err().text().contains("\"all\""));
    }
}
