//! Consul's HTTP API: what registers, and what is found.

mod support;

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Answer, Control};

async fn put(control: &Control, path: &str, body: Value) -> Answer {
    let answer = control.put(path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    answer
}

async fn get(control: &Control, path: &str) -> Value {
    let answer = control.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    answer.json()
}

fn index_of(answer: &Answer) -> u64 {
    answer.headers["x-consul-index"].to_str().unwrap().parse().unwrap()
}

/// Asks again until the answer is as wanted.
async fn until(what: &str, control: &Control, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..1500 {
        last = control.get(path).await.json();
        if holds(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {last:#}");
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn what_registers_with_the_agent_is_found_in_consuls_shapes() {
    let control = Control::start().await;
    let body = json!({
        "ID": "web-1", "Name": "web", "Tags": ["v1", "a"], "Address": "10.0.0.7", "Port": 8080, "Meta": {"env": "prod"},
        "Weights": {"Passing": 5, "Warning": 2}, "Check": {"TTL": "60s", "Status": "passing"},
        "Unknown": {"x": 1}, "Connect": null, "Proxy": null
    });
    put(&control, "/v1/agent/service/register", body).await;

    assert_eq!(get(&control, "/v1/catalog/services").await, json!({"web": ["a", "v1"]}));
    let services = get(&control, "/v1/catalog/service/web").await;
    let service = &services[0];
    assert_eq!(
        keys(service),
        [
            "ID",
            "Node",
            "Address",
            "Datacenter",
            "TaggedAddresses",
            "NodeMeta",
            "ServiceKind",
            "ServiceID",
            "ServiceName",
            "ServiceTags",
            "ServiceAddress",
            "ServiceTaggedAddresses",
            "ServiceWeights",
            "ServiceMeta",
            "ServicePort",
            "ServiceSocketPath",
            "ServiceEnableTagOverride",
            "ServiceProxy",
            "ServiceConnect",
            "ServiceLocality",
            "CreateIndex",
            "ModifyIndex"
        ]
    );
    assert_eq!(service["ServiceTags"], json!(["v1", "a"]));
    assert_eq!(service["ServiceWeights"], json!({"Passing": 5, "Warning": 2}));
    assert_eq!((&service["ServiceAddress"], &service["ServicePort"]), (&json!("10.0.0.7"), &json!(8080)));
    let tagged = json!({ "Address": "10.0.0.7", "Port": 8080 });
    assert_eq!(service["ServiceTaggedAddresses"], json!({ "lan_ipv4": tagged, "wan_ipv4": tagged }));
    assert_eq!(service["Datacenter"], "dc1");

    let health = get(&control, "/v1/health/service/web").await;
    assert_eq!(keys(&health[0]), ["Node", "Service", "Checks"]);
    assert_eq!(
        keys(&health[0]["Node"]),
        ["ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta", "CreateIndex", "ModifyIndex"]
    );
    assert_eq!(health[0]["Service"]["Service"], "web");
    let checks = health[0]["Checks"].as_array().unwrap();
    assert_eq!(
        checks.iter().map(|check| check["CheckID"].as_str().unwrap()).collect::<Vec<_>>(),
        ["serfHealth", "service:web-1"]
    );
    assert_eq!(
        keys(&checks[1]),
        [
            "Node",
            "CheckID",
            "Name",
            "Status",
            "Notes",
            "Output",
            "ServiceID",
            "ServiceName",
            "ServiceTags",
            "Type",
            "Interval",
            "Timeout",
            "ExposedPort",
            "Definition",
            "CreateIndex",
            "ModifyIndex"
        ]
    );
    assert_eq!((&checks[1]["Type"], &checks[1]["Status"]), (&json!("ttl"), &json!("passing")));

    let node = service["Node"].as_str().unwrap();
    assert_eq!(get(&control, &format!("/v1/catalog/node/{node}")).await["Services"]["web-1"]["Port"], 8080);
    assert_eq!(get(&control, &format!("/v1/catalog/node-services/{node}")).await["Services"][0]["ID"], "web-1");
    assert_eq!(get(&control, "/v1/catalog/node/nobody").await, Value::Null);
    assert_eq!(get(&control, "/v1/catalog/nodes").await[0]["Node"], node);
    assert_eq!(get(&control, "/v1/catalog/datacenters").await, json!(["dc1"]));
    assert_eq!(get(&control, "/v1/catalog/connect/web").await, json!([]), "it has no sidecar");
    assert_eq!(get(&control, "/v1/health/connect/web").await, json!([]));
    assert_eq!(get(&control, &format!("/v1/health/node/{node}")).await.as_array().unwrap().len(), 2);
    assert_eq!(get(&control, "/v1/health/checks/web").await[0]["CheckID"], "service:web-1");
    assert_eq!(get(&control, "/v1/health/state/passing").await.as_array().unwrap().len(), 2);
    assert_eq!(get(&control, "/v1/health/state/critical").await, json!([]));

    let agent = get(&control, "/v1/agent/services").await;
    assert_eq!(
        keys(&agent["web-1"]),
        ["ID", "Service", "Tags", "Meta", "Port", "Address", "TaggedAddresses", "Weights", "EnableTagOverride", "Datacenter"]
    );
    let one = control.get("/v1/agent/service/web-1").await;
    assert_eq!(one.json()["ContentHash"], one.headers["x-consul-contenthash"].to_str().unwrap());
    assert_eq!(get(&control, "/v1/agent/checks").await["service:web-1"]["ServiceName"], "web");
    let health = get(&control, "/v1/agent/health/service/id/web-1").await["Checks"].clone();
    assert_eq!((health[0]["CheckID"].as_str(), health.as_array().unwrap().len()), (Some("service:web-1"), 1));
    assert_eq!(control.get("/v1/agent/service/nope").await.status, StatusCode::NOT_FOUND);
    let own = get(&control, "/v1/agent/self").await;
    assert_eq!((&own["Config"]["Datacenter"], &own["Member"]["Name"]), (&json!("dc1"), &json!(node)));
    assert_eq!(get(&control, "/v1/agent/members").await[0]["Name"], node);

    put(&control, "/v1/agent/service/deregister/web-1", Value::Null).await;
    assert_eq!(get(&control, "/v1/catalog/services").await, json!({}));
    assert_eq!(get(&control, "/v1/agent/checks").await, json!({}), "its checks went with it");
    assert_eq!(control.put("/v1/agent/service/deregister/web-1", Value::Null).await.status, StatusCode::NOT_FOUND);
    control.stop().await;
}

#[tokio::test]
async fn what_registers_elsewhere_is_found_on_its_node() {
    let control = Control::start().await;
    let body = json!({
        "Node": "db-host", "Address": "10.1.1.1", "NodeMeta": {"rack": "a"},
        "Service": {"ID": "db-1", "Service": "db", "Port": 5432, "Tags": ["primary"], "Address": "10.1.1.2"},
        "Check": {"CheckID": "up", "Name": "up", "Status": "passing", "ServiceID": "db-1", "Output": "fine"}
    });
    assert_eq!(put(&control, "/v1/catalog/register", body.clone()).await.json(), json!(true));
    let health = get(&control, "/v1/health/service/db?passing").await;
    assert_eq!((&health[0]["Node"]["Address"], &health[0]["Service"]["Address"]), (&json!("10.1.1.1"), &json!("10.1.1.2")));
    assert_eq!(health[0]["Service"]["TaggedAddresses"], json!({}), "only an agent adds some");
    assert_eq!(health[0]["Checks"][0]["Output"], "fine");
    let first = control.get("/v1/health/service/db").await;
    put(&control, "/v1/catalog/register", body.clone()).await;
    assert_eq!(index_of(&control.get("/v1/health/service/db").await), index_of(&first), "the same again changes nothing");

    let mut changed = body;
    changed["Check"]["Status"] = "critical".into();
    put(&control, "/v1/catalog/register", changed).await;
    assert_eq!(get(&control, "/v1/health/service/db?passing").await, json!([]));
    let all = get(&control, "/v1/health/service/db").await;
    assert_eq!(all[0]["Checks"][0]["Status"], "critical");
    assert!(all[0]["Checks"][0]["CreateIndex"].as_u64() < all[0]["Checks"][0]["ModifyIndex"].as_u64());
    assert_eq!(get(&control, "/v1/catalog/nodes?node-meta=rack:a").await.as_array().unwrap().len(), 1);
    assert_eq!(get(&control, "/v1/catalog/nodes?node-meta=rack:b").await, json!([]));
    assert_eq!(get(&control, "/v1/catalog/service/db?tag=PRIMARY").await.as_array().unwrap().len(), 1);
    assert_eq!(get(&control, "/v1/catalog/service/db?tag=primary&tag=x").await, json!([]));
    assert_eq!(get(&control, "/v1/catalog/service/db?near=_agent&filter=ServicePort==5432").await.as_array().unwrap().len(), 1);
    assert_eq!(get(&control, "/v1/health/service/db?filter=Service.Port==1").await, json!([]));
    assert_eq!(get(&control, "/v1/catalog/services?filter=ServicePort==1").await, json!({}));
    assert_eq!(control.get("/v1/health/service/db?filter=Nope==1").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(control.get("/v1/health/service/db?filter=((").await.status, StatusCode::BAD_REQUEST);

    put(&control, "/v1/catalog/deregister", json!({"Node": "db-host", "CheckID": "up"})).await;
    assert_eq!(get(&control, "/v1/health/service/db?passing").await.as_array().unwrap().len(), 1);
    put(&control, "/v1/catalog/deregister", json!({"Node": "db-host"})).await;
    assert_eq!(get(&control, "/v1/health/service/db").await, json!([]));
    assert_eq!(get(&control, "/v1/catalog/node/db-host").await, Value::Null);
    control.stop().await;
}

#[tokio::test]
async fn a_blocking_query_ends_with_the_change_it_waits_for() {
    let control = Control::start().await;
    put(&control, "/v1/agent/service/register", json!({"Name": "web", "Port": 1})).await;
    let index = index_of(&control.get("/v1/health/service/web").await);
    let path = format!("/v1/health/service/web?index={index}&wait=60s");
    let waiting = control.get(&path);
    let change = async {
        put(&control, "/v1/agent/service/register", json!({"Name": "other", "Port": 1})).await;
        put(&control, "/v1/agent/service/maintenance/web?enable=true&reason=moving", Value::Null).await;
    };
    let (answer, ()) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(waiting, change) }).await.unwrap();
    assert!(index_of(&answer) > index);
    let checks = answer.json()[0]["Checks"].clone();
    let check = checks.as_array().unwrap().iter().find(|check| check["CheckID"] == "_service_maintenance:web").unwrap();
    assert_eq!((&check["Status"], &check["Notes"]), (&json!("critical"), &json!("moving")));
    assert_eq!(control.get("/v1/agent/health/service/name/web?format=text").await.text, "maintenance");
    assert_eq!(control.get("/v1/agent/health/service/id/web").await.status, StatusCode::SERVICE_UNAVAILABLE);

    let hash = control.get("/v1/agent/service/web").await.headers["x-consul-contenthash"].to_str().unwrap().to_owned();
    let path = format!("/v1/agent/service/web?hash={hash}&wait=60s");
    let waiting = control.get(&path);
    let change = put(&control, "/v1/agent/service/register", json!({"Name": "web", "Port": 2}));
    let (answer, _) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(waiting, change) }).await.unwrap();
    assert_eq!(answer.json()["Port"], 2);

    put(&control, "/v1/agent/service/maintenance/web?enable=false", Value::Null).await;
    assert_eq!(control.get("/v1/agent/health/service/id/web").await.status, StatusCode::OK);
    put(&control, "/v1/agent/maintenance?enable=true", Value::Null).await;
    assert_eq!(get(&control, "/v1/health/service/web?passing").await, json!([]));
    put(&control, "/v1/agent/maintenance?enable=false", Value::Null).await;
    assert_eq!(get(&control, "/v1/health/service/web?passing").await.as_array().unwrap().len(), 1);
    control.stop().await;
}

#[tokio::test]
async fn a_ttl_check_is_what_it_is_told_and_critical_when_it_is_told_nothing() {
    let control = Control::start().await;
    let body =
        json!({"ID": "job-1", "Name": "job", "Checks": [{"CheckID": "beat", "TTL": "1h"}, {"CheckID": "short", "TTL": "200ms"}]});
    put(&control, "/v1/agent/service/register", body).await;
    for (path, status) in [
        ("pass/beat?note=fine", "passing"),
        ("warn/beat", "warning"),
        ("fail/beat?note=down", "critical"),
        ("pass/beat", "passing"),
    ] {
        put(&control, &format!("/v1/agent/check/{path}"), Value::Null).await;
        assert_eq!(get(&control, "/v1/agent/checks").await["beat"]["Status"], status);
    }
    put(&control, "/v1/agent/check/update/beat", json!({"Status": "warning", "Output": "slow"})).await;
    assert_eq!(get(&control, "/v1/agent/checks").await["beat"]["Output"], "slow");
    let index = index_of(&control.get("/v1/health/checks/job").await);
    put(&control, "/v1/agent/check/warn/beat?note=slower", Value::Null).await;
    assert_eq!(get(&control, "/v1/agent/checks").await["beat"]["Output"], "slower");
    assert_eq!(index_of(&control.get("/v1/health/checks/job").await), index, "a note alone wakes nobody");
    put(&control, "/v1/agent/check/pass/short?note=last", Value::Null).await;
    let checks = until("its time is up", &control, "/v1/agent/checks", |checks| checks["short"]["Status"] == "critical").await;
    assert_eq!(checks["short"]["Output"], "TTL expired (last output before timeout follows): last");
    put(&control, "/v1/agent/check/pass/short", Value::Null).await;
    until("its time is up again", &control, "/v1/agent/checks", |checks| checks["short"]["Status"] == "critical").await;
    assert_eq!(control.put("/v1/agent/check/pass/nope", Value::Null).await.status, StatusCode::NOT_FOUND);
    assert_eq!(control.put("/v1/agent/check/update/beat", json!({"Status": "x"})).await.status, StatusCode::BAD_REQUEST);
    control.stop().await;
}

#[tokio::test]
async fn the_control_plane_runs_the_checks_of_what_registers_with_it() {
    let control = Control::start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let body = json!({
        "Name": "cache", "Port": 6379,
        "Check": {"TCP": address, "Interval": "200ms", "Timeout": "5s", "FailuresBeforeCritical": 2, "FailuresBeforeWarning": 1}
    });
    put(&control, "/v1/agent/service/register", body).await;
    put(&control, "/v1/agent/check/register", json!({"Name": "follows", "ServiceID": "", "AliasService": "cache"})).await;
    let path = "/v1/health/service/cache?passing";
    let found = until("it passes", &control, path, |found| found.as_array().is_some_and(|found| !found.is_empty())).await;
    let check = found[0]["Checks"].as_array().unwrap().iter().find(|check| check["CheckID"] == "service:cache").unwrap();
    assert_eq!((&check["Type"], &check["Interval"], &check["Timeout"]), (&json!("tcp"), &json!("200ms"), &json!("5s")));
    drop(listener);
    until("it is critical", &control, "/v1/agent/checks", |checks| checks["service:cache"]["Status"] == "critical").await;
    let listener = std::net::TcpListener::bind(&address).unwrap();
    until("it comes back", &control, "/v1/agent/checks", |checks| checks["service:cache"]["Status"] == "passing").await;
    until("the alias follows", &control, "/v1/agent/checks", |checks| checks["follows"]["Status"] == "passing").await;
    drop(listener);

    let script = json!({"Name": "s", "Args": ["true"], "Interval": "1s"});
    let refused = control.put("/v1/agent/check/register", script).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text.contains("--enable-script-checks"), "{}", refused.text);
    control.stop().await;
}

#[tokio::test]
async fn what_is_registered_survives_a_restart() {
    let control = Control::start().await;
    put(&control, "/v1/agent/service/register", json!({"ID": "a/b c%", "Name": "web", "Port": 1, "Check": {"TTL": "1h"}})).await;
    put(&control, "/v1/agent/check/pass/service:a/b%20c%25", Value::Null).await;
    let before = get(&control, "/v1/health/service/web").await;
    let index = index_of(&control.get("/v1/health/service/web").await);
    let directory = control.stop().await;
    let settings = support::settings(directory.path());
    let control = Control::start_in(directory, settings).await;
    assert_eq!(get(&control, "/v1/health/service/web").await, before);
    assert!(index_of(&control.get("/v1/health/service/web").await) >= index);
    control.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_with_the_reason() {
    let control = Control::start().await;
    for (path, body, status, words) in [
        ("/v1/agent/service/register", json!({}), 400, "Missing service name"),
        ("/v1/agent/service/register", json!({"Name": "Web_1"}), 400, "Invalid service name"),
        ("/v1/agent/service/register", json!({"Name": "web", "Port": 70000}), 400, "Port"),
        ("/v1/agent/service/register", json!({"Name": "web", "Address": "0.0.0.0"}), 400, "cannot be dialled"),
        ("/v1/agent/service/register", json!({"Name": "web", "Weights": {"Passing": 0}}), 400, "Weights"),
        ("/v1/agent/service/register", json!({"Name": "web", "Connect": {"SidecarService": {}}}), 501, "meshctl proxy"),
        ("/v1/agent/service/register", json!({"Name": "web", "Kind": "connect-proxy"}), 501, "meshctl proxy"),
        ("/v1/agent/service/register", json!({"Name": "web", "Check": {"HTTP": "x", "Interval": "1s"}}), 400, "not a URL"),
        ("/v1/agent/service/register", json!({"Name": "web", "Tags": [1]}), 400, "Tags.0"),
        ("/v1/agent/check/register", json!({"TTL": "1s"}), 400, "Missing check name"),
        ("/v1/agent/check/register", json!({"Name": "c", "TTL": "1s", "ServiceID": "x"}), 500, "does not exist"),
        ("/v1/agent/maintenance", Value::Null, 400, "Missing value for enable"),
        ("/v1/catalog/register", json!({"Node": "n"}), 400, "Must provide node and address"),
        ("/v1/catalog/register", json!({"Node": "n", "Address": "a", "Service": {"Service": "-"}}), 400, "Invalid service name"),
        (
            "/v1/catalog/register",
            json!({"Node": "n", "Address": "a", "Check": {"Name": "c", "Status": "x"}}),
            400,
            "Invalid check status",
        ),
        ("/v1/catalog/deregister", json!({}), 400, "Must provide node"),
    ] {
        let answer = control.put(path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text);
        assert!(answer.text.contains(words), "{path} {body}: {}", answer.text);
    }
    assert_eq!(get(&control, "/v1/catalog/services").await, json!({}), "nothing was written");
    control.stop().await;
}

#[tokio::test]
async fn nothing_is_told_or_taken_without_a_credential() {
    let control = Control::start().await;
    put(&control, "/v1/agent/service/register", json!({"Name": "web", "Check": {"TTL": "1h"}})).await;
    let reads = [
        "/v1/agent/self",
        "/v1/agent/members",
        "/v1/agent/services",
        "/v1/agent/service/web",
        "/v1/agent/checks",
        "/v1/agent/health/service/name/web",
        "/v1/agent/health/service/id/web",
        "/v1/catalog/datacenters",
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/catalog/service/web",
        "/v1/catalog/connect/web",
        "/v1/catalog/node/x",
        "/v1/catalog/node-services/x",
        "/v1/health/node/x",
        "/v1/health/checks/web",
        "/v1/health/service/web",
        "/v1/health/connect/web",
        "/v1/health/state/any",
    ];
    let writes = [
        ("/v1/agent/service/register", json!({"Name": "web"})),
        ("/v1/agent/service/deregister/web", Value::Null),
        ("/v1/agent/service/deregister/unknown", Value::Null),
        ("/v1/agent/service/maintenance/web?enable=true", Value::Null),
        ("/v1/agent/maintenance?enable=true", Value::Null),
        ("/v1/agent/check/register", json!({"Name": "c", "TTL": "1s"})),
        ("/v1/agent/check/register", json!({"Name": "c", "TTL": "1s", "ServiceID": "web"})),
        ("/v1/agent/check/deregister/service:web", Value::Null),
        ("/v1/agent/check/pass/service:web", Value::Null),
        ("/v1/agent/check/warn/service:web", Value::Null),
        ("/v1/agent/check/fail/service:web", Value::Null),
        ("/v1/agent/check/update/service:web", json!({"Status": "passing"})),
        ("/v1/catalog/register", json!({"Node": "n", "Address": "a"})),
        ("/v1/catalog/deregister", json!({"Node": "n"})),
    ];
    let before = get(&control, "/v1/health/state/any").await;
    let host = [("host", "localhost")];
    for path in reads {
        let answer = control.raw(Method::GET, path, &host, "").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {}", answer.text);
        assert!(answer.text.starts_with("Permission denied"), "{path}: {}", answer.text);
    }
    for (path, body) in writes {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = control.raw(Method::PUT, path, &host, &body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {}", answer.text);
    }
    assert_eq!(get(&control, "/v1/health/state/any").await, before);
    control.stop().await;
}
