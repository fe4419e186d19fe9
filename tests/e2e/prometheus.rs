//! Prometheus, on a host of its own, finds and scrapes every sidecar.

use serde_json::Value;

use crate::support::{EchoServer, Host, Mesh, Process, connect, eventually, is_closed, link, say};

/// What product.md promises and L4 can have.
const SIDECAR_METRICS: [&str; 12] = [
    "postern_connections_total",
    "postern_connections_active",
    "postern_bytes_total",
    "postern_handshake_seconds_count",
    "postern_handshake_failures_total",
    "postern_svid_expiry_timestamp_seconds",
    "postern_snapshot_revision",
    "postern_snapshot_age_seconds",
    "postern_control_connected",
    "postern_build_info",
    "process_resident_memory_bytes",
    "process_open_fds",
];

#[test]
fn every_metric_is_there_and_a_stranger_creates_none() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "x").is_some());
    for number in 0..20 {
        let mut stranger = connect(api.inbound.as_deref().unwrap());
        assert!(say(&mut stranger, &format!("GET /{number} HTTP/1.1\r\nHost: h{number}\r\n\r\n")).is_none_or(|_| true));
        let _ = is_closed(&mut stranger);
    }

    let text = eventually("the failures are counted", || {
        let (_, text) = api.admin("/metrics");
        text.contains("postern_handshake_failures_total{").then_some(text)
    });
    for name in SIDECAR_METRICS {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{text}");
        let family = name.trim_end_matches("_count");
        assert!(text.contains(&format!("# HELP {family} ")), "{family} has no help");
    }
    let peers: std::collections::BTreeSet<&str> =
        text.lines().filter_map(|line| line.split("peer=\"").nth(1)?.split('"').next()).collect();
    assert!(peers.iter().all(|peer| ["web", "unknown"].contains(peer)), "{peers:?}");
    let (_, control) = crate::support::http_get(&mesh.http, "/metrics");
    for name in
        ["postern_control_sidecars", "postern_control_store_revision", "postern_control_svids_issued_total", "postern_build_info"]
    {
        assert!(control.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{control}");
    }
}

#[test]
fn prometheus_on_another_host_finds_and_scrapes_every_sidecar() {
    let (here, there) = (Host::new(), Host::new());
    link((&here, "10.78.0.1/24"), (&there, "10.78.0.2/24"));
    let mesh = Mesh::start_with_https_on(&here, "10.78.0.1");
    let _api = mesh.sidecar("api", "api-1", &["--local", "127.0.0.1:8000", "--metrics", "10.78.0.1:19101"]);
    let _web = mesh.sidecar("web", "web-1", &["--upstream", "api=127.0.0.1:9001", "--metrics", "10.78.0.1:19102"]);
    let configuration = mesh.path("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: sidecars
  http_sd_configs:
  - url: https://10.78.0.1:8500/v1/prometheus/targets
    refresh_interval: 1s
    authorization: {{type: Bearer, credentials_file: {}}}
    tls_config: {{ca_file: {}}}
",
        mesh.path("data/operator.token").display(),
        mesh.path("certificate").display(),
    );
    std::fs::write(&configuration, text).unwrap();
    let _prometheus = Process::start(
        there
            .command("prometheus")
            .args(["--web.listen-address", "127.0.0.1:9090"])
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", mesh.path("tsdb").display())),
        &mesh.path("prometheus.log"),
    );
    let services = eventually("both are scraped", || {
        let output = there
            .command("curl")
            .args(["-sS", "http://127.0.0.1:9090/api/v1/query?query=postern_control_connected==1"])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        let series = answer["data"]["result"].as_array()?.clone();
        (series.len() == 2).then(|| series.iter().map(|s| s["metric"]["service"].clone()).collect::<Vec<_>>())
    });
    assert!(services.contains(&"api".into()) && services.contains(&"web".into()), "{services:?}");
}
