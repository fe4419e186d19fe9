//! Transactions over keys, nodes, instances and checks.

mod support;

use serde_json::{Value, json};
use support::{Answer, Control};

fn node(verb: &str, node: Value) -> Value {
    json!({ "Node": { "Verb": verb, "Node": node } })
}

fn service(verb: &str, service: Value) -> Value {
    json!({ "Service": { "Verb": verb, "Node": "n1", "Service": service } })
}

fn check(verb: &str, check: Value) -> Value {
    json!({ "Check": { "Verb": verb, "Check": check } })
}

fn key(verb: &str, key: &str) -> Value {
    json!({ "KV": { "Verb": verb, "Key": key, "Value": "eA==" } })
}

async fn txn(control: &Control, ops: &[Value]) -> Answer {
    control.put("/v1/txn", json!(ops)).await
}

#[tokio::test]
async fn nodes_services_checks_and_keys_change_together() {
    let control = Control::start().await;
    let done = txn(
        &control,
        &[
            node("set", json!({ "Node": "n1", "Address": "10.0.0.1", "Meta": { "rack": "a" } })),
            key("set", "app/a"),
            service("set", json!({ "ID": "web-1", "Service": "web", "Port": 80, "Tags": ["v1"] })),
            check("set", json!({ "Node": "n1", "CheckID": "up", "Name": "up", "Status": "passing", "ServiceID": "web-1", "Output": "fine" })),
            check("get", json!({ "Node": "n1", "CheckID": "up" })),
            node("get", json!({ "Node": "n1" })),
        ],
    )
    .await
    .ok();
    let results = done["Results"].as_array().unwrap();
    assert_eq!(results.len(), 6, "{done}");
    let index = results[0]["Node"]["ModifyIndex"].as_u64().unwrap();
    assert_eq!((&results[0]["Node"]["Address"], &results[2]["Service"]["Port"]), (&json!("10.0.0.1"), &json!(80)));
    assert_eq!((&results[4]["Check"]["ServiceName"], &results[4]["Check"]["Output"]), (&json!("web"), &json!("fine")));
    assert_eq!(results[1]["KV"]["ModifyIndex"], index, "one revision for all");
    assert_eq!(results[4]["Check"]["ModifyIndex"], index);
    let found = control.get("/v1/health/service/web?passing").await.ok();
    assert_eq!((&found[0]["Service"]["ID"], &found[0]["Node"]["Meta"]["rack"]), (&json!("web-1"), &json!("a")));

    // The same again changes nothing; another value keeps when it was made.
    let same =
        txn(&control, &[service("set", json!({ "ID": "web-1", "Service": "web", "Port": 80, "Tags": ["v1"] }))]).await.ok();
    assert_eq!(same["Results"][0]["Service"]["ModifyIndex"], index);
    let moved =
        txn(&control, &[service("cas", json!({ "ID": "web-1", "Service": "web", "Port": 81, "ModifyIndex": index }))]).await.ok();
    assert_eq!(moved["Results"][0]["Service"]["CreateIndex"], index);
    let newer = moved["Results"][0]["Service"]["ModifyIndex"].as_u64().unwrap();
    assert!(newer > index);

    let gone = txn(
        &control,
        &[
            service("delete-cas", json!({ "ID": "web-1", "ModifyIndex": newer })),
            node("delete", json!({ "Node": "n1" })),
            key("delete", "app/a"),
        ],
    )
    .await
    .ok();
    assert_eq!(gone["Results"], json!([]));
    assert_eq!(control.get("/v1/health/service/web").await.ok(), json!([]));
    assert_eq!(control.get("/v1/health/node/n1").await.ok(), json!([]), "an instance takes its checks along");
    assert_eq!(control.get("/v1/kv/app/a").await.status.as_u16(), 404);
    control.stop().await;
}

#[tokio::test]
async fn one_that_cannot_be_undoes_all_others() {
    let control = Control::start().await;
    txn(&control, &[node("set", json!({ "Node": "n1", "Address": "10.0.0.1" }))]).await.ok();
    for (op, what) in [
        (node("cas", json!({ "Node": "n1", "Address": "10.0.0.2", "ModifyIndex": 1 })), "index is stale"),
        (node("cas", json!({ "Node": "n1", "Address": "10.0.0.2", "ModifyIndex": 0 })), "index is stale"),
        (node("get", json!({ "Node": "n2" })), "doesn't exist"),
        (service("get", json!({ "ID": "none" })), "doesn't exist"),
        (service("delete-cas", json!({ "ID": "none", "ModifyIndex": 7 })), "index is stale"),
        (check("set", json!({ "Node": "n1", "CheckID": "c", "ServiceID": "none", "Status": "passing" })), "Missing service"),
        (check("set", json!({ "Node": "n9", "CheckID": "c", "Status": "passing" })), "Missing node"),
        (json!({ "Service": { "Verb": "set", "Node": "n9", "Service": { "Service": "web" } } }), "Missing node"),
        (key("get", "none"), "exist"),
    ] {
        let before = [node("set", json!({ "Node": "new", "Address": "10.0.0.9" })), key("set", "app/a")];
        let answer = txn(&control, &[before.as_slice(), std::slice::from_ref(&op)].concat()).await;
        assert_eq!(answer.status.as_u16(), 409, "{op}: {}", answer.text);
        let said = answer.json();
        assert_eq!(said["Errors"][0]["OpIndex"], 2, "{op}: {said}");
        assert!(said["Errors"][0]["What"].as_str().unwrap().contains(what), "{op}: {said}");
        assert_eq!(control.get("/v1/kv/app/a").await.status.as_u16(), 404, "nothing is done");
        let nodes = control.get("/v1/catalog/nodes?filter=Node==new").await.ok();
        assert_eq!(nodes, json!([]), "{op}");
    }
    for (op, status) in [
        (json!({ "Session": { "Verb": "delete" } }), 501),
        (node("lock", json!({ "Node": "n1" })), 400),
        (node("set", json!({ "Node": "n1" })), 400),
        (service("set", json!({ "Service": "Web_1" })), 400),
        (service("set", json!({ "Service": "web", "Connect": { "Native": true } })), 501),
        (check("set", json!({ "Node": "n1", "CheckID": "c", "Status": "fine" })), 400),
    ] {
        assert_eq!(txn(&control, std::slice::from_ref(&op)).await.status.as_u16(), status, "{op}");
    }
    control.stop().await;
}

#[tokio::test]
async fn each_operation_takes_its_own_rights() {
    let control = Control::start().await;
    control
        .put("/v1/catalog/register", json!({ "Node": "n1", "Address": "10.0.0.1", "Service": { "ID": "db-1", "Service": "db" } }))
        .await
        .ok();
    let rules = "node \"n1\" { policy = \"read\" } service \"web\" { policy = \"write\" } key \"app/a\" { policy = \"write\" }";
    control.put("/v1/acl/policy", json!({ "Name": "p", "Rules": rules })).await.ok();
    let token = control.put("/v1/acl/token", json!({ "Policies": [{ "Name": "p" }] })).await.ok();
    let secret = token["SecretID"].as_str().unwrap();
    let send = async |ops: Value| {
        let headers = [("host", "localhost"), ("x-consul-token", secret)];
        control.raw(hyper::Method::PUT, "/v1/txn", &headers, &ops.to_string()).await
    };
    let web = service("set", json!({ "ID": "w", "Service": "web" }));
    let up = check("set", json!({ "Node": "n1", "CheckID": "up", "Status": "passing", "ServiceID": "w" }));
    send(json!([web, up, key("set", "app/a"), node("get", json!({ "Node": "n1" }))])).await.ok();
    for op in [
        node("set", json!({ "Node": "n1", "Address": "10.0.0.2" })),
        node("delete", json!({ "Node": "n1" })),
        service("set", json!({ "ID": "db-1", "Service": "web" })),
        service("delete", json!({ "ID": "db-1" })),
        service("set", json!({ "ID": "x", "Service": "api" })),
        check("set", json!({ "Node": "n1", "CheckID": "c", "Status": "passing" })),
        check("set", json!({ "Node": "n1", "CheckID": "c", "Status": "passing", "ServiceID": "db-1" })),
        key("set", "app/b"),
    ] {
        let answer = send(json!([key("get", "app/a"), op])).await;
        assert_eq!(answer.status.as_u16(), 403, "{op}: {}", answer.text);
        let said = answer.json();
        assert_eq!((said["Errors"].as_array().unwrap().len(), &said["Errors"][0]["OpIndex"]), (1, &json!(1)), "{op}");
    }
    control.stop().await;
}
