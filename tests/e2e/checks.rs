//! Health checks decide where calls go.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::discovery::{get, put};
use crate::support::{Mesh, Sidecar, eventually, http_get};

/// An HTTP service that says its name; what it answers to `/health` can be set.
struct Server {
    address: String,
    health: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (health, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let shared = (Arc::clone(&health), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (health, asked) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
                std::thread::spawn(move || serve(stream, name, &health, &asked));
            }
        });
        Self { address, health, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, name: &str, health: &AtomicU16, asked: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut request = String::new();
        while reader.read_line(&mut request).is_ok_and(|read| read > 0) && !request.ends_with("\r\n\r\n") {}
        let Some(path) = request.split(' ').nth(1) else { return };
        let code = if path == "/health" { health.load(Ordering::SeqCst) } else { 200 };
        if path == "/" {
            asked.fetch_add(1, Ordering::SeqCst);
        }
        let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

struct Three {
    mesh: Mesh,
    servers: [Server; 3],
    _sidecars: Vec<Sidecar>,
    web: Sidecar,
}

impl Three {
    /// Three instances of `api` with an HTTP check each, the first with further flags, and `web` that calls them.
    fn start(of_first: &[&str]) -> Self {
        let mesh = Mesh::start();
        let servers = [Server::start("one"), Server::start("two"), Server::start("three")];
        let sidecars = servers.iter().enumerate().map(|(at, server)| {
            let check = format!("http://{}/health interval=200ms", server.address);
            let mut flags = vec!["--local", &server.address, "--protocol", "http", "--check", &check, "--tag", "v1"];
            if at == 0 {
                flags.extend(of_first);
            }
            mesh.sidecar("api", &format!("api-{}", at + 1), &flags)
        });
        let sidecars = sidecars.collect();
        let web = mesh.call("web", &["api"]);
        mesh.allow("web", "api");
        mesh.set("services:\n- {service: api, balancer: {policy: round_robin}}\n");
        let all_pass = || get(&mesh, "/v1/health/service/api?passing").as_array().is_some_and(|found| found.len() == 3);
        eventually("all pass", || all_pass().then_some(()));
        eventually("web calls", || (http_get(web.upstream("api"), "/").0 == 200).then_some(()));
        let three = Self { mesh, servers, _sidecars: sidecars, web };
        three.until_asked("all take calls", |counts| counts.iter().all(|count| *count > 0));
        three
    }

    /// Calls that reach each instance, of thirty.
    fn counts(&self) -> [usize; 3] {
        let before = self.servers.each_ref().map(Server::asked);
        for _ in 0..30 {
            assert_eq!(http_get(self.web.upstream("api"), "/").0, 200);
        }
        let after = self.servers.each_ref().map(Server::asked);
        [after[0] - before[0], after[1] - before[1], after[2] - before[2]]
    }

    #[track_caller]
    fn until_asked(&self, what: &str, holds: impl Fn(&[usize; 3]) -> bool) {
        eventually(what, || holds(&self.counts()).then_some(()));
    }

    fn status(&self, id: &str) -> Value {
        let found = get(&self.mesh, "/v1/health/service/api");
        let entry = found.as_array().unwrap().iter().find(|entry| entry["Service"]["ID"] == id).unwrap().clone();
        entry["Checks"].as_array().unwrap().iter().find(|check| check["CheckID"] == "http").unwrap()["Status"].clone()
    }
}

#[test]
fn no_request_reaches_an_instance_whose_check_is_critical_and_it_returns_by_itself() {
    let three = Three::start(&[]);
    three.servers[0].health.store(503, Ordering::SeqCst);
    eventually("it is critical", || (three.status("api-1") == "critical").then_some(()));
    three.until_asked("web was told", |counts| counts[0] == 0);
    for _ in 0..10 {
        let counts = three.counts();
        assert!(counts[0] == 0 && counts[1] > 0 && counts[2] > 0, "{counts:?}");
    }
    let passing = get(&three.mesh, "/v1/health/service/api?passing&tag=v1");
    assert_eq!(passing.as_array().unwrap().len(), 2);
    let shown = three.mesh.meshctl(&["service", "show", "api"]);
    assert!(shown.contains("critical") && shown.contains("503"), "{shown}");
    three.servers[0].health.store(200, Ordering::SeqCst);
    three.until_asked("it is back", |counts| counts[0] > 0);

    for server in &three.servers {
        server.health.store(500, Ordering::SeqCst);
    }
    eventually("all are critical", || (get(&three.mesh, "/v1/health/service/api?passing").as_array()?.is_empty()).then_some(()));
    assert_eq!(three.counts().iter().sum::<usize>(), 30, "health empties no upstream");
}

#[test]
fn a_warning_keeps_an_instance_with_its_weight() {
    let three = Three::start(&["--weight", "1/0"]);
    three.servers[0].health.store(429, Ordering::SeqCst);
    eventually("it warns", || (three.status("api-1") == "warning").then_some(()));
    three.until_asked("it weighs nothing", |counts| counts[0] == 0);
    for server in &three.servers[1..] {
        server.health.store(500, Ordering::SeqCst);
    }
    three.until_asked("it is still there", |counts| counts[0] == 30);
}

#[test]
fn maintenance_takes_an_instance_out_at_once_even_the_last_one() {
    let three = Three::start(&[]);
    three.mesh.meshctl(&["service", "maintenance", "api-1", "--on", "--reason", "new disk"]);
    three.until_asked("web was told", |counts| counts[0] == 0);
    let list = three.mesh.json(&["service", "show", "api"]);
    let instance = list["instances"].as_array().unwrap().iter().find(|instance| instance["id"] == "api-1").unwrap().clone();
    assert_eq!(instance["health"], "maintenance");
    for id in ["api-2", "api-3"] {
        three.mesh.meshctl(&["service", "maintenance", id, "--on"]);
    }
    eventually("nobody is left", || (http_get(three.web.upstream("api"), "/").0 == 503).then_some(()));
    let node = get(&three.mesh, "/v1/catalog/service/api")[0]["Node"].as_str().unwrap().to_owned();
    let output = three.mesh.run(&["service", "deregister", "api-1", "--node", &node]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("has a sidecar"), "{said}");
    put(&three.mesh, "/v1/catalog/deregister", &json!({ "Node": node }));
    let list = three.mesh.json(&["service", "show", "api"]);
    assert!(list["instances"].as_array().unwrap().iter().all(|instance| instance["health"] == "maintenance"), "{list}");
    for id in ["api-1", "api-2", "api-3"] {
        three.mesh.meshctl(&["service", "maintenance", id, "--off"]);
    }
    eventually("they are back", || (http_get(three.web.upstream("api"), "/").0 == 200).then_some(()));
    let output = three.mesh.run(&["service", "maintenance", "nobody", "--on"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_file_registers_instances_that_are_found_and_called_by_nobody() {
    let mesh = Mesh::start();
    let server = Server::start("db");
    let (host, port) = server.address.rsplit_once(':').unwrap();
    let file = mesh.path("services.yaml");
    let text = format!(
        "services:\n- name: db\n  id: db-1\n  address: {host}\n  port: {port}\n  tags: [primary]\n  meta: {{Some_Key: x}}\n  \
         check: {{http: 'http://{}/health', interval: 200ms}}\n- {{name: db, id: db-2, port: 1}}\n",
        server.address
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    mesh.meshctl(&["service", "register", "-f", &file]);
    let found = eventually("it passes", || {
        let found = get(&mesh, "/v1/health/service/db?passing&tag=primary");
        (found.as_array()?.len() == 1).then_some(found)
    });
    assert_eq!(found[0]["Service"]["Meta"], json!({"Some_Key": "x"}));
    assert_eq!(get(&mesh, "/v1/health/connect/db"), json!([]));
    let listed = mesh.json(&["service", "list"]);
    assert_eq!((&listed[0]["instances"], &listed[0]["without_sidecar"]), (&json!(2), &json!(2)));
    assert!(mesh.meshctl(&["service", "show", "db"]).contains("db-1"));
    server.health.store(500, Ordering::SeqCst);
    eventually("it is critical", || {
        let shown = mesh.json(&["service", "show", "db"]);
        let first = shown["registered"].as_array()?.iter().find(|instance| instance["id"] == "db-1")?.clone();
        (first["health"] == "critical").then_some(())
    });
    mesh.meshctl(&["service", "deregister", "db-1"]);
    mesh.meshctl(&["service", "deregister", "db-2"]);
    assert_eq!(get(&mesh, "/v1/catalog/services"), json!({}));
    assert_eq!(mesh.run(&["service", "deregister", "db-2"]).status.code(), Some(2));
    for (text, why) in [
        ("service: {name: db, prot: 1}", "unknown field"),
        ("service: {name: db, connect: {sidecar_service: {}}}", "meshctl proxy"),
        ("services: []", "no service definition"),
        ("service: {name: db, check: {http: x, interval: 1s}}", "not a URL"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = mesh.run(&["service", "register", "-f", &file]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}: {words}");
        assert!(words.contains(why), "{text}: {words}");
    }
}

#[test]
fn a_check_registered_for_an_instance_takes_it_out_too() {
    let three = Three::start(&[]);
    let check = json!({"Name": "by hand", "CheckID": "hand", "ServiceID": "api-2", "TTL": "1h", "Status": "passing"});
    put(&three.mesh, "/v1/agent/check/register", &check);
    put(&three.mesh, "/v1/agent/check/fail/hand?note=sick", &Value::Null);
    three.until_asked("it is out", |counts| counts[1] == 0 && counts[0] > 0);
    put(&three.mesh, "/v1/agent/check/pass/hand", &Value::Null);
    three.until_asked("it is back", |counts| counts[1] > 0);
}
