//! Who calls whom, as the sidecars of real services saw it: the commands that show it.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{EchoServer, Mesh, Pair, Process, Service, Terminal, connect, eventually, http_get, say};

/// nginx answers everything but `/missing/…` with 200.
fn pair_in(mesh: Mesh) -> Pair {
    Pair::of(mesh, "http", |mesh| {
        Service::nginx(mesh, "", "location / { return 200 'ok'; } location /missing/ { return 500 'no'; }")
    })
}

fn pair() -> Pair {
    pair_in(Mesh::start())
}

/// `meshctl tail` that has begun to follow.
fn tail(mesh: &Mesh, arguments: &[&str]) -> Process {
    let mut command = mesh.command("tail");
    let log = mesh.path(&format!("tail{}.log", arguments.concat()));
    let process = Process::start_announcing(command.args(["-o", "json"]).args(arguments), &log);
    eventually("it follows", || process.log().contains("following").then_some(()));
    process
}

#[track_caller]
fn told(tail: &Process) -> Value {
    serde_json::from_str(&tail.line()).unwrap()
}

/// Calls until `tail` has shown one that holds: a sidecar hears after the first that it is followed.
#[track_caller]
fn shown(tail: &Process, call: impl Fn(), holds: impl Fn(&Value) -> bool) -> Value {
    call();
    loop {
        let decision = told(tail);
        if holds(&decision) {
            return decision;
        }
        call();
    }
}

#[test]
fn what_audit_lets_through_is_reported_with_paths_and_counts() {
    let pair = pair();
    let mesh = &pair.mesh;
    let none = mesh.run(&["intention", "audited"]);
    assert_eq!(none.status.code(), Some(0), "{}", String::from_utf8_lossy(&none.stdout));
    mesh.meshctl(&["intention", "audit", "web", "api", "--wait", "20s"]);
    for number in 0..7 {
        assert_eq!(http_get(pair.upstream(), &format!("/v1/invoices/{number}?secret=1")).0, 200);
    }
    assert_eq!(http_get(pair.upstream(), "/missing/x").0, 500);
    let report = eventually("the report has all of them", || {
        let report: Value = serde_json::from_slice(&mesh.run(&["intention", "audited", "-o", "json"]).stdout).unwrap();
        let count: u64 = report["edges"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum();
        (count == 8).then_some(report)
    });
    let row = &report["edges"][0];
    for (field, value) in
        [("source", "web"), ("destination", "api"), ("verdict", "audit"), ("method", "GET"), ("shape", "/v1/invoices/{id}")]
    {
        assert_eq!(row[field], value, "{row}");
    }
    assert_eq!(row["count"], 7);
    assert!(!report.to_string().contains("secret"), "{report}");
    let table = mesh.run(&["intention", "audited", "--service", "web", "--since", "1h"]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert_eq!(table.status.code(), Some(1), "{text}");
    assert!(text.contains("/v1/invoices/{id}") && text.contains("8 calls of 1 pairs would have been denied since"), "{text}");

    let top = mesh.json(&["top"]);
    assert_eq!((&top[0]["source"], &top[0]["destination"], &top[0]["count"]), (&"web".into(), &"api".into(), &8.into()));
    assert!(mesh.meshctl(&["top", "--destination", "api", "--sort", "denied"]).starts_with("SOURCE"));
    let graph = mesh.json(&["graph"]);
    assert_eq!(graph["edges"][0]["verdicts"]["audit"], 8, "{graph}");
    assert_eq!((&graph["services"][0]["name"], &graph["services"][1]["layer"]), (&"web".into(), &1.into()));
    assert!(mesh.meshctl(&["graph"]).contains("  -> api  audit"));
    assert!(mesh.meshctl(&["graph", "-o", "dot"]).contains("\"web\" -> \"api\""));
    assert!(mesh.meshctl(&["graph", "-o", "mermaid"]).contains("flowchart LR"));
}

#[test]
fn tail_shows_what_is_decided_and_explain_has_the_last_of_it() {
    let pair = pair();
    let mesh = &pair.mesh;
    let follower = tail(mesh, &["--service", "web"]);
    let upstream = pair.upstream();
    let call = |path: &'static str| move || drop(http_get(upstream, path));
    let denied = shown(&follower, call("/x?secret=1"), |decision| decision["verdict"] == "deny");
    for (field, value) in [("source", "web"), ("destination", "api"), ("instance", "api-1"), ("method", "GET"), ("path", "/x")] {
        assert_eq!(denied[field], value, "{denied}");
    }
    assert_eq!((&denied["status"], &denied["because"]), (&403.into(), &"default (deny)".into()), "{denied}");
    mesh.allow("web", "api");
    let allowed = shown(&follower, call("/y"), |decision| decision["verdict"] == "allow");
    assert_eq!((&allowed["path"], &allowed["because"]), (&"/y".into(), &"intention web -> api (allow)".into()));
    let explained = mesh.json(&["intention", "explain", "web", "api"]);
    assert!(explained["recent"].as_array().unwrap().iter().any(|decision| decision["verdict"] == "deny"), "{explained}");
    assert!(mesh.meshctl(&["intention", "explain", "web", "api"]).contains("last decisions seen on this edge"));
}

#[test]
fn tail_filters_ends_and_connects_again() {
    let mut pair = pair();
    let first = tail(&pair.mesh, &["--verdict", "audit", "--destination", "api"]);
    let upstream = pair.upstream().to_owned();
    drop(http_get(&upstream, "/denied"));
    pair.mesh.meshctl(&["intention", "audit", "web", "api", "--wait", "20s"]);
    let decision = shown(&first, || drop(http_get(&upstream, "/audited")), |_| true);
    assert_eq!(decision["verdict"], "audit", "a filter lets nothing else through");
    drop(first);

    let mut ended = tail(&pair.mesh, &["--max", "2"]);
    shown(&ended, || drop(http_get(&upstream, "/a")), |_| true);
    drop(http_get(&upstream, "/b"));
    assert!(ended.exit().success());
    let mut timed = tail(&pair.mesh, &["--for", "1s"]);
    assert!(timed.exit().success());

    let mut again = tail(&pair.mesh, &[]);
    pair.mesh.kill_control();
    eventually("it says that the stream ended", || again.log().contains("connecting again").then_some(()));
    pair.mesh.start_control();
    eventually("it follows again", || again.log().contains("following again").then_some(()));
    pair.mesh.wait_connected("api-1");
    shown(&again, || drop(http_get(&upstream, "/c")), |decision| decision["path"] == "/c");
    again.signal(Signal::SIGINT);
    assert!(again.exit().success(), "Ctrl-C ends it in order");
}

#[test]
fn what_was_seen_outlives_a_kill_of_the_control_plane() {
    let mut pair = pair_in(Mesh::start_with(&["--test-periods"]));
    pair.mesh.allow("web", "api");
    for _ in 0..5 {
        assert_eq!(http_get(pair.upstream(), "/kept").0, 200);
    }
    let count = |mesh: &Mesh| mesh.json(&["top"])[0]["count"].clone();
    eventually("it was told", || (count(&pair.mesh) == 5).then_some(()));
    // Every second here, every minute otherwise.
    let is_written = |mesh: &Mesh| http_get(&mesh.http, "/metrics").1.contains("postern_control_edges_unwritten 0\n");
    eventually("it was written", || is_written(&pair.mesh).then_some(()));
    pair.mesh.kill_control();
    pair.mesh.start_control();
    assert_eq!(count(&pair.mesh), 5);
}

#[test]
fn open_connections_are_shown_and_end_with_their_sidecar() {
    let mesh = Mesh::start();
    let echo = EchoServer::start();
    let mut db = mesh.serve("db", &echo.address());
    let web = mesh.call("web", &["db"]);
    mesh.allow("web", "db");
    let mut connection = connect(web.upstream("db"));
    say(&mut connection, "hello");
    let open = |mesh: &Mesh| mesh.json(&["top"])[0]["open"].as_u64();
    eventually("it is open", || (open(&mesh) == Some(1)).then_some(()));
    db.process().kill_hard();
    eventually("nothing is known to be open there", || (open(&mesh) == Some(0)).then_some(()));
}

#[test]
fn top_fills_a_terminal_and_gives_it_back() {
    let pair = pair();
    pair.mesh.allow("web", "api");
    assert_eq!(http_get(pair.upstream(), "/").0, 200);
    eventually("it was told", || pair.mesh.json(&["top"]).as_array().is_some_and(|rows| !rows.is_empty()).then_some(()));
    let mut terminal = Terminal::start(&pair.mesh.command("top"));
    terminal.until("\u{1b}[?1049h");
    terminal.until("web");
    terminal.press("s");
    terminal.until("by errors");
    terminal.press("/nobody");
    terminal.until("no calls");
    terminal.press("\u{1b}");
    terminal.until("1 of 1 pairs");
    terminal.press("q");
    assert!(terminal.exit().success());
    terminal.until("\u{1b}[?1049l");

    let mut terminal = Terminal::start(&pair.mesh.command("top"));
    terminal.until("SOURCE");
    terminal.press("\u{3}");
    assert!(terminal.exit().success(), "Ctrl-C");
    terminal.until("\u{1b}[?1049l");
}
