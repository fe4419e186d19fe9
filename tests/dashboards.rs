//! The dashboards of `examples/grafana/` and the tables of `docs/metrics.md`, held against what is registered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use postern_api::http::{AuthorityStatus, CertificateStatus};
use postern_control::identity::IdentityCounts;
use postern_control::push::PushStats;
use postern_control::service_config::jwks::KeyStatus;
use postern_names::ServiceName;
use postern_proxy::metrics::{Direction, Judged};
use serde_json::Value;

/// What a scrape adds: Prometheus itself, and `/v1/prometheus/targets`.
const OF_THE_SCRAPE: [&str; 5] = ["job", "instance", "service", "service_instance", "datacenter"];

/// Names of metrics, as they stand in the text, with their labels.
type Known = BTreeMap<String, BTreeSet<String>>;

/// A sidecar and a control plane in which every metric has a value.
fn texts() -> [String; 2] {
    let web: ServiceName = "web".parse().unwrap();
    let proxy = postern_proxy::metrics::Metrics::new().unwrap();
    let mut connection = proxy.connection(Direction::Inbound, &web);
    connection.opened();
    connection.judged(Judged::Allow, "default");
    connection.revoked();
    let _bytes = connection.bytes();
    let _tunnel = proxy.tunnel_opened(Direction::Inbound, &web);
    let requests = proxy.requests(Direction::Inbound, &web);
    requests.answered(&http::Method::GET, None, None, Duration::ZERO);
    proxy.refused(Direction::Inbound, "no_endpoint");
    proxy.snapshot_refused("older");
    proxy.proof_refused("bad_signature");
    proxy.token_refused("expired");
    proxy.tunnel_violated("silent");
    proxy.spans_dropped("queue_full", 1);
    proxy.handshake_done(Direction::Inbound, Duration::ZERO);
    proxy.handshake_failed(Direction::Inbound, "not_tls");

    let control = postern_control::metrics::Metrics::new().unwrap();
    control.http_request("/v1/mesh", 200);
    control.svid_issued(&web);
    let certificate = CertificateStatus {
        pin: String::new(),
        not_before: "2026-01-01T00:00:00Z".into(),
        not_after: "2036-01-01T00:00:00Z".into(),
        origin: "built-in".into(),
    };
    let authority = AuthorityStatus {
        trust_domain: "example.test".parse().unwrap(),
        roots: vec![certificate.clone()],
        intermediate: certificate,
        svid_ttl_s: 1,
        active_svids: 0,
        revoked_svids: 0,
    };
    control.observe(1, 1, &PushStats::default(), (&IdentityCounts::default(), &authority));
    control.observe_keys(&BTreeMap::from([("main".parse().unwrap(), KeyStatus::default())]), SystemTime::now());
    [proxy.encode().unwrap(), control.render().unwrap()]
}

fn known() -> Known {
    let mut known = Known::new();
    for line in texts().iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with('#')) {
        let name = &line[..line.find(['{', ' ']).unwrap()];
        let labels =
            line.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')?.split_once('}')).map_or("", |(labels, _)| labels);
        let labels = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        known.entry(name.to_owned()).or_default().extend(labels);
    }
    known
}

/// Names that begin like metrics of ours, each with the matchers behind it.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_of_a_name) {
        let word = &rest[start..];
        let (name, after) = word.split_at(word.find(|c| !is_of_a_name(c)).unwrap_or(word.len()));
        rest = after;
        if !name.starts_with("postern_") && !name.starts_with("process_") {
            continue;
        }
        let matchers = after.strip_prefix('{').and_then(|inside| inside.split_once('}')).map_or("", |(matchers, _)| matchers);
        let labels = matchers.split("\",").filter_map(|matcher| Some(matcher.split(['=', '!']).next()?.trim().to_owned()));
        found.push((name.to_owned(), labels.filter(|label| !label.is_empty()).collect()));
    }
    found
}

/// Every text under the keys that hold PromQL.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if ["expr", "query", "definition"].contains(&key.as_str()) => found.push(text.clone()),
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn dashboards() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/grafana");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let read = files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        (path.display().to_string(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    });
    read.collect()
}

#[test]
fn a_dashboard_asks_for_metrics_and_labels_that_there_are() {
    let known = known();
    let dashboards = dashboards();
    assert!(dashboards.len() >= 2);
    for (file, dashboard) in dashboards {
        let mut found = Vec::new();
        expressions(&dashboard, &mut found);
        assert!(found.len() > 20, "{file} has {} expressions", found.len());
        for expression in found {
            let selectors = selectors(&expression);
            for (name, labels) in &selectors {
                let has = known.get(name).unwrap_or_else(|| panic!("{file}: there is no {name}: {expression}"));
                for label in labels {
                    assert!(
                        has.contains(label) || OF_THE_SCRAPE.contains(&label.as_str()),
                        "{file}: {name} has no {label}: {expression}"
                    );
                }
            }
            let is_of_prometheus = expression.contains("postern_") || expression.contains("process_");
            assert!(!is_of_prometheus || !selectors.is_empty(), "{file}: {expression}");
        }
    }
}

#[test]
fn a_dashboard_can_be_imported() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(dashboard["id"].is_null() && dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36), "{file}");
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{file}: its uid is taken");
        assert_eq!(dashboard["__inputs"][0]["name"], "DS_PROMETHEUS", "{file}");
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{file}: two panels have one id");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            assert_eq!(panel["datasource"]["uid"], "${DS_PROMETHEUS}", "{file}: {}", panel["title"]);
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{file}: {}", panel["title"]);
        }
    }
}

#[test]
fn the_reference_of_metrics_names_all_of_them_and_no_other() {
    let documented = include_str!("../docs/metrics.md");
    let of_a_histogram =
        |name: &str| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end).map(str::to_owned));
    let names: BTreeSet<_> = known().into_keys().map(|name| of_a_histogram(&name).unwrap_or(name)).collect();
    for name in names.iter().filter(|name| name.starts_with("postern_")) {
        assert!(documented.contains(&format!("| `{name}` |")), "docs/metrics.md does not tell of {name}");
    }
    for row in documented.lines().filter_map(|line| line.strip_prefix("| `")) {
        let name = row.split('`').next().unwrap();
        assert!(names.contains(name), "docs/metrics.md tells of {name}, which there is not");
    }
}
