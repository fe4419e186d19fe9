//! Requests judged by permissions: the worked examples, and what each criterion means.

use crate::support::{Question, forwarded, now, rules, told, web_to_api};
use std::sync::Arc;

use postern_intentions::{
    Action, Because, DefaultPolicy, Entry, EntryContent, Forward, Intention, Mode, PathRefused, PathSettings, Protocol, RuleSet,
    Verdict, has_permissions,
};

const ALLOW_0: &str = "allow: intention web -> api (allow, permission 0)";
const DENY_0: &str = "deny: intention web -> api (deny, permission 0)";
const OTHERWISE: &str = "deny: intention web -> api (otherwise: no permission matches)";

#[track_caller]
fn assert_told(rules: &RuleSet, table: &[(&str, &str)]) {
    for (line, expected) in table {
        assert_eq!(Question::of(line).told(rules), *expected, "{line}");
    }
}

#[test]
fn an_allow_list_never_turns_into_a_no_op_whatever_the_default() {
    let permissions = "[{action: allow, methods: [GET], path_prefix: /pub/}]";
    for default in ["allow", "deny", "audit"] {
        let rules =
            rules(&format!("default: {default}\nintentions:\n- {{source: web, destination: api, permissions: {permissions}}}"));
        assert_told(&rules, &[("GET /pub/x", ALLOW_0), ("POST /pub/x", OTHERWISE), ("GET /", OTHERWISE)]);
    }
}

#[test]
fn the_first_permission_that_matches_decides_on_every_spelling_of_a_path() {
    let rules = web_to_api("[{action: deny, path_prefix: /pub/secret}, {action: allow, path_prefix: /pub/}]", "");
    for line in ["GET /pub/secret", "GET /pub//secret/x", "GET /pub/%73ecret", "GET /pub/secret;a=b", "GET /pub/x/..;/secret"] {
        assert_eq!(Question::of(line).told(&rules), DENY_0, "{line}");
    }
    assert_eq!(Question::of("GET /pub/x").told(&rules), "allow: intention web -> api (allow, permission 1)");
}

#[test]
fn every_reading_of_a_path_has_to_be_allowed() {
    let rules = web_to_api("[{action: allow, path_prefix: /pub/}]", "");
    assert_told(&rules, &[("GET /pub/..;/admin", OTHERWISE), ("GET /pub/a;b/c", ALLOW_0)]);
}

#[test]
fn a_prefix_ends_at_a_segment() {
    let rules = web_to_api("[{action: allow, path_prefix: /v1}]", "");
    assert_told(&rules, &[("GET /v1", ALLOW_0), ("GET /v1/x", ALLOW_0), ("GET /v1x", OTHERWISE), ("GET /", OTHERWISE)]);
    let below = web_to_api("[{action: allow, path_prefix: /v1/}]", "");
    assert_told(&below, &[("GET /v1", OTHERWISE), ("GET /v1/x", ALLOW_0), ("GET /v1/", ALLOW_0)]);
    let everything = web_to_api("[{action: allow, path_prefix: /}]", "");
    assert_told(&everything, &[("GET /", ALLOW_0), ("GET /v1x", ALLOW_0), ("GET /a;b", ALLOW_0)]);
}

#[test]
fn permissions_deny_requests_of_a_tcp_destination() {
    let rules = web_to_api("[{action: allow}]", "");
    let question = Question { protocol: Protocol::Tcp, ..Question::of("GET /") };
    assert_eq!(question.told(&rules), "deny: intention web -> api has permissions, and api is tcp");
}

#[test]
fn otherwise_decides_where_no_permission_matches() {
    let rules = web_to_api("[{action: deny, path_prefix: /admin}]", ", otherwise: allow");
    assert_told(
        &rules,
        &[("GET /admin/x", DENY_0), ("GET /x", "allow: intention web -> api (otherwise: no permission matches)")],
    );
    assert_told(&rules, &[("GET /x/..;/admin", DENY_0)]);
}

#[test]
fn audit_lets_through_what_it_would_deny_and_forwards_what_was_judged() {
    let rules = web_to_api("[{action: allow, path_prefix: /pub/}]", ", mode: audit");
    assert_told(
        &rules,
        &[
            ("GET /pub/x", "allow: intention web -> api (allow, permission 0, audit)"),
            ("GET /x", "allow, would deny: intention web -> api (otherwise: no permission matches)"),
            ("GET /pub/..;/x", "allow, would deny: intention web -> api (otherwise: no permission matches)"),
            ("GET /a%2Fb", "allow, would deny: intention web -> api has permissions, and the path holds an escaped slash (%2F)"),
        ],
    );
    assert_eq!(forwarded(&Question::of("GET /a/../x"), &rules).as_deref(), Some("/x"));
    let judged = Question::of("GET /a%2Fb").judged(&rules);
    assert_eq!((judged.refused(), judged.forward()), (None, Some(&Forward::Untouched)));
}

#[test]
fn a_path_that_can_not_be_judged_is_refused_and_not_denied() {
    let rules = web_to_api("[{action: allow}]", ", otherwise: allow");
    let judged = Question::of("GET /a%2Fb").judged(&rules);
    assert_eq!(told(&judged), "deny: intention web -> api has permissions, and the path holds an escaped slash (%2F)");
    assert_eq!((judged.refused(), judged.forward()), (Some(PathRefused::EscapedSlash), None));
    assert_eq!(judged.decision.because.label(), "web -> api");
    assert_eq!(Question::of("GET /a").judged(&rules).refused(), None);
}

#[test]
fn a_path_is_forwarded_untouched_where_no_permissions_govern() {
    for text in ["default: allow\nintentions: []", "intentions: [{source: web, destination: api, action: allow}]"] {
        let rules = rules(text);
        for target in ["/a%2Fb/../x//y?q#f", "http://elsewhere/", "\\"] {
            let judged = Question::of(&format!("GET {target}")).judged(&rules);
            assert_eq!(judged.forward(), Some(&Forward::Untouched), "{target}");
        }
    }
    assert_eq!(Question::of("GET /").judged(&rules("intentions: []")).forward(), None);
}

#[test]
fn what_was_judged_is_what_is_forwarded_with_the_query_as_it_was() {
    let rules = web_to_api("[{action: allow}]", "");
    for (target, expected) in [
        ("/a", "/a"),
        ("/a?b//../%zz", "/a?b//../%zz"),
        ("/a/../b?q=/../x#f?", "/b?q=/../x"),
        ("/a#f", "/a"),
        ("/%61?", "/a?"),
        ("/ä", "/%C3%A4"),
        ("http://api.example", "/"),
        ("HTTP://API.example/x/./y?z", "/x/y?z"),
        ("https://api.example?z", "/?z"),
        ("/pub/..;/admin", "/pub/..;/admin"),
    ] {
        assert_eq!(forwarded(&Question::of(&format!("GET {target}")), &rules).as_deref(), Some(expected), "{target}");
    }
    let untouched = |target: &str| Question::of(&format!("GET {target}")).judged(&rules).forward() == Some(&Forward::Untouched);
    assert!(untouched("/a?b") && untouched("/a;b") && untouched("/.well-known/x%20y") && !untouched("/a#"));
}

#[test]
fn a_connection_asks_whether_its_requests_are_judged() {
    let rules = rules(
        "intentions:\n- {source: web, destination: api, permissions: [{action: allow}]}\n- {source: '*', destination: api, action: allow}",
    );
    let has = |source: &str| {
        let (source, destination, port) = (source.parse().unwrap(), "api".parse().unwrap(), postern_names::PortName::main());
        let call = postern_intentions::Call {
            source: &source,
            destination: &destination,
            port: &port,
            protocol: Protocol::Http,
            request: None,
        };
        has_permissions(&rules, &call, now())
    };
    assert!(has("web") && !has("batch"));
}

#[test]
fn permissions_of_wildcards_and_temporary_intentions_judge_too() {
    let any = rules("intentions: [{source: '*', destination: '*', permissions: [{action: allow, methods: [GET]}]}]");
    assert_eq!(Question::of("GET /").told(&any), "allow: intention * -> * (allow, permission 0)");
    assert_eq!(Question::of("PUT /").told(&any), "deny: intention * -> * (otherwise: no permission matches)");
}

#[test]
fn a_decision_on_a_request_holds_the_facts() {
    let rules = web_to_api("[{action: allow, methods: [PUT]}, {action: deny}]", ", mode: audit");
    let decision = Question::of("GET /").judged(&rules).decision;
    assert_eq!((decision.verdict, decision.would_deny), (Verdict::Allow, true));
    let expected = Because::Intention {
        source: "web".parse().unwrap(),
        destination: "api".parse().unwrap(),
        revision: 1,
        action: Action::Deny,
        mode: Mode::Audit,
        temporary_until: None,
        permission: Some(1),
    };
    assert_eq!(decision.because, expected);
}

#[test]
fn settings_keep_what_a_service_needs_and_every_reading_is_judged() {
    let keep: PathSettings = serde_json::from_str(r#"{"encoded_slash": "keep", "double_slash": "keep"}"#).unwrap();
    let rules = web_to_api("[{action: deny, path_prefix: /api/secret}, {action: allow, path_prefix: /api/}]", "");
    for (target, expected) in [
        ("/api/queues/%2F/", Some("/api/queues/%2F/")),
        ("/api/group%2fproject", Some("/api/group%2Fproject")),
        ("/api//x", Some("/api//x")),
        ("/api/%2Fsecret", None),
        ("/api//secret", None),
        ("/api/x%2F..%2Fsecret", None),
        ("/api/..%2Fadmin", None),
        ("/api/%2F..%2F..%2F..%2Fx", None),
        ("/api/a;x%2F..%2F..%2Fsecret", None),
        ("/api/%5Cx", None),
    ] {
        let question = Question::of(&format!("GET {target}")).paths(keep);
        assert_eq!(forwarded(&question, &rules).as_deref(), expected, "{target}");
    }
}

#[test]
fn what_was_compiled_before_judges_as_what_is_compiled_anew() {
    let intention = |pattern: &str| {
        let text = format!("{{source: web, destination: api, permissions: [{{action: allow, path_regex: '{pattern}'}}]}}");
        Arc::new(serde_yaml::from_str::<Intention>(&text).unwrap())
    };
    let entry = |intention: &Arc<Intention>, revision| Entry { revision, content: EntryContent::Understood(intention.clone()) };
    let (kept, newer) = (intention("/a+"), intention("/b+"));
    let before = RuleSet::compile(DefaultPolicy::Deny, [entry(&kept, 1)]);
    let same = RuleSet::compile_after(&before, DefaultPolicy::Deny, [entry(&kept, 2)]);
    drop(before);
    assert_told(&same, &[("GET /aaa", ALLOW_0), ("GET /b", OTHERWISE)]);
    assert!(matches!(Question::of("GET /b").judged(&same).decision.because, Because::Otherwise { revision: 2, .. }));
    let changed = RuleSet::compile_after(&same, DefaultPolicy::Deny, [entry(&newer, 3)]);
    assert_told(&changed, &[("GET /aaa", OTHERWISE), ("GET /b", ALLOW_0)]);
}
