//! Two hosts, one of them behind NAT.

use crate::support::{Host, Mesh, Process, eventually, link};

fn curl(host: &Host, url: &str) -> Option<String> {
    let output = host.command("curl").args(["-sS", "--max-time", "10", url]).output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A small web server on a host's loopback, in a directory with a file that says its name.
fn web_server(mesh: &Mesh, host: &Host, name: &str) -> Process {
    let root = mesh.path(&format!("www-{name}"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("name"), name).unwrap();
    let mut command = host.command("python3");
    command.args(["-m", "http.server", "8000", "--bind", "127.0.0.1", "--directory"]).arg(root);
    let server = Process::start(&mut command, &mesh.path(&format!("www-{name}.log")));
    eventually("the web server answers", || curl(host, "http://127.0.0.1:8000/name"));
    server
}

#[test]
fn services_call_each_other_between_hosts_and_through_nat() {
    let (open, router, hidden) = (Host::new(), Host::new(), Host::new());
    link((&open, "10.77.0.1/24"), (&router, "10.77.0.2/24"));
    link((&router, "192.168.77.1/24"), (&hidden, "192.168.77.2/24"));
    hidden.shell("ip route add default via 192.168.77.1");
    router.shell("sysctl -qw net.ipv4.ip_forward=1");
    router.shell(
        "nft -f - <<'E'
table ip nat {
  chain out { type nat hook postrouting priority 100; ip saddr 192.168.77.0/24 masquerade; }
  chain in { type nat hook prerouting priority -100; ip daddr 10.77.0.2 tcp dport 21000 dnat to 192.168.77.2:21000; }
}
E",
    );
    let mesh = Mesh::start_on(&open, "10.77.0.1:8502");
    let _one = web_server(&mesh, &open, "one");
    let _two = web_server(&mesh, &hidden, "two");

    let _api = mesh.sidecar(
        "api",
        "api-1",
        &["--listen", "0.0.0.0:21000", "--local", "127.0.0.1:8000", "--upstream", "billing=127.0.0.1:9001"],
    );
    let _billing = mesh.sidecar_on(
        &hidden,
        "billing",
        "billing-1",
        &[
            "--listen",
            "0.0.0.0:21000",
            "--advertise",
            "10.77.0.2:21000",
            "--local",
            "127.0.0.1:8000",
            "--upstream",
            "api=127.0.0.1:9001",
        ],
    );
    assert_eq!(curl(&open, "http://127.0.0.1:9001/name"), None, "denied by default");
    mesh.allow("api", "billing");
    mesh.allow("billing", "api");

    assert_eq!(eventually("through NAT inwards", || curl(&open, "http://127.0.0.1:9001/name")), "two");
    assert_eq!(eventually("through NAT outwards", || curl(&hidden, "http://127.0.0.1:9001/name")), "one");
}
