//! What the sidecars saw, as the commands that show it ask for it.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_api::http::{EdgeRow, Edges};
use postern_edges::Verdict;
use postern_names::{PortName, ServiceName};
use serde::Serialize;

use crate::cli::seen::WhichArgs;
use crate::client::{Client, encode};
use crate::outcome::Failure;
use crate::output::{Tone, ToneText};

/// The query of a request for calls.
pub fn query(which: &WhichArgs, verdicts: &[&str], more: &[(&str, &str)]) -> String {
    let name = |name: &Option<ServiceName>| name.as_ref().map(ToString::to_string);
    let named = [
        ("service", name(&which.service)),
        ("source", name(&which.source)),
        ("destination", name(&which.destination)),
        ("verdict", (!verdicts.is_empty()).then(|| verdicts.join(","))),
    ];
    let named = named.into_iter().filter_map(|(key, value)| value.map(|value| format!("{key}={}", encode(&value))));
    let more = more.iter().map(|(key, value)| format!("{key}={}", encode(value)));
    more.chain(named).collect::<Vec<_>>().join("&")
}

/// What was seen within this time.
pub async fn edges(
    client: &mut Client,
    which: &WhichArgs,
    verdicts: &[&str],
    since: Duration,
    by: &str,
) -> Result<Edges, Failure> {
    let since = since.as_secs().max(1).to_string();
    client.get(&format!("/v1/edges?{}", query(which, verdicts, &[("since_s", &since), ("by", by)]))).await
}

/// The word of a verdict, with its colour.
pub fn verdict(verdict: Verdict) -> ToneText {
    let tone = match verdict {
        Verdict::Allow => Tone::Good,
        Verdict::Audit => Tone::Doubtful,
        Verdict::Deny => Tone::Bad,
        Verdict::Failed => Tone::Plain,
    };
    (verdict.to_string(), tone)
}

/// All calls of one service to another's port, however they were judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairRow {
    /// The calling service.
    pub source: ServiceName,
    /// The called service.
    pub destination: ServiceName,
    /// The called port.
    pub port: PortName,
    /// Calls in the time that was asked for.
    pub count: u64,
    /// Calls a second, over the last 30 seconds.
    pub rate: f64,
    /// The last 30 seconds: what went through and failed.
    pub errors: u64,
    /// The last 30 seconds: refused.
    pub denied: u64,
    /// The last 30 seconds: let through because of audit.
    pub audited: u64,
    /// Half of the requests took at most so long; of the last 30 seconds, else of all.
    pub p50_ms: Option<f64>,
    /// 99 of 100 took at most so long.
    pub p99_ms: Option<f64>,
    /// Open now.
    pub open: u64,
    /// How it was judged, and how often in the time that was asked for.
    pub verdicts: BTreeMap<String, u64>,
    /// RFC 3339.
    pub last_seen: String,
}

/// Folds rows of pairs over verdicts and reasons, by destination and source.
pub fn pairs(rows: &[EdgeRow]) -> Vec<PairRow> {
    let mut folded: BTreeMap<(ServiceName, ServiceName, PortName), (PairRow, u64)> = BTreeMap::new();
    for row in rows {
        let edge = &row.edge;
        let key = (edge.destination.clone(), edge.source.clone(), edge.port.clone());
        let (pair, slowest_of) = folded.entry(key).or_insert_with(|| (PairRow::of(row), 0));
        pair.count += row.count;
        pair.rate += row.rate;
        pair.open += row.open;
        *pair.verdicts.entry(edge.verdict.to_string()).or_default() += row.count;
        pair.errors += row.recent.errors;
        match edge.verdict {
            Verdict::Deny => pair.denied += row.recent.count,
            Verdict::Audit => pair.audited += row.recent.count,
            Verdict::Allow | Verdict::Failed => {}
        }
        // Times cannot be added up: those of the verdict that most calls had are shown.
        let calls = row.recent.count.saturating_mul(1 << 20).saturating_add(row.count);
        if edge.verdict.went_through() && calls >= *slowest_of {
            *slowest_of = calls;
            pair.p50_ms = row.recent.p50_ms.or(row.p50_ms);
            pair.p99_ms = row.recent.p99_ms.or(row.p99_ms);
        }
        if row.last_seen > pair.last_seen {
            pair.last_seen.clone_from(&row.last_seen);
        }
    }
    folded.into_values().map(|(pair, _)| pair).collect()
}

impl PairRow {
    fn of(row: &EdgeRow) -> Self {
        Self {
            source: row.edge.source.clone(),
            destination: row.edge.destination.clone(),
            port: row.edge.port.clone(),
            count: 0,
            rate: 0.0,
            errors: 0,
            denied: 0,
            audited: 0,
            p50_ms: None,
            p99_ms: None,
            open: 0,
            verdicts: BTreeMap::new(),
            last_seen: String::new(),
        }
    }

    /// `api`, or `api:admin` for another port than the one that services have.
    pub fn called(&self) -> String {
        if self.port == PortName::main() { self.destination.to_string() } else { format!("{}:{}", self.destination, self.port) }
    }

    /// The verdict that matters most of those that its calls had.
    pub fn worst(&self) -> Verdict {
        let had = |verdict: &Verdict| self.verdicts.contains_key(verdict.as_str());
        [Verdict::Deny, Verdict::Audit, Verdict::Failed].into_iter().find(had).unwrap_or(Verdict::Allow)
    }
}

/// Milliseconds, short.
pub fn milliseconds(time: Option<f64>) -> String {
    match time {
        None => "-".into(),
        Some(ms) if ms < 10.0 => format!("{ms:.1} ms"),
        Some(ms) if ms < 10_000.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.0} s", ms / 1_000.0),
    }
}

/// Calls a second, short.
pub fn rate(rate: f64) -> String {
    match rate {
        0.0 => "-".into(),
        rate if rate < 10.0 => format!("{rate:.1}/s"),
        rate => format!("{rate:.0}/s"),
    }
}

/// Rows that tests write in a line.
#[cfg(test)]
pub mod samples {
    use postern_api::http::Recent;
    use postern_edges::Edge;
    use postern_intentions::Protocol;

    use super::*;

    /// A pair of which so many calls were judged so.
    pub fn row(source: &str, destination: &str, verdict: Verdict, count: u64) -> EdgeRow {
        EdgeRow {
            edge: Edge {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                port: PortName::main(),
                protocol: Protocol::Http,
                verdict,
                because: "default".into(),
                http: None,
            },
            count,
            errors: 0,
            bytes_in: 0,
            bytes_out: 0,
            p50_ms: Some(1.0),
            p99_ms: Some(20.0),
            rate: count as f64 / 30.0,
            recent: Recent { count, errors: 1, p50_ms: None, p99_ms: None },
            open: 1,
            instances: 1,
            first_seen: "2026-03-01T12:00:00Z".into(),
            last_seen: "2026-03-01T12:00:01Z".into(),
            sample: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::row;
    use super::*;

    #[test]
    fn a_query_names_what_was_asked_for_alone() {
        let which = WhichArgs { source: Some("web".parse().unwrap()), ..WhichArgs::default() };
        assert_eq!(query(&which, &["deny", "audit"], &[("what", "decisions")]), "what=decisions&source=web&verdict=deny%2Caudit");
        assert_eq!(query(&WhichArgs::default(), &[], &[]), "");
    }

    #[test]
    fn a_pair_has_all_its_verdicts_added_up() {
        let rows =
            [row("web", "api", Verdict::Allow, 30), row("web", "api", Verdict::Deny, 60), row("api", "db", Verdict::Audit, 3)];
        let pairs = pairs(&rows);
        assert_eq!(pairs.len(), 2);
        let web = &pairs[0];
        assert_eq!((web.count, web.denied, web.audited, web.errors, web.open), (90, 60, 0, 2, 2));
        assert_eq!((web.rate, web.p99_ms, web.worst()), (3.0, Some(20.0), Verdict::Deny));
        assert_eq!((pairs[1].audited, pairs[1].worst(), pairs[1].called().as_str()), (3, Verdict::Audit, "db"));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([None, Some(1.25), Some(90.5), Some(12_000.0)].map(milliseconds), ["-", "1.2 ms", "90 ms", "12 s"]);
        assert_eq!([0.0, 0.25, 1234.4].map(rate), ["-", "0.2/s", "1234/s"]);
    }
}
