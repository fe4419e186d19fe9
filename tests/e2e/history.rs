//! What was changed, the way back, and what a plan and an explanation tell people to do.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{EchoServer, Mesh, connect, curl, eventually, is_closed, meshctl_binary, say};

/// What a person pastes into a shell.
fn paste(mesh: &Mesh, text: &str) -> Output {
    let binaries = Path::new(meshctl_binary()).parent().unwrap().display();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-ec", text]).env_clear().env("PATH", path).env("POSTERN_DATA_DIR", mesh.path("data"));
    shell.output().unwrap()
}

/// The last paragraph of an explanation: the command.
fn suggested(explanation: &str) -> &str {
    explanation.split_once("to let it through").unwrap().1.split_once(":\n\n").unwrap().1
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn write(mesh: &Mesh, name: &str, text: &str) -> String {
    let file = mesh.path(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn what_was_changed_is_told_and_rolled_back_on_live_traffic() {
    let echo = EchoServer::start();
    let mut mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    let allowed = mesh.json(&["intention", "allow", "web", "api", "--reason", "the shop needs it"])["revision"].as_u64().unwrap();
    let mut open = connect(web.upstream("api"));
    assert_eq!(say(&mut open, "before").as_deref(), Some("before"));

    let file = write(&mesh, "none.yaml", "default: deny\nintentions: []\n");
    let applied = mesh.meshctl(&["intention", "apply", "-f", &file, "--yes", "--reason", "an incident"]);
    assert!(applied.contains("- web -> api (allow)") && applied.contains("closed 1 connection"), "{applied}");
    assert!(is_closed(&mut open));

    // All of it outlives the control plane.
    mesh.kill_control();
    mesh.start_control();
    let told = mesh.meshctl(&["intention", "history"]);
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("  ")).map(str::trim).collect();
    assert_eq!(
        lines,
        ["reason: an incident", "- web -> api (allow)", "reason: the shop needs it", "+ web -> api (allow)"],
        "{told}"
    );
    assert!(told.contains("intention.apply") && told.contains("from unix"), "{told}");
    let undo = applied.lines().find_map(|line| line.strip_prefix("to undo it: ")).unwrap().to_owned();

    let unasked = paste(&mesh, &undo);
    assert_eq!(unasked.status.code(), Some(2), "{}", said(&unasked));
    assert!(said(&unasked).contains("+ web -> api (allow)") && said(&unasked).contains("--yes"), "{}", said(&unasked));
    mesh.wait_connected("api-1");
    let done = paste(&mesh, &format!("{undo} --yes --wait 20s"));
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(say(&mut connect(web.upstream("api")), "again").as_deref(), Some("again"));

    let changes = mesh.json(&["intention", "history", "web", "api"]);
    let whats: Vec<&str> = changes.as_array().unwrap().iter().map(|change| change["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["intention.rollback", "intention.apply", "intention.set"]);
    assert_eq!(changes[2]["revision"], allowed);
    assert_eq!(mesh.json(&["intention", "history", "web", "db"]), Value::Array(Vec::new()));
    assert_eq!(mesh.json(&["intention", "history", "--limit", "1"]).as_array().unwrap().len(), 1);
    let again = mesh.meshctl(&["intention", "rollback", &allowed.to_string(), "--yes"]);
    assert!(again.contains("nothing to change"), "{again}");
    let future = mesh.run(&["intention", "rollback", "1000000", "--yes"]);
    assert_eq!(future.status.code(), Some(2));
    assert!(said(&future).contains("revision 1000000 is not there yet"), "{}", said(&future));
}

#[test]
fn a_change_says_how_many_connections_it_closed() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let (web, db) = (mesh.call("web", &["api"]), mesh.call("db", &["api"]));
    mesh.allow("*", "api");
    let mut open: Vec<_> = (0..3).map(|_| connect(web.upstream("api"))).collect();
    let mut other = connect(db.upstream("api"));
    for stream in open.iter_mut().chain([&mut other]) {
        assert_eq!(say(stream, "open").as_deref(), Some("open"));
    }
    let denied = mesh.json(&["intention", "deny", "web", "api", "--wait", "20s"]);
    assert_eq!((&denied["in_force"]["closed"], &denied["in_force"]["ended_requests"]), (&3.into(), &0.into()), "{denied}");
    assert_eq!(say(&mut other, "still").as_deref(), Some("still"));
    let again = mesh.json(&["intention", "audit", "web", "api", "--wait", "20s"]);
    assert_eq!(again["in_force"]["closed"], 0, "{again}");
    let both = mesh.meshctl(&["intention", "deny", "*", "api", "--wait", "20s"]);
    assert!(both.contains("closed 1 connection\n"), "{both}");
}

#[test]
fn a_change_that_came_between_is_refused_by_its_revision() {
    let mesh = Mesh::start();
    mesh.allow("web", "api");
    let revision = mesh.json(&["intention", "list"])["revision"].to_string();
    mesh.allow("web", "db");
    let file = write(&mesh, "file.yaml", "intentions: []\n");
    for arguments in [
        vec!["intention", "apply", "-f", file.as_str(), "--yes", "--if-revision", revision.as_str()],
        vec!["intention", "rollback", "1", "--yes", "--if-revision", revision.as_str()],
    ] {
        let refused = mesh.run(&arguments);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains("intentions changed in revision"), "{}", said(&refused));
    }
    assert_eq!(mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len(), 2);
}

#[test]
fn a_denied_connection_is_let_through_by_the_command_that_explain_prints() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.deny("*", "api");
    let explained = mesh.meshctl(&["intention", "explain", "web", "api"]);
    assert!(explained.contains("1 of 1 connected sidecars of the destination enforce this"), "{explained}");
    assert_eq!(suggested(&explained), "meshctl intention allow web api\n");
    let done = paste(&mesh, suggested(&explained));
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(say(&mut connect(web.upstream("api")), "hello").as_deref(), Some("hello"));

    mesh.meshctl(&["intention", "deny", "web", "api", "--for", "1h", "--wait", "20s"]);
    let explained = mesh.meshctl(&["intention", "explain", "web", "api"]);
    assert_eq!(suggested(&explained), "meshctl intention delete web api --temporary\n");
    assert!(paste(&mesh, suggested(&explained)).status.success());
    assert_eq!(say(&mut connect(web.upstream("api")), "again").as_deref(), Some("again"));
}

#[test]
fn a_denied_request_is_let_through_by_its_method_and_path_alone() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve_as("api", "http", &echo.address());
    mesh.apply("intentions: [{source: '*', destination: api, permissions: [{action: deny, path_prefix: /admin}, {action: allow, path_prefix: /}]}]");
    let ask = |method: &str, path: &str| {
        mesh.run(&["intention", "check", "web", "api", "--method", method, "--path", path]).status.code()
    };
    assert_eq!(ask("POST", "/admin/x"), Some(1));
    let explained = mesh.meshctl(&["intention", "explain", "web", "api", "--method", "POST", "--path", "/admin/x"]);
    let done = paste(&mesh, suggested(&explained));
    assert!(done.status.success(), "{}", said(&done));
    let answers = [ask("POST", "/admin/x"), ask("GET", "/admin/x"), ask("POST", "/admin/y"), ask("GET", "/a")];
    assert_eq!(answers, [Some(0), Some(1), Some(1), Some(0)], "{explained}");
}

#[test]
fn a_plan_names_what_has_no_effect_and_two_files_are_compared_without_a_control_plane() {
    let mesh = Mesh::start();
    mesh.token("web");
    mesh.token("api");
    let new = write(
        &mesh,
        "new.yaml",
        "intentions:
- {source: web, destination: api, action: allow}
- {source: '*', destination: api, action: allow}
- {source: web, destination: apii, permissions: [{action: allow}, {action: deny, path_prefix: /admin}]}
",
    );
    let plan = mesh.run(&["intention", "plan", "-f", &new]);
    assert_eq!(plan.status.code(), Some(1));
    let text = String::from_utf8_lossy(&plan.stderr).into_owned();
    for line in [
        "shadowed: web -> api: * -> api says the same",
        "shadowed: web -> apii, permission 1: permission 0 takes every request before it",
        "never matched: web -> apii names a service that nobody knows",
    ] {
        assert!(text.contains(line), "{text}");
    }

    let old = write(&mesh, "old.yaml", "intentions:\n- {source: web, destination: api, action: deny}\n");
    let offline = |arguments: &[&str]| {
        let mut command = Command::new(meshctl_binary());
        command.arg("intention").args(arguments).env_clear().env("POSTERN_HTTP", "http://127.0.0.1:1");
        command.output().unwrap()
    };
    let compared = offline(&["plan", "-f", &new, "--against", &old]);
    assert_eq!(compared.status.code(), Some(1), "{}", said(&compared));
    assert!(String::from_utf8_lossy(&compared.stdout).contains("~ web -> api (deny => allow)"), "{}", said(&compared));
    let broken = write(&mesh, "broken.yaml", "intentions: [{source: web}]\n");
    for (arguments, code) in [
        (vec!["plan", "-f", &new, "--against", &new], 0),
        (vec!["plan", "-f", &new, "--against", &broken], 2),
        (vec!["validate", "-f", &new], 0),
        (vec!["validate", &new, "--strict"], 1),
        (vec!["validate", &old, "--strict"], 0),
        (vec!["validate", "-f", &broken, "--strict"], 2),
        (vec!["validate"], 2),
        (vec!["check", "web", "api", "--file", &new], 0),
        (vec!["check", "web", "api", "--file", &old], 1),
        (vec!["check", "web", "api", "--file", &broken], 2),
        (vec!["explain", "web", "api", "--file", &old], 0),
    ] {
        let output = offline(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn the_steps_of_the_ci_example_do_what_they_say() {
    let mesh = Mesh::start();
    let workflow: Value = {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ci/github-actions.yaml")).unwrap();
        serde_yaml::from_str(&text).unwrap()
    };
    let steps = workflow["jobs"]["judge"]["steps"].as_array().unwrap();
    let run = |name: &str| {
        let step = steps.iter().find(|step| step["name"].as_str().is_some_and(|step| step.starts_with(name))).unwrap();
        let text = step["run"].as_str().unwrap().replace("git show \"origin/$GITHUB_BASE_REF:intentions.yaml\"", "cat old.yaml");
        let summary = mesh.path("summary").display().to_string();
        paste(&mesh, &format!("cd {}; GITHUB_STEP_SUMMARY={summary}\n{text}", mesh.path("").display()))
    };
    write(&mesh, "old.yaml", "intentions: []\n");
    write(
        &mesh,
        "intentions.yaml",
        "intentions:\n- {source: web, destination: api, action: allow}\n- {source: api, destination: db, action: allow}\n",
    );
    for name in ["Valid", "What has to", "What must not", "The difference"] {
        let output = run(name);
        assert!(output.status.success(), "{name}: {}", said(&output));
    }
    let summary = std::fs::read_to_string(mesh.path("summary")).unwrap();
    assert!(summary.starts_with("```diff\n+ api -> db (allow)\n"), "{summary}");
    write(&mesh, "intentions.yaml", "default: allow\nintentions:\n- {source: web, destination: api, action: deny}\n");
    assert!(!run("What has to").status.success());
    assert!(!run("What must not").status.success());
}

#[test]
fn a_change_is_watched_and_a_new_denial_is_told_with_the_way_back() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let (web, db) = (mesh.call("web", &["api"]), mesh.call("db", &["api"]));
    mesh.allow("web", "api");
    let none = write(&mesh, "none.yaml", "default: deny\nintentions: []\n");
    // Denied before the change, and no news.
    assert!(is_closed(&mut connect(db.upstream("api"))));
    eventually("the denial is seen", || {
        let socket = mesh.path("data/http.sock").display().to_string();
        let asked = curl(&["--unix-socket", &socket, "http://localhost/v1/edges?verdict=deny&by=pair"]);
        asked.contains("\"db\"").then_some(())
    });
    let mut watching = mesh.command("intention");
    watching.args(["apply", "-f", &none, "--yes", "--wait", "20s", "--watch", "20s"]);
    watching.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let watching = watching.spawn().unwrap();
    eventually("web is denied", || is_closed(&mut connect(web.upstream("api"))).then_some(()));
    let output = watching.wait_with_output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("so far: web -> api, because of default (deny)") && !text.contains("db -> api"), "{text}");
    let undo = text.lines().find_map(|line| line.strip_prefix("to take the change back: ")).unwrap();
    assert!(paste(&mesh, undo).status.success());
    eventually("web goes through again", || say(&mut connect(web.upstream("api")), "again"));

    let quiet = mesh.run(&["intention", "apply", "-f", &none, "--yes", "--merge", "--watch", "2s"]);
    assert_eq!(quiet.status.code(), Some(0), "nothing changes, and nothing is watched: {}", said(&quiet));
}
