//! The examples in `examples/traffic`: what the documentation says of them holds, and it shows them word for word.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use postern_intentions::yaml::{self, FileKind};
use postern_names::ServiceName;
use postern_traffic::retry::{CallProtocol, Repeatable};
use postern_traffic::route::check_hops;
use postern_traffic::{HashKeys, Outcome, RateLimits, RequestHead, RetryPolicy, Routing, ServiceSettings, TrafficFile};
use rand::SeedableRng;
use rand::rngs::StdRng;

fn text_of(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

const KIND: FileKind = FileKind { name: "an example", depth: 16, empty: "", alias: "", one_document: "" };

/// The services of an example, which must be valid.
fn example(file: &str) -> BTreeMap<ServiceName, ServiceSettings> {
    let tree = yaml::parse(&text_of(&format!("examples/traffic/{file}")), &KIND).expect("YAML");
    let read = yaml::decode::<TrafficFile>(tree);
    assert_eq!(read.problems, []);
    let file = read.value.expect("a file without fault");
    assert_eq!(file.validate(), Ok(()));
    file.services.into_iter().map(|settings| (settings.service.clone(), settings)).collect()
}

#[test]
fn the_documentation_shows_the_examples_word_for_word() {
    for topic in ["routing", "retries"] {
        let example = text_of(&format!("examples/traffic/{topic}.yaml"));
        assert!(text_of(&format!("docs/{topic}.md")).contains(&format!("```yaml\n{example}```")), "{topic}");
    }
}

/// The routing of each service of an example.
struct Mesh(BTreeMap<ServiceName, Routing>);

impl Mesh {
    fn of(settings: &BTreeMap<ServiceName, ServiceSettings>) -> Self {
        Self(settings.iter().map(|(name, one)| (name.clone(), Routing::compile(one).expect("valid"))).collect())
    }

    /// What becomes of a GET: `service/subset target timeout`.
    fn goes(&self, service: &str, target: &str, headers: &HeaderMap, rng: &mut StdRng) -> String {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let request = RequestHead { method: "GET", path, query, headers };
        let to = self.0[&name(service)].route(&request, |service| self.0.get(service), rng).expect("a destination");
        let rewritten = to.rewrite.as_ref().map_or_else(|| target.to_owned(), ToString::to_string);
        let service = to.service.map_or(service, ServiceName::as_str);
        format!("{service}/{} {rewritten} {}", to.subset.unwrap_or("-"), to.timeouts.request)
    }
}

#[test]
fn the_routing_example_does_what_its_comments_say() {
    let settings = example("routing.yaml");
    let (mesh, plain, mut canary) = (Mesh::of(&settings), HeaderMap::new(), HeaderMap::new());
    canary.insert("x-canary", HeaderValue::from_static("yes"));
    let rng = &mut StdRng::seed_from_u64(1);
    assert_eq!(mesh.goes("api", "/reports/2026?month=5", &plain, rng), "reports/- /2026?month=5 1m");
    assert_eq!(mesh.goes("api", "/orders", &canary, rng), "api/v2 /orders 15s");
    assert_eq!(mesh.goes("billing", "/orders", &plain, rng), "invoices/- /orders 15s");
    let v2 = (0..20_000).filter(|_| mesh.goes("api", "/orders", &plain, rng) == "api/v2 /orders 15s").count();
    assert!((1_800..2_200).contains(&v2), "{v2} of 20000");
    for service in settings.keys() {
        assert_eq!(check_hops(service, |service| settings.get(service)), Ok(()));
    }
}

#[test]
fn the_retries_example_does_what_its_comments_say() {
    let settings = example("retries.yaml");
    let api = &settings[&name("api")];
    let policy = RetryPolicy::compile(&api.retries);
    let asked = |method, outcome| policy.retries(Repeatable { method, protocol: CallProtocol::Http, tries: 2 }, outcome);
    assert!(asked("GET", Outcome::Status(503)) && asked("POST", Outcome::ConnectFailure));
    assert!(!asked("GET", Outcome::Status(500)) && !asked("POST", Outcome::Status(503)));

    let now = Instant::now();
    let limits = RateLimits::compile(&api.rate_limits, None, now).expect("limits");
    let headers = HeaderMap::new();
    let let_in = |path, times: u32| {
        let request = RequestHead { method: "GET", path, query: None, headers: &headers };
        (0..times).filter(|_| limits.check(&name("web"), &request, now + Duration::from_millis(1)).is_ok()).count()
    };
    assert_eq!(let_in("/export/all", 10), 2);
    assert_eq!(let_in("/orders", 1_000), 198, "the two exports counted too");

    let keys = HashKeys::compile(&settings[&name("sessions")].balancer.hash_on).expect("keys");
    let request = RequestHead { method: "GET", path: "/", query: None, headers: &headers };
    let hash = |last| keys.hash(&request, [127, 0, 0, last].into());
    assert!(hash(1).is_some() && hash(1) != hash(2));
}

/// A setting that nobody can look up is one that nobody uses.
#[test]
fn every_setting_is_in_the_documentation() {
    let documentation = include_str!("../../docs/service-config.md");
    let file = postern_traffic::settings::file::parse(include_str!("everything.yaml"), "everything.yaml").unwrap();
    let mut keys = std::collections::BTreeSet::new();
    gather(&serde_json::to_value(&file).unwrap(), &mut keys);
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        let is_there = documentation.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == key);
        assert!(is_there, "docs/service-config.md does not say what {key} is");
    }
}

/// The keys of settings; those of maps that an operator names are left out.
fn gather(value: &serde_json::Value, keys: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| gather(item, keys)),
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                keys.insert(key.clone());
                match (key.as_str(), value) {
                    ("meta" | "set" | "add", _) => {}
                    ("subsets", serde_json::Value::Object(subsets)) => subsets.values().for_each(|subset| gather(subset, keys)),
                    _ => gather(value, keys),
                }
            }
        }
        _ => {}
    }
}
