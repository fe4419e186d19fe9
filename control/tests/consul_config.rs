//! Config entries: another way to say settings of services and intentions.

mod support;

use hyper::Method;
use serde_json::{Value, json};
use support::Control;

/// An entry without what the store adds, and its index.
fn bare(mut entry: Value) -> (Value, u64) {
    let object = entry.as_object_mut().unwrap();
    object.remove("CreateIndex").unwrap();
    let index = object.remove("ModifyIndex").unwrap();
    (entry, index.as_u64().unwrap())
}

fn router() -> Value {
    json!({ "Kind": "service-router", "Name": "api", "Routes": [
        { "Match": { "HTTP": { "PathPrefix": "/v2/" } }, "Destination": { "Service": "web", "PrefixRewrite": "/", "RequestTimeout": "3s" } },
    ] })
}

#[tokio::test]
async fn entries_are_put_read_listed_and_deleted() {
    let control = Control::start().await;
    let entries = [
        json!({ "Kind": "service-defaults", "Name": "api", "Protocol": "http" }),
        json!({ "Kind": "service-resolver", "Name": "api", "DefaultSubset": "v1", "ConnectTimeout": "3s",
            "Subsets": { "v1": { "Filter": "Service.Meta.version == \"1\"" } } }),
        router(),
        json!({ "Kind": "service-splitter", "Name": "api", "Splits": [{ "Weight": 90, "ServiceSubset": "v1" }, { "Weight": 10, "Service": "web" }] }),
        json!({ "Kind": "service-intentions", "Name": "api", "Sources": [
            { "Name": "web", "Precedence": 9, "Type": "consul", "Permissions": [{ "Action": "allow", "HTTP": { "PathPrefix": "/v1" } }] },
            { "Name": "*", "Precedence": 8, "Type": "consul", "Action": "deny" },
        ] }),
    ];
    for entry in &entries {
        assert_eq!(control.put("/v1/config", entry.clone()).await.ok(), true, "{entry}");
    }
    for entry in &entries {
        let path = format!("/v1/config/{}/api", entry["Kind"].as_str().unwrap());
        let answer = control.get(&path).await;
        assert!(answer.headers["x-consul-index"].to_str().unwrap().parse::<u64>().unwrap() > 1);
        assert_eq!(bare(answer.ok()).0, *entry);
        let list = control.get(&format!("/v1/config/{}", entry["Kind"].as_str().unwrap())).await.ok();
        assert_eq!(bare(list[0].clone()).0, *entry);
        assert_eq!(list.as_array().unwrap().len(), 1);
    }
    // They are the settings and intentions that there are.
    let settings = control.get("/v1/service-config/api").await.ok()["settings"].clone();
    assert_eq!((&settings["protocol"], &settings["timeouts"]["connect"]), (&json!("http"), &json!("3s")));
    assert_eq!(settings["routes"][0]["to"]["service"], "web");
    assert_eq!(control.get("/v1/intentions/*/api").await.ok()[0]["action"], "deny");
    let found = control.get("/v1/config/service-defaults?filter=Protocol%20==%20%22grpc%22").await.ok();
    assert_eq!(found, json!([]));

    control.delete("/v1/config/service-router/api").await.ok();
    let missing = control.get("/v1/config/service-router/api").await;
    assert_eq!(missing.status.as_u16(), 404);
    assert_eq!(missing.text, "Config entry not found for \"service-router\" / \"api\"");
    assert_eq!(control.delete("/v1/config/service-router/api").await.ok(), json!({}), "what is gone is gone");
    let settings = control.get("/v1/service-config/api").await.ok()["settings"].clone();
    assert_eq!((&settings["routes"], &settings["protocol"]), (&Value::Null, &json!("http")), "the rest stays");
    for kind in ["service-splitter", "service-resolver", "service-defaults"] {
        control.delete(&format!("/v1/config/{kind}/api")).await.ok();
    }
    control.get("/v1/service-config/api").await.refused(404);

    // An entry replaces all sources of its destination and no others.
    control.put("/v1/intentions/web/db", json!({ "verb": "allow" })).await.ok();
    control
        .put(
            "/v1/config",
            json!({ "Kind": "service-intentions", "Name": "api", "Sources": [{ "Name": "shop", "Action": "allow" }] }),
        )
        .await
        .ok();
    control.get("/v1/intentions/*/api").await.refused(404);
    control.get("/v1/intentions/shop/api").await.ok();
    control.delete("/v1/config/service-intentions/api").await.ok();
    control.get("/v1/intentions/shop/api").await.refused(404);
    control.get("/v1/intentions/web/db").await.ok();
    control.stop().await;
}

#[tokio::test]
async fn an_index_that_is_not_the_entry_changes_nothing() {
    let control = Control::start().await;
    assert_eq!(control.put("/v1/config?cas=1", router()).await.ok(), false);
    assert_eq!(control.put("/v1/config?cas=0", router()).await.ok(), true);
    assert_eq!(control.put("/v1/config?cas=0", router()).await.ok(), false);
    let (_, index) = bare(control.get("/v1/config/service-router/api").await.ok());
    let mut changed = router();
    changed["Routes"][0]["Destination"]["RequestTimeout"] = "4s".into();
    assert_eq!(control.put(&format!("/v1/config?cas={index}"), changed.clone()).await.ok(), true);
    assert_eq!(control.put(&format!("/v1/config?cas={index}"), changed).await.ok(), false);
    assert_eq!(control.delete(&format!("/v1/config/service-router/api?cas={index}")).await.ok(), false);
    let (_, index) = bare(control.get("/v1/config/service-router/api").await.ok());
    assert_eq!(control.delete(&format!("/v1/config/service-router/api?cas={index}")).await.ok(), true);
    assert_eq!(control.get("/v1/config/service-router/api").await.status.as_u16(), 404);

    // The deletion of one source is a change of the entry.
    let sources = |names: &[&str]| {
        let sources: Vec<Value> = names.iter().map(|name| json!({ "Name": name, "Action": "allow" })).collect();
        json!({ "Kind": "service-intentions", "Name": "api", "Sources": sources })
    };
    assert_eq!(control.put("/v1/config?cas=0", sources(&["web", "shop"])).await.ok(), true);
    let (_, index) = bare(control.get("/v1/config/service-intentions/api").await.ok());
    control.delete("/v1/intentions/web/api").await.ok();
    assert_eq!(control.put(&format!("/v1/config?cas={index}"), sources(&["a"])).await.ok(), false);
    let (_, index) = bare(control.get("/v1/config/service-intentions/api").await.ok());
    assert_eq!(control.put(&format!("/v1/config?cas={index}"), sources(&["a"])).await.ok(), true);
    control.stop().await;
}

#[tokio::test]
async fn what_has_no_counterpart_is_refused_and_nothing_is_lost() {
    let control = Control::start().await;
    let refused = async |entry: Value, status: u16| {
        let answer = control.put("/v1/config", entry).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        answer.text
    };
    let said = refused(json!({ "Kind": "service-defaults", "Name": "api", "MaxInboundConnections": 5 }), 400).await;
    assert!(said.contains("service-defaults api: MaxInboundConnections") && said.contains("--max-connections"), "{said}");
    let said = refused(json!({ "Kind": "ingress-gateway", "Name": "gate" }), 501).await;
    assert_eq!(said, "There are no gateways.");
    assert_eq!(control.get("/v1/config/mesh/mesh").await.status.as_u16(), 501);
    refused(json!({ "Kind": "nonsense", "Name": "x" }), 400).await;
    let said = refused(json!({ "Kind": "proxy-defaults", "Name": "global", "Config": { "protocol": "http" } }), 400).await;
    assert!(said.contains("service-defaults for each"), "{said}");
    let global = control.get("/v1/config/proxy-defaults/global").await.ok();
    assert_eq!(control.put("/v1/config", global).await.ok(), true, "what always holds can be said");
    // A subset that nobody defined, and a circle.
    let split = |name: &str, to: Value| json!({ "Kind": "service-splitter", "Name": name, "Splits": [to] });
    let said = refused(split("api", json!({ "Weight": 100, "ServiceSubset": "v9" })), 400).await;
    assert!(said.contains("v9"), "{said}");
    control.put("/v1/config", split("a", json!({ "Weight": 100, "Service": "b" }))).await.ok();
    refused(split("b", json!({ "Weight": 100, "Service": "a" })), 400).await;

    // Settings that an entry cannot say are not written over.
    let mirrored = json!({ "file": { "services": [
        { "service": "api", "routes": [{ "to": { "mirror": { "service": "log" } } }], "faults": { "abort": { "percent": 1, "status": 503 } } },
    ] } });
    control.put("/v1/service-config/api", mirrored).await.ok();
    let shown = control.get("/v1/config/service-router/api").await.ok();
    assert!(shown["Meta"]["postern"].as_str().unwrap().contains("mirror"), "{shown}");
    let said = refused(router(), 400).await;
    assert!(said.contains("mirror") && said.contains("delete the entry first"), "{said}");
    control.delete("/v1/config/service-router/api").await.ok();
    control.put("/v1/config", router()).await.ok();
    let settings = control.get("/v1/service-config/api").await.ok()["settings"].clone();
    assert_eq!(settings["faults"]["abort"]["status"], 503, "what no entry is about stays");
    control.stop().await;
}

#[tokio::test]
async fn who_sends_requests_elsewhere_must_know_the_other_service() {
    let control = Control::start().await;
    let rules = "service \"api\" { policy = \"write\" }";
    control.put("/v1/acl/policy", json!({ "Name": "p", "Rules": rules })).await.ok();
    let token = control.put("/v1/acl/token", json!({ "Policies": [{ "Name": "p" }] })).await.ok();
    let secret = token["SecretID"].as_str().unwrap();
    let put = async |entry: Value| {
        let headers = [("host", "localhost"), ("x-consul-token", secret)];
        control.raw(Method::PUT, "/v1/config", &headers, &entry.to_string()).await.status.as_u16()
    };
    assert_eq!(put(router()).await, 403);
    assert_eq!(put(json!({ "Kind": "service-defaults", "Name": "api", "Protocol": "http" })).await, 200);
    assert_eq!(put(json!({ "Kind": "service-defaults", "Name": "web", "Protocol": "http" })).await, 403);
    control.stop().await;
}

#[tokio::test]
async fn a_change_of_an_entry_wakes_who_waits_for_it() {
    let control = Control::start().await;
    control.put("/v1/config", router()).await.ok();
    let answer = control.get("/v1/config/service-router/api").await;
    let index = answer.headers["x-consul-index"].to_str().unwrap().to_owned();
    let path = format!("/v1/config/service-router/api?index={index}&wait=60s");
    let (woken, deleted) = tokio::join!(control.get(&path), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        control.delete("/v1/config/service-router/api").await.ok()
    });
    assert_eq!(deleted, json!({}));
    assert_eq!(woken.status.as_u16(), 404);
    assert_ne!(woken.headers["x-consul-index"], index.as_str());
    control.stop().await;
}
