//! Services that are found: registered through Consul's API and by sidecars, discovered by tools made for Consul.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::support::{EchoServer, Mesh, Process, curl, eventually, free_port, http_get};

/// `PUT` with the operator's token.
#[track_caller]
pub fn put(mesh: &Mesh, path: &str, body: &Value) -> String {
    let token = std::fs::read_to_string(mesh.path("data/operator.token")).unwrap();
    let header = format!("X-Consul-Token: {}", token.trim());
    let body = if body.is_null() { String::new() } else { body.to_string() };
    curl(&["--fail-with-body", "-X", "PUT", "-H", &header, "-d", &body, &format!("http://{}{path}", mesh.http)])
}

/// `GET` with the operator's token.
#[track_caller]
pub fn get(mesh: &Mesh, path: &str) -> Value {
    let token = std::fs::read_to_string(mesh.path("data/operator.token")).unwrap();
    let header = format!("X-Consul-Token: {}", token.trim());
    serde_json::from_str(&curl(&["--fail-with-body", "-H", &header, &format!("http://{}{path}", mesh.http)])).unwrap()
}

/// Something to scrape: answers every request with one metric, for ever.
fn exporter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let body = "exported_by_test 1\n";
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    port
}

/// The ids of the instances that were scraped well just now.
fn scraped(port: u16) -> BTreeSet<String> {
    let (_, text) = http_get(&format!("127.0.0.1:{port}"), "/api/v1/targets?state=active");
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
    let up = targets.into_iter().filter(|target| target["health"] == "up");
    up.filter_map(|target| target["labels"]["id"].as_str().map(ToOwned::to_owned)).collect()
}

#[test]
fn a_scraper_discovers_what_registers_and_forgets_what_leaves() {
    let mesh = Mesh::start();
    let port = free_port();
    let configuration = mesh.path("scrape.yml");
    let text = format!(
        "global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: found
  consul_sd_configs:
  - server: '{}'
    authorization: {{type: Bearer, credentials_file: {}}}
    tags: [metrics]
  relabel_configs:
  - {{source_labels: [__meta_consul_service_id], target_label: id}}
  - {{source_labels: [__meta_consul_service], target_label: job}}
",
        mesh.http,
        mesh.path("data/operator.token").display(),
    );
    std::fs::write(&configuration, text).unwrap();
    // Debian builds Prometheus without the discovery of Consul's services; VictoriaMetrics reads the same settings.
    let _scraper = Process::start(
        std::process::Command::new("victoria-metrics")
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .arg(format!("-promscrape.config={}", configuration.display()))
            .arg("-promscrape.consulSDCheckInterval=1s")
            .arg(format!("-storageDataPath={}", mesh.path("scraped").display())),
        &mesh.path("scraper.log"),
    );
    eventually("it listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    for id in ["job-1", "job-2"] {
        let body = json!({"ID": id, "Name": "job", "Address": "127.0.0.1", "Port": exporter(), "Tags": ["metrics"]});
        put(&mesh, "/v1/agent/service/register", &body);
    }
    put(&mesh, "/v1/agent/service/register", &json!({"Name": "other", "Address": "127.0.0.1", "Port": exporter()}));
    let wanted = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    eventually("both are scraped", || (scraped(port) == wanted(&["job-1", "job-2"])).then_some(()));
    put(&mesh, "/v1/agent/service/deregister/job-1", &Value::Null);
    eventually("the one that left is forgotten", || (scraped(port) == wanted(&["job-2"])).then_some(()));
    let third = json!({
        "Node": "elsewhere", "Address": "127.0.0.1",
        "Service": {"ID": "job-3", "Service": "job", "Port": exporter(), "Tags": ["metrics", "x"]}
    });
    put(&mesh, "/v1/catalog/register", &third);
    eventually("the new one is scraped", || (scraped(port) == wanted(&["job-2", "job-3"])).then_some(()));
}

#[test]
fn a_sidecar_is_found_where_it_takes_mutual_tls() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let api = mesh.serve("api", &echo.address());
    let inbound = api.inbound.clone().unwrap();
    let (_, port) = inbound.rsplit_once(':').unwrap();
    let found = eventually("it passes", || {
        let found = get(&mesh, "/v1/health/connect/api?passing");
        (!found.as_array()?.is_empty()).then_some(found)
    });
    assert_eq!(found[0]["Service"]["ID"], "api-1");
    assert_eq!(found[0]["Service"]["Connect"], json!({"Native": true}));
    assert_eq!(found[0]["Service"]["Port"].to_string(), port);
    assert_eq!(get(&mesh, "/v1/catalog/services"), json!({"api": []}));
    assert_eq!(get(&mesh, "/v1/agent/services")["api-1"]["Service"], "api", "it runs on the host of the control plane");
}
