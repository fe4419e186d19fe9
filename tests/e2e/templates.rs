//! Configuration that is pushed to a command: files from templates, and variables.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{EchoServer, Mesh, Process, eventually, http_get};

fn run(mesh: &Mesh, flags: &[&str], script: &str) -> Command {
    let mut process = mesh.command("run");
    process.args(["--service", "web", "--id", "web-1", "--control", &mesh.grpc, "--admin", "127.0.0.1:0"]);
    process.args(["--listen", "127.0.0.1:0", "--shutdown-delay", "0s", "--kill-timeout", "5s"]);
    process.args(flags).args(["--", "bash", "-c", script]);
    process
}

fn start(mesh: &Mesh, flags: &[&str], script: &str) -> Process {
    Process::start(&mut run(mesh, flags, script), &mesh.path("run.log"))
}

/// Whatever the command, its end and what it said.
fn ended(mesh: &Mesh, flags: &[&str], script: &str) -> (Option<i32>, String) {
    let output = run(mesh, flags, script).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout))
}

/// Lets the sidecars of `web` read all keys that begin so.
fn grant(mesh: &Mesh, prefix: &str) {
    let rules = format!("key_prefix \"{prefix}\" {{ policy = \"read\" }}");
    mesh.meshctl(&["acl", "policy", "set", "web-config", "--rules", &rules]);
    mesh.meshctl(&["acl", "role", "set", "web-config", "--policy", "web-config", "--service", "web"]);
}

fn put(mesh: &Mesh, key: &str, value: &str) {
    mesh.meshctl(&["kv", "put", key, value]);
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[track_caller]
fn wait_for(path: &Path, text: &str) {
    eventually(&format!("{} holds {text:?}", path.display()), || read(path).contains(text).then_some(()));
}

/// Messages that the control plane sent to sidecars.
fn pushes(mesh: &Mesh) -> f64 {
    let (_, text) = http_get(&mesh.http, "/metrics");
    let line = text.lines().find(|line| line.starts_with("postern_control_pushes_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Tells of its start in `started`, and of what it finds in `out` at each SIGHUP in `seen`.
const FOLLOWS: &str = "trap 'cat out >> seen' HUP; echo $$ >> started; while :; do sleep 0.1; done";

#[test]
fn a_changed_value_is_written_and_signalled_and_nothing_else_is_sent() {
    let mesh = Mesh::start();
    grant(&mesh, "app/");
    put(&mesh, "app/color", "red");
    std::fs::write(mesh.path("in.tmpl"), "color {{ kv('app/color') }}\n").unwrap();
    let mut process = start(&mesh, &["--template", "in.tmpl:out:HUP"], FOLLOWS);
    wait_for(&mesh.path("started"), "\n");
    let out = mesh.path("out");
    assert_eq!(read(&out), "color red\n", "it is there before the command");
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);

    let before = pushes(&mesh);
    for n in 0..5 {
        put(&mesh, &format!("app/other-{n}"), "x");
    }
    put(&mesh, "app/color", "blue");
    wait_for(&mesh.path("seen"), "color blue\n");
    assert_eq!(pushes(&mesh) - before, 1.0, "only what it asked for is sent, once");
    assert_eq!(read(&mesh.path("started")).lines().count(), 1, "it was not restarted");

    // A template that fails keeps the file and says why.
    mesh.meshctl(&["kv", "delete", "app/color"]);
    wait_for(&mesh.path("run.log"), "there is no key");
    assert_eq!(read(&out), "color blue\n");
    put(&mesh, "app/color", "green");
    wait_for(&mesh.path("seen"), "color green\n");
    mesh.meshctl(&["acl", "role", "delete", "web-config"]);
    wait_for(&mesh.path("run.log"), "may not read the key");
    assert_eq!(read(&out), "color green\n");
    process.signal(Signal::SIGTERM);
    process.exit();
}

#[test]
fn a_changed_variable_restarts_the_command_and_not_its_sidecar() {
    let mesh = Mesh::start();
    grant(&mesh, "app/config/");
    put(&mesh, "app/config/db_url", "one");
    let script = "echo \"$DB_URL $POOL\" >> seen; exec sleep 1000";
    let mut process = start(&mesh, &["--env-prefix", "app/config/"], script);
    wait_for(&mesh.path("seen"), "one \n");
    put(&mesh, "app/config/db_url", "two");
    wait_for(&mesh.path("seen"), "two \n");
    assert!(mesh.is_connected("web-1"));

    // What makes no variable is named, and the command goes on with what it has.
    put(&mesh, "app/config/bad-name", "x");
    wait_for(&mesh.path("run.log"), "\"app/config/bad-name\"");
    mesh.meshctl(&["kv", "delete", "app/config/bad-name"]);
    put(&mesh, "app/config/pool", "3");
    wait_for(&mesh.path("seen"), "two 3\n");
    assert_eq!(read(&mesh.path("seen")).lines().count(), 3, "one start for each set of variables");
    let log = process.log();
    assert!(!log.contains("deregistered"), "{log}");
    assert_eq!(log.matches("connected to the control plane").count(), 1, "{log}");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit().code(), Some(143));
}

#[test]
fn a_rendered_list_follows_instances() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let list = "{% for i in service('db') %}server {{ i.id }} {{ i.address }}:{{ i.port }} {{ i.meta.zone }};\n{% endfor %}";
    std::fs::write(mesh.path("in.tmpl"), list).unwrap();
    let _process = start(&mesh, &["--template", "in.tmpl:out:none"], FOLLOWS);
    wait_for(&mesh.path("started"), "\n");
    let out = mesh.path("out");
    assert_eq!(read(&out), "");
    let serve = |id: &str| mesh.sidecar("db", id, &["--local", &echo.address(), "--meta", "zone=a"]);
    let line = |sidecar: &crate::support::Sidecar| format!("server {} {} a;\n", sidecar.id, sidecar.inbound.as_deref().unwrap());
    let (mut first, second) = (serve("db-1"), serve("db-2"));
    let both = line(&first) + &line(&second);
    eventually("both are listed", || (read(&out) == both).then_some(()));
    first.process().signal(Signal::SIGTERM);
    eventually("one is left", || (read(&out) == line(&second)).then_some(()));
    assert_eq!(read(&mesh.path("started")).lines().count(), 1);
}

#[test]
fn what_is_not_allowed_or_not_there_is_named_with_the_cure() {
    let mesh = Mesh::start();
    put(&mesh, "app/color", "red");
    std::fs::write(mesh.path("in.tmpl"), "a\n{{ kv('app/color') }}").unwrap();
    let flags = ["--template", "in.tmpl:out", "--ready-timeout", "3s"];
    let (code, said) = ended(&mesh, &flags, "cat out");
    assert_eq!(code, Some(125), "{said}");
    for word in ["in.tmpl:2:4: ", "\"app/color\"", "meshctl acl policy set", "meshctl acl role set", "--service web"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert!(!mesh.path("out").exists());
    let (code, said) = ended(&mesh, &["--env-prefix", "app/", "--ready-timeout", "3s"], "true");
    assert!(code == Some(125) && said.contains("key_prefix \"app/\""), "{said}");

    grant(&mesh, "app/");
    let (code, said) = ended(&mesh, &flags, "cat out");
    assert!(code == Some(0) && said.ends_with("a\nred"), "{said}");

    std::fs::write(mesh.path("in.tmpl"), "{{ kv('app/size') }}").unwrap();
    let (code, said) = ended(&mesh, &flags, "true");
    assert!(code == Some(125) && said.contains("meshctl kv put app/size"), "{said}");
    std::fs::write(mesh.path("in.tmpl"), "{% for %}").unwrap();
    let (code, said) = ended(&mesh, &flags, "true");
    assert!(code == Some(125) && said.contains("in.tmpl:1"), "{said}");

    std::fs::write(mesh.path("in.tmpl"), "{% for n in range(65) %}{{ kv('app/' ~ n, '') }}{% endfor %}").unwrap();
    let (code, said) = ended(&mesh, &flags, "true");
    assert!(code == Some(125) && said.contains("at most 64"), "{said}");
}

#[test]
fn more_values_than_one_sidecar_may_have_are_refused_and_said() {
    let mesh = Mesh::start();
    grant(&mesh, "app/");
    let entries: Vec<_> =
        (0..1001).map(|n| serde_json::json!({ "key": format!("app/k{n:04}"), "flags": 0, "value": "eA==" })).collect();
    std::fs::write(mesh.path("keys.json"), serde_json::to_string(&entries).unwrap()).unwrap();
    mesh.meshctl(&["kv", "import", "keys.json"]);
    std::fs::write(mesh.path("in.tmpl"), "{{ kv_list('app/')|length }} ").unwrap();
    let (code, said) = ended(&mesh, &["--template", "in.tmpl:out", "--ready-timeout", "3s"], "true");
    assert!(code == Some(125) && said.contains("more than 1000 values"), "{said}");
    mesh.meshctl(&["kv", "delete", "app/k0000"]);
    let (code, said) = ended(&mesh, &["--template", "in.tmpl:out"], "cat out");
    assert!(code == Some(0) && said.ends_with("1000 "), "{said}");
}

#[test]
fn a_restart_of_the_control_plane_loses_nothing() {
    let mut mesh = Mesh::start();
    grant(&mesh, "app/");
    put(&mesh, "app/color", "red");
    std::fs::write(mesh.path("in.tmpl"), "color {{ kv('app/color') }}\n").unwrap();
    let mut process = start(&mesh, &["--template", "in.tmpl:out:HUP"], FOLLOWS);
    wait_for(&mesh.path("started"), "\n");
    mesh.kill_control();
    wait_for(&mesh.path("run.log"), "not connected to the control plane");
    assert!(process.is_running());
    assert_eq!(read(&mesh.path("out")), "color red\n");
    mesh.start_control();
    put(&mesh, "app/color", "blue");
    wait_for(&mesh.path("seen"), "color blue\n");
    assert_eq!(read(&mesh.path("seen")), "color blue\n", "a reconnect alone signals nothing");
    assert_eq!(read(&mesh.path("started")).lines().count(), 1);
}

/// The block of the page that follows this comment.
fn block<'a>(page: &'a str, marker: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<!-- {marker} -->\n```")).unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_example_of_the_page_works() {
    let page = include_str!("../../docs/templates.md");
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let db = mesh.serve("db", &echo.address());
    eventually("db is healthy", || {
        let shown = mesh.json(&["service", "show", "db"]);
        (shown["instances"][0]["health"] == "healthy").then_some(())
    });
    std::fs::write(mesh.path("upstreams.tmpl"), block(page, "file: upstreams.tmpl")).unwrap();
    std::fs::write(mesh.path("web"), "#!/bin/bash\necho \"$POOL\"; cat upstreams.conf\n").unwrap();
    std::fs::set_permissions(mesh.path("web"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let where_to = format!(" --control {} --admin 127.0.0.1:0 --listen 127.0.0.1:0 -- ", mesh.grpc);
    let script = block(page, "run").to_owned() + &block(page, "start").replace(" -- ", &where_to);
    // The binary under its name.
    let mut shell = mesh.command("run");
    let meshctl = shell.get_program().to_owned();
    std::os::unix::fs::symlink(meshctl, mesh.path("meshctl")).unwrap();
    let path = format!("{}:{}", mesh.path("").display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-ec", &script])
        .current_dir(mesh.path(""))
        .env_clear()
        .envs(shell.env("PATH", path).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = bash.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("20\n# Written by meshctl run.\npool 20;\nserver {};\n", db.inbound.as_deref().unwrap());
    assert!(said.ends_with(&expected), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
