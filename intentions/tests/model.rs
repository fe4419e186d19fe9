//! What a valid intention is, and its flat form.

use std::time::{Duration, UNIX_EPOCH};

use postern_intentions::{Action, Intention, Mode, PathCriterion, Permission, QueryCriterion, Rule, TextMatch};

fn web_to_api() -> Intention {
    Intention::new("web".parse().unwrap(), "api".parse().unwrap(), Action::Allow)
}

fn refused(intention: &Intention) -> String {
    intention.validate().unwrap_err().to_string()
}

fn permission() -> Permission {
    Permission { action: Action::Deny, methods: vec![], path: None, headers: vec![], query: vec![], ports: vec![], jwt: vec![] }
}

fn with(permission: Permission) -> Intention {
    Intention { rule: Rule::Permissions { permissions: vec![permission], otherwise: Action::Deny }, ..web_to_api() }
}

fn read(text: &str) -> Result<Intention, String> {
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_left_out_of_the_flat_form() {
    assert_eq!(serde_yaml::to_string(&web_to_api()).unwrap(), "source: web\ndestination: api\naction: allow\n");
    let full = Intention {
        mode: Mode::Audit,
        expires_at: Some(UNIX_EPOCH + Duration::from_millis(1_772_366_400_250)),
        description: "why".into(),
        ..web_to_api()
    };
    let expected =
        "source: web\ndestination: api\naction: allow\nmode: audit\nexpires_at: 2026-03-01T12:00:00.25Z\ndescription: why\n";
    assert_eq!(serde_yaml::to_string(&full).unwrap(), expected);
    assert_eq!(read(expected), Ok(full));
}

#[test]
fn the_flat_form_takes_nothing_unknown_and_nothing_contradictory() {
    for (text, said) in [
        ("{source: web, destination: api, action: allow, colour: red}", "unknown field `colour`"),
        ("{source: web, destination: api}", "neither action nor permissions"),
        ("{source: web, destination: api, action: allow, permissions: [{action: deny}]}", "both given"),
        ("{source: web, destination: api, action: allow, otherwise: deny}", "otherwise is given without permissions"),
        ("{source: web, destination: api, permissions: []}", "permissions is empty"),
        ("{source: web, destination: api, permissions: [{action: deny, path_exact: /a, path_regex: /b}]}", "more than one path"),
        ("{source: web, destination: api, permissions: [{action: deny, methods: [get]}]}", "method \"get\" is not valid"),
        (
            "{source: web, destination: api, permissions: [{action: deny, query: [{name: q, prefix: a}]}]}",
            "unknown field `prefix`",
        ),
        ("{source: web, destination: api, action: allow, expires_at: tomorrow}", "use RFC 3339"),
        ("{source: \"web*\", destination: api, action: allow}", "stands alone"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn a_time_that_the_wire_would_take_for_permanent_is_refused() {
    let at = |end| Intention { expires_at: Some(end), ..web_to_api() };
    for end in [UNIX_EPOCH, UNIX_EPOCH + Duration::from_micros(999), UNIX_EPOCH - Duration::from_secs(1)] {
        assert!(refused(&at(end)).contains("expires_at is not valid"), "{end:?}");
    }
    assert!(refused(&at(UNIX_EPOCH + Duration::from_secs(1 << 40))).contains("expires_at is not valid"));
    assert_eq!(at(UNIX_EPOCH + Duration::from_millis(1)).validate(), Ok(()));
}

#[test]
fn at_the_instant_of_its_end_an_intention_has_ended() {
    let end = UNIX_EPOCH + Duration::from_secs(100);
    let temporary = Intention { expires_at: Some(end), ..web_to_api() };
    assert!(temporary.is_temporary() && temporary.key().temporary);
    assert!(temporary.is_live(end - Duration::from_nanos(1)));
    assert!(!temporary.is_live(end));
    assert!(web_to_api().is_live(end));
}

#[test]
fn a_permission_without_criteria_matches_everything_and_is_valid() {
    assert_eq!(with(permission()).validate(), Ok(()));
}

#[test]
fn a_path_that_no_request_can_have_is_refused() {
    for path in [
        "",
        "a",
        "/a?b",
        "/a#b",
        "/a b",
        "/a\\b",
        "/a/../b",
        "/.",
        "/ä",
        "/a\n",
        "/%2e%2E/b",
        "/%",
        "/%2",
        "/%zz",
        "/%00",
        "/%5c",
    ] {
        for criterion in [PathCriterion::Exact(path.into()), PathCriterion::Prefix(path.into())] {
            let error = refused(&with(Permission { path: Some(criterion), ..permission() }));
            assert!(error.starts_with("path "), "{path:?}: {error}");
        }
    }
    for path in ["/", "/a/", "/a..b/.well-known", "/a%20b", "/%2F", "/a//b"] {
        assert_eq!(
            with(Permission { path: Some(PathCriterion::Exact(path.into())), ..permission() }).validate(),
            Ok(()),
            "{path}"
        );
    }
}

#[test]
fn a_query_is_matched_in_fewer_ways_than_a_header() {
    let query = |matches| with(Permission { query: vec![QueryCriterion { name: "q".into(), matches }], ..permission() });
    assert_eq!(query(TextMatch::Exact("x".into())).validate(), Ok(()));
    assert!(refused(&query(TextMatch::Prefix("x".into()))).contains("exactly one of present, exact and regex"));
}

#[test]
fn texts_for_people_are_short_and_hold_no_terminal_codes() {
    assert!(refused(&Intention { description: "\u{1b}[2J".into(), ..web_to_api() }).contains("control character"));
    assert!(refused(&Intention { description: "x".repeat(1025), ..web_to_api() }).contains("longer than 1024 bytes"));
    assert_eq!(Intention { description: "two\nlines".into(), ..web_to_api() }.validate(), Ok(()));
    assert!(refused(&Intention { meta: [("a".into(), "\u{7}".into())].into(), ..web_to_api() }).contains("control character"));
}

#[test]
fn a_summary_tells_what_an_intention_says() {
    assert_eq!(web_to_api().summary(), "allow");
    assert_eq!(Intention { mode: Mode::Audit, ..with(permission()) }.summary(), "1 permission, otherwise deny, audit");
}

#[test]
fn only_audit_of_a_denial_opens() {
    let deny = Intention { rule: Rule::Action(Action::Deny), ..web_to_api() };
    assert_eq!(deny.opens(), None);
    assert_eq!(Intention { mode: Mode::Audit, ..web_to_api() }.opens(), None);
    assert_eq!(
        Intention { mode: Mode::Audit, source: "*".parse().unwrap(), ..deny }.opens().unwrap(),
        "this lets every service reach api"
    );
}
