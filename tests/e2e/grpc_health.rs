//! gRPC health checks against grpcio's own health service.

use serde_json::{Value, json};

use crate::discovery::get;
use crate::probes::{becomes, certificate};
use crate::support::{Mesh, Process, eventually, script};

/// grpcio's health service, and what it is told to say.
struct Server {
    process: Process,
    plain: String,
    secure: String,
    file: std::path::PathBuf,
}

impl Server {
    fn start(mesh: &Mesh, statuses: Value) -> Self {
        certificate(&mesh.path(""));
        let file = mesh.path("health.json");
        std::fs::write(&file, statuses.to_string()).unwrap();
        let mut command = script("health_of_grpc.py");
        command.args([&file, &mesh.path("probe.pem"), &mesh.path("probe.key")]);
        let process = Process::start_announcing(&mut command, &mesh.path("health.log"));
        let [plain, secure] = serde_json::from_str(&process.line()).unwrap();
        Self { process, plain, secure, file }
    }

    /// Put in place whole, so that no half of it is read.
    fn say(&self, statuses: Value) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, statuses.to_string()).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }
}

#[track_caller]
fn is_said(found: &Value, words: &str) {
    assert!(found["Output"].as_str().unwrap().contains(words), "{found}");
}

#[test]
fn the_control_plane_asks_a_whole_server_and_each_of_its_services() {
    let mesh = Mesh::start();
    let mut server = Server::start(&mesh, json!({ "": "SERVING", "cart": "SERVING" }));
    let check = |service: &str| json!({ "GRPC": format!("{}{service}", server.plain) });
    becomes(&mesh, "whole", check(""), "passing");
    becomes(&mesh, "cart", check("/cart"), "passing");
    is_said(&becomes(&mesh, "other", check("/other"), "critical"), "status 5");
    let secure = |further: Value| {
        let mut check = json!({ "GRPC": format!("{}/cart", server.secure), "GRPCUseTLS": true });
        check.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        check
    };
    becomes(&mesh, "tls", secure(json!({ "TLSSkipVerify": true })), "passing");
    is_said(&becomes(&mesh, "tls-unknown", secure(json!({})), "critical"), "certificate");
    becomes(&mesh, "ping", json!({ "H2PING": server.plain, "H2PingUseTLS": false }), "passing");
    becomes(&mesh, "ping-tls", json!({ "H2PING": server.secure, "TLSSkipVerify": true }), "passing");

    let statuses = || {
        let found = get(&mesh, "/v1/agent/checks");
        ["whole", "cart", "other", "tls"].map(|name| found[name]["Status"].as_str().unwrap().to_owned())
    };
    let become_so = |what: &str, wanted: [&str; 4]| eventually(what, || (statuses() == wanted).then_some(()));
    server.say(json!({ "cart": "NOT_SERVING" }));
    become_so("one of its services is not serving", ["passing", "critical", "critical", "critical"]);
    is_said(&get(&mesh, "/v1/agent/checks")["cart"], "NOT_SERVING");
    server.say(json!({ "": "NOT_SERVING", "cart": "SERVING", "other": "SERVING" }));
    become_so("the whole is not, and the other is known", ["critical", "passing", "passing", "passing"]);
    server.say(json!({ "": "SERVING", "other": "UNKNOWN" }));
    become_so("and back", ["passing", "passing", "critical", "passing"]);
    server.process.kill_hard();
    become_so("it is gone", ["critical"; 4]);
}

#[test]
fn a_sidecar_asks_the_service_beside_it() {
    let mesh = Mesh::start();
    let server = Server::start(&mesh, json!({ "cart": "SERVING" }));
    let check = |service: &str| format!("grpc://{}/{service} interval=200ms name={service}", server.plain);
    let flags = ["--local", &server.plain, "--protocol", "grpc", "--check", &check("cart"), "--check", &check("other")];
    let _api = mesh.sidecar("api", "api-1", &flags);
    let statuses = || {
        let found = get(&mesh, "/v1/health/checks/api");
        ["cart", "other"].map(|name| {
            let check = found.as_array().unwrap().iter().find(|check| check["Name"] == name).cloned().unwrap_or_default();
            check["Status"].as_str().unwrap_or_default().to_owned()
        })
    };
    let become_so = |what: &str, wanted: [&str; 2]| eventually(what, || (statuses() == wanted).then_some(()));
    become_so("one is known", ["passing", "critical"]);
    server.say(json!({ "cart": "NOT_SERVING", "other": "SERVING" }));
    become_so("the other is", ["critical", "passing"]);
    server.say(json!({ "cart": "SERVING", "other": "NOT_SERVING" }));
    become_so("and back", ["passing", "critical"]);
}
