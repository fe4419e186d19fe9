//! Intentions and permissions that decide nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use postern_intentions::{
    Action, Call, DefaultPolicy, Entry, EntryContent, Intention, Mode, PairKey, Party, Protocol, RuleSet, decide, file,
    never_matched, shadowed,
};
use postern_names::{PortName, ServiceName};
use proptest::prelude::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn found(text: &str, services: &[&str]) -> Vec<String> {
    let intentions = file::parse(text, "test.yaml").unwrap().intentions;
    shadowed(&intentions, &intentions, &names(services)).iter().map(ToString::to_string).collect()
}

fn names(services: &[&str]) -> BTreeSet<ServiceName> {
    services.iter().map(|name| name.parse().unwrap()).collect()
}

fn permissions(list: &str) -> Vec<String> {
    found(&format!("intentions: [{{source: web, destination: api, permissions: [{list}]}}]"), &[])
}

#[test]
fn a_pair_that_says_what_the_next_one_says_is_found() {
    let text = "intentions:
- {source: web, destination: api, action: allow}
- {source: db, destination: api, action: deny}
- {source: '*', destination: api, action: allow, description: of everybody}
- {source: web, destination: cache, action: allow, mode: audit}
- {source: web, destination: '*', action: allow}
- {source: '*', destination: '*', action: allow}";
    assert_eq!(
        found(text, &[]),
        ["web -> api: * -> api says the same", "* -> api: * -> * says the same", "web -> *: * -> * says the same"]
    );
}

#[test]
fn a_destination_that_keeps_a_caller_from_its_own_wildcard_is_no_repetition() {
    let text = "intentions:
- {source: '*', destination: api, action: allow}
- {source: web, destination: '*', action: deny}
- {source: '*', destination: '*', action: allow}";
    assert_eq!(found(text, &[]), Vec::<String>::new());
}

#[test]
fn a_wildcard_of_a_caller_that_gives_way_everywhere_is_found() {
    let text = "intentions:
- {source: '*', destination: api, action: allow}
- {source: '*', destination: db, action: allow}
- {source: web, destination: '*', action: deny}";
    assert_eq!(found(text, &["web", "api", "db"]), ["web -> *: * -> api, * -> db go before it, and there is no other service"]);
    assert_eq!(found(text, &["web", "api", "db", "cache"]), Vec::<String>::new());
    assert_eq!(found(text, &[]), Vec::<String>::new());
    let catches_the_rest = "intentions:
- {source: web, destination: api, action: allow}
- {source: web, destination: '*', action: deny}";
    assert_eq!(found(catches_the_rest, &["web", "api"]), Vec::<String>::new());
}

#[test]
fn a_permission_behind_one_that_takes_all_is_found() {
    for (list, behind) in [
        ("{action: allow}, {action: deny, path_prefix: /admin}", Some("permission 0")),
        ("{action: allow, path_prefix: /}, {action: allow, methods: [GET], path_exact: /a}", Some("permission 0")),
        ("{action: allow, path_prefix: /v1}, {action: deny, path_prefix: /v1/x}", Some("permission 0")),
        ("{action: allow, path_prefix: /v1}, {action: deny, path_prefix: /v1x}", None),
        ("{action: allow, path_prefix: /v1/}, {action: deny, path_exact: /v1}", None),
        ("{action: deny, methods: [GET, PUT]}, {action: allow, methods: [PUT], ports: [main]}", Some("permission 0")),
        ("{action: deny, methods: [GET]}, {action: allow, methods: [GET, PUT]}", None),
        ("{action: deny, methods: [GET]}, {action: allow}", None),
        // A deny of GET is one of get, which an allow of GET does not take.
        ("{action: allow, methods: [GET]}, {action: deny, methods: [GET]}", None),
        ("{action: allow, headers: [{name: x, present: true}]}, {action: allow, path_exact: /a}", None),
        (
            "{action: allow, headers: [{name: x, present: true}]}, {action: allow, path_exact: /a, headers: [{name: x, present: true}]}",
            Some("permission 0"),
        ),
        ("{action: allow, path_regex: /a+}, {action: deny, path_regex: /a+, methods: [GET]}", Some("permission 0")),
        ("{action: allow, path_exact: /a//b}, {action: deny, path_exact: /a/b}", Some("permission 0")),
        ("{action: allow, path_exact: /a/b}, {action: deny, path_exact: /a//b}", None),
    ] {
        let expected: Vec<String> =
            behind.map(|by| format!("web -> api, permission 1: {by} takes every request before it")).into_iter().collect();
        assert_eq!(permissions(list), expected, "{list}");
    }
}

#[test]
fn a_pair_of_a_service_that_nobody_knows_is_found() {
    let text = "intentions:
- {source: web, destination: apii, action: allow}
- {source: '*', destination: api, action: allow}
- {source: wob, destination: '*', action: allow}";
    let intentions = file::parse(text, "test.yaml").unwrap().intentions;
    assert_eq!(never_matched(&intentions, &names(&["web", "api"])), ["web -> apii", "wob -> *"]);
}

fn party() -> impl Strategy<Value = Party> {
    prop_oneof![Just("*"), Just("a"), Just("b"), Just("c")].prop_map(|text| text.parse().unwrap())
}

fn intention() -> impl Strategy<Value = Intention> {
    (party(), party(), prop_oneof![Just(Action::Allow), Just(Action::Deny)], prop::bool::weighted(0.2)).prop_map(
        |(source, destination, action, audit)| {
            let mode = if audit { Mode::Audit } else { Mode::Enforce };
            Intention { mode, ..Intention::new(source, destination, action) }
        },
    )
}

fn verdicts(default: DefaultPolicy, intentions: &[Intention]) -> Vec<(bool, bool)> {
    let entry = |one: &Intention| Entry { revision: 1, content: EntryContent::Understood(Arc::new(one.clone())) };
    let rules = RuleSet::compile(default, intentions.iter().map(entry));
    // One that no intention names is every other service.
    let names: Vec<ServiceName> = NAMES.iter().chain(["other"].iter()).map(|name| name.parse().unwrap()).collect();
    let port = PortName::main();
    let mut verdicts = Vec::new();
    for source in &names {
        for destination in &names {
            let call = Call { source, destination, port: &port, protocol: Protocol::Tcp, request: None };
            let decision = decide(&rules, &call, UNIX_EPOCH);
            verdicts.push((decision.allowed(), decision.would_deny));
        }
    }
    verdicts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What says the same can go, all of it at once, and whatever else says so alone can go was found.
    #[test]
    fn without_what_is_shadowed_every_verdict_is_the_same(
        set in prop::collection::vec(intention(), 0..12),
        default in prop_oneof![Just(DefaultPolicy::Deny), Just(DefaultPolicy::Allow), Just(DefaultPolicy::Audit)],
    ) {
        let by_pair: std::collections::BTreeMap<PairKey, Intention> = set.into_iter().map(|one| (one.key(), one)).collect();
        let set: Vec<Intention> = by_pair.into_values().collect();
        let found: BTreeSet<String> = shadowed(&set, &set, &BTreeSet::new()).into_iter().map(|one| one.intention).collect();
        let left: Vec<Intention> = set.iter().filter(|one| !found.contains(&one.pair())).cloned().collect();
        prop_assert_eq!(verdicts(default, &left), verdicts(default, &set));
    }
}
