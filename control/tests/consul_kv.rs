//! Keys, sessions and transactions through Consul's HTTP API.

mod support;

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use postern_control::Settings;
use serde_json::{Value, json};
use support::{Answer, Control, settings};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

async fn plane() -> Control {
    let directory = TempDir::new().unwrap();
    let settings = Settings { test_periods: true, ..settings(directory.path()) };
    Control::start_in(directory, settings).await
}

async fn put(control: &Control, path: &str, body: &str) -> Answer {
    let token = control.token();
    control.raw(Method::PUT, path, &[("host", "localhost"), ("x-consul-token", &token)], body).await
}

#[track_caller]
fn is(answer: Answer, wanted: bool) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.text, wanted.to_string());
}

#[track_caller]
fn fails(answer: &Answer, status: u16, text: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert!(answer.text.contains(text), "{}", answer.text);
}

fn index(answer: &Answer) -> u64 {
    answer.headers["x-consul-index"].to_str().unwrap().parse().unwrap()
}

async fn session(control: &Control, body: Value) -> String {
    let created = put(control, "/v1/session/create", &body.to_string()).await;
    created.ok()["ID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_is_put_read_and_deleted() {
    let control = plane().await;
    fails(&control.get("/v1/kv/app/name").await, 404, "");
    is(put(&control, "/v1/kv/app/name?flags=42", "hello").await, true);
    let read = control.get("/v1/kv/app/name").await;
    assert_eq!(read.headers["x-consul-knownleader"], "true");
    assert_eq!(read.headers["x-consul-lastcontact"], "0");
    assert_eq!(read.headers["x-consul-effective-consistency"], "leader");
    let at = index(&read);
    let pair =
        json!([{ "LockIndex": 0, "Key": "app/name", "Flags": 42, "Value": "aGVsbG8=", "CreateIndex": at, "ModifyIndex": at }]);
    assert_eq!(read.json(), pair);
    let raw = control.get("/v1/kv/app/name?raw").await;
    assert_eq!((raw.text.as_str(), raw.headers["content-type"].to_str().unwrap()), ("hello", "text/plain"));
    is(put(&control, "/v1/kv/app/name?flags=42", "hello").await, true);
    assert_eq!(control.get("/v1/kv/app/name").await.json(), pair, "the same again changes nothing");
    is(put(&control, "/v1/kv/app/empty", "").await, true);
    assert_eq!(control.get("/v1/kv/app/empty").await.json()[0]["Value"], Value::Null);
    is(control.delete("/v1/kv/app/name").await, true);
    is(control.delete("/v1/kv/app/name").await, true);
    let gone = control.get("/v1/kv/app/name").await;
    fails(&gone, 404, "");
    assert!(index(&gone) > at, "a deletion moves the index");
    control.stop().await;
}

#[tokio::test]
async fn keys_of_any_bytes_are_kept_apart() {
    let control = plane().await;
    for (path, value) in
        [("a%2Fb", "slash"), ("a%20b", "space"), ("a+b", "plus"), ("%C3%A9", "accent"), ("%FF", "byte"), ("a%25b", "percent")]
    {
        is(put(&control, &format!("/v1/kv/{path}"), value).await, true);
    }
    for (path, value) in [
        ("a/b", "slash"),
        ("/a/b", "slash"),
        ("a%20b", "space"),
        ("a%2Bb", "plus"),
        ("%c3%a9", "accent"),
        ("%ff", "byte"),
        ("a%25b", "percent"),
    ] {
        assert_eq!(control.get(&format!("/v1/kv/{path}?raw")).await.text, value, "{path}");
    }
    assert_eq!(control.get("/v1/kv/?keys").await.ok().as_array().unwrap().len(), 6);
    control.stop().await;
}

#[tokio::test]
async fn trees_are_listed_and_deleted() {
    let control = plane().await;
    for key in ["app/db/host", "app/db/port", "app/name", "apple", "other"] {
        is(put(&control, &format!("/v1/kv/{key}"), key).await, true);
    }
    let tree = control.get("/v1/kv/app/?recurse").await.ok();
    let names: Vec<&str> = tree.as_array().unwrap().iter().map(|pair| pair["Key"].as_str().unwrap()).collect();
    assert_eq!(names, ["app/db/host", "app/db/port", "app/name"]);
    assert_eq!(control.get("/v1/kv/app?keys").await.ok(), json!(["app/db/host", "app/db/port", "app/name", "apple"]));
    assert_eq!(control.get("/v1/kv/app/?keys&separator=/").await.ok(), json!(["app/db/", "app/name"]));
    assert_eq!(control.get("/v1/kv/?keys=true&separator=%2F").await.ok(), json!(["app/", "apple", "other"]));
    assert_eq!(control.get("/v1/kv?keys").await.ok().as_array().unwrap().len(), 5);
    fails(&control.get("/v1/kv/none?recurse").await, 404, "");
    fails(&control.get("/v1/kv/none?keys").await, 404, "");
    is(control.delete("/v1/kv/app/?recurse").await, true);
    assert_eq!(control.get("/v1/kv/?keys").await.ok(), json!(["apple", "other"]));
    is(control.delete("/v1/kv/?recurse=true").await, true);
    assert_eq!(control.get("/v1/kv/?keys").await.ok(), json!([]));
    control.stop().await;
}

#[tokio::test]
async fn compare_and_set_says_whether_it_did() {
    let control = plane().await;
    is(put(&control, "/v1/kv/a?cas=1", "x").await, false);
    is(put(&control, "/v1/kv/a?cas=0", "x").await, true);
    is(put(&control, "/v1/kv/a?cas=0", "y").await, false);
    let at = index(&control.get("/v1/kv/a").await);
    is(put(&control, &format!("/v1/kv/a?cas={at}"), "y").await, true);
    is(put(&control, &format!("/v1/kv/a?cas={at}"), "z").await, false);
    is(control.delete(&format!("/v1/kv/a?cas={at}")).await, false);
    let at = index(&control.get("/v1/kv/a").await);
    is(control.delete(&format!("/v1/kv/a?cas={at}")).await, true);
    control.stop().await;
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let control = plane().await;
    fails(&control.get("/v1/kv/").await, 400, "Missing key name");
    fails(&put(&control, "/v1/kv/", "x").await, 400, "Missing key name");
    fails(&control.delete("/v1/kv/").await, 400, "Missing key name");
    fails(&put(&control, "/v1/kv/a?cas=x", "x").await, 400, "cas");
    fails(&put(&control, "/v1/kv/a?flags=-1", "x").await, 400, "flags");
    fails(&put(&control, "/v1/kv/a?cas=0&acquire=s", "x").await, 400, "Conflicting flags: cas, acquire");
    fails(&put(&control, "/v1/kv/a?acquire=nobody", "x").await, 500, "invalid session");
    fails(&put(&control, &format!("/v1/kv/{}", "k".repeat(5000)), "x").await, 400, "too long");
    fails(&control.post("/v1/kv/a", json!({})).await, 405, "method POST not allowed");
    let large = "x".repeat((512 << 10) + 1);
    fails(&put(&control, "/v1/kv/a", &large).await, 413, "too large, max size: 524288 bytes");
    is(put(&control, "/v1/kv/a", &large[1..]).await, true);
    assert_eq!(control.get("/v1/kv/a?raw").await.text.len(), 512 << 10);
    control.stop().await;
}

#[tokio::test]
async fn a_blocking_query_ends_with_a_change_of_what_it_asks_for() {
    let control = plane().await;
    is(put(&control, "/v1/kv/app/a", "1").await, true);
    is(put(&control, "/v1/kv/other", "1").await, true);
    let at = index(&control.get("/v1/kv/app/a").await);
    let path = format!("/v1/kv/app/a?index={at}&wait=60s");
    let tree = control.get("/v1/kv/app/?recurse").await;
    let tree_path = format!("/v1/kv/app/?recurse&index={}&wait=60s", index(&tree));
    let other_path = format!("/v1/kv/other2?index={}&wait=200ms", index(&control.get("/v1/kv/other2").await));
    let began = Instant::now();
    let change = async {
        let unchanged = control.get(&other_path).await;
        fails(&unchanged, 404, "");
        is(put(&control, "/v1/kv/app/a", "2").await, true);
    };
    let (read, tree, ()) =
        tokio::time::timeout(DEADLINE, async { tokio::join!(control.get(&path), control.get(&tree_path), change) })
            .await
            .unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(index(&read) > at);
    assert_eq!(read.json()[0]["Value"], "Mg==");
    assert_eq!(tree.json()[0]["Value"], "Mg==");
    let deleted = format!("/v1/kv/app/a?index={}&wait=60s", index(&read));
    let (gone, removed) = tokio::join!(control.get(&deleted), control.delete("/v1/kv/app/?recurse"));
    is(removed, true);
    fails(&gone, 404, "");
    assert!(index(&gone) > index(&read));
    control.stop().await;
}

#[tokio::test]
async fn a_stop_ends_queries_that_wait() {
    let control = plane().await;
    is(put(&control, "/v1/kv/a", "1").await, true);
    let at = index(&control.get("/v1/kv/a").await);
    let token = control.token();
    let stream = tokio::net::TcpStream::connect(&control.addresses.http).await.unwrap();
    let waiting = tokio::spawn(async move {
        let headers = [("host", "localhost"), ("x-consul-token", token.as_str())];
        support::send(stream, Method::GET, &format!("/v1/kv/a?index={at}&wait=10m"), &headers, "").await
    });
    is(put(&control, "/v1/kv/b", "1").await, true);
    tokio::time::timeout(DEADLINE, control.stop()).await.unwrap();
    let answer = tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap();
    assert_eq!((answer.status, index(&answer)), (StatusCode::OK, at));
}

#[tokio::test]
async fn a_thousand_queries_that_wait_for_one_key_are_all_answered() {
    let control = plane().await;
    is(put(&control, "/v1/kv/a", "1").await, true);
    let path = format!("/v1/kv/a?wait=60s&index={}", index(&control.get("/v1/kv/a").await));
    let waiting = futures_util::future::join_all((0..1000).map(|_| control.get(&path)));
    let change = async {
        is(put(&control, "/v1/kv/b", "1").await, true);
        is(put(&control, "/v1/kv/a", "2").await, true);
    };
    let (answers, ()) = tokio::time::timeout(DEADLINE * 3, async { tokio::join!(waiting, change) }).await.unwrap();
    assert!(answers.iter().all(|answer| answer.text.contains("\"Mg==\"")));
    control.stop().await;
}

#[tokio::test]
async fn a_session_is_made_shown_and_destroyed() {
    let control = plane().await;
    is(put(&control, "/v1/catalog/register", r#"{"Node":"host1","Address":"10.0.0.1"}"#).await, true);
    let id =
        session(&control, json!({ "Name": "leader", "Node": "host1", "TTL": "30s", "LockDelay": "5s", "Behavior": "delete" }))
            .await;
    let shown = control.get(&format!("/v1/session/info/{id}")).await;
    let at = index(&shown);
    let entry = json!([{
        "ID": id, "Name": "leader", "Node": "host1", "LockDelay": 5_000_000_000_u64, "Behavior": "delete", "TTL": "30s",
        "NodeChecks": ["serfHealth"], "ServiceChecks": null, "CreateIndex": at, "ModifyIndex": at
    }]);
    assert_eq!(shown.json(), entry);
    assert_eq!(control.get("/v1/session/node/host1").await.ok(), entry);
    assert_eq!(control.get("/v1/session/list").await.ok(), entry);
    assert_eq!(put(&control, &format!("/v1/session/renew/{id}"), "").await.ok(), entry);
    assert_eq!(control.get("/v1/session/node/host2").await.ok(), json!([]));
    is(put(&control, &format!("/v1/session/destroy/{id}"), "").await, true);
    is(put(&control, &format!("/v1/session/destroy/{id}"), "").await, true);
    assert_eq!(control.get(&format!("/v1/session/info/{id}")).await.ok(), json!([]));
    fails(&put(&control, &format!("/v1/session/renew/{id}"), "").await, 404, &format!("Session id '{id}' not found"));
    for (body, text) in [
        (json!({ "TTL": "25h" }), "must be between"),
        (json!({ "TTL": "500ms" }), "must be between"),
        (json!({ "TTL": "soon" }), "invalid"),
        (json!({ "Behavior": "keep" }), "Invalid Behavior"),
        (json!({ "Checks": "a" }), "Checks"),
    ] {
        fails(&put(&control, "/v1/session/create", &body.to_string()).await, 400, text);
    }
    assert_eq!(control.get("/v1/session/list").await.ok(), json!([]));
    control.stop().await;
}

#[tokio::test]
async fn a_lock_has_one_holder_and_is_counted() {
    let control = plane().await;
    let none = json!({ "LockDelay": "0s" });
    let (first, second) = (session(&control, none.clone()).await, session(&control, none).await);
    is(put(&control, &format!("/v1/kv/lock?acquire={first}"), "one").await, true);
    is(put(&control, &format!("/v1/kv/lock?acquire={first}"), "one again").await, true);
    is(put(&control, &format!("/v1/kv/lock?acquire={second}"), "two").await, false);
    is(put(&control, &format!("/v1/kv/lock?release={second}"), "two").await, false);
    is(put(&control, "/v1/kv/lock", "written by whoever").await, true);
    let held = control.get("/v1/kv/lock").await.json();
    assert_eq!((&held[0]["Session"], &held[0]["LockIndex"]), (&json!(first), &json!(1)));
    is(put(&control, &format!("/v1/kv/lock?release={first}"), "free").await, true);
    is(put(&control, &format!("/v1/kv/lock?acquire={second}"), "two").await, true);
    assert_eq!(control.get("/v1/kv/lock").await.json()[0]["LockIndex"], 2);
    is(put(&control, &format!("/v1/session/destroy/{second}"), "").await, true);
    let free = control.get("/v1/kv/lock").await.json();
    assert!(free[0].get("Session").is_none());
    control.stop().await;
}

async fn register(control: &Control, node: &str, status: &str) {
    let check = json!({ "Node": node, "CheckID": "disk", "Name": "disk", "Status": status });
    let body = json!({ "Node": node, "Address": "10.0.0.1", "Check": check });
    is(put(control, "/v1/catalog/register", &body.to_string()).await, true);
}

/// Ready when nobody holds the key any more.
async fn freed(control: &Control, key: &str) {
    let path = |index: u64| format!("/v1/kv/{key}?wait=60s&index={index}");
    let follow = async {
        let mut read = control.get(&path(0)).await;
        while read.json()[0].get("Session").is_some() {
            read = control.get(&path(index(&read))).await;
        }
    };
    tokio::time::timeout(DEADLINE, follow).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_with_its_check_and_with_its_node() {
    let control = plane().await;
    register(&control, "host1", "passing").await;
    register(&control, "host2", "passing").await;
    let of = |node: &str, checks: Value| json!({ "Node": node, "NodeChecks": checks, "LockDelay": "0s" });
    for (body, text) in [
        (of("nowhere", json!([])), "Missing node registration"),
        (of("host1", json!(["memory"])), "Missing check 'memory' registration"),
    ] {
        fails(&put(&control, "/v1/session/create", &body.to_string()).await, 500, text);
    }
    for (key, node, checks) in [
        ("check", "host1", json!(["serfHealth", "disk"])),
        ("node", "host2", json!(["serfHealth"])),
        ("kept", "host1", json!(["serfHealth"])),
    ] {
        let id = session(&control, of(node, checks)).await;
        is(put(&control, &format!("/v1/kv/{key}?acquire={id}"), "x").await, true);
    }
    register(&control, "host2", "critical").await;
    register(&control, "host1", "critical").await;
    freed(&control, "check").await;
    assert!(control.get("/v1/kv/node").await.json()[0].get("Session").is_some(), "it does not live with that check");
    let critical = of("host1", json!(["disk"])).to_string();
    fails(&put(&control, "/v1/session/create", &critical).await, 500, "Check 'disk' is in critical state");
    is(put(&control, "/v1/catalog/deregister", r#"{"Node":"host2"}"#).await, true);
    freed(&control, "node").await;
    assert!(control.get("/v1/kv/kept").await.json()[0].get("Session").is_some());
    control.stop().await;
}

#[tokio::test]
async fn a_session_without_renewal_ends_and_its_lock_waits_for_the_lock_delay() {
    let control = plane().await;
    let holder = session(&control, json!({ "TTL": "1s", "LockDelay": "2s" })).await;
    let other = session(&control, json!({ "TTL": "60s" })).await;
    is(put(&control, &format!("/v1/kv/lock?acquire={holder}"), "x").await, true);
    let held_since = Instant::now();
    let path = format!("/v1/kv/lock?wait=60s&index={}", index(&control.get("/v1/kv/lock").await));
    let freed = tokio::time::timeout(DEADLINE, control.get(&path)).await.unwrap();
    assert!(freed.json()[0].get("Session").is_none(), "{}", freed.text);
    assert!(held_since.elapsed() >= Duration::from_millis(900), "not before its time");
    is(put(&control, &format!("/v1/kv/lock?acquire={other}"), "y").await, false);
    let deadline = Instant::now() + DEADLINE;
    while put(&control, &format!("/v1/kv/lock?acquire={other}"), "y").await.text != "true" {
        assert!(Instant::now() < deadline, "the lock-delay does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(held_since.elapsed() >= Duration::from_millis(2900), "the lock-delay was kept");
    control.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_keys_locks_and_sessions() {
    let control = plane().await;
    let holder = session(&control, json!({ "TTL": "60s" })).await;
    is(put(&control, &format!("/v1/kv/lock?acquire={holder}"), "x").await, true);
    is(put(&control, "/v1/kv/secret?flags=7", "a-value-nobody-reads").await, true);
    let before = control.get("/v1/kv/?recurse").await;
    let directory = control.stop().await;
    let store = std::fs::read(directory.path().join("data/store.redb")).unwrap();
    assert!(!store.windows(12).any(|window| window == b"value-nobody"), "values are sealed at rest");
    assert!(store.windows(9).any(|window| window == b"kv/secret"), "the key was looked for in the right file");
    let settings = Settings { test_periods: true, ..settings(directory.path()) };
    let control = Control::start_in(directory, settings).await;
    let after = control.get("/v1/kv/?recurse").await;
    assert_eq!(after.text, before.text);
    assert!(index(&after) >= index(&before));
    assert!(put(&control, &format!("/v1/session/renew/{holder}"), "").await.status.is_success());
    control.stop().await;
}

fn kv(verb: &str, key: &str, more: Value) -> Value {
    let mut op = json!({ "Verb": verb, "Key": key });
    op.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "KV": op })
}

#[tokio::test]
async fn a_transaction_does_all_or_nothing() {
    let control = plane().await;
    let ops = json!([
        kv("set", "a", json!({ "Value": "MQ==", "Flags": 3 })),
        kv("set", "b", json!({ "Value": "Mg==" })),
        kv("get", "a", json!({})),
        kv("get-tree", "", json!({})),
        kv("get-or-empty", "none", json!({})),
        kv("check-not-exists", "none", json!({})),
        kv("delete", "b", json!({})),
    ]);
    let done = put(&control, "/v1/txn", &ops.to_string()).await.ok();
    assert_eq!(done["Errors"], Value::Null);
    let results = done["Results"].as_array().unwrap();
    let at = &results[0]["KV"]["ModifyIndex"];
    assert_eq!(
        results[0]["KV"],
        json!({ "LockIndex": 0, "Key": "a", "Flags": 3, "Value": null, "CreateIndex": at, "ModifyIndex": at })
    );
    assert_eq!(results[2]["KV"]["Value"], "MQ==");
    assert_eq!(results[4]["KV"]["Key"], "b");
    assert_eq!(
        results[5]["KV"],
        json!({ "LockIndex": 0, "Key": "none", "Flags": 0, "Value": null, "CreateIndex": 0, "ModifyIndex": 0 })
    );
    assert_eq!(results.len(), 6);
    fails(&control.get("/v1/kv/b").await, 404, "");
    let ops = json!([
        kv("set", "c", json!({ "Value": "MQ==" })),
        kv("cas", "a", json!({ "Value": "MQ==", "Index": 1 })),
        kv("get", "none", json!({})),
        kv("check-index", "a", json!({ "Index": 1 })),
        kv("check-session", "a", json!({ "Session": "s" })),
        kv("unlock", "a", json!({ "Session": "s" })),
    ]);
    let refused = put(&control, "/v1/txn", &ops.to_string()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(
        refused.json(),
        json!({ "Results": null, "Errors": [
        { "OpIndex": 1, "What": "failed to set key \"a\", index is stale" },
        { "OpIndex": 2, "What": "key \"none\" doesn't exist" },
        { "OpIndex": 3, "What": format!("failed index check for key \"a\", current modify index {at} != 1") },
        { "OpIndex": 4, "What": "failed session check for key \"a\", current session \"\" != \"s\"" },
        { "OpIndex": 5, "What": "failed to unlock key \"a\", lock isn't held, or is held by another session" },
    ] })
    );
    fails(&control.get("/v1/kv/c").await, 404, "");
    let read = put(&control, "/v1/txn", &json!([kv("get", "a", json!({}))]).to_string()).await;
    assert!(index(&read) > 0, "a transaction that reads can be told apart by its index");
    let many: Vec<Value> = (0..129).map(|_| kv("get", "a", json!({}))).collect();
    fails(&put(&control, "/v1/txn", &json!(many).to_string()).await, 413, "too many operations (129 > 128)");
    fails(&put(&control, "/v1/txn", "{}").await, 400, "Failed to parse body");
    fails(&put(&control, "/v1/txn", &json!([kv("grab", "a", json!({}))]).to_string()).await, 400, "unknown KV verb \"grab\"");
    fails(&put(&control, "/v1/txn", &json!([{ "Session": { "Verb": "delete" } }]).to_string()).await, 501, "");
    fails(&put(&control, "/v1/txn", &json!([kv("set", "a", json!({ "Value": "?" }))]).to_string()).await, 400, "base64");
    control.stop().await;
}

#[tokio::test]
async fn an_event_is_seen_by_whoever_waits_for_its_name() {
    let control = plane().await;
    let none = control.get("/v1/event/list?name=deploy").await;
    assert_eq!(none.json(), json!([]));
    let path = format!("/v1/event/list?name=deploy&wait=60s&index={}", index(&none));
    let fire = async {
        put(&control, "/v1/event/fire/other", "x").await.ok();
        put(&control, "/v1/event/fire/deploy?service=web&tag=v1", "now").await.ok()
    };
    let (seen, fired) = tokio::time::timeout(DEADLINE, async { tokio::join!(control.get(&path), fire) }).await.unwrap();
    assert!(index(&seen) > index(&none));
    let seen = seen.json();
    assert_eq!(seen.as_array().unwrap().len(), 1);
    assert_eq!((&seen[0]["ID"], &seen[0]["Payload"], &seen[0]["ServiceFilter"]), (&fired["ID"], &json!("bm93"), &json!("web")));
    assert_eq!(control.get("/v1/event/list").await.json().as_array().unwrap().len(), 2);
    fails(&put(&control, "/v1/event/fire/deploy", &"x".repeat(5000)).await, 413, "too large");
    control.stop().await;
}

#[tokio::test]
async fn the_control_plane_says_that_it_is_one() {
    let control = plane().await;
    let raft = control.get("/v1/operator/raft/configuration").await.ok();
    assert_eq!((raft["Servers"].as_array().unwrap().len(), &raft["Servers"][0]["Leader"]), (1, &json!(true)));
    assert_eq!(control.get("/v1/coordinate/nodes").await.ok(), json!([]));
    assert_eq!(control.get("/v1/coordinate/datacenters").await.ok()[0]["Datacenter"], "dc1");
    control.stop().await;
}

/// Every route with what it needs: method, path, body.
const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/v1/kv/a", ""),
    ("GET", "/v1/kv/a?recurse", ""),
    ("GET", "/v1/kv/a?keys", ""),
    ("PUT", "/v1/kv/a", "x"),
    ("PUT", "/v1/kv/a?cas=0", "x"),
    ("DELETE", "/v1/kv/a", ""),
    ("DELETE", "/v1/kv/a?recurse", ""),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"get-tree","Key":"a"}}]"#),
    ("PUT", "/v1/txn", r#"[{"KV":{"Verb":"set","Key":"a","Value":"eA=="}}]"#),
    ("PUT", "/v1/session/create", "{}"),
    ("PUT", "/v1/session/destroy/s", ""),
    ("PUT", "/v1/session/renew/s", ""),
    ("GET", "/v1/session/info/s", ""),
    ("GET", "/v1/session/node/n", ""),
    ("GET", "/v1/session/list", ""),
    ("PUT", "/v1/event/fire/deploy", "x"),
    ("GET", "/v1/event/list", ""),
    ("GET", "/v1/operator/raft/configuration", ""),
    ("GET", "/v1/coordinate/nodes", ""),
    ("GET", "/v1/coordinate/datacenters", ""),
    ("GET", "/v1/status/leader", ""),
    ("GET", "/v1/status/peers", ""),
];

#[tokio::test]
async fn no_route_answers_without_a_credential_and_each_does_with_one() {
    let control = plane().await;
    let token = control.token();
    for (method, path, body) in ROUTES {
        let method: Method = method.parse().unwrap();
        let denied = control.raw(method.clone(), path, &[("host", "localhost")], body).await;
        assert_eq!(denied.status, StatusCode::FORBIDDEN, "{method} {path}: {}", denied.text);
        assert!(denied.text.contains("Permission denied"), "{method} {path}: {}", denied.text);
        let wrong = [("host", "localhost"), ("x-consul-token", "postern-op1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")];
        let wrong = control.raw(method.clone(), path, &wrong, body).await;
        assert_eq!((wrong.status, wrong.text.as_str()), (StatusCode::FORBIDDEN, "ACL not found"), "{method} {path}");
    }
    is(put(&control, "/v1/kv/a", "x").await, true);
    for (method, path, body) in ROUTES {
        let method: Method = method.parse().unwrap();
        let admitted = control.raw(method.clone(), path, &[("host", "localhost"), ("x-consul-token", &token)], body).await;
        assert!(admitted.status != StatusCode::FORBIDDEN, "{method} {path}: {}", admitted.text);
        assert!(admitted.status != StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}: {}", admitted.text);
    }
    control.stop().await;
}
