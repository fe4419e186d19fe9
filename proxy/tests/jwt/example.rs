//! The example of `docs/jwt.md`: it is the one in `examples/jwt`, and it does what its comments say.

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;
use postern_intentions::yaml::{self, FileKind};
use postern_intentions::{
    Call, DefaultPolicy, Entry, EntryContent, PathSettings, Protocol, Request, RuleSet, file, judge_request,
};
use postern_names::PortName;
use postern_proxy::http::jwt::{TokenCache, Verifiers};
use postern_traffic::TrafficFile;
use serde_json::{Value, json};

use crate::headers;
use crate::tokens::{NOW, jwk, jwks, now, token};

fn text_of(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_documentation_shows_the_example_word_for_word() {
    let shown: String =
        text_of("docs/jwt.md").lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect();
    for file in ["providers", "intentions"] {
        let example = text_of(&format!("examples/jwt/{file}.yaml"));
        assert!(shown.contains(&format!("```yaml\n{example}```")), "{file}");
    }
}

/// The providers of the example, with a key set of ours each.
fn verifiers() -> Verifiers {
    let kind = FileKind { name: "an example", depth: 16, empty: "", alias: "", one_document: "" };
    let tree = yaml::parse(&text_of("examples/jwt/providers.yaml"), &kind).expect("YAML");
    let read = yaml::decode::<TrafficFile>(tree);
    assert_eq!(read.problems, []);
    let file = read.value.expect("a file without fault");
    assert_eq!(file.validate(), Ok(()));
    let sets = [jwks([jwk("ES256")]), jwks([jwk("RS256")])];
    let (verifiers, errors) = Verifiers::compile(file.jwt_providers.iter().zip(sets.iter().map(String::as_str)));
    assert_eq!(errors, []);
    verifiers
}

fn rules() -> RuleSet {
    let read = file::parse(&text_of("examples/jwt/intentions.yaml"), "intentions.yaml").expect("intentions");
    let entries = read.intentions.into_iter().zip(1..);
    RuleSet::compile(
        read.default.unwrap_or(DefaultPolicy::Deny),
        entries.map(|(intention, revision)| Entry { revision, content: EntryContent::Understood(Arc::new(intention)) }),
    )
}

fn may(method: &str, target: &str, headers: &HeaderMap) -> bool {
    let verifiers = verifiers();
    let checked = verifiers.tokens(headers, None, now(), &mut TokenCache::default());
    let paths = PathSettings::default();
    let request = Request { method, target, host: Some("api"), headers, tokens: &checked.verified, paths };
    let (web, api, port) = ("web".parse().unwrap(), "api".parse().unwrap(), PortName::main());
    let call = Call { source: &web, destination: &api, port: &port, protocol: Protocol::Http, request: Some(&request) };
    judge_request(&rules(), &call, &request, now()).decision.allowed()
}

fn person(more: Value) -> HeaderMap {
    let mut claims = json!({"iss": "https://login.example.com", "aud": "shop", "exp": NOW + 60});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    headers([("cookie", format!("session={}", token("ES256", &claims)).as_str())])
}

fn job(branch: &str) -> HeaderMap {
    let claims = json!({"iss": "https://ci.example.com", "aud": ["shop"], "exp": NOW + 60, "ref": branch});
    headers([("authorization", format!("Bearer {}", token("RS256", &claims)).as_str())])
}

#[test]
fn the_example_does_what_its_comments_say() {
    let anyone = person(json!({}));
    let staff = person(json!({"realm_access": {"roles": ["staff", "buyer"]}}));
    let buyer = person(json!({"realm_access": {"roles": ["buyer"]}}));
    assert!(may("GET", "/v1/orders/1", &anyone));
    assert!(!may("GET", "/v1/orders/1", &HeaderMap::new()));
    assert!(!may("GET", "/v1/orders/1", &job("refs/heads/main")));
    assert!(!may("DELETE", "/v1/orders/1", &anyone));
    assert!(!may("DELETE", "/v1/orders/1", &buyer));
    assert!(may("DELETE", "/v1/orders/1", &staff));
    assert!(!may("DELETE", "/v1/users/1", &staff));
    assert!(may("POST", "/v1/import", &job("refs/heads/main")));
    assert!(!may("POST", "/v1/import", &job("refs/heads/mine")));
    assert!(!may("POST", "/v1/import", &staff));
}

#[test]
fn a_signed_in_person_of_the_example_is_not_shown_to_the_service() {
    let mut sent = person(json!({}));
    verifiers().remove_tokens(&mut sent);
    assert!(sent.is_empty());
}
