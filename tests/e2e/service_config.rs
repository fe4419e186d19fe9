//! Settings of services, from the operator's file to what a sidecar knows.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::support::{Mesh, eventually};

const FILE: &str = "\
services:
  - service: api
    protocol: http
    timeouts: {request: 3s}
    routes:
      - {match: {path_prefix: /beta/}, to: {service: blue}}
  - service: blue
    retries: {attempts: 2}
jwt_providers:
  - name: corp
    issuer: https://id.example.com
    jwks: {inline: '{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}'}
";

/// What a sidecar says on its admin socket that it knows.
fn snapshot(mesh: &Mesh, id: &str) -> Value {
    let mut socket = UnixStream::connect(mesh.path(&format!("state-{id}/admin.sock"))).unwrap();
    socket.write_all(b"GET /snapshot HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn file(mesh: &Mesh, name: &str, text: &str) -> String {
    let path = mesh.path(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn settings_reach_the_service_and_its_callers_and_lead_them_on() {
    let mesh = Mesh::start();
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = service.local_addr().unwrap().to_string();
    let _api = mesh.serve("api", &local);
    let _blue = mesh.serve("blue", &local);
    let _web = mesh.call("web", &["api"]);
    for id in ["api-1", "blue-1", "web-1"] {
        mesh.wait_connected(id);
    }
    assert_eq!(snapshot(&mesh, "web-1")["upstreams"]["blue"], Value::Null);
    let name = file(&mesh, "settings.yaml", FILE);
    mesh.meshctl(&["service", "config", "apply", "-f", &name, "--yes", "--wait", "20s"]);

    // `--wait` is over when both sides have it.
    let web = snapshot(&mesh, "web-1");
    let api = &web["upstreams"]["api"];
    assert_eq!((&api["settings"]["timeouts"]["request"], &api["protocol"]), (&Value::from("3s"), &Value::from("http")));
    assert_eq!(web["upstreams"]["blue"]["settings"]["retries"]["attempts"], 2);
    assert_eq!(web["upstreams"]["blue"]["endpoints"][0]["instance"], "blue-1");
    let own = snapshot(&mesh, "api-1");
    assert_eq!((&own["settings"]["timeouts"]["request"], &own["protocol"]), (&Value::from("3s"), &Value::from("http")));
    assert_eq!(own["jwt"], Value::Array(Vec::new()), "no intention names the provider");

    let intentions =
        "intentions:\n  - source: web\n    destination: api\n    permissions: [{action: allow, jwt: [{provider: corp}]}]\n";
    let intentions = file(&mesh, "intentions.yaml", intentions);
    mesh.meshctl(&["intention", "apply", "-f", &intentions, "--yes", "--wait", "20s"]);
    eventually("the provider is there", || (snapshot(&mesh, "api-1")["jwt"][0]["keys"] == 1).then_some(()));

    assert!(
        mesh.meshctl(&["service", "show", "api"]).contains("protocol, timeouts, routes"),
        "{}",
        mesh.meshctl(&["service", "show", "api"])
    );
    mesh.meshctl(&["service", "config", "delete", "api", "--wait", "20s"]);
    assert_eq!(snapshot(&mesh, "web-1")["upstreams"]["blue"], Value::Null, "nothing leads there any more");
    let refused = mesh.run(&["service", "config", "delete", "corp", "--jwt"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("named by intentions for api"));
}

#[test]
fn what_was_exported_is_what_is_there() {
    let mesh = Mesh::start();
    let name = file(&mesh, "settings.yaml", include_str!("../../traffic/tests/everything.yaml"));
    let plan = mesh.run(&["service", "config", "plan", "-f", &name]);
    assert_eq!(plan.status.code(), Some(1), "{}", String::from_utf8_lossy(&plan.stderr));
    mesh.meshctl(&["service", "config", "apply", "-f", &name, "--yes"]);
    let revision = mesh.json(&["service", "config", "show", "api"])["revision"].clone();
    let exported = file(&mesh, "exported.yaml", &mesh.meshctl(&["service", "config", "export"]));
    let plan = mesh.run(&["service", "config", "plan", "-f", &exported, "--replace"]);
    assert_eq!((plan.status.code(), String::from_utf8_lossy(&plan.stdout).trim()), (Some(0), "nothing would change"));
    mesh.meshctl(&["service", "config", "apply", "-f", &exported, "--yes", "--replace"]);
    assert_eq!(mesh.json(&["service", "config", "show", "api"])["revision"], revision);

    let less = file(&mesh, "less.yaml", "services: [{service: api, timeouts: {request: 1s}}]\n");
    mesh.meshctl(&["service", "config", "apply", "-f", &less, "--yes"]);
    assert_eq!(mesh.json(&["service", "config", "export"])["services"].as_array().unwrap().len(), 2);
    mesh.meshctl(&["service", "config", "apply", "-f", &less, "--yes", "--replace"]);
    assert_eq!(mesh.json(&["service", "config", "export"])["services"].as_array().unwrap().len(), 1);
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    let mesh = Mesh::start();
    let name = file(&mesh, "bad.yaml", "services:\n  - service: api\n    timeouts: {requst: 3s}\n");
    for command in [&["validate", &name][..], &["plan", "-f", &name], &["apply", "-f", &name, "--yes"]] {
        let output = mesh.run(&[&["service", "config"], command].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("bad.yaml:3:16: unknown key \"requst\": did you mean \"request\"?"), "{text}");
    }
    let good = file(&mesh, "good.yaml", "services: [{service: api, timeouts: {request: 3s}}]\n");
    let asked = mesh.run(&["service", "config", "apply", "-f", &good]);
    assert_eq!(asked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("--yes"));
    assert_eq!(mesh.run(&["service", "config", "show", "api"]).status.code(), Some(2), "nothing was set");
}
