//! Who may do what: every route, without a credential, with too little and with enough.

#[path = "../support/mod.rs"]
mod support;
mod table;

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};
use support::{Answer, Control};
use table::*;

async fn with_secret(control: &Control, method: &str, path: &str, secret: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {secret}");
    control.raw(method.parse().unwrap(), path, &[("host", "localhost"), ("authorization", &bearer)], body).await
}

/// A token with these rules, and its secret.
async fn token(control: &Control, number: usize, rules: &str) -> String {
    let name = format!("p{number}");
    control.put("/v1/acl/policy", json!({ "Name": name, "Rules": rules })).await.ok();
    let token = control.put("/v1/acl/token", json!({ "Policies": [{ "Name": name }] })).await.ok();
    token["SecretID"].as_str().unwrap().to_owned()
}

/// Whether there is a matching route for this path: `{x}` stands for a segment, `{*x}` for the rest.
fn fits(template: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap();
    let (mut template, mut path) = (template.split('/'), path.split('/'));
    loop {
        match (template.next(), path.next()) {
            (None, None) => return true,
            (Some(part), Some(_)) if part.starts_with("{*") => return true,
            (Some(part), Some(segment)) if part.starts_with('{') && !segment.is_empty() => {}
            (Some(part), Some(segment)) if part == segment => {}
            _ => return false,
        }
    }
}

/// Every route of the source: method and template.
fn routes() -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut routes = Vec::new();
    for file in ["mod.rs", "consul/mod.rs", "consul/catalog.rs", "consul/health.rs", "consul/agent/mod.rs"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for part in text.split(".route(").skip(1) {
            let Some(template) = part.trim_start().strip_prefix('"').and_then(|part| part.split('"').next()) else { continue };
            let handlers = part.split([';', '\n']).next().unwrap();
            for method in ["get", "put", "post", "delete"] {
                let is_there = handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(".{method}("));
                if is_there {
                    routes.push((method.to_uppercase(), template.to_owned()));
                }
            }
        }
    }
    assert!(routes.len() > 100, "{routes:?}");
    routes
}

#[test]
fn every_route_is_in_the_table() {
    let missing: Vec<_> = routes()
        .into_iter()
        .filter(|(_, template)| !OPEN.contains(&template.as_str()))
        .filter(|(method, template)| !CASES.iter().any(|case| case.method == method && fits(template, case.path)))
        .collect();
    assert!(missing.is_empty(), "no test says who may use {missing:?}");
}

#[tokio::test]
async fn every_route_demands_what_it_should() {
    let control = Control::start().await;
    control.put("/v1/intentions/web/api", json!({ "verb": "allow" })).await.ok();
    let mut number = 0;
    for case in CASES.iter().filter(|case| !case.enough.is_empty()) {
        let what = format!("{} {}", case.method, case.path);
        let is_consul = !case.path.starts_with("/v1/service") && is_of_consul(case.path);
        let method: Method = case.method.parse().unwrap();
        let none = control.raw(method, case.path, &[("host", "localhost")], case.body).await;
        assert_eq!(none.status.as_u16(), if is_consul { 403 } else { 401 }, "{what} without a credential: {}", none.text);
        for (rules, is_enough) in [(case.too_little, false), (case.enough, true)] {
            number += 1;
            let secret = token(&control, number, rules).await;
            let answer = with_secret(&control, case.method, case.path, &secret, case.body).await;
            let is_denied = matches!(answer.status.as_u16(), 401 | 403);
            assert_eq!(is_denied, !is_enough, "{what} with {rules}: {} {}", answer.status, answer.text);
            if is_denied {
                assert!(answer.text.contains("ermission denied"), "{what}: {}", answer.text);
            }
        }
        let wrong = with_secret(&control, case.method, case.path, UNKNOWN, case.body).await;
        assert_eq!(wrong.status.as_u16(), if is_consul { 403 } else { 401 }, "{what} with a token that is none");
    }
    control.stop().await;
}

fn is_of_consul(path: &str) -> bool {
    [
        "acl",
        "agent",
        "catalog",
        "config",
        "connect",
        "coordinate",
        "event",
        "health",
        "kv",
        "operator",
        "query",
        "session",
        "snapshot",
        "status",
        "txn",
    ]
    .iter()
    .any(|segment| path.trim_start_matches("/v1/").split(['/', '?']).next() == Some(*segment))
}

#[tokio::test]
async fn what_may_not_be_read_is_left_out_of_lists() {
    let control = Control::start().await;
    for destination in ["api", "db", "*"] {
        control.put(&format!("/v1/intentions/web/{destination}"), json!({ "verb": "allow" })).await.ok();
    }
    for service in ["api", "db"] {
        let file = json!({ "file": { "services": [{ "service": service, "protocol": "http" }] } });
        control.put(&format!("/v1/service-config/{service}"), file).await.ok();
        control.post("/v1/tokens", json!({ "service": service })).await.ok();
    }
    let secret = token(&control, 0, "service \"api\" { policy = \"read\" }").await;
    let get = async |path: &str| with_secret(&control, "GET", path, &secret, "").await.ok();
    let names = |list: &Value, field: &str| -> BTreeSet<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|item| item.pointer(field).unwrap_or_else(|| panic!("{item}")).as_str().unwrap().to_owned())
            .collect()
    };
    let api = BTreeSet::from(["api".to_owned()]);
    assert_eq!(names(&get("/v1/services").await, "/name"), api);
    assert_eq!(names(&get("/v1/service-config").await["services"], "/settings/service"), api);
    assert_eq!(names(&get("/v1/tokens").await, "/service"), api);
    let both = BTreeSet::from(["*".to_owned(), "api".to_owned()]);
    assert_eq!(names(&get("/v1/intentions").await["intentions"], "/destination"), both);
    control.stop().await;
}

/// What changes `app/a`, or the lock of `app/held`: a request, or an operation of a transaction.
fn changes_of_keys(index: u64, session: &str) -> Vec<(&'static str, String, String)> {
    let path = |method: &'static str, rest: &str| (method, format!("/v1/kv/app/{rest}"), "new".to_owned());
    let txn = |op: Value| ("PUT", "/v1/txn".to_owned(), json!([{ "KV": op }]).to_string());
    vec![
        path("PUT", "a"),
        path("PUT", "new?cas=0"),
        path("PUT", &format!("a?cas={index}")),
        path("PUT", &format!("a?acquire={session}")),
        path("PUT", &format!("held?release={session}")),
        path("DELETE", "a"),
        path("DELETE", &format!("a?cas={index}")),
        path("DELETE", "a?recurse"),
        path("DELETE", "?recurse"),
        txn(json!({ "Verb": "set", "Key": "app/a", "Value": "bmV3" })),
        txn(json!({ "Verb": "cas", "Key": "app/new", "Value": "bmV3", "Index": 0 })),
        txn(json!({ "Verb": "cas", "Key": "app/a", "Value": "bmV3", "Index": index })),
        txn(json!({ "Verb": "lock", "Key": "app/a", "Value": "bmV3", "Session": session })),
        txn(json!({ "Verb": "unlock", "Key": "app/held", "Value": "bmV3", "Session": session })),
        txn(json!({ "Verb": "delete", "Key": "app/a" })),
        txn(json!({ "Verb": "delete-cas", "Key": "app/a", "Index": index })),
        txn(json!({ "Verb": "delete-tree", "Key": "app/a" })),
    ]
}

#[tokio::test]
async fn whatever_changes_a_key_needs_the_right_to_write_that_key() {
    let control = Control::start().await;
    let session = control.put("/v1/session/create", json!({ "LockDelay": "0s" })).await.ok();
    let session = session["ID"].as_str().unwrap().to_owned();
    let operator = control.token();
    let all = async || with_secret(&control, "GET", "/v1/kv/?recurse", &operator, "").await.ok();
    // The same keys again, and the index of the first.
    let seeded = async || {
        for (method, path) in [("DELETE", "?recurse"), ("PUT", "app/a"), ("PUT", "app/b"), ("PUT", "other")] {
            with_secret(&control, method, &format!("/v1/kv/{path}"), &operator, "old").await.ok();
        }
        with_secret(&control, "PUT", &format!("/v1/kv/app/held?acquire={session}"), &operator, "old").await.ok();
        all().await[0]["ModifyIndex"].as_u64().unwrap()
    };
    let sessions = "session_prefix \"\" { policy = \"write\" }";
    let too_little = [
        format!("key_prefix \"\" {{ policy = \"list\" }} {sessions}"),
        format!("key_prefix \"\" {{ policy = \"read\" }} key \"app/b\" {{ policy = \"write\" }} {sessions}"),
        format!("key_prefix \"other\" {{ policy = \"write\" }} {sessions}"),
    ];
    let mut refused = Vec::new();
    for (number, rules) in too_little.iter().enumerate() {
        refused.push((token(&control, number, rules).await, rules));
    }
    // As in Consul, a session is no secret: who may write a key may lock it for any.
    let writer = token(&control, 100, "key_prefix \"app/\" { policy = \"write\" }").await;

    for place in 0..changes_of_keys(0, &session).len() {
        let (method, path, body) = changes_of_keys(seeded().await, &session).swap_remove(place);
        let before = all().await;
        for (secret, rules) in &refused {
            let answer = with_secret(&control, method, &path, secret, &body).await;
            assert_eq!(answer.status.as_u16(), 403, "{method} {path} {body} with {rules}: {}", answer.text);
            assert!(answer.text.contains("Permission denied"), "{}", answer.text);
            assert_eq!(all().await, before, "{method} {path} {body} with {rules}");
        }
        let answer = with_secret(&control, method, &path, &writer, &body).await;
        assert_eq!(answer.status.as_u16(), 200, "{method} {path} {body}: {}", answer.text);
        assert_ne!(all().await, before, "{method} {path} {body}");
    }

    seeded().await;
    let before = all().await;
    let unknown = format!("/v1/kv/app/a?acquire={UNKNOWN}");
    let answer = with_secret(&control, "PUT", &unknown, &writer, "new").await;
    assert!(answer.status.as_u16() == 500 && answer.text.contains("invalid session"), "{} {}", answer.status, answer.text);
    let set = |key: &str| json!({ "KV": { "Verb": "set", "Key": key, "Value": "bmV3" } });
    let half = json!([set("app/b"), set("app/a")]).to_string();
    let answer = with_secret(&control, "PUT", "/v1/txn", &refused[1].0, &half).await;
    assert_eq!((answer.status.as_u16(), answer.json()["Errors"][0]["OpIndex"].as_u64()), (403, Some(1)), "{}", answer.text);
    assert_eq!(all().await, before, "of a transaction that may be done in part, nothing is");
    with_secret(&control, "PUT", "/v1/kv/app/b", &refused[1].0, "new").await.ok();
    with_secret(&control, "PUT", "/v1/kv/other", &refused[2].0, "new").await.ok();
    control.stop().await;
}

#[tokio::test]
async fn a_plan_shows_what_its_token_may_change_and_nothing_of_what_it_may_not_read() {
    let control = Control::start().await;
    for pair in ["web/api", "web/db", "cron/db", "*/*"] {
        control.put(&format!("/v1/intentions/{pair}"), json!({ "verb": "allow" })).await.ok();
    }
    let secret = token(&control, 0, "intentions \"api\" { policy = \"write\" }").await;
    let put = async |body: Value| with_secret(&control, "PUT", "/v1/intentions", &secret, &body.to_string()).await;
    let intention =
        |source: &str, destination: &str, action: &str| json!({ "source": source, "destination": destination, "action": action });
    let pairs = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| format!("{} -> {}", one["source"], one["destination"]).replace('"', ""))
            .collect()
    };

    // Its own pairs, in a file that keeps all others.
    let own = [intention("mail", "api", "deny"), intention("web", "api", "deny")];
    let plan = put(json!({ "intentions": own, "merge": true, "dry_run": true })).await.ok();
    assert_eq!(pairs(&plan["added"]), ["mail -> api"]);
    assert_eq!(plan["changed"].as_array().unwrap().len(), 1);
    assert_eq!(plan["removed"], json!([]));
    assert!(plan["effects"].is_object() && plan.get("written").is_none(), "{plan}");
    let done = put(json!({ "intentions": own, "merge": true, "expected_revision": plan["base_revision"] })).await.ok();
    assert_eq!(done["written"]["changed"], true, "{done}");

    // Another's pair is not told, whether it is guessed right or wrong, or left out.
    let guesses = [intention("web", "db", "allow"), intention("web", "db", "deny"), intention("nobody", "db", "allow")];
    let mut said = BTreeSet::new();
    for guess in guesses {
        let answer = put(json!({ "intentions": [guess], "merge": true, "dry_run": true })).await;
        assert_eq!(answer.status.as_u16(), 403, "{}", answer.text);
        said.insert(answer.text);
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said.first().unwrap().contains("db"), "{said:?}");
    for dry_run in [true, false] {
        let whole = put(json!({ "intentions": own, "dry_run": dry_run })).await;
        assert_eq!(whole.status.as_u16(), 403, "{}", whole.text);
        assert!(!whole.text.contains("db") && !whole.text.contains("cron"), "{}", whole.text);
    }
    assert_eq!(control.get("/v1/intentions").await.ok()["intentions"].as_array().unwrap().len(), 5, "nothing went");

    // One pair alone, for a time too.
    let one = async |method: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        with_secret(&control, method, path, &secret, &body).await
    };
    let plan = one("PUT", "/v1/intentions/job/api", json!({ "verb": "allow", "expires_in_s": 60, "dry_run": true })).await.ok();
    assert_eq!(pairs(&plan["added"]), ["job -> api"]);
    assert!(plan["added"][0]["expires_at"].is_string() && plan["effects"].is_object(), "{plan}");
    let plan = one("DELETE", "/v1/intentions/web/api?dry_run=true", Value::Null).await.ok();
    assert_eq!(pairs(&plan["removed"]), ["web -> api"]);
    assert_eq!(one("DELETE", "/v1/intentions/job/api?dry_run=true&temporary=true", Value::Null).await.status.as_u16(), 404);
    let base = plan["base_revision"].as_u64().unwrap();
    control.put("/v1/intentions/late/api", json!({ "verb": "allow" })).await.ok();
    let path = format!("/v1/intentions/web/api?expected_revision={base}");
    assert_eq!(one("DELETE", &path, Value::Null).await.status.as_u16(), 409);
    let late = json!({ "verb": "allow", "expires_in_s": 60, "expected_revision": base });
    assert_eq!(one("PUT", "/v1/intentions/job/api", late).await.status.as_u16(), 409);
    control.put("/v1/default-policy", json!({ "policy": "audit", "expected_revision": base })).await.refused(409);
    let plan = control.put("/v1/default-policy", json!({ "policy": "audit", "dry_run": true })).await.ok();
    assert_eq!(plan["default"], json!(["deny", "audit"]));
    assert_eq!(control.get("/v1/intentions").await.ok()["default"], "deny");
    control.stop().await;
}

#[tokio::test]
async fn a_secret_is_shown_once_and_kept_nowhere() {
    let control = Control::start().await;
    let made =
        control.put("/v1/acl/token", json!({ "Description": "ci", "ServiceIdentities": [{ "ServiceName": "web" }] })).await.ok();
    let (accessor, secret) = (made["AccessorID"].as_str().unwrap(), made["SecretID"].as_str().unwrap());
    let own = with_secret(&control, "GET", "/v1/acl/token/self", secret, "").await.ok();
    assert_eq!((own["AccessorID"].as_str(), own["Description"].as_str()), (Some(accessor), Some("ci")));
    for path in [format!("/v1/acl/token/{accessor}"), "/v1/acl/tokens".into(), "/v1/acl/token/self".into()] {
        let text = control.get(&path).await.ok().to_string();
        assert!(!text.contains(secret), "{text}");
    }
    with_secret(&control, "POST", "/v1/tokens", secret, r#"{"service":"web"}"#).await.ok();
    with_secret(&control, "POST", "/v1/tokens", secret, r#"{"service":"api"}"#).await.refused(403);
    control.delete(&format!("/v1/acl/token/{accessor}")).await.ok();
    with_secret(&control, "POST", "/v1/tokens", secret, r#"{"service":"web"}"#).await.refused(401);
    let (secret, accessor) = (secret.to_owned(), accessor.to_owned());
    let directory = control.stop().await;
    let mut holds_accessor = false;
    for entry in walk(directory.path()) {
        let bytes = std::fs::read(&entry).unwrap_or_default();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds(&secret), "{} holds the secret", entry.display());
        holds_accessor |= holds(&accessor);
    }
    assert!(holds_accessor, "the search finds what is there");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn policies_change_at_once_and_roles_and_anonymous_tokens_have_them() {
    let control = Control::start().await;
    let rules = |level: &str| json!({ "Name": "app", "Rules": format!("key_prefix \"app/\" {{ policy = {level:?} }}") });
    let policy = control.put("/v1/acl/policy", rules("read")).await.ok();
    let id = policy["ID"].as_str().unwrap();
    let role = control.put("/v1/acl/role", json!({ "Name": "team", "Policies": [{ "Name": "app" }] })).await.ok();
    let made = control.put("/v1/acl/token", json!({ "Roles": [{ "ID": role["ID"] }] })).await.ok();
    let secret = made["SecretID"].as_str().unwrap();
    let write = async || with_secret(&control, "PUT", "/v1/kv/app/a", secret, "x").await.status.as_u16();
    assert_eq!(write().await, 403);
    let changed = control.put(&format!("/v1/acl/policy/{id}"), rules("write")).await.ok();
    assert_eq!(write().await, 200);
    assert_eq!(changed["CreateIndex"], policy["CreateIndex"]);
    assert!(changed["ModifyIndex"].as_u64() > policy["ModifyIndex"].as_u64());

    let anonymous = async || control.raw(Method::GET, "/v1/kv/app/a?raw", &[("host", "localhost")], "").await.status.as_u16();
    assert_eq!(anonymous().await, 403);
    control.put("/v1/acl/token/00000000-0000-0000-0000-000000000002", json!({ "Policies": [{ "ID": id }] })).await.ok();
    assert_eq!(anonymous().await, 200);
    control.delete(&format!("/v1/acl/policy/{id}")).await.ok();
    assert_eq!((write().await, anonymous().await), (403, 403));
    control.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_the_builtin_stays() {
    let control = Control::start().await;
    let refused = async |method: &str, path: &str, body: Value| {
        let answer = control.call(method.parse().unwrap(), path, body).await;
        assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.text);
        answer.text
    };
    let management = "/v1/acl/policy/00000000-0000-0000-0000-000000000001";
    refused("PUT", management, json!({ "Name": "x", "Rules": "" })).await;
    refused("DELETE", management, Value::Null).await;
    refused("DELETE", "/v1/acl/token/00000000-0000-0000-0000-000000000002", Value::Null).await;
    let said = refused("PUT", "/v1/acl/policy", json!({ "Name": "p", "Rules": "key \"a\" {\n polcy = \"read\" }" })).await;
    assert!(said.contains("line 2"), "{said}");
    refused("PUT", "/v1/acl/policy", json!({ "Name": "no spaces", "Rules": "" })).await;
    refused("PUT", "/v1/acl/policy", json!({ "Name": "global-management", "Rules": "" })).await;
    control.put("/v1/acl/policy", json!({ "Name": "p", "Rules": "" })).await.ok();
    refused("PUT", "/v1/acl/policy", json!({ "Name": "p", "Rules": "" })).await;
    refused("PUT", "/v1/acl/token", json!({ "Policies": [{ "Name": "nobody" }] })).await;
    let said = refused("PUT", "/v1/acl/token", json!({ "SecretID": "hunter2-hunter2" })).await;
    assert!(!said.contains("hunter2"), "a refusal shows no secret: {said}");
    refused("PUT", "/v1/acl/token", json!({ "ExpirationTTL": "1s" })).await;
    let first = control.put("/v1/acl/bootstrap", Value::Null).await.ok();
    let secret = first["SecretID"].as_str().unwrap();
    with_secret(&control, "GET", "/v1/acl/tokens", secret, "").await.ok();
    let said = refused("PUT", "/v1/acl/bootstrap", Value::Null).await;
    assert!(said.contains("no longer allowed"), "{said}");
    control.stop().await;
}
