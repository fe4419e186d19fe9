//! What would let a denied call through.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use postern_intentions::{
    Call, Decision, DefaultPolicy, Entry, EntryContent, Intention, PathSettings, Protocol, Remedy, Request, RuleSet,
    VerifiedTokens, decide, file, remedy,
};
use postern_names::PortName;
use proptest::prelude::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_772_366_400)
}

struct Mesh {
    default: DefaultPolicy,
    intentions: Vec<Intention>,
}

impl Mesh {
    fn of(text: &str) -> Self {
        let read = file::parse(text, "test.yaml").unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        Self { default: read.default.unwrap_or_default(), intentions: read.intentions }
    }

    fn with_temporary(mut self, source: &str, destination: &str, action: &str) -> Self {
        let intention = Intention::new(source.parse().unwrap(), destination.parse().unwrap(), action.parse().unwrap());
        self.intentions.push(Intention { expires_at: Some(now() + Duration::from_secs(60)), ..intention });
        self
    }

    fn rules(&self) -> RuleSet {
        let entry = |one: &Intention| Entry { revision: 1, content: EntryContent::Understood(Arc::new(one.clone())) };
        RuleSet::compile(self.default, self.intentions.iter().map(entry))
    }

    /// As somebody would who does what it says.
    fn after(&self, remedy: &Remedy) -> Self {
        let mut intentions = self.intentions.clone();
        let is_of_pair = |one: &Intention| one.source.to_string() == "web" && one.destination.to_string() == "api";
        if remedy.ends_temporary {
            intentions.retain(|one| !(is_of_pair(one) && one.is_temporary()));
        }
        if let Some(intention) = &remedy.intention {
            intentions.retain(|one| !is_of_pair(one) || one.is_temporary());
            intentions.push(intention.clone());
        }
        Self { default: self.default, intentions }
    }
}

fn asked<T>(protocol: Protocol, request: Option<(&str, &str)>, f: impl FnOnce(&Call<'_>) -> T) -> T {
    asked_by("web", protocol, request, f)
}

fn asked_by<T>(source: &str, protocol: Protocol, request: Option<(&str, &str)>, f: impl FnOnce(&Call<'_>) -> T) -> T {
    let (headers, tokens) = (HeaderMap::new(), VerifiedTokens::none());
    let request = request.map(|(method, target)| Request {
        method,
        target,
        host: None,
        headers: &headers,
        tokens: &tokens,
        paths: PathSettings::default(),
    });
    let (source, destination, port) = (source.parse().unwrap(), "api".parse().unwrap(), PortName::main());
    f(&Call { source: &source, destination: &destination, port: &port, protocol, request: request.as_ref() })
}

fn of(mesh: &Mesh, protocol: Protocol, request: Option<(&str, &str)>) -> Option<Remedy> {
    asked(protocol, request, |call| remedy(&mesh.rules(), call, now()))
}

fn decided(mesh: &Mesh, source: &str, protocol: Protocol, request: Option<(&str, &str)>) -> Decision {
    asked_by(source, protocol, request, |call| decide(&mesh.rules(), call, now()))
}

#[test]
fn a_connection_is_let_through_by_the_exact_pair() {
    for (text, why) in [
        ("intentions: []", "default (deny) decides; web -> api goes before it"),
        (
            "intentions: [{source: '*', destination: api, action: deny}]",
            "intention * -> api (deny) decides; web -> api goes before it",
        ),
        (
            "intentions: [{source: web, destination: api, action: deny}]",
            "intention web -> api (deny) decides; this takes the place of web -> api (deny)",
        ),
        ("default: audit\nintentions: []", "default (audit) decides; web -> api goes before it"),
    ] {
        let found = of(&Mesh::of(text), Protocol::Tcp, None).unwrap();
        assert_eq!((found.ends_temporary, found.why.as_str()), (false, why), "{text}");
        assert_eq!(found.intention.unwrap().summary(), "allow", "{text}");
    }
}

#[test]
fn what_goes_through_needs_nothing() {
    assert_eq!(of(&Mesh::of("intentions: [{source: web, destination: api, action: allow}]"), Protocol::Tcp, None), None);
    assert_eq!(of(&Mesh::of("default: allow\nintentions: []"), Protocol::Http, Some(("GET", "/"))), None);
}

#[test]
fn a_temporary_deny_ends_first() {
    let allowed_below =
        Mesh::of("intentions: [{source: '*', destination: api, action: allow}]").with_temporary("web", "api", "deny");
    let found = of(&allowed_below, Protocol::Tcp, None).unwrap();
    assert_eq!((found.ends_temporary, &found.intention), (true, &None), "{found:?}");
    let denied_below = Mesh::of("intentions: []").with_temporary("web", "api", "deny");
    let found = of(&denied_below, Protocol::Tcp, None).unwrap();
    assert!(found.ends_temporary && found.intention.is_some(), "{found:?}");
    // One of a wildcard gives way to the pair, and may stay.
    let of_all = Mesh::of("intentions: []").with_temporary("*", "api", "deny");
    assert!(!of(&of_all, Protocol::Tcp, None).unwrap().ends_temporary);
}

#[test]
fn a_request_is_let_through_by_its_method_and_path_alone() {
    let mesh = Mesh::of("intentions: []");
    let found = of(&mesh, Protocol::Http, Some(("POST", "/v1/x?page=2"))).unwrap();
    let text = file::render(&file::IntentionFile { default: None, intentions: found.intention.into_iter().collect() });
    assert!(text.contains("{action: allow, methods: [POST], path_exact: /v1/x}"), "{text}");
    assert_eq!(of(&mesh, Protocol::Http, Some(("GET", "/a%2Fb"))), None, "no permission takes what is refused before");
    let two_readings = of(&mesh, Protocol::Http, Some(("GET", "/pub/..;/admin"))).unwrap();
    let after = mesh.after(&two_readings);
    assert!(decided(&after, "web", Protocol::Http, Some(("GET", "/pub/..;/admin"))).allowed());
}

#[test]
fn permissions_that_are_there_stay_behind_the_new_one() {
    let text = "intentions: [{source: '*', destination: api, permissions: [{action: deny, path_prefix: /admin}, {action: allow, path_prefix: /}]}]";
    let mesh = Mesh::of(text);
    let found = of(&mesh, Protocol::Http, Some(("GET", "/admin/x"))).unwrap();
    let after = mesh.after(&found);
    for (source, path, allowed) in
        [("web", "/admin/x", true), ("web", "/admin/y", false), ("web", "/z", true), ("db", "/admin/x", false)]
    {
        assert_eq!(decided(&after, source, Protocol::Http, Some(("GET", path))).allowed(), allowed, "{source} {path}");
    }
}

fn text() -> impl Strategy<Value = String> {
    let rule = prop_oneof![
        Just("action: allow"),
        Just("action: deny"),
        Just("action: deny, mode: audit"),
        Just("permissions: [{action: deny, path_prefix: /a}, {action: allow, methods: [GET]}]"),
        Just("permissions: [{action: allow, path_exact: /a/b}], mode: audit"),
        Just("permissions: [{action: deny, methods: [PUT]}], otherwise: allow"),
    ];
    let side = |name| prop_oneof![Just(name), Just("'*'")];
    let default = prop_oneof![Just("deny"), Just("allow"), Just("audit")];
    let pairs = prop::collection::btree_map((side("web"), side("api")), rule, 0..4);
    (default, pairs).prop_map(|(default, pairs)| {
        let lines = pairs
            .iter()
            .map(|((source, destination), rule)| format!("\n- {{source: {source}, destination: {destination}, {rule}}}"));
        format!("default: {default}\nintentions:{}", if pairs.is_empty() { " []".into() } else { lines.collect::<String>() })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whoever does what it says has the call let through, and no other request of anybody judged otherwise.
    #[test]
    fn what_is_suggested_lets_the_call_through_and_nothing_else(
        text in text(),
        temporary in prop::option::of((prop_oneof![Just("web"), Just("*")], prop_oneof![Just("allow"), Just("deny")])),
        method in prop_oneof![Just("GET"), Just("PUT")],
        path in prop_oneof![Just("/a/b"), Just("/a/c"), Just("/d"), Just("/x/..;/a/b")],
    ) {
        let mut mesh = Mesh::of(&text);
        if let Some((source, action)) = temporary {
            mesh = mesh.with_temporary(source, "api", action);
        }
        let asked = Some((method, path));
        let before = decided(&mesh, "web", Protocol::Http, asked);
        let found = of(&mesh, Protocol::Http, asked);
        prop_assert_eq!(found.is_some(), !before.allowed() || before.would_deny, "{}", text);
        let Some(found) = found else { return Ok(()) };
        let after = mesh.after(&found);
        let decision = decided(&after, "web", Protocol::Http, asked);
        prop_assert!(decision.allowed() && !decision.would_deny, "{text}: {found:?}");
        if found.ends_temporary {
            return Ok(());
        }
        for source in ["web", "db"] {
            for method in ["GET", "PUT", "POST"] {
                for path in ["/a/b", "/a/c", "/d", "/e"] {
                    let was = decided(&mesh, source, Protocol::Http, Some((method, path)));
                    let is = decided(&after, source, Protocol::Http, Some((method, path)));
                    let is_the_one = source == "web" && Some(method) == asked.map(|(method, _)| method)
                        && asked.is_some_and(|(_, asked)| asked == path || asked.ends_with(path));
                    prop_assert!(is_the_one || (was.allowed(), was.would_deny) == (is.allowed(), is.would_deny), "{text}: {source} {method} {path}: {found:?}");
                }
            }
        }
    }
}
