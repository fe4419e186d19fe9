//! `GET /v1/edges`: who was seen calling whom.

use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::{Extension, Json};
use postern_api::http::{EdgeRow, Edges, Recent};
use postern_edges::{By, Edge, Filter, Histogram, Seen, Selection, Verdict, Window};
use postern_names::ServiceName;
use serde::Deserialize;

use super::error::ApiError;
use super::input::Query;
use super::{Shared, rfc3339};
use crate::acl::{Access, Authority, Resource};

/// As far as is looked back unless it is said otherwise.
const DAY: Duration = Duration::from_secs(86_400);

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EdgesQuery {
    since_s: Option<u64>,
    service: Option<ServiceName>,
    source: Option<ServiceName>,
    destination: Option<ServiceName>,
    verdict: Option<String>,
    by: Rows,
}

/// What a row stands for.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rows {
    #[default]
    Edge,
    Pair,
}

/// `GET /v1/edges`
pub(super) async fn list(
    State(api): Shared,
    Extension(authority): Extension<Authority>,
    Query(query): Query<EdgesQuery>,
) -> Result<Json<Edges>, ApiError> {
    let until = SystemTime::now();
    let since = since(query.since_s, until);
    let by = match query.by {
        Rows::Edge => By::Edge,
        Rows::Pair => By::Pair,
    };
    let verdicts = verdicts(query.verdict.as_deref())?;
    let filter = Filter { service: query.service, source: query.source, destination: query.destination, verdicts };
    // Many thousands may be added up: not on a thread that serves connections.
    let asked = tokio::task::spawn_blocking(move || {
        let selection = api.traffic.select(&filter, since, by);
        shown(&selection, until, api.traffic.left_out(), &authority)
    });
    asked.await.map(Json).map_err(|error| ApiError::internal(format!("what was seen was not read: {error}")))
}

/// The begin of what is looked at.
pub(super) fn since(since_s: Option<u64>, now: SystemTime) -> SystemTime {
    now.checked_sub(since_s.map_or(DAY, Duration::from_secs)).unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH)
}

/// What to know where something had no room.
pub(super) fn left_out_note(left_out: u64, lacks: &str) -> Option<String> {
    (left_out > 0).then(|| {
        format!(
            "there was no room for {left_out} {} since the control plane started: {lacks}; \
             keep audit as the default until `meshctl intention audited` tells nothing more, and see the bounds in docs/traffic.md",
            if left_out == 1 { "call" } else { "calls" }
        )
    })
}

/// Verdicts as in `deny,audit`.
pub(super) fn verdicts(text: Option<&str>) -> Result<Vec<Verdict>, ApiError> {
    let words = text.into_iter().flat_map(|text| text.split(','));
    words.map(|word| word.parse().map_err(|error| ApiError::bad_request(format!("the query: verdict: {error}")))).collect()
}

/// Who may read the intentions of a destination may see who calls it.
pub(super) fn may_see(authority: &Authority, destination: &ServiceName) -> bool {
    authority.may(Access::Read, Resource::Intentions(destination.as_str()))
}

/// What this caller may see of a selection.
pub(super) fn shown(selection: &Selection, until: SystemTime, left_out: u64, authority: &Authority) -> Edges {
    let visible = selection.edges.iter().filter(|seen| may_see(authority, &seen.sighting.edge.destination));
    Edges { since: rfc3339(selection.since), until: rfc3339(until), edges: visible.map(row).collect(), left_out }
}

/// An edge as the API shows it.
pub(super) fn row(seen: &Seen) -> EdgeRow {
    let tally = &seen.sighting.tally;
    let (p50_ms, p99_ms) = quantiles(&tally.latency);
    EdgeRow {
        edge: Edge::clone(&seen.sighting.edge),
        count: tally.count,
        errors: tally.errors,
        bytes_in: tally.bytes_in,
        bytes_out: tally.bytes_out,
        p50_ms,
        p99_ms,
        rate: seen.recent.rate(),
        recent: recent(&seen.recent),
        open: seen.open,
        instances: seen.sighting.instances,
        first_seen: rfc3339(tally.first_seen),
        last_seen: rfc3339(tally.last_seen),
        sample: tally.sample.as_deref().map(str::to_owned),
    }
}

fn recent(window: &Window) -> Recent {
    let (p50_ms, p99_ms) = quantiles(&window.latency);
    Recent { count: window.count, errors: window.errors, p50_ms, p99_ms }
}

fn quantiles(latency: &Histogram) -> (Option<f64>, Option<f64>) {
    (latency.quantile_ms(0.5), latency.quantile_ms(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_words_with_commas() {
        assert_eq!(verdicts(None).unwrap(), []);
        assert_eq!(verdicts(Some("deny,audit")).unwrap(), [Verdict::Deny, Verdict::Audit]);
        for text in ["", "deny,", "no"] {
            assert!(verdicts(Some(text)).unwrap_err().text().contains("allow, audit, deny or failed"), "{text:?}");
        }
    }

    #[test]
    fn the_begin_of_what_is_looked_at_is_never_before_there_were_clocks() {
        let now = SystemTime::now();
        assert_eq!(since(Some(60), now), now - Duration::from_secs(60));
        assert_eq!(since(None, now), now - DAY);
        assert_eq!(since(Some(u64::MAX), now), SystemTime::UNIX_EPOCH);
    }
}
