//! Prepared queries.

mod support;

use serde_json::{Value, json};
use support::Control;

async fn register(control: &Control, node: &str, id: &str, tags: &[&str], status: &str) {
    let body = json!({
        "Node": node, "Address": "10.0.0.1", "NodeMeta": { "rack": node },
        "Service": { "ID": id, "Service": "db", "Port": 5432, "Tags": tags, "Meta": { "version": "1" } },
        "Checks": [{ "CheckID": format!("c-{id}"), "Name": "c", "Status": status, "ServiceID": id, "Node": node }],
    });
    assert_eq!(control.put("/v1/catalog/register", body).await.ok(), true);
}

async fn found(control: &Control, path: &str) -> Vec<String> {
    let answer = control.get(path).await.ok();
    let nodes = answer["Nodes"].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
    nodes.map(|one| one["Service"]["ID"].as_str().unwrap().to_owned()).collect()
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

async fn shop() -> Control {
    let control = Control::start().await;
    register(&control, "n1", "db-1", &["primary"], "passing").await;
    register(&control, "n2", "db-2", &["replica"], "warning").await;
    register(&control, "n3", "db-3", &["replica", "slow"], "passing").await;
    register(&control, "n4", "db-4", &["replica"], "critical").await;
    control
}

#[tokio::test]
async fn a_query_is_made_read_changed_carried_out_and_deleted() {
    let control = shop().await;
    let definition = json!({ "Name": "find-db", "Service": { "Service": "db", "Tags": ["!slow"] }, "DNS": { "TTL": "10s" } });
    let made = control.post("/v1/query", definition.clone()).await.ok();
    let id = made["ID"].as_str().unwrap().to_owned();
    let read = control.get(&format!("/v1/query/{id}")).await.ok();
    assert_eq!((&read[0]["Name"], &read[0]["Service"]["Tags"]), (&json!("find-db"), &json!(["!slow"])));
    assert_eq!(control.get("/v1/query").await.ok(), read);

    for name in ["find-db", "FIND-DB", id.as_str()] {
        let path = format!("/v1/query/{name}/execute");
        assert_eq!(sorted(found(&control, &path).await), ["db-1", "db-2"], "{name}");
    }
    let answer = control.get("/v1/query/find-db/execute?limit=1").await.ok();
    assert_eq!(answer["Nodes"].as_array().unwrap().len(), 1);
    assert_eq!((&answer["DNS"]["TTL"], &answer["Datacenter"], &answer["Failovers"]), (&json!("10s"), &json!("dc1"), &json!(0)));
    assert_eq!(answer["Nodes"][0]["Checks"][0]["Name"], "c");
    for node in ["n1", "n2"] {
        // Ten times: a shuffle alone would have been seen through.
        for _ in 0..10 {
            let first = found(&control, &format!("/v1/query/find-db/execute?near={node}")).await.remove(0);
            assert_eq!(first, format!("db-{}", &node[1..]));
        }
    }
    assert!(found(&control, "/v1/query/find-db/execute?connect=true").await.is_empty(), "none has a sidecar");

    let change = async |service: Value| {
        let mut changed = definition.clone();
        changed["Service"] = service;
        let answer = control.put(&format!("/v1/query/{id}"), changed).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    };
    let cases = [
        (json!({ "Service": "db", "OnlyPassing": true }), vec!["db-1", "db-3"]),
        (json!({ "Service": "db", "IgnoreCheckIDs": ["c-db-4"], "Tags": ["Replica"] }), vec!["db-2", "db-3", "db-4"]),
        (json!({ "Service": "db", "NodeMeta": { "rack": "n3" } }), vec!["db-3"]),
        (json!({ "Service": "db", "ServiceMeta": { "version": "2" } }), vec![]),
        (json!({ "Service": "nobody" }), vec![]),
    ];
    for (service, ids) in cases {
        change(service.clone()).await;
        assert_eq!(sorted(found(&control, "/v1/query/find-db/execute").await), ids, "{service}");
    }
    let read = control.get(&format!("/v1/query/{id}")).await.ok();
    assert!(read[0]["ModifyIndex"].as_u64() > read[0]["CreateIndex"].as_u64());

    assert_eq!(control.delete(&format!("/v1/query/{id}")).await.status.as_u16(), 200);
    for path in [format!("/v1/query/{id}"), "/v1/query/find-db/execute".into(), "/v1/query/find-db/explain".into()] {
        let answer = control.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (404, "Query not found"), "{path}");
    }
    control.stop().await;
}

#[tokio::test]
async fn a_template_answers_for_every_name_that_begins_like_its_own() {
    let control = shop().await;
    let template = json!({
        "Name": "geo-", "Template": { "Type": "name_prefix_match", "Regexp": "^geo-(.*?)(?:-([^-]+))?$", "RemoveEmptyTags": true },
        "Service": { "Service": "${match(1)}", "Tags": ["${match(2)}"] },
    });
    control.post("/v1/query", template).await.ok();
    assert_eq!(sorted(found(&control, "/v1/query/geo-db/execute").await), ["db-1", "db-2", "db-3"]);
    assert_eq!(sorted(found(&control, "/v1/query/geo-db-primary/execute").await), ["db-1"]);
    let explained = control.get("/v1/query/geo-db-primary/explain").await.ok();
    assert_eq!(
        (&explained["Query"]["Service"]["Service"], &explained["Query"]["Service"]["Tags"]),
        (&json!("db"), &json!(["primary"]))
    );
    control.post("/v1/query", json!({ "Name": "geo-db", "Service": { "Service": "db", "Tags": ["slow"] } })).await.ok();
    assert_eq!(found(&control, "/v1/query/geo-db/execute").await, ["db-3"], "a query of the whole name goes first");
    control.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let control = Control::start().await;
    let refused = async |body: Value| {
        let answer = control.post("/v1/query", body).await;
        assert_eq!(answer.status.as_u16(), 400, "{}", answer.text);
        answer.text
    };
    let service = |name: &str, value: Value| {
        let mut service = json!({ "Service": "db" });
        service[name] = value;
        json!({ "Name": "q", "Service": service })
    };
    for (body, word) in [
        (json!({ "Name": "q" }), "Service name"),
        (json!({ "ID": "x", "Service": { "Service": "db" } }), "ID"),
        (json!({ "Token": "hunter2", "Service": { "Service": "db" } }), "Token"),
        (json!({ "Session": "x", "Service": { "Service": "db" } }), "Session"),
        (service("Failover", json!({ "NearestN": 2 })), "NearestN"),
        (service("Failover", json!({ "Datacenters": ["dc2"] })), "one datacenter"),
        (service("Failover", json!({ "Targets": [{ "Peer": "b" }] })), "Targets"),
        (service("Peer", json!("b")), "Peer"),
        (json!({ "Name": "q", "Service": { "Service": "db" }, "DNS": { "TTL": "soon" } }), "TTL"),
        (json!({ "Name": "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "Service": { "Service": "db" } }), "UUID"),
        (json!({ "Template": { "Type": "x" }, "Service": { "Service": "db" } }), "name_prefix_match"),
        (json!({ "Template": { "Type": "name_prefix_match" }, "Service": { "Service": "${nothing}" } }), "name.full"),
        (json!({ "Template": { "Type": "name_prefix_match", "Regexp": "(" }, "Service": { "Service": "a" } }), "Regexp"),
    ] {
        let said = refused(body.clone()).await;
        assert!(said.contains(word) && !said.contains("hunter2"), "{body}: {said}");
    }
    control.post("/v1/query", service("Near", json!("_agent"))).await.ok();
    let said = refused(json!({ "Name": "Q", "Service": { "Service": "web" } })).await;
    assert!(said.contains("aliases"), "{said}");
    let own = control.token();
    let headers = [("host", "localhost"), ("x-consul-token", own.as_str())];
    let body = json!({ "Name": "own", "Token": own, "Service": { "Service": "db" } }).to_string();
    let made = control.raw(hyper::Method::POST, "/v1/query", &headers, &body).await.ok();
    let read = control.get(&format!("/v1/query/{}", made["ID"].as_str().unwrap())).await;
    assert!(!read.text.contains(&own), "the token that a library shows is not kept");
    for _ in 0..2 {
        control.post("/v1/query", json!({ "Service": { "Service": "db" } })).await.ok();
    }
    control.stop().await;
}
