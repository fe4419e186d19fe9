//! What each criterion of a permission means.

use crate::support::{Question, web_to_api};
use postern_intentions::VerifiedTokens;

/// Whether the criteria match a question, for an allow and for a deny.
fn matches(criteria: &str, question: &Question) -> (bool, bool) {
    let allow = web_to_api(&format!("[{{action: allow, {criteria}}}]"), "");
    let deny = web_to_api(&format!("[{{action: deny, {criteria}}}]"), ", otherwise: allow");
    let index = |rules| question.judged(rules).decision;
    (index(&allow).allowed(), !index(&deny).allowed())
}

#[track_caller]
fn assert_both(criteria: &str, question: &Question, expected: bool) {
    assert_eq!(matches(criteria, question), (expected, expected), "{criteria}");
}

fn get() -> Question {
    Question::of("GET /")
}

#[test]
fn a_method_is_one_of_those_given_and_a_deny_does_not_depend_on_its_case() {
    let of = |line| matches("methods: [GET, HEAD]", &Question::of(line));
    assert_eq!(of("GET /"), (true, true));
    assert_eq!(of("HEAD /"), (true, true));
    assert_eq!(of("POST /"), (false, false));
    assert_eq!(of("get /"), (false, true));
    assert_eq!(of("GETS /"), (false, false));
}

#[test]
fn a_port_is_one_of_those_given() {
    assert_both("ports: [main, admin]", &get(), true);
    assert_both("ports: [admin]", &get(), false);
    let admin = Question { port: "admin".parse().unwrap(), ..get() };
    assert_both("ports: [admin]", &admin, true);
}

#[test]
fn each_way_to_match_a_header_looks_at_its_whole_value() {
    let blue = get().header("X-Team", "dark-blue");
    for (way, expected) in [
        ("present: true", true),
        ("exact: dark-blue", true),
        ("exact: blue", false),
        ("exact: Dark-blue", false),
        ("prefix: dark", true),
        ("prefix: blue", false),
        ("suffix: blue", true),
        ("suffix: dark", false),
        ("contains: k-b", true),
        ("contains: kb", false),
        ("regex: '[a-z]+-blue'", true),
        ("regex: blue", false),
        ("regex: 'dark-blue|x'", true),
        ("regex: 'x|dark'", false),
    ] {
        assert_both(&format!("headers: [{{name: x-team, {way}}}]"), &blue, expected);
        assert_both(&format!("headers: [{{name: x-team, {way}, invert: true}}]"), &blue, !expected);
        assert_both(&format!("headers: [{{name: x-other, {way}}}]"), &blue, false);
        assert_both(&format!("headers: [{{name: x-other, {way}, invert: true}}]"), &blue, true);
    }
}

#[test]
fn an_empty_value_is_present() {
    assert_both("headers: [{name: x, present: true}]", &get().header("x", ""), true);
    assert_both("headers: [{name: x, exact: ''}]", &get().header("x", ""), true);
    assert_both("query: [{name: x, exact: ''}]", &Question::of("GET /?x"), true);
    assert_both("query: [{name: x, exact: ''}]", &Question::of("GET /?x="), true);
}

#[test]
fn of_several_values_an_allow_needs_all_and_a_deny_any() {
    let both = get().header("x", "a").header("x", "b");
    assert_eq!(matches("headers: [{name: x, exact: a}]", &both), (false, true));
    assert_eq!(matches("headers: [{name: x, regex: '[ab]'}]", &both), (true, true));
    assert_eq!(matches("headers: [{name: x, exact: c}]", &both), (false, false));
    // Inverted, each value is turned around: «none is a» of an allow, «one is not a» of a deny.
    assert_eq!(matches("headers: [{name: x, exact: a, invert: true}]", &both), (false, true));
    assert_eq!(matches("headers: [{name: x, exact: c, invert: true}]", &both), (true, true));
    assert_eq!(matches("query: [{name: q, exact: a}]", &Question::of("GET /?q=a&q=b")), (false, true));
    assert_eq!(matches("query: [{name: q, exact: a}]", &Question::of("GET /?q=a&p=b&q=a")), (true, true));
}

#[test]
fn a_value_that_is_not_utf_8_counts_against_the_caller() {
    let strange = get().header("x", b"\xff");
    for way in ["present: true", "exact: a", "exact: a, invert: true", "regex: '.*'", "present: true, invert: true"] {
        assert_eq!(matches(&format!("headers: [{{name: x, {way}}}]"), &strange), (false, true), "{way}");
    }
    assert_eq!(matches("headers: [{name: y, present: true}]", &strange), (false, false), "another header is not touched");
    let also = get().header("x", "a").header("x", b"a\xff");
    assert_eq!(matches("headers: [{name: x, exact: a}]", &also), (false, true));
    // All criteria must hold: a path that does not match stays so.
    assert_eq!(matches("path_exact: /b, headers: [{name: x, exact: a}]", &strange), (false, false));
}

#[test]
fn a_query_is_read_as_forms_write_it() {
    for (query, expected) in [
        ("q=a+b", true),
        ("q=a%20b", true),
        ("q=%61+%62", true),
        ("%71=a+b", true),
        ("x&q=a+b&", true),
        ("q=a+b#q=x", true),
        ("q=a%2bb", false),
        ("Q=a+b", false),
        ("q=a+b=", false),
        ("x?q=a+b", false),
    ] {
        assert_eq!(matches("query: [{name: q, exact: a b}]", &Question::of(&format!("GET /?{query}"))).0, expected, "{query}");
    }
    assert_both("query: [{name: q, present: true}]", &get(), false);
    assert_both("query: [{name: q, regex: '[0-9]+'}]", &Question::of("GET /?q=12"), true);
    assert_both("query: [{name: q, regex: '[0-9]+'}]", &Question::of("GET /?q=12x"), false);
}

#[test]
fn a_query_that_is_not_understood_counts_against_the_caller() {
    for query in ["q=%", "q=%2", "q=%zz", "q=%ff", "q=a&q=%f", "%zz=a", "%ff", "q=%+1"] {
        let question = Question::of(&format!("GET /?{query}"));
        assert_eq!(matches("query: [{name: q, exact: a}]", &question), (false, true), "{query}");
    }
    let question = Question::of("GET /?other=%zz&q=a");
    assert_eq!(matches("query: [{name: q, exact: a}]", &question), (true, true), "the value of another name is not read");
    assert_eq!(matches("path_exact: /", &Question::of("GET /?%zz")), (true, true), "nor is a query that nothing asks for");
}

fn with_token(claims: &str) -> Question {
    let mut tokens = VerifiedTokens::none();
    tokens.insert("corp", serde_json::from_str(claims).unwrap());
    Question { tokens, ..get() }
}

#[test]
fn a_token_matches_if_it_was_verified_and_has_all_claims() {
    let alice = with_token(r#"{"sub": "alice", "realm": {"roles": ["admin", "dev"]}}"#);
    assert_both("jwt: [{provider: corp}]", &alice, true);
    assert_both("jwt: [{provider: other}]", &alice, false);
    assert_both("jwt: [{provider: corp}]", &get().header("authorization", "Bearer x.y.z"), false);
    assert_both(
        "jwt: [{provider: corp, claims: [{path: sub, equals: alice}, {path: realm.roles, contains: dev}]}]",
        &alice,
        true,
    );
    assert_both(
        "jwt: [{provider: corp, claims: [{path: sub, equals: alice}, {path: realm.roles, contains: ops}]}]",
        &alice,
        false,
    );
    assert_both("jwt: [{provider: corp}, {provider: other}]", &alice, false);
}

#[test]
fn a_claim_equals_a_text_a_number_or_a_boolean_and_only_a_list_contains() {
    let token = with_token(
        r#"{"n": 42, "f": 1.0, "t": true, "s": "42", "none": null, "list": ["a", 7, false, ["b"]], "o": {"x": 1},
            "https://example.com/roles": ["r"], "a.b": {"c": "deep"}, "a": {"b": {"c": "other", "d": "deeper"}}}"#,
    );
    for (claim, expected) in [
        ("path: n, equals: '42'", true),
        ("path: n, equals: '42.0'", false),
        ("path: f, equals: '1.0'", true),
        ("path: t, equals: 'true'", true),
        ("path: t, equals: 'TRUE'", false),
        ("path: s, equals: '42'", true),
        ("path: none, equals: 'null'", false),
        ("path: list, equals: a", false),
        ("path: o, equals: '{\"x\":1}'", false),
        ("path: list, contains: a", true),
        ("path: list, contains: '7'", true),
        ("path: list, contains: 'false'", true),
        ("path: list, contains: b", false),
        ("path: s, contains: '4'", false),
        ("path: o, contains: x", false),
        ("path: missing, equals: a", false),
        ("path: o.x, equals: '1'", true),
        ("path: o.x.y, equals: '1'", false),
        ("path: 'https://example.com/roles', contains: r", true),
        ("path: a.b.c, equals: deep", true),
        ("path: a.b.d, equals: deeper", true),
    ] {
        assert_both(&format!("jwt: [{{provider: corp, claims: [{{{claim}}}]}}]"), &token, expected);
    }
}

#[test]
fn all_criteria_must_hold() {
    let criteria =
        "methods: [GET], path_exact: /a, headers: [{name: x, exact: b}, {name: y, exact: c}], query: [{name: q, exact: d}]";
    let whole = Question::of("GET /a?q=d").header("x", "b").header("y", "c");
    assert_both(criteria, &whole, true);
    assert_both(criteria, &Question { method: "PUT".into(), ..whole.clone() }, false);
    assert_both(criteria, &Question { target: "/b?q=d".into(), ..whole.clone() }, false);
    assert_both(criteria, &Question { target: "/a?q=e".into(), ..whole.clone() }, false);
    assert_both(criteria, &Question::of("GET /a?q=d").header("x", "b"), false);
    assert_both(criteria, &Question::of("GET /a?q=d").header("y", "c"), false);
}

#[test]
fn a_regular_expression_matches_the_whole_path() {
    let of = |pattern: &str, line: &str| matches(&format!("path_regex: '{pattern}'"), &Question::of(line));
    assert_eq!(of("/items/[0-9]+", "GET /items/12"), (true, true));
    assert_eq!(of("/items/[0-9]+", "GET /items/12/x"), (false, false));
    assert_eq!(of("/items/[0-9]+", "GET /x/items/12"), (false, false));
    assert_eq!(of("/a|/b", "GET /b"), (true, true));
    assert_eq!(of("/a|/b", "GET /bc"), (false, false));
    assert_eq!(of("/.*", "GET /a?b"), (true, true));
    assert_eq!(of("/[^;]*", "GET /a;b"), (false, true), "the second reading counts for a deny");
}

#[test]
fn a_criterion_is_compared_in_every_spelling_that_a_request_may_have() {
    assert_both("path_exact: /%61%2d", &Question::of("GET /a-"), true);
    assert_both("path_exact: /a//b", &Question::of("GET /a//b"), true);
    assert_both("path_exact: '/a%3ab'", &Question::of("GET /a%3Ab"), true);
    assert_both("path_exact: '/a:b'", &Question::of("GET /a:b"), true);
    assert_both("path_prefix: '/a%20b'", &Question::of("GET /a%20b/c"), true);
    // Both readings have to be allowed, and one is denied.
    assert_eq!(matches("path_exact: '/a:b'", &Question::of("GET /a%3Ab")), (false, true));
}
