//! Checks that the control plane runs, against nginx with TLS, and what becomes of instances that stay away.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::discovery::{get, put};
use crate::support::{EchoServer, Mesh, Process, eventually, free_port};

/// A certificate for localhost, and its key, in `directory`; gives the file of the authority that signed it.
pub(crate) fn certificate(directory: &Path) -> PathBuf {
    let named = |names: &[&str]| rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
    let (mut authority, authority_key) = (named(&[]).unwrap(), rcgen::KeyPair::generate().unwrap());
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let (issuer, key) = (rcgen::Issuer::new(authority, authority_key), rcgen::KeyPair::generate().unwrap());
    let certificate = named(&["localhost"]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("probe.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.join("probe.key"), key.serialize_pem()).unwrap();
    let file = directory.join("authority.pem");
    std::fs::write(&file, pem).unwrap();
    file
}

/// nginx with TLS as `settings` has it, which answers 200 to `/up` and 503 to `/down`. Its certificate is in `directory`.
fn nginx(directory: &Path, settings: &str) -> (Process, u16) {
    let (certificate, key) = (directory.join("probe.pem"), directory.join("probe.key"));
    let port = free_port();
    let root = directory.join(format!("nginx-{port}"));
    std::fs::create_dir(&root).unwrap();
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let configuration = format!(
        "{user} daemon off; pid {root}/pid; error_log stderr warn; worker_processes 1; events {{ worker_connections 64; }}
         http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                 server {{ listen 127.0.0.1:{port} ssl; {settings} ssl_certificate {}; ssl_certificate_key {};
                           location /up {{ return 200 fine; }} location /down {{ return 503 sick; }} }} }}",
        certificate.display(),
        key.display(),
        root = root.display()
    );
    let file = root.join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let process = Process::start(Command::new("nginx").arg("-c").arg(&file).arg("-p").arg(&root), &root.join("log"));
    eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    (process, port)
}

/// Registers a check of the node, begun as the other of what it must become, and waits until it says so.
#[track_caller]
pub(crate) fn becomes(mesh: &Mesh, name: &str, mut check: Value, status: &str) -> Value {
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
    certificate(&mesh.path(""));
    let (_nginx, port) = nginx(&mesh.path(""), "");
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
fn tls_1_2_and_1_3_are_spoken_whichever_the_service_has() {
    let mesh = Mesh::start();
    certificate(&mesh.path(""));
    // The default of nginx 1.22 is 1.2, and what is older than that.
    for (name, settings) in [("1.2", "ssl_protocols TLSv1.2;"), ("1.3", "ssl_protocols TLSv1.3;"), ("default", "")] {
        let (_nginx, port) = nginx(&mesh.path(""), settings);
        let url = format!("https://127.0.0.1:{port}/up");
        becomes(&mesh, &format!("https-{name}"), json!({ "HTTP": url, "TLSSkipVerify": true }), "passing");
        let tcp = json!({ "TCP": format!("127.0.0.1:{port}"), "TCPUseTLS": true, "TLSSkipVerify": true });
        becomes(&mesh, &format!("tls-{name}"), tcp, "passing");
    }
}

#[test]
fn a_certificate_of_an_authority_that_the_machine_trusts_is_good_for_its_names_alone() {
    let directory = tempfile::TempDir::new().unwrap();
    let authority = certificate(directory.path());
    let mesh = Mesh::start_trusting(&authority);
    for (version, settings) in [("1.2", "ssl_protocols TLSv1.2;"), ("1.3", "ssl_protocols TLSv1.3;")] {
        let (_nginx, port) = nginx(directory.path(), settings);
        let becomes = |what: &str, check: Value, status: &str| becomes(&mesh, &format!("{what}-{version}"), check, status);
        let url = |host: &str| format!("https://{host}:{port}/up");
        becomes("right", json!({ "HTTP": url("localhost") }), "passing");
        becomes("told", json!({ "HTTP": url("127.0.0.1"), "TLSServerName": "localhost" }), "passing");
        becomes("tcp", json!({ "TCP": format!("localhost:{port}"), "TCPUseTLS": true }), "passing");
        for (what, check) in [
            ("address", json!({ "HTTP": url("127.0.0.1") })),
            ("other", json!({ "HTTP": url("localhost"), "TLSServerName": "other.example.com" })),
        ] {
            let found = becomes(what, check, "critical");
            assert!(found["Output"].as_str().unwrap().contains("not valid for name"), "{found}");
        }
    }
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
