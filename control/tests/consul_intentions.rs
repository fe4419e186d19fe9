//! Intentions and the authority in Consul's form, over the one set that there is.

mod support;

use hyper::Method;
use serde_json::{Value, json};
use support::Control;

fn sources(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one["SourceName"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn intentions_are_set_read_checked_and_deleted() {
    let control = Control::start().await;
    let exact =
        |source: &str, destination: &str| format!("/v1/connect/intentions/exact?source={source}&destination={destination}");
    assert_eq!(
        control.put(&exact("web", "api"), json!({ "SourceType": "consul", "Action": "allow", "Description": "d" })).await.ok(),
        true
    );
    assert_eq!(control.put(&exact("*", "api"), json!({ "Action": "deny" })).await.ok(), true);
    assert_eq!(control.put(&exact("default/web", "default/db"), json!({ "Action": "deny" })).await.ok(), true);
    let ours = control.get("/v1/intentions/web/api").await.ok();
    assert_eq!((ours[0]["action"].as_str(), ours[0]["description"].as_str()), (Some("allow"), Some("d")));

    let list = control.get("/v1/connect/intentions").await;
    assert!(list.headers["x-consul-index"].to_str().unwrap().parse::<u64>().unwrap() > 1);
    let list = list.ok();
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!((&list[0]["Precedence"], &list[2]["Precedence"], &list[2]["SourceName"]), (&json!(9), &json!(8), &json!("*")));
    let read = control.get(&exact("web", "api")).await.ok();
    assert_eq!(
        (&read["Action"], &read["SourceNS"], &read["DestinationName"]),
        (&json!("allow"), &json!("default"), &json!("api"))
    );
    let missing = control.get(&exact("web", "nobody")).await;
    assert_eq!((missing.status.as_u16(), missing.text.as_str()), (404, "Intention not found"));

    let matched = control.get("/v1/connect/intentions/match?by=destination&name=api&name=db").await.ok();
    assert_eq!((sources(&matched["api"]), sources(&matched["db"])), (vec!["web".into(), "*".into()], vec!["web".to_owned()]));
    let by_source = control.get("/v1/connect/intentions/match?by=source&name=web").await.ok();
    assert_eq!(by_source["web"].as_array().unwrap().len(), 3);
    for (source, allowed) in [("web", true), ("shop", false)] {
        let checked = control.get(&format!("/v1/connect/intentions/check?source={source}&destination=api")).await.ok();
        assert_eq!(checked["Allowed"], allowed, "{source}");
    }
    for path in ["match?by=x&name=a", "match?by=source", "check?source=web", "exact?source=web"] {
        assert_eq!(control.get(&format!("/v1/connect/intentions/{path}")).await.status.as_u16(), 400, "{path}");
    }
    assert_eq!(control.delete(&exact("web", "api")).await.ok(), true);
    assert_eq!(control.delete(&exact("web", "api")).await.ok(), true, "what is gone is gone");
    control.get("/v1/intentions/web/api").await.refused(404);
    control.stop().await;
}

#[tokio::test]
async fn permissions_go_both_ways_and_halves_are_refused() {
    let control = Control::start().await;
    let path = "/v1/connect/intentions/exact?source=web&destination=api";
    let permissions = json!([{ "Action": "allow", "HTTP": { "PathExact": "/v1", "Methods": ["GET"], "Header": [{ "Name": "x-team", "Exact": "a" }] } }]);
    control.put(path, json!({ "Permissions": permissions })).await.ok();
    let read = control.get(path).await.ok();
    assert_eq!(read["Permissions"], permissions);
    assert!(read["Meta"]["postern"].as_str().unwrap().contains("otherwise: deny"), "{read}");
    let file = json!({ "file": { "services": [{ "service": "api", "protocol": "http" }] } });
    control.put("/v1/service-config/api", file).await.ok();
    let checked = control.get("/v1/connect/intentions/check?source=web&destination=api").await.ok();
    assert_eq!(checked["Allowed"], false, "no connection is good for all requests");
    let jwt = json!([{ "Action": "allow", "JWT": { "Providers": [{ "Name": "corp" }] } }]);
    assert_eq!(control.put(path, json!({ "Permissions": jwt })).await.status.as_u16(), 400);
    assert_eq!(control.put(path, json!({ "Action": "maybe" })).await.status.as_u16(), 400);
    assert_eq!(control.get(path).await.ok()["Permissions"], permissions, "nothing has changed");
    control.stop().await;
}

#[tokio::test]
async fn the_form_with_ids_finds_the_same_intentions() {
    let control = Control::start().await;
    let made = control
        .post("/v1/connect/intentions", json!({ "SourceName": "web", "DestinationName": "api", "Action": "allow" }))
        .await
        .ok();
    let path = format!("/v1/connect/intentions/{}", made["ID"].as_str().unwrap());
    assert_eq!(control.get(&path).await.ok()["SourceName"], "web");
    control.put(&path, json!({ "SourceName": "other", "Action": "deny" })).await.ok();
    let ours = control.get("/v1/intentions/web/api").await.ok();
    assert_eq!(ours[0]["action"], "deny", "its pair stays");
    control.delete(&path).await.ok();
    assert_eq!(control.get(&path).await.status.as_u16(), 404);
    control.stop().await;
}

#[tokio::test]
async fn a_blocking_query_hears_of_a_deletion_and_of_nothing_else() {
    let control = std::sync::Arc::new(Control::start().await);
    control.put("/v1/intentions/web/api", json!({ "verb": "allow" })).await.ok();
    let first = control.get("/v1/connect/intentions").await;
    let index = first.headers["x-consul-index"].to_str().unwrap().to_owned();
    let waiting = {
        let (control, path) = (control.clone(), format!("/v1/connect/intentions?index={index}&wait=60s"));
        tokio::spawn(async move { control.get(&path).await })
    };
    control.put("/v1/kv/a", json!(1)).await.ok();
    control.delete("/v1/intentions/web/api").await.ok();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.unwrap().unwrap();
    assert_eq!(answer.json(), json!([]));
    let at = &answer.headers["x-consul-index"];
    let path = format!("/v1/connect/intentions?index={}&wait=1s", at.to_str().unwrap());
    control.put("/v1/kv/a", json!(2)).await.ok();
    assert_eq!(control.get(&path).await.headers["x-consul-index"], at, "other changes are not its own");
}

#[tokio::test]
async fn the_authority_is_shown_and_connections_are_judged() {
    let control = Control::start().await;
    let roots = control.raw(Method::GET, "/v1/agent/connect/ca/roots", &[("host", "localhost")], "").await.ok();
    assert_eq!(roots["Roots"][0]["ID"], roots["ActiveRootID"]);
    assert!(roots["Roots"][0]["RootCert"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(control.get("/v1/connect/ca/roots?pem=true").await.text.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(control.get("/v1/connect/ca/configuration").await.ok()["Provider"], "postern");
    let domain = roots["TrustDomain"].as_str().unwrap().to_owned();
    control.put("/v1/intentions/web/api", json!({ "verb": "allow" })).await.ok();
    let judge = async |uri: String| {
        control.post("/v1/agent/connect/authorize", json!({ "Target": "api", "ClientCertURI": uri })).await.ok()
    };
    let good = judge(format!("spiffe://{domain}/ns/default/dc/dc1/svc/web")).await;
    assert_eq!(good["Authorized"], true);
    assert!(good["Reason"].as_str().unwrap().contains("web"), "{good}");
    for uri in
        [format!("spiffe://{domain}/ns/default/dc/dc1/svc/shop"), "spiffe://other.example/ns/default/dc/dc1/svc/web".into()]
    {
        assert_eq!(judge(uri.clone()).await["Authorized"], false, "{uri}");
    }
    for path in ["/v1/agent/connect/ca/leaf/web"] {
        assert_eq!(control.get(path).await.status.as_u16(), 501);
    }
    control.stop().await;
}

#[tokio::test]
async fn what_never_changes_is_waited_for_as_long_as_was_asked() {
    let control = Control::start().await;
    for path in [
        "/v1/connect/ca/roots",
        "/v1/agent/connect/ca/roots",
        "/v1/health/service/my_app",
        "/v1/health/checks/my_app",
        "/v1/catalog/service/my_app",
        "/v1/coordinate/nodes",
    ] {
        let at = control.get(path).await.headers["x-consul-index"].to_str().unwrap().to_owned();
        // Something else changes meanwhile.
        let other = serde_json::json!({ "Name": "web", "Port": at.len() });
        assert_eq!(control.put("/v1/agent/service/register", other).await.status, hyper::StatusCode::OK);
        let asked = std::time::Instant::now();
        let answer = control.get(&format!("{path}?index={at}&wait=300ms")).await;
        assert_eq!(answer.headers["x-consul-index"].to_str().unwrap(), at, "{path}");
        assert!(asked.elapsed() >= std::time::Duration::from_millis(300), "{path} was answered after {:?}", asked.elapsed());
    }
}
