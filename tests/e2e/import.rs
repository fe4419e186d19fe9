//! What a Consul has, brought here: from files of real Consul's form, and from a running one (our own API is its stand-in).

use serde_json::json;

use crate::support::Mesh;

/// What DNS answers.
fn short_of(mesh: &Mesh, name: &str) -> String {
    let (host, port) = mesh.dns.rsplit_once(':').unwrap();
    let output = std::process::Command::new("dig").args([&format!("@{host}"), "-p", port, name, "+short"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn files_of_a_consul_are_carried_and_what_is_not_is_named() {
    let mesh = Mesh::start();
    let write = |name: &str, value: serde_json::Value| {
        let path = mesh.path(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path.display().to_string()
    };
    // `consul kv export`
    let keys = write(
        "kv.json",
        json!([{ "key": "app/a", "flags": 42, "value": "aGVsbG8=" }, { "key": "app/empty", "flags": 0, "value": "" }]),
    );
    // `GET /v1/connect/intentions`
    let list = write(
        "intentions.json",
        json!([
            { "ID": "", "SourceNS": "default", "SourceName": "web", "DestinationNS": "default", "DestinationName": "api", "SourceType": "consul",
              "Action": "", "Permissions": [{ "Action": "allow", "HTTP": { "PathPrefix": "/v1", "Methods": ["GET"] } }], "Precedence": 9 },
            { "SourceName": "*", "DestinationName": "db", "SourceType": "consul", "Action": "deny", "Precedence": 8 },
            { "SourceName": "web", "SourcePeer": "berlin", "DestinationName": "db", "Action": "allow", "Precedence": 9 },
        ]),
    );
    // `consul config read`
    let entry = write(
        "defaults.json",
        json!({ "Kind": "service-defaults", "Name": "api", "Protocol": "http", "CreateIndex": 1, "ModifyIndex": 2 }),
    );
    // `GET /v1/health/service/redis`
    let health = write(
        "health.json",
        json!([{
            "Node": { "ID": "", "Node": "n1", "Address": "10.1.0.1", "Datacenter": "dc1", "Meta": {} },
            "Service": { "ID": "redis-1", "Service": "redis", "Tags": ["v1"], "Address": "", "Port": 6379, "Weights": { "Passing": 1, "Warning": 1 },
                "EnableTagOverride": false, "Proxy": { "Mode": "" }, "Connect": {}, "CreateIndex": 9, "ModifyIndex": 9 },
            "Checks": [
                { "Node": "n1", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "Output": "Agent alive and reachable" },
                { "Node": "n1", "CheckID": "service:redis-1", "Name": "Service 'redis' check", "Status": "passing", "ServiceID": "redis-1", "ServiceName": "redis" },
            ],
        }]),
    );
    let from = ["--from", &keys, "--from", &list, "--from", &entry, "--from", &health, "--consul-default", "allow"];
    let dry = mesh.json(&[&["import", "consul", "--dry-run"], &from[..]].concat());
    assert_eq!(
        (&dry["carried"]["intentions"], &dry["carried"]["keys"], &dry["carried"]["settings"]),
        (&json!(2), &json!(2), &json!(1))
    );
    assert!(dry["not_carried"][0]["why"].as_str().unwrap().contains("peer"), "{dry}");
    assert_eq!(mesh.json(&["intention", "list"])["intentions"], json!([]), "nothing was changed");

    let said = mesh.meshctl(&[&["import", "consul"], &from[..]].concat());
    assert!(said.contains("2 intentions") && said.contains("not carried: intention web -> db"), "{said}");
    let stored = mesh.json(&["intention", "get", "web", "api"]);
    assert_eq!(stored[0]["otherwise"], "allow", "Consul's default policy: {stored}");
    assert_eq!(stored[0]["permissions"][0]["path_prefix"], "/v1");
    assert_eq!(mesh.meshctl(&["kv", "get", "app/a"]).trim(), "hello");
    assert_eq!(mesh.json(&["service", "config", "show", "api"])["settings"]["protocol"], "http");

    let found = short_of(&mesh, "redis.service.consul");
    assert_eq!(found.trim(), "10.1.0.1");

    let bad = write("bad.json", json!({ "hello": 1 }));
    let refused = mesh.run(&["import", "consul", "--from", &bad]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing in"), "{refused:?}");
}

#[test]
fn a_running_consul_is_read_by_its_api() {
    let old = Mesh::start();
    old.meshctl(&["kv", "put", "app/a", "hello"]);
    old.allow("web", "api");
    let new = Mesh::start();
    let token = std::fs::read_to_string(old.path("data/operator.token")).unwrap();
    let mut command = new.command("import");
    command.args(["consul", "--from", &format!("http://{}", old.http)]).env("CONSUL_HTTP_TOKEN", token.trim());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(new.meshctl(&["kv", "get", "app/a"]).trim(), "hello");
    assert_eq!(new.json(&["intention", "get", "web", "api"])[0]["action"], "allow");
    let output = new.command("import").args(["consul", "--from", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
