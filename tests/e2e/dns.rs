//! DNS, asked by dig, by the resolver of libc and by HAProxy.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::support::{EchoServer, Host, Mesh, Process, Sidecar, eventually, free_port};

/// What dig prints to a question.
fn dig(server: &str, question: &[&str]) -> String {
    let address: SocketAddr = server.parse().unwrap();
    let mut command = Command::new("dig");
    command.args([&format!("@{}", address.ip()), "-p", &address.port().to_string(), "+time=5", "+tries=2"]).args(question);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

fn short(server: &str, question: &[&str]) -> BTreeSet<String> {
    dig(server, &[question, &["+short"]].concat()).lines().map(ToOwned::to_owned).collect()
}

fn port_of(sidecar: &Sidecar) -> String {
    sidecar.inbound.as_ref().unwrap().rsplit(':').next().unwrap().to_owned()
}

#[test]
fn dig_finds_services_by_every_form_of_their_name() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let web = mesh.serve("web", &echo.address());
    mesh.wait_connected(&web.id);
    let here = BTreeSet::from(["127.0.0.1".to_owned()]);
    for name in
        ["web.service.consul", "web.service.mesh", "WEB.Service.dc1.Consul", "web.connect.consul", "_web._tcp.service.consul"]
    {
        for way in ["+notcp", "+tcp", "+noedns", "+bufsize=4096"] {
            assert_eq!(short(&mesh.dns, &[name, "A", way]), here, "{name} {way}");
        }
    }
    let srv = short(&mesh.dns, &["_web._tcp.service.consul", "SRV"]);
    assert_eq!(srv, BTreeSet::from([format!("1 1 {} 7f000001.addr.dc1.consul.", port_of(&web))]));
    assert_eq!(short(&mesh.dns, &["7f000001.addr.dc1.consul", "A"]), here);
    let names = short(&mesh.dns, &["-x", "127.0.0.1"]);
    assert!(names.contains("web.service.dc1.consul."), "{names:?}");
    let node = names.iter().find(|name| name.contains(".node.")).unwrap();
    assert_eq!(short(&mesh.dns, &[node, "A"]), here);
    for (name, status) in [
        ("web.service.consul AAAA", "NOERROR"),
        ("web.service.consul TYPE65400", "NOERROR"),
        ("nobody.service.consul A", "NXDOMAIN"),
        ("web.service.dc2.consul A", "NXDOMAIN"),
        ("example.com A", "REFUSED"),
    ] {
        let question: Vec<&str> = name.split(' ').collect();
        let said = dig(&mesh.dns, &question);
        assert!(said.contains(&format!("status: {status}")), "{name}: {said}");
        assert_eq!(said.contains("SOA"), status != "REFUSED", "{name}: {said}");
    }
    assert!(dig(&mesh.dns, &["consul", "SOA"]).contains("ns.consul. hostmaster.consul."));
}

#[test]
fn a_service_that_says_goodbye_has_no_address_any_more() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let mut web = mesh.serve("web", &echo.address());
    mesh.wait_connected(&web.id);
    assert_eq!(short(&mesh.dns, &["web.service.consul", "A"]).len(), 1);
    web.process().signal(nix::sys::signal::Signal::SIGTERM);
    eventually("its address is gone", || short(&mesh.dns, &["web.service.consul", "A"]).is_empty().then_some(()));
}

/// `PUT` of a path of Consul's API, which must succeed.
fn put(mesh: &Mesh, path: &str, body: &serde_json::Value) {
    let token = std::fs::read_to_string(mesh.path("data/operator.token")).unwrap();
    let output = Command::new("curl")
        .args(["-sS", "--fail-with-body", "-X", "PUT", "-H", &format!("X-Consul-Token: {}", token.trim()), "--data-binary", "@-"])
        .arg(format!("http://{}{path}", mesh.http))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().unwrap().write_all(body.to_string().as_bytes())?;
            child.wait_with_output()
        })
        .unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stdout));
}

fn register(mesh: &Mesh, number: u8, tag: &str, status: &str) {
    let id = format!("db-{number}");
    let body = serde_json::json!({
        "Node": format!("Host-{number}"), "Address": format!("10.9.0.{number}"),
        "Service": { "Service": "db", "ID": id, "Tags": [tag], "Port": 5432, "Weights": { "Passing": 7, "Warning": 1 } },
        "Check": { "CheckID": format!("{id}-up"), "Name": "up", "ServiceID": id, "Status": status },
    });
    put(mesh, "/v1/catalog/register", &body);
}

#[test]
fn registered_instances_are_found_by_tag_node_and_health() {
    let mesh = Mesh::start();
    register(&mesh, 1, "primary", "passing");
    register(&mesh, 2, "replica", "warning");
    register(&mesh, 3, "replica", "critical");
    let of = |name: &str| short(&mesh.dns, &[name, "A"]);
    let set = |numbers: &[u8]| -> BTreeSet<String> { numbers.iter().map(|number| format!("10.9.0.{number}")).collect() };
    assert_eq!(of("db.service.consul"), set(&[1, 2]), "a warning is not yet a reason to stay away");
    assert_eq!(of("primary.db.service.consul"), set(&[1]));
    assert_eq!(of("_db._replica.service.mesh"), set(&[2]));
    assert_eq!(of("host-3.node.consul"), set(&[3]), "names of nodes have no case");
    assert!(of("db.connect.consul").is_empty(), "none has a sidecar");
    let srv = short(&mesh.dns, &["_db._primary.service.consul", "SRV"]);
    assert_eq!(srv, BTreeSet::from(["1 7 5432 0a090001.addr.dc1.consul.".to_owned()]));
    let names = short(&mesh.dns, &["-x", "10.9.0.1"]);
    assert_eq!(names, BTreeSet::from(["Host-1.node.dc1.consul.".to_owned(), "db.service.dc1.consul.".to_owned()]));
    register(&mesh, 1, "primary", "critical");
    assert_eq!(of("db.service.consul"), set(&[2]), "at once");
    put(&mesh, "/v1/catalog/deregister", &serde_json::json!({ "Node": "Host-2" }));
    assert!(of("db.service.consul").is_empty());
    assert!(dig(&mesh.dns, &["db.service.consul", "A"]).contains("status: NOERROR"));
}

#[test]
fn dig_asks_again_over_tcp_where_an_answer_does_not_fit() {
    let mesh = Mesh::start();
    for number in 0..60 {
        register(&mesh, number, "all", "passing");
    }
    let cut = dig(&mesh.dns, &["db.service.consul", "A", "+noedns", "+ignore"]);
    assert!(cut.contains(" tc"), "{cut}");
    assert_eq!(short(&mesh.dns, &["db.service.consul", "A", "+noedns"]).len(), 60);
    assert_eq!(short(&mesh.dns, &["db.service.consul", "A", "+bufsize=4096"]).len(), 60);
}

#[test]
fn a_foreign_name_is_asked_of_the_recursor() {
    // Another mesh knows no more of this name, and its refusal comes through; a server that is silent has failed.
    let upstream = Mesh::start();
    let mesh = Mesh::start_with(&["--recursor", &upstream.dns]);
    for way in ["+notcp", "+tcp"] {
        let said = dig(&mesh.dns, &["example.com", "A", way]);
        assert!(said.contains("status: REFUSED") && said.contains(" rd ra"), "{said}");
    }
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mesh = Mesh::start_with(&["--recursor", &silent.local_addr().unwrap().to_string()]);
    assert!(dig(&mesh.dns, &["example.com", "A"]).contains("status: SERVFAIL"));
}

#[test]
fn hostile_messages_and_idle_connections_leave_it_answering() {
    let mesh = Mesh::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(&mesh.dns).unwrap();
    for length in [0_usize, 1, 11, 12, 13, 100, 4000] {
        socket.send(&vec![0xc0; length]).unwrap();
        socket.send(&vec![0x01; length]).unwrap();
    }
    let idle: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(&mesh.dns).unwrap()).collect();
    for stream in &idle {
        let _ = (&*stream).write_all(&[0xff, 0xff, 1]);
    }
    assert!(dig(&mesh.dns, &["consul", "SOA", "+notcp"]).contains("status: NOERROR"));
    // Over 64 connections of one address are closed at once, the others when they were silent for too long.
    let mut ended = 0;
    for mut stream in idle {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        ended += usize::from(matches!(stream.read(&mut [0]), Ok(0)) || stream.peer_addr().is_err());
    }
    assert!(ended >= 64, "{ended}");
    assert!(dig(&mesh.dns, &["consul", "SOA", "+tcp"]).contains("status: NOERROR"));
}

#[test]
fn a_taken_port_stops_it_where_it_was_asked_for_and_is_named() {
    let mesh = Mesh::start();
    let mut command = mesh.command("control");
    command.args(["--data-dir", mesh.path("other").to_str().unwrap(), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    let output = command.args(["--dns", &mesh.dns]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&mesh.dns) && said.contains("--dns off"), "{said}");
}

/// Removed at the end.
struct ResolvConf(String);

impl ResolvConf {
    /// `/etc/resolv.conf` of this host.
    fn of(host: &Host, nameserver: &str) -> Self {
        let folder = format!("/etc/netns/{}", host.name());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Path::new(&folder).join("resolv.conf"), format!("nameserver {nameserver}\nsearch service.mesh\n"))
            .unwrap();
        Self(folder)
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_resolver_of_libc_finds_a_service_by_its_short_name() {
    let host = Host::new();
    // libc asks for no IPv4 address on a host that has none beside loopback.
    host.shell("ip address add 10.79.0.1/32 dev lo");
    let _configuration = ResolvConf::of(&host, "127.0.0.1");
    let mesh = Mesh::start_with_dns_on(&host, "127.0.0.1:53");
    let _service = Process::start(
        host.command("python3").args(["-m", "http.server", "8000", "--bind", "127.0.0.1"]).current_dir(mesh.path("")),
        &mesh.path("service.log"),
    );
    let _web = mesh.sidecar("web", "web-1", &["--local", "127.0.0.1:8000"]);
    for name in ["web.service.consul", "web"] {
        let found = eventually("getent finds it", || {
            let output = host.command("getent").args(["ahostsv4", name]).output().unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        });
        assert!(found.starts_with("127.0.0.1 "), "{found}");
    }
    assert!(!host.command("getent").args(["ahosts", "nobody.service.consul"]).status().unwrap().success());
}

/// The ports of the servers that HAProxy would use, by its own account.
fn servers_of(stats: &Path) -> BTreeSet<String> {
    let Ok(mut stream) = UnixStream::connect(stats) else { return BTreeSet::new() };
    stream.write_all(b"show servers state web\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.contains(" web "));
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            // srv_addr, srv_op_state (2: running), srv_port.
            (fields.get(4)? == &"127.0.0.1" && fields.get(5)? == &"2").then(|| fields[18].to_owned())
        })
        .collect()
}

#[test]
fn haproxy_follows_a_service_that_grows_and_shrinks() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let stats = mesh.path("haproxy.sock");
    let configuration = mesh.path("haproxy.cfg");
    let text = format!(
        "global
  stats socket {stats} mode 600 level admin
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
resolvers mesh
  nameserver postern {dns}
  accepted_payload_size 8192
  timeout resolve 200ms
  timeout retry 200ms
  hold valid 200ms
  hold obsolete 200ms
  hold nx 200ms
frontend in
  bind 127.0.0.1:{port}
  default_backend web
backend web
  server-template web 4 _web._tcp.service.mesh resolvers mesh resolve-opts allow-dup-ip init-addr none
",
        stats = stats.display(),
        dns = mesh.dns,
        port = free_port(),
    );
    std::fs::write(&configuration, text).unwrap();
    let _haproxy = Process::start(Command::new("haproxy").arg("-db").arg("-f").arg(&configuration), &mesh.path("haproxy.log"));
    let follows = |what: &str, sidecars: &[&Sidecar]| {
        let wanted: BTreeSet<String> = sidecars.iter().map(|sidecar| port_of(sidecar)).collect();
        eventually(&format!("HAProxy uses {what}"), || (servers_of(&stats) == wanted).then_some(()));
    };
    let one = mesh.sidecar("web", "web-1", &["--local", &echo.address()]);
    follows("the first", &[&one]);
    let mut two = mesh.sidecar("web", "web-2", &["--local", &echo.address()]);
    let three = mesh.sidecar("web", "web-3", &["--local", &echo.address()]);
    follows("all three", &[&one, &two, &three]);
    two.process().signal(nix::sys::signal::Signal::SIGTERM);
    follows("the two that are left", &[&one, &three]);
}
