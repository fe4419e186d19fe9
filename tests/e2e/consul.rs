//! Clients made for Consul, and the key-value store as they and `meshctl kv` use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Mesh, Process, eventually};

/// A script of this directory with the packages that `tests/run` installs.
fn node(name: &str) -> Command {
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("consul/node_modules");
    assert!(packages.join("consul").exists(), "{} is missing; tests/run makes it", packages.display());
    let mut command = Command::new("node");
    command.env("NODE_PATH", packages);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/scripts").join(name));
    command
}

fn operator_token(mesh: &Mesh) -> String {
    std::fs::read_to_string(mesh.path("data/operator.token")).unwrap().trim().to_owned()
}

fn host_and_port(mesh: &Mesh) -> (&str, &str) {
    mesh.http.rsplit_once(':').unwrap()
}

#[test]
fn the_npm_package_consul_works_unchanged() {
    let mesh = Mesh::start();
    let (host, port) = host_and_port(&mesh);
    let host_name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let output = node("consul_client.js").args([host, port, &operator_token(&mesh), &host_name]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), r#"{"ok":true}"#, "{errors}");
}

/// Milliseconds since 1970 in a line of `leader.js`.
fn time_of(line: &str, word: &str) -> u128 {
    let time = line.strip_prefix(word).unwrap_or_else(|| panic!("{line:?} is not {word:?}"));
    time.trim().parse().unwrap()
}

fn now() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}

const TTL: u128 = 2;
const LOCK_DELAY: u128 = 2;

fn candidate(mesh: &Mesh, name: &str) -> Process {
    let (host, port) = host_and_port(mesh);
    let mut command = node("leader.js");
    let (ttl, delay) = (TTL.to_string(), LOCK_DELAY.to_string());
    command.args([host, port, &operator_token(mesh), name, "service/leader", &ttl, &delay]);
    Process::start_announcing(&mut command, &mesh.path(&format!("{name}.log")))
}

#[test]
fn of_two_candidates_one_leads_and_the_other_after_its_death() {
    let mesh = Mesh::start_with(&["--test-periods"]);
    let mut first = candidate(&mesh, "first");
    time_of(&first.line(), "leads ");
    let second = candidate(&mesh, "second");
    eventually("the second candidate has a session", || {
        let sessions = mesh.run(&["kv", "get", "service/leader", "-o", "json"]);
        assert!(sessions.status.success());
        let held: Value = serde_json::from_slice(&sessions.stdout).unwrap();
        assert_eq!(held["value"], "first", "the first leads as long as it lives");
        (second.id() > 0 && now_is_past(&held)).then_some(())
    });
    let killed = now();
    first.kill_hard();
    let leads = time_of(&second.line(), "leads ");
    assert!(leads >= killed + LOCK_DELAY * 1000, "{} ms after the death", leads - killed);

    // One that is only paused finds that it does not lead any more.
    let third = candidate(&mesh, "third");
    second.signal(Signal::SIGSTOP);
    let leads = time_of(&third.line(), "leads ");
    second.signal(Signal::SIGCONT);
    time_of(&second.line(), "ends ");
    let held = mesh.json(&["kv", "get", "service/leader"]);
    assert_eq!(held["value"], "third");
    assert_eq!(held["lock_index"], 3, "each leader has a number of its own");
    assert!(leads > killed);
}

/// Whether the lock is older than three times the life of a session without renewal.
fn now_is_past(held: &Value) -> bool {
    static SINCE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    assert!(held["session"].is_string());
    SINCE.get_or_init(Instant::now).elapsed() > Duration::from_secs(6)
}

/// One connection to the socket of the control plane.
struct Api(BufReader<UnixStream>);

impl Api {
    fn connect(mesh: &Mesh) -> std::io::Result<Self> {
        UnixStream::connect(mesh.path("data/http.sock")).map(|stream| Self(BufReader::new(stream)))
    }

    /// The body of the answer.
    fn send(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(String::from_utf8(body).unwrap())
    }
}

const WRITERS: usize = 16;

#[test]
fn a_control_plane_that_is_killed_loses_no_key_that_it_acknowledged() {
    let mut mesh = Mesh::start();
    let mut acknowledged = vec![0_u64; WRITERS];
    for _ in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = acknowledged
            .iter()
            .enumerate()
            .map(|(writer, from)| {
                let (mut api, stop, from) = (Api::connect(&mesh).unwrap(), stop.clone(), *from);
                std::thread::spawn(move || {
                    let mut last = from;
                    while !stop.load(Ordering::Relaxed) {
                        match api.send("PUT", &format!("/v1/kv/writer/{writer}"), &(last + 1).to_string()) {
                            Ok(answer) if answer == "true" => last += 1,
                            Ok(answer) => panic!("{answer}"),
                            Err(_) => break,
                        }
                    }
                    last
                })
            })
            .collect();
        let mut reader = Api::connect(&mesh).unwrap();
        eventually("every writer has written", || {
            let keys: Value = serde_json::from_str(&reader.send("GET", "/v1/kv/?keys", "").unwrap()).unwrap();
            (keys.as_array().unwrap().len() == WRITERS).then_some(())
        });
        let busy = Instant::now();
        eventually("they write for a while", || (busy.elapsed() > Duration::from_millis(500)).then_some(()));
        mesh.kill_control();
        stop.store(true, Ordering::Relaxed);
        acknowledged = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        mesh.start_control();
        let mut api = Api::connect(&mesh).unwrap();
        for (writer, last) in acknowledged.iter_mut().enumerate() {
            let stored: u64 = api.send("GET", &format!("/v1/kv/writer/{writer}?raw"), "").unwrap().parse().unwrap();
            assert!(stored == *last || stored == *last + 1, "writer {writer}: {last} was acknowledged, {stored} is stored");
            *last = stored;
        }
    }
    assert!(acknowledged.iter().all(|last| *last > 3), "{acknowledged:?}");
}

#[test]
fn keys_are_read_and_changed_from_the_command_line() {
    let mesh = Mesh::start();
    let code = |arguments: &[&str]| mesh.run(arguments).status.code();
    assert_eq!(code(&["kv", "get", "app/name"]), Some(1));
    assert_eq!(code(&["kv", "list"]), Some(1));
    mesh.meshctl(&["kv", "put", "app/name", "postern", "--flags", "7"]);
    assert_eq!(mesh.meshctl(&["kv", "get", "app/name"]), "postern", "nothing is added to a value");
    let shown = mesh.json(&["kv", "get", "app/name"]);
    assert_eq!((&shown["value"], &shown["flags"]), (&json!("postern"), &json!(7)));
    let index = shown["modify_index"].to_string();
    assert_eq!(code(&["kv", "put", "app/name", "x", "--cas", "1"]), Some(1));
    assert_eq!(code(&["kv", "put", "app/name", "x", "--cas", &index]), Some(0));
    let file = mesh.path("value");
    std::fs::write(&file, [0, 159, 146, 150]).unwrap();
    mesh.meshctl(&["kv", "put", "app/binary", &format!("@{}", file.display())]);
    assert_eq!(mesh.run(&["kv", "get", "app/binary"]).stdout, [0, 159, 146, 150]);
    assert_eq!(mesh.json(&["kv", "get", "app/binary"])["value_base64"], "AJ+Slg==");
    mesh.meshctl(&["kv", "put", "app/a b/ü"]);
    assert_eq!(mesh.meshctl(&["kv", "list", "app/"]), "app/a b/ü\napp/binary\napp/name\n");
    assert_eq!(mesh.meshctl(&["kv", "list", "--separator", "/"]), "app/\n");
    assert_eq!(mesh.json(&["kv", "get", "--recurse", "app/"]).as_array().unwrap().len(), 3);

    let export = mesh.meshctl(&["kv", "export", "app/"]);
    let entries: Value = serde_json::from_str(&export).unwrap();
    assert_eq!(entries[2], json!({ "key": "app/name", "flags": 0, "value": "eA==" }));
    let dump = mesh.path("dump.json");
    std::fs::write(&dump, &export).unwrap();
    mesh.meshctl(&["kv", "delete", "app/name"]);
    assert_eq!(code(&["kv", "delete", "app/binary", "--cas", "1"]), Some(1));
    mesh.meshctl(&["kv", "delete", "--recurse", "app/"]);
    assert_eq!(code(&["kv", "list"]), Some(1));
    let name = dump.display().to_string();
    assert!(mesh.meshctl(&["kv", "import", &name]).contains("3 keys"));
    assert_eq!(mesh.meshctl(&["kv", "export"]), export, "export and import change nothing");
    mesh.meshctl(&["kv", "import", "--prefix", "copy/", &name]);
    assert_eq!(mesh.meshctl(&["kv", "get", "copy/app/name"]), "x");

    for (arguments, words) in [
        (vec!["kv", "get", ""], "a key is not empty"),
        (vec!["kv", "put", "a", "@/nowhere"], "/nowhere"),
        (vec!["kv", "put", "a", "x", "--flags", "many"], "many"),
        (vec!["kv", "import", "/nowhere"], "/nowhere"),
    ] {
        let output = mesh.run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{arguments:?}");
    }
    std::fs::write(&dump, r#"[{"key":"a","value":"not base64!"}]"#).unwrap();
    let output = mesh.run(&["kv", "import", &name]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the value of a is not base64"));
}

#[test]
fn a_watch_runs_its_command_at_each_change_and_outlives_the_control_plane() {
    let mut mesh = Mesh::start();
    mesh.meshctl(&["kv", "put", "app/a", "1"]);
    let seen = mesh.path("seen");
    let mut command = mesh.command("kv");
    command.args(["watch", "--recurse", "app/", "--", "sh", "-c", "cat >> seen; echo >> seen"]);
    let _watch = Process::start(&mut command, &mesh.path("watch.log"));
    let lines = |count: usize| {
        eventually("the command has run", || {
            let text = std::fs::read_to_string(&seen).unwrap_or_default();
            let states: Vec<Value> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
            assert!(states.len() <= count, "{text}");
            (states.len() == count).then_some(states)
        })
    };
    assert_eq!(lines(1)[0][0]["Value"], "MQ==");
    mesh.meshctl(&["kv", "put", "other", "1"]);
    mesh.meshctl(&["kv", "put", "app/a", "2"]);
    assert_eq!(lines(2)[1][0]["Value"], "Mg==", "the other key is none of its business");
    mesh.kill_control();
    mesh.start_control();
    mesh.meshctl(&["kv", "put", "app/b", "3"]);
    assert_eq!(lines(3)[2].as_array().unwrap().len(), 2);
    mesh.meshctl(&["kv", "delete", "--recurse", "app/"]);
    assert_eq!(lines(4)[3], json!([]));
}
