//! A link that loses packets: small requests beside a bulk flow, over a tunnel and over direct connections.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Host, Mesh, Process, eventually};

/// One way, as the relay holds packets.
const DELAY_MS: &str = "10";
const SECONDS: &str = "8";
const CONNECTIONS: &str = "16";

/// Two hosts, joined by a link of 20 ms there and back that loses one packet in a hundred each way.
struct LossyLink {
    near: Host,
    far: Host,
    _relay: Process,
}

impl LossyLink {
    fn new(log: &std::path::Path) -> Self {
        let (near, far) = (Host::new(), Host::new());
        let mut command = near.command("python3");
        command.args(["-c", include_str!("scripts/relay.py"), DELAY_MS]);
        let relay = Process::start_announcing(&mut command, log);
        relay.line();
        near.shell(&format!("ip link set right netns {}", far.name()));
        for (host, device, address) in [(&near, "left", "10.78.0.1/24"), (&far, "right", "10.78.0.2/24")] {
            host.shell(&format!("ip address add {address} dev {device} noprefixroute && ip link set {device} up"));
            // What most hosts have, and what loss slows down most.
            host.shell(&format!("ip route add 10.78.0.0/24 dev {device} congctl cubic"));
            host.shell(&format!(
                "nft -f - <<'E'
table inet loss {{
  chain in {{ type filter hook input priority 0; iifname \"{device}\" numgen random mod 100 == 0 counter drop; }}
}}
E"
            ));
        }
        Self { near, far, _relay: relay }
    }

    /// Packets that were lost so far.
    fn lost(&self) -> u64 {
        let dropped = |host: &Host| {
            let output = host.command("nft").args(["-j", "list", "table", "inet", "loss"]).output().unwrap();
            let rules: Value = serde_json::from_slice(&output.stdout).unwrap();
            let text = rules.to_string();
            let (_, after) = text.split_once("\"packets\":").unwrap();
            after.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap()
        };
        dropped(&self.near) + dropped(&self.far)
    }

    /// What the load measured through `port` of the near host.
    fn measure(&self, port: &str) -> Value {
        let load = ["-c", include_str!("scripts/mixed_load.py"), port, SECONDS, CONNECTIONS];
        let output = self.near.command("python3").args(load).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn small_requests_beside_a_bulk_flow_are_served_over_a_lossy_link() {
    let directory = tempfile::TempDir::new().unwrap();
    let link = LossyLink::new(&directory.path().join("relay.log"));
    let mesh = Mesh::start_on(&link.near, "10.78.0.1:8502");
    let mut server = link.far.command("python3");
    let _server = Process::start(server.args(["-c", include_str!("scripts/mixed_server.py"), "8000"]), &mesh.path("server.log"));
    eventually("the server listens", || {
        let asked = link.far.command("sh").args(["-c", "ss -ltn | grep -q 127.0.0.1:8000"]).status().unwrap();
        asked.success().then_some(())
    });
    let listen = ["--listen", "10.78.0.2:21000", "--local", "127.0.0.1:8000"];
    let _api = mesh.sidecar_on(&link.far, "api", "api-1", &listen);
    let _tunnel = mesh.sidecar("web", "web-1", &["--upstream", "api=127.0.0.1:9001", "--transport", "tunnel"]);
    let _direct = mesh.sidecar("web", "web-2", &["--upstream", "api=127.0.0.1:9002", "--transport", "direct"]);
    mesh.allow("web", "api");

    let (mut tunnel, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        tunnel.push(link.measure("9001"));
        direct.push(link.measure("9002"));
    }

    println!("over a tunnel: {tunnel:#?}\nover direct connections: {direct:#?}\nlost: {} packets", link.lost());
    assert!(link.lost() > 20, "the link loses packets");
    let best = |runs: &[Value]| runs.iter().map(|run| run["p99"].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
    // How near they come is a figure of `benches/link`. Behind a full socket they would wait for many seconds.
    let margin = Duration::from_secs(1).as_secs_f64() * 1000.0;
    let (tunnel, direct) = (best(&tunnel), best(&direct));
    assert!(tunnel <= 1.5 * direct + margin, "p99 over a tunnel {tunnel} ms, over direct connections {direct} ms");
}
