//! Who was seen calling whom: what real sidecars tell the control plane of real calls.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::support::{EchoServer, Mesh, PATIENCE, Service, Sidecar, connect, curl, eventually, is_closed, say};

fn header(mesh: &Mesh) -> String {
    let token = std::fs::read_to_string(mesh.path("data/operator.token")).unwrap();
    format!("Authorization: Bearer {}", token.trim())
}

fn edges(mesh: &Mesh, query: &str) -> Vec<Value> {
    let url = format!("http://{}/v1/edges?{query}", mesh.http);
    let answer: Value = serde_json::from_str(&curl(&["--fail-with-body", "-H", &header(mesh), &url])).unwrap();
    answer["edges"].as_array().unwrap().clone()
}

/// Waits until this is told of the only edge with these fields.
#[track_caller]
fn is_told(mesh: &Mesh, fields: &[(&str, &str)], wanted: impl Fn(&Value) -> bool) -> Value {
    let of = |edge: &Value| fields.iter().all(|(field, value)| edge[*field] == *value);
    eventually(&format!("{fields:?} is told"), || {
        let found: Vec<Value> = edges(mesh, "since_s=3600").into_iter().filter(of).collect();
        assert!(found.len() <= 1, "more than one edge: {found:?}");
        found.into_iter().find(&wanted)
    })
}

fn status_of(sidecar: &Sidecar, upstream: &str, method: &str, path: &str) -> String {
    let url = format!("http://{}{path}", sidecar.upstream(upstream));
    curl(&["-o", "/dev/null", "-w", "%{http_code}", "-X", method, &url])
}

/// The events of `GET /v1/live`, as they come.
struct Live {
    curl: Child,
    lines: Receiver<String>,
}

impl Live {
    fn of(mesh: &Mesh, query: &str) -> Self {
        let url = format!("http://{}/v1/live?{query}", mesh.http);
        let mut curl = Command::new("curl")
            .args(["-sSN", "-H", &header(mesh), &url])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(curl.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let live = Self { curl, lines };
        // It begins when the first line has come.
        live.lines.recv_timeout(PATIENCE).expect("the stream begins");
        live
    }

    /// The next decision with this verdict.
    fn decision(&self, verdict: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no decision: {verdict}"));
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let data: Value = serde_json::from_str(data).unwrap();
            if data["verdict"] == verdict {
                return data;
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

struct Shop {
    mesh: Mesh,
    _service: Service,
    api: Sidecar,
    web: Sidecar,
}

impl Shop {
    fn start(further: &[&str]) -> Self {
        let mesh = Mesh::start();
        let service = Service::start(&mesh, "http_service.py");
        let of_api = [&["--local", &service.address, "--protocol", "http"], further].concat();
        let api = mesh.sidecar("api", "api-1", &of_api);
        let web = mesh.call("web", &["api"]);
        mesh.allow("web", "api");
        Self { mesh, _service: service, api, web }
    }

    fn get(&self, path: &str) -> String {
        status_of(&self.web, "api", "GET", path)
    }
}

#[test]
fn requests_are_seen_by_method_and_shape_and_denials_with_their_reason() {
    let shop = Shop::start(&["--workers", "2"]);
    for id in 0..10 {
        assert_eq!(shop.get(&format!("/v1/invoices/{id}?secret=1")), "200");
    }
    assert_eq!(status_of(&shop.web, "api", "POST", "/v1/invoices"), "200");

    let of_get = [("source", "web"), ("destination", "api"), ("method", "GET"), ("shape", "/v1/invoices/{id}")];
    let edge = is_told(&shop.mesh, &of_get, |edge| edge["count"] == 10);
    assert_eq!((&edge["verdict"], &edge["because"]), (&"allow".into(), &"intention web -> api (allow)".into()));
    assert_eq!((&edge["protocol"], &edge["port"], &edge["errors"]), (&"http".into(), &"main".into(), &0.into()));
    assert!(edge["p99_ms"].as_f64().is_some_and(|ms| ms > 0.0) && !edge.to_string().contains("secret"), "{edge}");
    is_told(&shop.mesh, &[("method", "POST"), ("shape", "/v1/invoices")], |edge| edge["count"] == 1);

    shop.mesh.deny("web", "api");
    assert_eq!(shop.get("/v1/invoices/11"), "403");
    let denied = [("verdict", "deny"), ("method", "GET"), ("shape", "/v1/invoices/{id}")];
    let edge = is_told(&shop.mesh, &denied, |edge| edge["count"] == 1);
    assert_eq!(edge["because"], "intention web -> api (deny)");
    drop(shop.api);
}

#[test]
fn whoever_follows_sees_each_decision_and_others_hear_of_denials() {
    let shop = Shop::start(&[]);
    let live = Live::of(&shop.mesh, "what=decisions");
    eventually("the sidecar tells what it allows", || {
        assert_eq!(shop.get("/v1/7?secret=1"), "200");
        live.lines.try_iter().find(|line| line.starts_with("data: ") && line.contains("\"allow\""))
    });
    assert_eq!(shop.get("/v1/8?secret=1"), "200");
    let allowed = live.decision("allow");
    assert_eq!((&allowed["source"], &allowed["destination"], &allowed["status"]), (&"web".into(), &"api".into(), &200.into()));
    assert!(!allowed.to_string().contains("secret"), "{allowed}");

    shop.mesh.deny("web", "api");
    assert_eq!(shop.get("/v1/9"), "403");
    let denied = live.decision("deny");
    assert_eq!((&denied["path"], &denied["because"]), (&"/v1/9".into(), &"intention web -> api (deny)".into()));
}

#[test]
fn connections_are_seen_while_they_are_open_when_they_end_and_when_they_are_cut() {
    let (mesh, echo) = (Mesh::start(), EchoServer::start());
    let _db = mesh.serve("db", &echo.address());
    let web = mesh.call("web", &["db"]);
    mesh.allow("web", "db");
    let mut stream = connect(web.upstream("db"));
    assert_eq!(say(&mut stream, "hello").as_deref(), Some("hello"));

    let allowed = [("source", "web"), ("destination", "db"), ("verdict", "allow")];
    let edge = is_told(&mesh, &allowed, |edge| edge["count"] == 1 && edge["open"] == 1);
    assert_eq!((&edge["protocol"], &edge["bytes_in"]), (&"tcp".into(), &0.into()));

    mesh.deny("web", "db");
    assert!(is_closed(&mut stream));
    is_told(&mesh, &allowed, |edge| edge["bytes_in"] == 5 && edge["bytes_out"] == 5 && edge["open"] == 0 && edge["count"] == 1);
    is_told(&mesh, &[("verdict", "deny"), ("because", "intention web -> db (deny)")], |edge| edge["count"] == 1);
}

#[test]
fn what_is_seen_while_the_control_plane_is_away_is_told_once_when_it_is_back() {
    let mut shop = Shop::start(&[]);
    assert_eq!(shop.get("/before"), "200");
    is_told(&shop.mesh, &[("shape", "/before")], |edge| edge["count"] == 1);
    shop.mesh.kill_control();
    for _ in 0..25 {
        assert_eq!(shop.get("/away/1"), "200");
    }
    shop.mesh.start_control();

    is_told(&shop.mesh, &[("shape", "/away/{id}")], |edge| edge["count"] == 25);
    assert_eq!(shop.get("/after"), "200");
    is_told(&shop.mesh, &[("shape", "/after")], |edge| edge["count"] == 1);
    let edge = is_told(&shop.mesh, &[("shape", "/away/{id}")], |_| true);
    assert_eq!(edge["count"], 25, "once");
}

#[test]
fn a_call_that_reaches_no_instance_is_told_by_the_callers_sidecar() {
    let mut shop = Shop::start(&[]);
    assert_eq!(shop.get("/before"), "200");
    shop.api.kill_hard();
    eventually("nobody is there", || (shop.get("/gone/1") == "503").then_some(()));

    let edge = eventually("it is told", || {
        let is_wanted = |edge: &Value| edge["verdict"] == "failed" && edge["shape"] == "/gone/{id}";
        edges(&shop.mesh, "since_s=3600").into_iter().find(is_wanted)
    });
    assert_eq!((&edge["source"], &edge["destination"]), (&"web".into(), &"api".into()));
}
