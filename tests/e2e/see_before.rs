//! The whole loop: watch real traffic under audit, take what is suggested, enforce it, and nothing that was seen fails.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Mesh, Postgres, Redis, Service, Sidecar, eventually, run_script};

/// How long the traffic goes on, each time.
const MINUTE: &str = "60";

/// Eight real services and who calls them.
struct Shop {
    mesh: Mesh,
    callers: BTreeMap<&'static str, Sidecar>,
    _called: Vec<Sidecar>,
    _services: Vec<Service>,
    _databases: (Postgres, Redis),
}

/// What can be called, and its protocol.
const CALLED: [(&str, &str); 6] =
    [("catalog", "http"), ("orders", "http"), ("static", "http"), ("pricing", "grpc"), ("db", "tcp"), ("cache", "tcp")];
/// Who calls.
const CALLERS: [&str; 3] = ["shop", "orders", "job"];

impl Shop {
    fn open() -> Self {
        let mesh = Mesh::start_with(&["--default", "audit"]);
        let databases = (Postgres::start(&mesh.path("")), Redis::start(&mesh.path("")));
        let services = vec![
            Service::start_named(&mesh, "http_service.py", "catalog"),
            Service::start_named(&mesh, "http_service.py", "orders"),
            Service::nginx(&mesh, "", ""),
            Service::start(&mesh, "grpc_service.py"),
        ];
        let addresses: Vec<String> = services
            .iter()
            .map(|service| service.address.clone())
            .chain([databases.0.address(), databases.1.address()])
            .collect();
        let upstreams: Vec<String> = CALLED.iter().map(|(name, _)| format!("{name}=127.0.0.1:0")).collect();
        let calls: Vec<&str> = upstreams.iter().flat_map(|upstream| ["--upstream", upstream.as_str()]).collect();
        let mut called = Vec::new();
        let mut callers = BTreeMap::new();
        for ((name, protocol), address) in CALLED.into_iter().zip(&addresses) {
            let serves = ["--local", address, "--protocol", protocol];
            // orders is called, and calls.
            match CALLERS.contains(&name) {
                true => drop(callers.insert(name, mesh.sidecar(name, &format!("{name}-1"), &[&serves[..], &calls[..]].concat()))),
                false => called.push(mesh.sidecar(name, &format!("{name}-1"), &serves)),
            }
        }
        for name in CALLERS {
            callers.entry(name).or_insert_with(|| mesh.sidecar(name, &format!("{name}-1"), &calls));
        }
        Self { mesh, callers, _called: called, _services: services, _databases: databases }
    }

    fn call(&self, source: &str, destination: &str, method: &str, path: &str) -> Value {
        let protocol = CALLED.iter().find(|(name, _)| *name == destination).unwrap().1;
        let kind = match (protocol, destination) {
            ("tcp", "db") => "postgres",
            ("tcp", _) => "redis",
            (protocol, _) => protocol,
        };
        json!({ "kind": kind, "address": self.callers[source].upstream(destination), "method": method, "path": path })
    }

    fn calls(&self, calls: &[(&str, &str, &str, &str)]) -> String {
        let calls: Vec<Value> =
            calls.iter().map(|(source, destination, method, path)| self.call(source, destination, method, path)).collect();
        let file = self.mesh.path("calls.json");
        std::fs::write(&file, serde_json::to_vec(&calls).unwrap()).unwrap();
        file.display().to_string()
    }

    /// Calls that go on for a while, none of which may fail.
    #[track_caller]
    fn all_go_through(&self, calls: &[(&str, &str, &str, &str)], seconds: &str) {
        let outcomes = run_script("see_before.py", &[&self.calls(calls), seconds]);
        for (call, outcome) in calls.iter().zip(outcomes.as_array().unwrap()) {
            assert!(outcome["ok"].as_u64().unwrap() > 0, "{call:?}: {outcome}");
            assert_eq!((&outcome["refused"], &outcome["failed"]), (&json!(0), &json!([])), "{call:?}");
        }
    }
}

/// What the services do all day.
const SEEN: [(&str, &str, &str, &str); 12] = [
    ("shop", "catalog", "GET", "/items/{n}"),
    ("shop", "catalog", "GET", "/items"),
    ("shop", "catalog", "GET", "/"),
    ("shop", "orders", "POST", "/v1/orders"),
    ("shop", "orders", "GET", "/v1/orders/{u}/lines"),
    ("shop", "static", "GET", "/index.html"),
    ("shop", "pricing", "", "/pkg.Service/Unary"),
    ("orders", "db", "", ""),
    ("orders", "cache", "", ""),
    ("orders", "pricing", "", "/pkg.Service/Headers"),
    ("job", "orders", "DELETE", "/v1/orders/{u}"),
    ("job", "db", "", ""),
];

/// What they never do.
const UNSEEN: [(&str, &str, &str, &str); 20] = [
    ("shop", "catalog", "POST", "/items"),
    ("shop", "catalog", "DELETE", "/items/{n}"),
    ("shop", "catalog", "GET", "/admin"),
    ("shop", "catalog", "GET", "/itemsx"),
    ("shop", "orders", "GET", "/v1/orders"),
    ("shop", "orders", "DELETE", "/v1/orders/{u}"),
    ("shop", "orders", "GET", "/v2/orders/{u}"),
    ("shop", "static", "GET", "/other.html"),
    ("shop", "static", "HEAD", "/index.html"),
    ("shop", "pricing", "", "/pkg.Service/Headers"),
    ("shop", "pricing", "", "/pkg.Other/Unary"),
    ("shop", "db", "", ""),
    ("shop", "cache", "", ""),
    ("orders", "catalog", "GET", "/items"),
    ("orders", "pricing", "", "/pkg.Service/Unary"),
    ("orders", "static", "GET", "/index.html"),
    ("job", "orders", "GET", "/v1/orders/{u}"),
    ("job", "orders", "DELETE", "/v1/orders"),
    ("job", "cache", "", ""),
    ("job", "catalog", "GET", "/"),
];

#[test]
fn what_is_suggested_from_a_minute_of_traffic_denies_nothing_of_it_and_everything_else() {
    let shop = Shop::open();
    shop.all_go_through(&SEEN, MINUTE);
    let file = shop.mesh.path("suggested.yaml").display().to_string();
    let suggested = eventually("everything was seen", || {
        let suggested = shop.mesh.meshctl(&["intention", "suggest", "--l7"]);
        let pairs = suggested.lines().filter(|line| line.contains("source:")).count();
        (pairs == 9 && suggested.contains("path_prefix: /v1/orders/") && suggested.contains("path_exact: /pkg.Service/Headers"))
            .then_some(suggested)
    });
    assert!(suggested.contains("default: deny"), "{suggested}");
    std::fs::write(&file, &suggested).unwrap();

    // Nothing that was seen is denied by it.
    let planned: Value =
        serde_json::from_slice(&shop.mesh.run(&["intention", "plan", "-f", &file, "-o", "json"]).stdout).unwrap();
    assert_eq!(planned["effects"]["newly_denied"], Value::Null, "{planned}");
    shop.mesh.meshctl(&["intention", "apply", "-f", &file, "--yes", "--wait", "20s"]);
    shop.all_go_through(&SEEN, MINUTE);

    let outcomes = run_script("see_before.py", &[&shop.calls(&UNSEEN)]);
    for (call, outcome) in UNSEEN.iter().zip(outcomes.as_array().unwrap()) {
        assert_eq!(outcome, &json!({ "ok": 0, "refused": 1, "failed": [] }), "{call:?}\n{suggested}");
    }
}
