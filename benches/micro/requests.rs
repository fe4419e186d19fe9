//! A decision on a request, by permissions of several kinds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::SystemTime;

use criterion::Criterion;
use http::{HeaderMap, HeaderValue};
use postern_intentions::{
    Call, DefaultPolicy, Entry, EntryContent, PathSettings, Protocol, Request, RuleSet, VerifiedTokens, file, judge_request,
};
use postern_names::PortName;

const RULES: [(&str, &str); 5] = [
    ("an action", "action: allow"),
    ("a prefix", "permissions: [{action: allow, methods: [GET, HEAD], path_prefix: /v1/}]"),
    (
        "the fourth of four",
        "permissions: [{action: deny, path_prefix: /admin}, {action: deny, path_prefix: /internal}, {action: allow, methods: [POST], \
         path_prefix: /v1/}, {action: allow, methods: [GET], path_prefix: /v1/invoices/}]",
    ),
    ("a regular expression", "permissions: [{action: allow, path_regex: '/v1/invoices/[0-9]+/[0-9]+/lines'}]"),
    (
        "headers and a query",
        "permissions: [{action: allow, headers: [{name: x-team, exact: green}, {name: x-debug, present: true, invert: true}], query: \
         [{name: page, regex: '[0-9]+'}]}]",
    ),
];

fn rules(says: &str) -> RuleSet {
    let text = format!("intentions: [{{source: web, destination: api, {says}}}]");
    let read = file::parse(&text, "rules.yaml").expect("a file");
    let entry = |intention| Entry { revision: 1, content: EntryContent::Understood(Arc::new(intention)) };
    RuleSet::compile(DefaultPolicy::Deny, read.intentions.into_iter().map(entry))
}

pub fn bench(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    for (name, value) in [("host", "api.example"), ("accept", "*/*"), ("x-team", "green")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let tokens = VerifiedTokens::none();
    let request = Request {
        method: "GET",
        target: "/v1/invoices/2026/0001/lines?page=2",
        host: Some("api.example"),
        headers: &headers,
        tokens: &tokens,
        paths: PathSettings::default(),
    };
    let (web, api) = ("web".parse().expect("a name"), "api".parse().expect("a name"));
    let (port, now) = (PortName::main(), SystemTime::now());
    let call = Call { source: &web, destination: &api, port: &port, protocol: Protocol::Http, request: None };
    let mut group = criterion.benchmark_group("decide/request");
    for (name, says) in RULES {
        let rules = rules(says);
        assert!(judge_request(&rules, &call, &request, now).decision.allowed(), "{name}");
        group.bench_function(name, |bencher| bencher.iter(|| judge_request(black_box(&rules), &call, black_box(&request), now)));
    }
    group.finish();
}
