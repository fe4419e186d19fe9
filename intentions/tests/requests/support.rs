//! What the tests of requests share: rules from a file, and questions about requests.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use postern_intentions::{
    Call, DefaultPolicy, Entry, EntryContent, Forward, PathSettings, Protocol, Request, RequestDecision, RuleSet, VerifiedTokens,
    decide, explain, file, judge_request,
};
use postern_names::PortName;

pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_772_366_400)
}

/// The rules of a file, with revisions from 1; without `default:` they deny.
pub fn rules(text: &str) -> RuleSet {
    let read = file::parse(text, "test.yaml").unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    let entries = read.intentions.into_iter().zip(1..);
    RuleSet::compile(
        read.default.unwrap_or(DefaultPolicy::Deny),
        entries.map(|(intention, revision)| Entry { revision, content: EntryContent::Understood(Arc::new(intention)) }),
    )
}

/// `web -> api` with these permissions, a flow list, and more keys of the intention.
pub fn web_to_api(permissions: &str, more: &str) -> RuleSet {
    rules(&format!("intentions:\n- {{source: web, destination: api, permissions: {permissions}{more}}}"))
}

/// A question about a request of web to api.
#[derive(Clone)]
pub struct Question {
    pub method: String,
    pub target: String,
    pub host: Option<String>,
    pub headers: HeaderMap,
    pub tokens: VerifiedTokens,
    pub paths: PathSettings,
    pub port: PortName,
    pub protocol: Protocol,
}

impl Question {
    /// `GET /path`
    pub fn of(line: &str) -> Self {
        let (method, target) = line.split_once(' ').unwrap();
        Self {
            method: method.into(),
            target: target.into(),
            host: Some("api.example".into()),
            headers: HeaderMap::new(),
            tokens: VerifiedTokens::none(),
            paths: PathSettings::default(),
            port: PortName::main(),
            protocol: Protocol::Http,
        }
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    pub fn paths(self, paths: PathSettings) -> Self {
        Self { paths, ..self }
    }

    pub fn judged(&self, rules: &RuleSet) -> RequestDecision {
        self.judged_at(rules, now())
    }

    pub fn judged_at(&self, rules: &RuleSet, now: SystemTime) -> RequestDecision {
        let request = Request {
            method: &self.method,
            target: &self.target,
            host: self.host.as_deref(),
            headers: &self.headers,
            tokens: &self.tokens,
            paths: self.paths,
        };
        let (web, api) = ("web".parse().unwrap(), "api".parse().unwrap());
        let call = Call { source: &web, destination: &api, port: &self.port, protocol: self.protocol, request: Some(&request) };
        let judged = judge_request(rules, &call, &request, now);
        assert_eq!(decide(rules, &call, now), judged.decision, "both ways in agree");
        let explained = explain(rules, &call, now);
        assert_eq!(explained.decision, judged.decision, "the explanation is of the decision");
        judged
    }

    /// `deny: intention web -> api (deny, permission 0)`
    pub fn told(&self, rules: &RuleSet) -> String {
        told(&self.judged(rules))
    }
}

pub fn told(judged: &RequestDecision) -> String {
    let verdict = if judged.decision.allowed() { "allow" } else { "deny" };
    let would_deny = if judged.decision.would_deny { ", would deny" } else { "" };
    format!("{verdict}{would_deny}: {}", judged.decision.because)
}

/// The target that goes on.
pub fn forwarded(question: &Question, rules: &RuleSet) -> Option<String> {
    question.judged(rules).forward().map(|forward| match forward {
        Forward::Untouched => question.target.clone(),
        Forward::Target(target) => target.clone(),
    })
}
