//! Decisions on requests, and the paths that they are about.

use std::hint::black_box;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};
use postern_intentions::{
    Action, Call, DefaultPolicy, Entry, EntryContent, Intention, JudgedPath, PathCriterion, PathSettings, Permission, Protocol,
    Request, RequestTarget, Rule, RuleSet, VerifiedTokens, judge_request,
};
use postern_names::{PortName, ServiceName};

fn service(name: &str) -> ServiceName {
    name.parse().expect("a service name")
}

fn permission(path: PathCriterion) -> Permission {
    Permission {
        action: Action::Allow,
        methods: vec!["GET".into(), "HEAD".into()],
        path: Some(path),
        headers: Vec::new(),
        query: Vec::new(),
        ports: Vec::new(),
        jwt: Vec::new(),
    }
}

fn ask(rule: Rule, times: u32) {
    let (web, api, port) = (service("web-service-3"), service("api-service-1"), PortName::main());
    let intention = Intention { rule, ..Intention::new(web.clone().into(), api.clone().into(), Action::Allow) };
    let entry = Entry { revision: 1, content: EntryContent::Understood(Arc::new(intention)) };
    let rules = RuleSet::compile_with_known_keys(DefaultPolicy::Deny, [entry]);
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("api.example"));
    headers.insert("accept", HeaderValue::from_static("*/*"));
    let tokens = VerifiedTokens::none();
    let request = Request {
        method: "GET",
        target: "/v1/invoices/2026/0001/lines?page=2",
        host: Some("api.example"),
        headers: &headers,
        tokens: &tokens,
        paths: PathSettings::default(),
    };
    let call = Call { source: &web, destination: &api, port: &port, protocol: Protocol::Http, request: None };
    for _ in 0..times {
        let _ = black_box(judge_request(black_box(&rules), black_box(&call), black_box(&request), SystemTime::UNIX_EPOCH));
    }
}

fn permissions(permissions: Vec<Permission>) -> Rule {
    Rule::Permissions { permissions, otherwise: Action::Deny }
}

/// The only permission of the intention matches, by method and prefix.
pub fn permission_alone(times: u32) {
    ask(permissions(vec![permission(PathCriterion::Prefix("/v1/".into()))]), times);
}

/// The tenth permission matches.
pub fn tenth(times: u32) {
    let others = (1..10).map(|n| permission(PathCriterion::Prefix(format!("/v1/invoices/{n}/"))));
    let last = permission(PathCriterion::Prefix("/v1/invoices/2026/".into()));
    ask(permissions(others.chain([last]).collect()), times);
}

/// The path is matched by a regular expression.
pub fn regex(times: u32) {
    ask(permissions(vec![permission(PathCriterion::Regex("/v1/invoices/[0-9]+/[0-9]+/lines".into()))]), times);
}

/// An action governs: no path is read.
pub fn untouched(times: u32) {
    ask(Rule::Action(Action::Allow), times);
}

/// The path of a target into what is judged and forwarded.
pub fn path(target: &str, times: u32) {
    for _ in 0..times {
        let target = RequestTarget::read("GET", black_box(target), None).expect("a target");
        let _ = black_box(JudgedPath::read(&target, PathSettings::default()));
    }
}
