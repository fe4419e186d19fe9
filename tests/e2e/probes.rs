//! Checks that the control plane runs, against nginx with TLS, and what becomes of instances that stay away.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::discovery::{get, put};
use crate::support::{EchoServer, Mesh, Process, eventually, free_port};

/// A certificate for localhost that signs itself, and its key.
fn certificate(mesh: &Mesh) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(mesh.path("probe.pem"), certificate.pem()).unwrap();
    std::fs::write(mesh.path("probe.key"), key.serialize_pem()).unwrap();
}

/// nginx with TLS, which answers 200 to `/up` and 503 to `/down`.
fn nginx(mesh: &Mesh) -> (Process, u16) {
    let (certificate, key) = (mesh.path("probe.pem"), mesh.path("probe.key"));
    let (root, port) = (mesh.path("nginx"), free_port());
    std::fs::create_dir(&root).unwrap();
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let configuration = format!(
        "{user} daemon off; pid {root}/pid; error_log stderr warn; worker_processes 1; events {{ worker_connections 64; }}
         http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                 server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {};
                           location /up {{ return 200 fine; }} location /down {{ return 503 sick; }} }} }}",
        certificate.display(),
        key.display(),
        root = root.display()
    );
    let file = root.join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let process = Process::start(Command::new("nginx").arg("-c").arg(&file).arg("-p").arg(&root), &mesh.path("nginx.log"));
    eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    (process, port)
}

/// Registers a check of the node, begun as the other of what it must become, and waits until it says so.
#[track_caller]
fn becomes(mesh: &Mesh, name: &str, mut check: Value, status: &str) -> Value {
    check["CheckID"] = name.into();
    check["Name"] = name.into();
    check["Interval"] = "200ms".into();
    check["Timeout"] = "5s".into();
    check["Status"] = if status == "passing" { "critical" } else { "passing" }.into();
    put(mesh, "/v1/agent/check/register", &check);
    eventually(name, || {
        let found = get(mesh, "/v1/agent/checks")[name].clone();
        (found["Status"] == status).then_some(found)
    })
}

#[test]
fn https_and_tcp_with_tls_are_asked_and_who_is_not_vouched_for_is_critical() {
    let mesh = Mesh::start();
    certificate(&mesh);
    let (_nginx, port) = nginx(&mesh);
    let http = |path: &str| format!("https://127.0.0.1:{port}{path}");

    let found = becomes(&mesh, "https", json!({ "HTTP": http("/up"), "TLSSkipVerify": true }), "passing");
    assert!(found["Output"].as_str().unwrap().contains("fine"), "{found}");
    becomes(&mesh, "https-503", json!({ "HTTP": http("/down"), "TLSSkipVerify": true }), "critical");
    let found = becomes(&mesh, "https-unknown", json!({ "HTTP": http("/up") }), "critical");
    let output = found["Output"].as_str().unwrap().to_lowercase();
    assert!(output.contains("certificate"), "nobody vouches for it: {found}");
    becomes(&mesh, "tls", json!({ "TCP": format!("127.0.0.1:{port}"), "TCPUseTLS": true, "TLSSkipVerify": true }), "passing");
    becomes(&mesh, "tls-unknown", json!({ "TCP": format!("127.0.0.1:{port}"), "TCPUseTLS": true }), "critical");
}

#[test]
#[allow(clippy::disallowed_methods)] // the pause between two looks, for longer than others wait
fn an_instance_that_stays_critical_is_deregistered() {
    let mesh = Mesh::start();
    let service = |id: &str, after: &str| {
        json!({ "Name": "batch", "ID": id, "Port": 9, "Check": {
            "TCP": format!("127.0.0.1:{}", free_port()), "Interval": "1s", "Timeout": "1s", "DeregisterCriticalServiceAfter": after,
        } })
    };
    let began = Instant::now();
    put(&mesh, "/v1/agent/service/register", &service("gone", "1s"));
    put(&mesh, "/v1/agent/service/register", &service("kept", "72h"));
    let found = || get(&mesh, "/v1/catalog/service/batch").as_array().unwrap().clone();
    let deadline = began + Duration::from_secs(240);
    while found().len() == 2 {
        assert!(Instant::now() < deadline, "it is still there");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(began.elapsed() >= Duration::from_secs(60), "less than a minute is a minute");
    assert_eq!(found()[0]["ServiceID"], "kept");
    assert!(get(&mesh, "/v1/health/checks/batch").as_array().unwrap().iter().all(|check| check["ServiceID"] == "kept"));
}

#[test]
fn a_silent_sidecar_is_in_no_list_and_still_named_as_one_that_may_hold_rules() {
    let mesh = Mesh::start_with(&["--test-periods", "--beat", "1s", "--liveness", "2s", "--removal", "3s", "--settle", "1s"]);
    let echo = EchoServer::start();
    let local = echo.address.to_string();
    let mut silent = mesh.sidecar("api", "api-1", &["--local", &local]);
    let _other = mesh.sidecar("api", "api-2", &["--local", &local]);
    let ids = || -> Vec<String> {
        let found = get(&mesh, "/v1/health/service/api");
        found.as_array().unwrap().iter().map(|one| one["Service"]["ID"].as_str().unwrap().to_owned()).collect()
    };
    eventually("both are found", || (ids() == ["api-1", "api-2"]).then_some(()));
    silent.kill_hard();
    eventually("the silent one is in no list", || (ids() == ["api-2"]).then_some(()));
    let listed = mesh.json(&["service", "show", "api"])["instances"].as_array().unwrap().clone();
    assert!(listed.iter().any(|instance| instance["id"] == "api-1" && instance["health"] == "left"), "{listed:?}");
    let said = mesh.meshctl(&["intention", "deny", "web", "api"]);
    assert!(said.contains("api-1") && said.contains("not connected"), "{said}");
    silent.start();
    eventually("it is back", || (ids() == ["api-1", "api-2"]).then_some(()));
}
