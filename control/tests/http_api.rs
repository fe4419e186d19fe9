//! The HTTP API of a control plane that runs in this process, on ports of its own.

mod support;

use std::time::Duration;

use hyper::{Method, StatusCode};
use postern_control::settings::Address;
use postern_control::{Settings, run};
use serde_json::{Value, json};
use support::{Control, send, settings};
use tempfile::TempDir;
use tokio::net::UnixStream;

#[tokio::test]
async fn the_mesh_is_named_to_anyone_and_every_answer_names_postern() {
    let control = Control::start().await;
    let answer = control.raw(Method::GET, "/v1/mesh", &[("host", "localhost")], "").await;
    assert!(answer.server.starts_with("postern/"), "{}", answer.server);
    let mesh = answer.ok();
    assert_eq!(mesh["product"], "postern");
    assert_eq!(mesh["datacenter"], "dc1");
    assert!(mesh["trust_domain"].as_str().unwrap().ends_with(".postern"));
    let refused = control.raw(Method::GET, "/nowhere", &[("host", "localhost")], "").await;
    assert!(refused.server.starts_with("postern/"));
    control.stop().await;
}

#[tokio::test]
async fn without_a_credential_nothing_is_told_or_changed() {
    let control = Control::start().await;
    let host = ("host", "localhost");
    for (method, path) in [
        (Method::GET, "/v1/intentions"),
        (Method::PUT, "/v1/intentions/web/api"),
        (Method::POST, "/v1/tokens"),
        (Method::GET, "/v1/overview"),
        (Method::DELETE, "/v1/instances/web-1"),
        (Method::GET, "/v1/service-config"),
        (Method::PUT, "/v1/service-config/api"),
        (Method::DELETE, "/v1/jwt-providers/corp"),
        (Method::POST, "/metrics"),
    ] {
        let error = control.raw(method, path, &[host], "").await.refused(401);
        assert!(error.contains("operator token"), "{error}");
    }
    let other = "postern-op1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for credential in [format!("Bearer {other}"), format!("Basic {other}"), "Bearer postern1.a.b".into(), "Bearer".into()] {
        control.raw(Method::GET, "/v1/tokens", &[host, ("authorization", &credential)], "").await.refused(401);
    }
    let token = control.token();
    control.raw(Method::GET, "/v1/tokens", &[host, ("x-consul-token", &token)], "").await.ok();
    control.stop().await;
}

#[tokio::test]
async fn a_foreign_host_and_a_foreign_page_are_refused() {
    let control = Control::start().await;
    let bearer = format!("Bearer {}", control.token());
    let authorization = ("authorization", bearer.as_str());
    for host in ["evil.test", "localhost.evil.test:8500"] {
        let error = control.raw(Method::GET, "/v1/intentions", &[("host", host), authorization], "").await.refused(403);
        assert!(error.contains(host), "{error}");
    }
    for origin in ["http://evil.test", "null"] {
        control.raw(Method::GET, "/v1/mesh", &[("host", "localhost"), ("origin", origin)], "").await.refused(403);
    }
    control
        .raw(Method::GET, "/v1/intentions", &[("host", "localhost:1"), ("origin", "http://localhost:1"), authorization], "")
        .await
        .ok();
    control.stop().await;
}

#[tokio::test]
async fn the_socket_in_the_data_directory_needs_no_token() {
    let control = Control::start().await;
    let path = control.directory.path().join("data/http.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let set = json!({ "verb": "allow" }).to_string();
    let stream = UnixStream::connect(&path).await.unwrap();
    send(stream, Method::PUT, "/v1/intentions/web/api", &[("host", "postern")], &set).await.ok();
    let stream = UnixStream::connect(&path).await.unwrap();
    let list = send(stream, Method::GET, "/v1/intentions", &[("host", "postern")], "").await.ok();
    assert!(list["intentions"][0]["created_by"].as_str().unwrap().starts_with("uid:"));
    let stream = UnixStream::connect(&path).await.unwrap();
    send(stream, Method::GET, "/v1/mesh", &[("host", "postern"), ("origin", "http://evil.test")], "").await.refused(403);
    control.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn an_intention_is_set_listed_and_deleted() {
    let control = Control::start().await;
    let written =
        control.put("/v1/intentions/web/api", json!({ "verb": "allow", "reason": "launch", "wait_ms": 1000 })).await.ok();
    assert_eq!(written["changed"], true);
    assert_eq!(written["in_force"]["concerned"], 0);
    assert!(written["committed_at_us"].as_u64().unwrap() > 1_700_000_000_000_000);
    let again = control.put("/v1/intentions/web/api", json!({ "verb": "allow" })).await.ok();
    assert_eq!((&again["changed"], &again["revision"]), (&json!(false), &written["revision"]));

    control.put("/v1/intentions/%2A/db", json!({ "verb": "deny" })).await.ok();
    control.put("/v1/intentions/*/*", json!({ "verb": "deny" })).await.ok();
    let list = control.get("/v1/intentions").await.ok();
    let pairs: Vec<_> =
        list["intentions"].as_array().unwrap().iter().map(|i| (i["source"].clone(), i["precedence"].clone())).collect();
    assert_eq!(pairs, [(json!("web"), json!(9)), (json!("*"), json!(8)), (json!("*"), json!(5))]);
    assert_eq!(list["intentions"][0]["reason"], "launch");
    assert!(list["intentions"][0]["created_by"].as_str().unwrap().starts_with("operator:"));

    control.delete("/v1/intentions/web/api").await.ok();
    let error = control.delete("/v1/intentions/web/api").await.refused(404);
    assert!(error.contains("web -> api"), "{error}");
    control.get("/v1/intentions/web/api").await.refused(404);
    control.stop().await;
}

#[tokio::test]
async fn a_temporary_intention_stands_in_front_and_ends() {
    let control = Control::start().await;
    control.put("/v1/intentions/web/db", json!({ "verb": "deny" })).await.ok();
    control.put("/v1/intentions/web/db", json!({ "verb": "allow", "expires_in_s": 1 })).await.ok();
    let both = control.get("/v1/intentions/web/db").await.ok();
    assert_eq!(both.as_array().unwrap().len(), 2);
    let decided = control.post("/v1/decide", json!({ "source": "web", "destination": "db" })).await.ok();
    assert_eq!(decided["allowed"], true, "{decided}");
    let noted = control.put("/v1/intentions/web/db", json!({ "verb": "deny" })).await.ok();
    assert!(noted["notes"].to_string().contains("--temporary"), "{noted}");
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let decided = control.post("/v1/decide", json!({ "source": "web", "destination": "db" })).await.ok();
            if decided["allowed"] == false {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    control.put("/v1/intentions/web/db", json!({ "verb": "allow", "expires_in_s": 0 })).await.refused(400);
    control.stop().await;
}

#[tokio::test]
async fn audit_sets_the_mode_and_says_what_it_opens() {
    let control = Control::start().await;
    let written = control.put("/v1/intentions/web/db", json!({ "verb": "audit" })).await.ok();
    assert!(written["notes"][0].as_str().unwrap().contains("this lets web reach db"), "{written}");
    assert_eq!((&written["intention"]["action"], &written["intention"]["mode"]), (&json!("deny"), &json!("audit")));
    let decided = control.post("/v1/decide", json!({ "source": "web", "destination": "db" })).await.ok();
    assert_eq!((&decided["allowed"], &decided["would_deny"]), (&json!(true), &json!(true)));

    control.put("/v1/intentions/web/api", json!({ "verb": "allow" })).await.ok();
    let kept = control.put("/v1/intentions/web/api", json!({ "verb": "audit" })).await.ok();
    assert_eq!((&kept["intention"]["action"], &kept["intention"]["mode"]), (&json!("allow"), &json!("audit")));
    assert!(!kept["notes"].to_string().contains("this lets"), "{kept}");
    control.stop().await;
}

#[tokio::test]
async fn apply_makes_the_store_equal_to_the_request() {
    let control = Control::start().await;
    control.put("/v1/intentions/old/db", json!({ "verb": "allow" })).await.ok();
    control.put("/v1/intentions/web/api", json!({ "verb": "deny" })).await.ok();
    control.put("/v1/intentions/web/tmp", json!({ "verb": "allow", "expires_in_s": 3600 })).await.ok();
    let wanted = json!([
        { "source": "web", "destination": "api", "action": "allow" },
        { "source": "api", "destination": "db", "permissions": [{ "action": "allow", "methods": ["GET"] }] },
    ]);

    let plan = control.put("/v1/intentions", json!({ "intentions": wanted, "dry_run": true })).await.ok();
    assert!(plan.get("written").is_none());
    assert_eq!(
        (
            plan["added"].as_array().unwrap().len(),
            plan["changed"].as_array().unwrap().len(),
            plan["removed"].as_array().unwrap().len()
        ),
        (1, 1, 1)
    );
    let base = plan["base_revision"].clone();

    control.put("/v1/intentions/late/db", json!({ "verb": "allow" })).await.ok();
    control.delete("/v1/intentions/late/db").await.ok();
    let stale = control.put("/v1/intentions", json!({ "intentions": wanted, "expected_revision": base })).await.refused(409);
    assert!(stale.contains("changed in revision"), "{stale}");

    let applied = control.put("/v1/intentions", json!({ "intentions": wanted, "default": "allow", "wait_ms": 500 })).await.ok();
    assert_eq!(applied["default"], json!(["deny", "allow"]));
    assert_eq!(applied["written"]["changed"], true);
    let list = control.get("/v1/intentions").await.ok();
    assert_eq!((&list["default"], list["intentions"].as_array().unwrap().len()), (&json!("allow"), 3), "the temporary one stays");

    let again = control.put("/v1/intentions", json!({ "intentions": wanted, "expected_revision": list["revision"] })).await.ok();
    assert!(again.get("written").is_none());
    control.stop().await;
}

#[tokio::test]
async fn an_apply_that_cannot_be_is_refused_whole() {
    let control = Control::start().await;
    let intention = |source: &str| json!({ "source": source, "destination": "db", "action": "allow" });
    let twice = control.put("/v1/intentions", json!({ "intentions": [intention("a"), intention("a")] })).await.refused(400);
    assert!(twice.contains("a -> db"), "{twice}");
    let temporary = json!({ "source": "a", "destination": "db", "action": "allow", "expires_at": "2100-01-01T00:00:00Z" });
    control.put("/v1/intentions", json!({ "intentions": [temporary] })).await.refused(400);
    let unknown = json!({ "source": "a", "destination": "db", "action": "allow", "pirority": 1 });
    let error = control.put("/v1/intentions", json!({ "intentions": [unknown] })).await.refused(400);
    assert!(error.contains("pirority"), "{error}");
    assert_eq!(control.get("/v1/intentions").await.ok()["intentions"], json!([]));
    control.stop().await;
}

#[tokio::test]
async fn changes_at_the_same_time_are_all_made() {
    let control = Control::start().await;
    let changes = (0..12).map(|n| {
        let (control, path) = (&control, format!("/v1/intentions/s{n}/db"));
        async move { control.put(&path, json!({ "verb": "allow" })).await.ok() }
    });
    futures_util::future::join_all(changes).await;
    assert_eq!(control.get("/v1/intentions").await.ok()["intentions"].as_array().unwrap().len(), 12);
    control.stop().await;
}

#[tokio::test]
async fn the_default_decides_where_nothing_matches() {
    let control = Control::start().await;
    let ask = json!({ "source": "web", "destination": "api" });
    let decided = control.post("/v1/decide", ask.clone()).await.ok();
    assert_eq!((&decided["allowed"], &decided["because"]), (&json!(false), &json!("default (deny)")));
    let written = control.put("/v1/default-policy", json!({ "policy": "allow" })).await.ok();
    assert!(written["notes"][0].as_str().unwrap().contains("every service"));
    assert_eq!(control.post("/v1/decide", ask).await.ok()["allowed"], true);
    let error = control.put("/v1/default-policy", json!({ "policy": "maybe" })).await.refused(400);
    assert!(error.contains("policy") && error.contains("line 1"), "{error}");
    control.stop().await;
}

#[tokio::test]
async fn a_token_is_made_listed_and_revoked() {
    let control = Control::start().await;
    let made = control.post("/v1/tokens", json!({ "service": "web", "uses": 2, "ttl_s": 60 })).await.ok();
    assert!(made["token"].as_str().unwrap().starts_with("postern1."));
    let id = made["id"].as_str().unwrap().to_owned();
    let list = control.get("/v1/tokens").await;
    assert!(!list.text.contains(made["token"].as_str().unwrap().rsplit('.').next().unwrap()), "the secret is shown once");
    let list = list.ok();
    assert_eq!((&list[0]["id"], &list[0]["state"], &list[0]["uses_left"]), (&made["id"], &json!("active"), &json!(2)));
    let revoked = control.delete(&format!("/v1/tokens/{id}?svids=true")).await.ok();
    assert_eq!(revoked["svids_revoked"], 0);
    assert_eq!(control.get("/v1/tokens").await.ok()[0]["state"], "revoked");
    control.delete("/v1/tokens/nothing1").await.refused(404);
    for bad in [
        json!({ "service": "Web" }),
        json!({ "service": "web", "uses": 0 }),
        json!({ "service": "web", "ttl_s": 86_401 }),
        json!({}),
    ] {
        control.post("/v1/tokens", bad).await.refused(400);
    }
    control.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_with_what_and_where() {
    let control = Control::start().await;
    let bearer = format!("Bearer {}", control.token());
    let headers = [("host", "localhost"), ("authorization", bearer.as_str())];
    let put = |path: &'static str, body: &'static str| control.raw(Method::PUT, path, &headers, body);
    let error = put("/v1/intentions/web/api", "{\n \"verb\": \"allow\",\n \"wait_ms\": \"x\"}").await.refused(400);
    assert!(error.contains("wait_ms") && error.contains("line 3"), "{error}");
    let error = put("/v1/intentions/Web/api", "{\"verb\":\"allow\"}").await.refused(400);
    assert!(error.contains("source") && error.contains("Web"), "{error}");
    put("/v1/intentions/web/api", "not json").await.refused(400);
    put("/v1/intentions/web/api", "").await.refused(400);
    put("/v1/intentions/%ff/api", "{\"verb\":\"allow\"}").await.refused(400);
    let error = control.delete("/v1/intentions/web/api?temproary=true").await.refused(400);
    assert!(error.contains("temproary"), "{error}");
    let error = control.get("/v1/nowhere/services").await.refused(404);
    assert!(error.contains("/v1/nowhere/services"), "{error}");
    let error = control.post("/v1/intentions", json!({})).await.refused(405);
    assert!(error.contains("POST"), "{error}");
    let large = format!("{{\"verb\":\"allow\",\"reason\":\"{}\"}}", "x".repeat(1 << 20));
    control.raw(Method::PUT, "/v1/intentions/web/api", &headers, &large).await.refused(413);
    control.stop().await;
}

#[tokio::test]
async fn status_authority_doctor_and_services_answer() {
    let control = Control::start().await;
    let status = control.get("/v1/overview").await.ok();
    assert_eq!((&status["default"], &status["instances"]), (&json!("deny"), &json!([])));
    assert_eq!(status["mesh"]["product"], "postern");
    let authority = control.get("/v1/authority").await.ok();
    assert_eq!(authority["roots"].as_array().unwrap().len(), 1);
    let bundle = control.get("/v1/authority/bundle").await;
    assert!(bundle.text.starts_with("-----BEGIN CERTIFICATE-----"), "{}", bundle.text);
    assert!(!bundle.text.contains("PRIVATE"));
    let findings = control.get("/v1/doctor").await.ok();
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["code"] == "file_limit_low"), "{findings}");
    assert_eq!(control.get("/v1/services").await.ok(), json!([]));
    control.get("/v1/services/web").await.refused(404);
    control.delete("/v1/instances/web-1").await.refused(404);
    control.stop().await;
}

#[tokio::test]
async fn prometheus_needs_no_credential_on_loopback() {
    let control = Control::start().await;
    control.get("/v1/mesh").await.ok();
    let targets = control.raw(Method::GET, "/v1/prometheus/targets", &[("host", "localhost")], "").await.ok();
    assert_eq!(targets, json!([]));
    let metrics = control.raw(Method::GET, "/metrics", &[("host", "localhost")], "").await;
    assert_eq!(metrics.status, StatusCode::OK);
    for expected in [
        "postern_control_sidecars 0",
        "postern_control_http_requests_total{code=\"200\",route=\"/v1/mesh\"} 1",
        "postern_control_store_revision ",
        "postern_control_ca_expiry_timestamp_seconds{ca=\"root\"}",
    ] {
        assert!(metrics.text.contains(expected), "{expected} is not in\n{}", metrics.text);
    }
    control.stop().await;
}

#[tokio::test]
async fn what_was_set_is_there_after_a_restart_and_the_domain_stays() {
    let control = Control::start().await;
    control.put("/v1/intentions/web/api", json!({ "verb": "allow" })).await.ok();
    let mesh = control.get("/v1/mesh").await.ok();
    let token = control.token();
    let directory = control.stop().await;

    let again = settings(directory.path());
    let other = Settings { trust_domain: Some("other.example".parse().unwrap()), ..again.clone() };
    let error = run(other, async {}, |_| panic!("it started")).await.unwrap_err().to_string();
    assert!(error.contains("--trust-domain other.example") && error.contains(mesh["trust_domain"].as_str().unwrap()), "{error}");

    let control = Control::start_in(directory, Settings { default: postern_intentions::DefaultPolicy::Allow, ..again }).await;
    assert_eq!(control.token(), token);
    let list = control.get("/v1/intentions").await.ok();
    assert_eq!(
        (&list["default"], list["intentions"].as_array().unwrap().len()),
        (&json!("deny"), 1),
        "--default seeds a new store only"
    );
    assert_eq!(control.get("/v1/mesh").await.ok()["cluster_id"], mesh["cluster_id"]);
    control.stop().await;
}

#[tokio::test]
async fn a_store_without_its_seal_key_does_not_start() {
    let control = Control::start().await;
    let directory = control.stop().await;
    let seal_key = directory.path().join("seal.key");
    std::fs::remove_file(&seal_key).unwrap();
    let error = run(settings(directory.path()), async {}, |_| panic!("it started")).await.unwrap_err().to_string();
    assert!(error.contains("--seal-key-file"), "{error}");
    assert!(!seal_key.exists(), "none is ever made for a store that has one");
}

#[tokio::test]
async fn two_control_planes_never_share_a_data_directory() {
    let control = Control::start().await;
    let error = run(settings(control.directory.path()), async {}, |_| panic!("it started")).await.unwrap_err().to_string();
    assert!(error.contains("already runs"), "{error}");
    control.get("/v1/overview").await.ok();
    control.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for flag in ["--http", "--grpc"] {
        let directory = TempDir::new().unwrap();
        let mut settings = settings(directory.path());
        match flag {
            "--http" => settings.http = Address::loopback(port),
            _ => settings.grpc = Address::loopback(port),
        }
        let error = run(settings, async {}, |_| panic!("it started")).await.unwrap_err().to_string();
        assert!(error.contains(flag) && error.contains(&port.to_string()), "{error}");
    }
}

#[tokio::test]
async fn every_change_is_in_the_audit_log() {
    let control = Control::start().await;
    control.put("/v1/intentions/web/api", json!({ "verb": "deny", "reason": "incident 7" })).await.ok();
    let audit = control.directory.path().join("data/audit");
    let read = || -> String {
        let files = std::fs::read_dir(&audit).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect()
    };
    tokio::time::timeout(Duration::from_secs(10), async {
        while !(read().contains("incident 7") && read().contains("mesh.create")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let _directory = control.stop().await;
    assert!(read().contains("intention.set"));
}

#[tokio::test]
async fn settings_are_set_shown_and_deleted() {
    let control = Control::start().await;
    let api = |attempts: u32| json!({ "service": "api", "protocol": "grpc", "retries": { "attempts": attempts } });
    let apply = |attempts: u32| json!({ "file": { "services": [api(attempts)] } });
    let applied = control.put("/v1/service-config", apply(2)).await.ok();
    assert_eq!(
        (applied["services"]["added"][0]["service"].clone(), applied["written"]["changed"].clone()),
        (json!("api"), json!(true))
    );
    let applied = control.put("/v1/service-config/api", apply(3)).await.ok();
    assert_eq!(applied["services"]["changed"][0][1]["retries"]["attempts"], 3);

    let stored = control.get("/v1/service-config/api").await.ok();
    assert_eq!((&stored["settings"]["retries"]["attempts"], &stored["revision"]), (&json!(3), &applied["written"]["revision"]));
    assert_eq!(control.get("/v1/service-config").await.ok()["services"][0], stored);
    let shown = control.get("/v1/services/api").await.ok();
    assert_eq!((&shown["config"], &shown["protocol"]), (&stored, &json!("grpc")));

    control.delete("/v1/service-config/api?reason=over").await.ok();
    assert!(control.get("/v1/service-config/api").await.refused(404).contains("the defaults hold"));
    control.delete("/v1/service-config/api").await.refused(404);
    control.get("/v1/service-config/Api").await.refused(400);
    control.stop().await;
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_with_every_place() {
    let control = Control::start().await;
    let file = |services: Value| json!({ "file": { "services": services } });
    let bad = file(json!([{ "service": "api", "split": [{ "weight": 50 }], "retries": { "attempts": 99 } }]));
    let error = control.put("/v1/service-config", bad).await.refused(400);
    assert!(error.contains("services[0].split") && error.contains("services[0].retries.attempts"), "{error}");
    let error = control.put("/v1/service-config", file(json!([{ "service": "api", "hedging": true }]))).await.refused(400);
    assert!(error.contains("hedging"), "{error}");
    let other = file(json!([{ "service": "web" }]));
    assert!(control.put("/v1/service-config/api", other).await.refused(400).contains("sets api alone"));
    control.put("/v1/service-config", json!({ "file": {}, "expected_revision": 0 })).await.ok();
    control.put("/v1/service-config", file(json!([{ "service": "api" }]))).await.ok();
    let mut late = file(json!([{ "service": "api", "retries": { "attempts": 2 } }]));
    late["expected_revision"] = json!(0);
    assert!(control.put("/v1/service-config", late).await.refused(409).contains("settings changed in revision"));
    control.stop().await;
}

#[tokio::test]
async fn a_jwt_provider_is_set_named_and_kept_while_it_is_named() {
    let control = Control::start().await;
    let named = json!({ "intentions": [{
        "source": "web", "destination": "api", "permissions": [{ "action": "allow", "jwt": [{ "provider": "corp" }] }],
    }] });
    let applied = control.put("/v1/intentions", named).await.ok();
    assert!(applied["written"]["notes"][0].as_str().unwrap().contains("no JWT provider corp"), "{applied}");
    let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#;
    let provider = json!({ "name": "corp", "issuer": "https://id.example.com", "jwks": { "inline": keys } });
    control.put("/v1/service-config", json!({ "file": { "jwt_providers": [provider] } })).await.ok();
    let stored = control.get("/v1/jwt-providers/corp").await.ok();
    assert_eq!((&stored["provider"]["issuer"], &stored["keys"]["count"]), (&json!("https://id.example.com"), &json!(1)));
    assert!(control.delete("/v1/jwt-providers/corp").await.refused(409).contains("named by intentions for api"));
    control.delete("/v1/intentions/web/api").await.ok();
    control.delete("/v1/jwt-providers/corp").await.ok();
    control.get("/v1/jwt-providers/corp").await.refused(404);
    control.stop().await;
}
