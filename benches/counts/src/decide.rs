//! Decisions, and the compilation of what they need.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_intentions::{Action, Call, DefaultPolicy, Entry, EntryContent, Intention, Party, Protocol, RuleSet, decide};
use postern_names::{PortName, ServiceName};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn service(name: &str) -> ServiceName {
    name.parse().expect("a service name")
}

fn entry(source: Party, destination: Party, until: Option<SystemTime>) -> Entry {
    let intention = Intention { expires_at: until, ..Intention::new(source, destination, Action::Allow) };
    Entry { revision: 1, content: EntryContent::Understood(Arc::new(intention)) }
}

/// `web-service-n -> api-service-m` for `count` pairs, five callers to a service.
fn pairs(count: usize) -> impl Iterator<Item = Entry> {
    (0..count).map(|n| {
        let name = |text: String| Party::Service(service(&text));
        entry(name(format!("web-service-{}", n % 5)), name(format!("api-service-{}", n / 5)), None)
    })
}

fn rules(count: usize, more: impl IntoIterator<Item = Entry>) -> RuleSet {
    RuleSet::compile_with_known_keys(DefaultPolicy::Deny, pairs(count).chain(more))
}

fn ask(rules: &RuleSet, source: &str, destination: &str, times: u32) {
    let (source, destination, port) = (service(source), service(destination), PortName::main());
    let call = Call { source: &source, destination: &destination, port: &port, protocol: Protocol::Tcp, request: None };
    for _ in 0..times {
        let _ = black_box(decide(black_box(rules), black_box(&call), NOW));
    }
}

/// The pair has an intention of its own.
pub fn pair(count: usize, times: u32) {
    ask(&rules(count, []), "web-service-3", "api-service-1", times);
}

/// The caller is let in by `* -> api`.
pub fn wildcard(count: usize, times: u32) {
    let everyone = entry(Party::Any, Party::Service(service("api-service-1")), None);
    ask(&rules(count, [everyone]), "unknown-service", "api-service-1", times);
}

/// Nothing is said of the pair.
pub fn nothing(count: usize, times: u32) {
    ask(&rules(count, []), "unknown-service", "api-service-1", times);
}

/// The pair has a temporary intention beside its own.
pub fn temporary(count: usize, times: u32) {
    let (source, destination) = (Party::Service(service("web-service-3")), Party::Service(service("api-service-1")));
    let until = entry(source, destination, Some(NOW + Duration::from_secs(60)));
    ask(&rules(count, [until]), "web-service-3", "api-service-1", times);
}

/// All entries into a rule set.
pub fn compile(count: usize, times: u32) {
    let entries: Vec<Entry> = pairs(count).collect();
    for _ in 0..times {
        black_box(RuleSet::compile_with_known_keys(DefaultPolicy::Deny, entries.iter().cloned()));
    }
}
