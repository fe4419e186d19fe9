//! The table of worked examples, as far as a connection alone decides it, and what follows from it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_intentions::{
    Action, Because, Call, Decision, DefaultPolicy, Entry, EntryContent, Intention, Mode, Party, PathCriterion, Permission,
    Protocol, Rule, RuleSet, Verdict, decide, explain,
};
use postern_names::PortName;

fn party(text: &str) -> Party {
    text.parse().unwrap()
}

fn intention(source: &str, destination: &str, action: Action) -> Intention {
    Intention::new(party(source), party(destination), action)
}

fn allow(source: &str, destination: &str) -> Intention {
    intention(source, destination, Action::Allow)
}

fn deny(source: &str, destination: &str) -> Intention {
    intention(source, destination, Action::Deny)
}

fn audit(intention: Intention) -> Intention {
    Intention { mode: Mode::Audit, ..intention }
}

fn until(intention: Intention, end: SystemTime) -> Intention {
    Intention { expires_at: Some(end), ..intention }
}

fn with_permissions(source: &str, destination: &str) -> Intention {
    let permission = Permission {
        action: Action::Allow,
        methods: vec!["GET".into()],
        path: Some(PathCriterion::Prefix("/pub/".into())),
        headers: Vec::new(),
        query: Vec::new(),
        ports: Vec::new(),
        jwt: Vec::new(),
    };
    let rule = Rule::Permissions { permissions: vec![permission], otherwise: Action::Deny };
    Intention { rule, ..allow(source, destination) }
}

/// Entries with revisions from 1.
fn rules(default: DefaultPolicy, intentions: impl IntoIterator<Item = Intention>) -> RuleSet {
    let entries = intentions.into_iter().zip(1..);
    RuleSet::compile(
        default,
        entries.map(|(intention, revision)| Entry { revision, content: EntryContent::Understood(Arc::new(intention)) }),
    )
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_772_366_400)
}

fn ask_at(rules: &RuleSet, source: &str, destination: &str, protocol: Protocol, now: SystemTime) -> Decision {
    let (source, destination, port) = (source.parse().unwrap(), destination.parse().unwrap(), PortName::main());
    let call = Call { source: &source, destination: &destination, port: &port, protocol, request: None };
    let decision = decide(rules, &call, now);
    assert_eq!(explain(rules, &call, now).decision, decision, "the explanation is of the decision");
    decision
}

fn ask(rules: &RuleSet, source: &str, destination: &str) -> Decision {
    ask_at(rules, source, destination, Protocol::Tcp, now())
}

/// `allow` or `deny`, `would deny`, and because.
fn told(decision: &Decision) -> String {
    let verdict = if decision.allowed() { "allow" } else { "deny" };
    let would_deny = if decision.would_deny { ", would deny" } else { "" };
    format!("{verdict}{would_deny}: {}", decision.because)
}

#[test]
fn without_intentions_the_default_decides() {
    for (default, expected) in [
        (DefaultPolicy::Deny, "deny: default (deny)"),
        (DefaultPolicy::Allow, "allow: default (allow)"),
        (DefaultPolicy::Audit, "allow, would deny: default (audit)"),
    ] {
        assert_eq!(told(&ask(&rules(default, []), "web", "api")), expected);
    }
}

#[test]
fn the_most_exact_intention_governs_and_nothing_is_merged() {
    use DefaultPolicy::Deny;
    let table: [(&[Intention], &str, &str); 7] = [
        (&[allow("*", "api"), deny("web", "api")], "web api", "deny: intention web -> api (deny)"),
        (&[deny("*", "*"), allow("web", "*")], "web api", "allow: intention web -> * (allow)"),
        (&[allow("web", "*"), deny("*", "api")], "web api", "deny: intention * -> api (deny)"),
        (&[allow("*", "*"), deny("*", "db")], "web db", "deny: intention * -> db (deny)"),
        (&[allow("*", "*"), deny("*", "db")], "web api", "allow: intention * -> * (allow)"),
        (&[deny("*", "api"), allow("web", "api")], "web api", "allow: intention web -> api (allow)"),
        (&[allow("api", "web")], "web api", "deny: default (deny)"),
    ];
    for (intentions, question, expected) in table {
        let (source, destination) = question.split_once(' ').unwrap();
        assert_eq!(told(&ask(&rules(Deny, intentions.iter().cloned()), source, destination)), expected);
    }
}

#[test]
fn a_service_needs_an_intention_to_call_itself() {
    assert!(!ask(&rules(DefaultPolicy::Deny, [allow("web", "api")]), "web", "web").allowed());
    assert!(ask(&rules(DefaultPolicy::Deny, [allow("web", "web")]), "web", "web").allowed());
}

#[test]
fn audit_allows_and_tells_what_would_be_denied() {
    let table = [
        (DefaultPolicy::Deny, vec![audit(allow("web", "api"))], "allow: intention web -> api (allow, audit)"),
        (DefaultPolicy::Allow, vec![audit(deny("web", "api"))], "allow, would deny: intention web -> api (deny, audit)"),
        (
            DefaultPolicy::Deny,
            vec![audit(deny("web", "api")), deny("*", "api")],
            "allow, would deny: intention web -> api (deny, audit)",
        ),
        (
            DefaultPolicy::Deny,
            vec![audit(with_permissions("web", "api"))],
            "allow, would deny: intention web -> api has permissions, and api is tcp",
        ),
    ];
    for (default, intentions, expected) in table {
        assert_eq!(told(&ask(&rules(default, intentions), "web", "api")), expected);
    }
}

#[test]
fn permissions_deny_connections_of_a_tcp_destination_whatever_the_default() {
    let rules = rules(DefaultPolicy::Allow, [with_permissions("web", "db"), with_permissions("*", "*")]);
    assert_eq!(told(&ask(&rules, "web", "db")), "deny: intention web -> db has permissions, and db is tcp");
    assert_eq!(told(&ask(&rules, "web", "api")), "deny: intention * -> * has permissions, and the destination is tcp");
}

#[test]
fn a_connection_lives_where_permissions_judge_its_requests_and_the_decision_says_so() {
    let rules = rules(DefaultPolicy::Deny, [with_permissions("web", "api")]);
    for protocol in [Protocol::Http, Protocol::Http2, Protocol::Grpc] {
        let decision = ask_at(&rules, "web", "api", protocol, now());
        assert_eq!(told(&decision), "allow: intention web -> api has permissions, which judge each request");
        assert!(matches!(decision.because, Because::PerRequest { mode: Mode::Enforce, .. }));
        assert_eq!(decision.because.label(), "web -> api");
    }
}

#[test]
fn an_action_decides_connections_of_every_protocol() {
    let rules = rules(DefaultPolicy::Deny, [allow("web", "api")]);
    for protocol in [Protocol::Tcp, Protocol::Http, Protocol::Http2, Protocol::Grpc] {
        assert!(ask_at(&rules, "web", "api", protocol, now()).allowed());
    }
}

#[test]
fn a_live_temporary_intention_stands_in_for_the_permanent_one() {
    let end = now() + Duration::from_secs(7200);
    let rules = rules(DefaultPolicy::Deny, [deny("web", "db"), until(allow("web", "db"), end)]);
    let at = |time| told(&ask_at(&rules, "web", "db", Protocol::Tcp, time));

    assert_eq!(at(now()), "allow: intention web -> db (allow, until 2026-03-01T14:00:00Z)");
    assert_eq!(at(end - Duration::from_nanos(1)), "allow: intention web -> db (allow, until 2026-03-01T14:00:00Z)");
    assert_eq!(at(end), "deny: intention web -> db (deny)");

    assert_eq!(rules.next_expiry(now()), Some(end));
    assert_eq!(rules.next_expiry(end), None);
}

#[test]
fn an_expired_intention_matches_nothing() {
    let end = now() + Duration::from_secs(7200);
    let rules = rules(DefaultPolicy::Deny, [until(allow("web", "api"), end), deny("*", "api")]);
    assert_eq!(told(&ask_at(&rules, "web", "api", Protocol::Tcp, end)), "deny: intention * -> api (deny)");
}

fn not_understood(source: &str, destination: &str, temporary: bool, revision: u64) -> Entry {
    let key = postern_intentions::PairKey { source: party(source), destination: party(destination), temporary };
    Entry { revision, content: EntryContent::NotUnderstood { key, why: "holds a field that this version does not know".into() } }
}

fn understood(intention: Intention, revision: u64) -> Entry {
    Entry { revision, content: EntryContent::Understood(Arc::new(intention)) }
}

#[test]
fn what_is_not_understood_denies_its_pair_in_either_place() {
    let end = now() + Duration::from_secs(60);
    for entries in [
        vec![not_understood("web", "api", false, 1)],
        vec![not_understood("web", "api", true, 1), understood(allow("web", "api"), 2)],
        vec![not_understood("web", "api", false, 1), understood(until(allow("web", "api"), end), 2)],
    ] {
        let rules = RuleSet::compile(DefaultPolicy::Allow, entries);
        let decision = ask(&rules, "web", "api");
        assert_eq!(
            told(&decision),
            "deny: intention web -> api is not understood: holds a field that this version does not know"
        );
        assert_eq!(decision.because.label(), "not_understood");
        assert!(ask(&rules, "web", "db").allowed(), "other pairs are not touched");
    }
}

#[test]
fn what_is_not_understood_yields_to_a_more_exact_pair_only() {
    let rules =
        RuleSet::compile(DefaultPolicy::Allow, [not_understood("*", "api", false, 1), understood(allow("web", "api"), 2)]);
    assert!(ask(&rules, "web", "api").allowed());
    assert!(!ask(&rules, "batch", "api").allowed());
}

#[test]
fn an_intention_that_is_not_valid_counts_as_not_understood() {
    let empty =
        Intention { rule: Rule::Permissions { permissions: Vec::new(), otherwise: Action::Allow }, ..audit(allow("web", "api")) };
    let decision = ask(&rules(DefaultPolicy::Allow, [empty]), "web", "api");
    assert!(matches!(decision, Decision { verdict: Verdict::Deny, would_deny: false, because: Because::NotUnderstood { .. } }));
}

#[test]
fn of_two_entries_for_one_place_the_one_not_understood_stays_then_the_newer() {
    let newer = RuleSet::compile(DefaultPolicy::Deny, [understood(allow("web", "api"), 5), understood(deny("web", "api"), 4)]);
    assert!(ask(&newer, "web", "api").allowed());
    let strange =
        RuleSet::compile(DefaultPolicy::Allow, [not_understood("web", "api", false, 4), understood(allow("web", "api"), 5)]);
    assert!(!ask(&strange, "web", "api").allowed());
}

#[test]
fn deny_all_denies() {
    assert_eq!(told(&ask(&RuleSet::deny_all(), "web", "api")), "deny: default (deny)");
}

fn explained(rules: &RuleSet, now: SystemTime) -> Vec<String> {
    let (source, destination, port) = ("web".parse().unwrap(), "db".parse().unwrap(), PortName::main());
    let call = Call { source: &source, destination: &destination, port: &port, protocol: Protocol::Tcp, request: None };
    let candidates = explain(rules, &call, now).candidates;
    candidates.into_iter().map(|c| format!("{} {} r{} {}: {}", c.precedence, c.pair, c.revision, c.says, c.outcome)).collect()
}

#[test]
fn an_explanation_tells_what_became_of_every_intention_that_matches() {
    let end = now() + Duration::from_secs(7200);
    let rules = rules(
        DefaultPolicy::Deny,
        [
            deny("web", "db"),
            until(allow("web", "db"), end),
            audit(deny("*", "db")),
            with_permissions("*", "*"),
            allow("web", "api"),
        ],
    );
    assert_eq!(
        explained(&rules, now()),
        [
            "9 web -> db r2 allow, until 2026-03-01T14:00:00Z: governs",
            "9 web -> db r1 deny: replaced by the temporary one until 2026-03-01T14:00:00Z",
            "8 * -> db r3 deny, audit: lower precedence",
            "5 * -> * r4 permissions: lower precedence",
        ]
    );
    assert_eq!(
        explained(&rules, end)[..2],
        ["9 web -> db r2 allow, until 2026-03-01T14:00:00Z: expired", "9 web -> db r1 deny: governs"]
    );
}

#[test]
fn an_explanation_names_the_place_that_is_not_understood() {
    let rules = RuleSet::compile(DefaultPolicy::Deny, [not_understood("web", "db", true, 3), understood(allow("web", "db"), 2)]);
    assert_eq!(
        explained(&rules, now()),
        ["9 web -> db r3 not understood: governs", "9 web -> db r2 allow: the pair's other intention is not understood",]
    );
}

#[test]
fn a_decision_holds_the_facts_and_not_only_the_text() {
    let end = now() + Duration::from_secs(60);
    let rules = rules(DefaultPolicy::Deny, [until(audit(deny("*", "db")), end)]);
    let expected = Because::Intention {
        source: Party::Any,
        destination: party("db"),
        revision: 1,
        action: Action::Deny,
        mode: Mode::Audit,
        temporary_until: Some(end),
        permission: None,
    };
    assert_eq!(ask(&rules, "web", "db"), Decision { verdict: Verdict::Allow, would_deny: true, because: expected });
}

#[test]
fn the_texts_of_verdicts_on_requests_name_the_permission() {
    let (source, destination) = (party("web"), party("api"));
    let of_permission = Because::Intention {
        source: source.clone(),
        destination: destination.clone(),
        revision: 1,
        action: Action::Deny,
        mode: Mode::Enforce,
        temporary_until: None,
        permission: Some(0),
    };
    assert_eq!(of_permission.to_string(), "intention web -> api (deny, permission 0)");
    let otherwise = Because::Otherwise { source, destination, revision: 1 };
    assert_eq!(otherwise.to_string(), "intention web -> api (otherwise: no permission matches)");
}
