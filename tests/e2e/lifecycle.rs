//! How `control` and `proxy` start, listen to signals and end: systemd, SIGHUP, SIGTERM.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{EchoServer, Mesh, PATIENCE, Process, connect, eventually, free_port, is_closed, say};

/// The socket of a service supervisor, as sd_notify(3) speaks to it.
struct Supervisor(UnixDatagram);

impl Supervisor {
    /// Listens, and says so in the environment of `command`, with a watchdog of 300 ms.
    fn of(mesh: &Mesh, command: &mut Command) -> Self {
        let path = mesh.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "300000");
        Self(socket)
    }

    /// What is said until `word` is among it.
    #[track_caller]
    fn until(&self, word: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while !heard.iter().any(|said: &String| said.starts_with(word)) {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("waited for {word} ({error}): {heard:?}"));
            heard.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        heard
    }
}

fn control(mesh: &Mesh, data: &str) -> Command {
    let mut command = mesh.command("control");
    command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]).arg("--data-dir").arg(mesh.path(data));
    command.arg("--seal-key-file").arg(mesh.path(&format!("{data}.seal")));
    command
}

fn proxy(mesh: &Mesh, service: &str, options: &[&str]) -> Command {
    let mut command = mesh.command("proxy");
    command.args(["--service", service, "--id", &format!("{service}-1"), "--control", &mesh.grpc, "--admin", "127.0.0.1:0"]);
    command.args(["--listen", "127.0.0.1:0"]).args(options);
    command
}

#[test]
fn systemd_hears_from_the_control_plane() {
    let mesh = Mesh::start();
    let mut command = control(&mesh, "other");
    let supervisor = Supervisor::of(&mesh, &mut command);
    let mut process = Process::start(&mut command, &mesh.path("other.log"));
    let heard = supervisor.until("READY=1");
    for status in ["STATUS=starting", "STATUS=serving: HTTP API on 127.0.0.1:"] {
        assert!(heard.iter().any(|said| said.starts_with(status)), "{heard:?}");
    }
    for _ in 0..3 {
        supervisor.until("WATCHDOG=1");
    }
    process.signal(Signal::SIGTERM);
    let heard = supervisor.until("STOPPING=1");
    assert!(heard.iter().any(|said| said.starts_with("STATUS=stopping")), "{heard:?}");
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn systemd_hears_that_a_sidecar_is_ready_when_it_can_serve_and_not_before() {
    let echo = EchoServer::start();
    let mut mesh = Mesh::start();
    let token = mesh.token("api");
    mesh.kill_control();
    let mut command = proxy(&mesh, "api", &["--local", &echo.address()]);
    command.env("POSTERN_PROXY_TOKEN", token);
    let supervisor = Supervisor::of(&mesh, &mut command);
    let mut process = Process::start(&mut command, &mesh.path("api.log"));
    supervisor.until("STATUS=starting");
    for _ in 0..5 {
        let heard = supervisor.until("WATCHDOG=1");
        assert!(!heard.contains(&"READY=1".to_owned()), "it has no SVID yet: {heard:?}");
    }
    mesh.start_control();
    let heard = supervisor.until("READY=1");
    assert!(heard.iter().any(|said| said.starts_with("STATUS=serving: inbound on 127.0.0.1:")), "{heard:?}");
    process.signal(Signal::SIGTERM);
    supervisor.until("STOPPING=1");
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn a_process_that_hangs_feeds_no_watchdog() {
    let mesh = Mesh::start();
    let mut command = control(&mesh, "other");
    let supervisor = Supervisor::of(&mesh, &mut command);
    let process = Process::start(&mut command, &mesh.path("other.log"));
    supervisor.until("READY=1");
    supervisor.until("WATCHDOG=1");
    process.signal(Signal::SIGSTOP);
    supervisor.0.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 4096];
    let silent = std::iter::repeat_with(|| supervisor.0.recv(&mut buffer)).take(20).any(|heard| heard.is_err());
    assert!(silent, "a watchdog of another thread would hide that it hangs");
    process.signal(Signal::SIGCONT);
}

#[test]
fn bad_settings_end_with_2_so_that_systemd_does_not_start_again() {
    let mesh = Mesh::start();
    let config = mesh.path("bad.yaml");
    std::fs::write(&config, "htpp: 127.0.0.1:0\n").unwrap();
    let config = config.display().to_string();
    let taken = mesh.http.clone();
    let cases: [(&str, Vec<&str>, &str); 8] = [
        ("control", vec!["--config", &config], "htpp"),
        ("control", vec!["--config", "/nowhere/x.yaml"], "/nowhere/x.yaml"),
        ("control", vec!["--svid-ttl", "1s"], "--svid-ttl"),
        ("control", vec!["--http", &taken, "--data-dir", "elsewhere"], "--http"),
        ("proxy", vec!["--service", "web", "--config", &config], "htpp"),
        ("proxy", vec!["--service", "web", "--token", "postern1.aaaa.bbbb"], "--token"),
        ("proxy", vec!["--service", "web", "--token-file", "/nowhere/token"], "/nowhere/token"),
        ("proxy", vec![], "--service"),
    ];
    for (command, arguments, word) in cases {
        let output = mesh.command(command).args(&arguments).env("POSTERN_CONTROL_GRPC", "127.0.0.1:0").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command} {arguments:?}: {text}");
        assert!(text.contains(word), "{command} {arguments:?} does not name {word}: {text}");
    }
}

#[test]
fn a_token_that_is_spent_ends_with_2_and_an_empty_file_is_no_token() {
    let mesh = Mesh::start();
    let token = mesh.token("api");
    let spend = |id: &str| {
        let mut command = mesh.command("run");
        command.args(["--service", "api", "--id", id, "--control", &mesh.grpc, "--shutdown-delay", "0s"]);
        command.args(["--admin", "127.0.0.1:0", "--", "true"]).env("POSTERN_RUN_TOKEN", &token).output().unwrap()
    };
    let first = spend("api-1");
    assert_eq!(first.status.code(), Some(0), "{}", String::from_utf8_lossy(&first.stderr));
    let second = spend("api-2");
    let text = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(125), "{text}");
    assert!(text.contains("token create"), "{text}");
    let output = proxy(&mesh, "api", &["--id", "api-3"]).env("POSTERN_PROXY_TOKEN", &token).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));

    // What SetCredential= of the unit gives once the token file is gone.
    std::fs::write(mesh.path("empty"), "").unwrap();
    let empty = mesh.path("empty").display().to_string();
    let stranger = mesh.path("data-of-nobody");
    let mut command = proxy(&mesh, "api", &["--token-file", &empty]);
    let output = command.env("POSTERN_DATA_DIR", &stranger).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("no enrolment token"), "{text}");
}

#[test]
fn sighup_reads_the_settings_of_a_control_plane_again_and_names_what_needs_a_restart() {
    let mesh = Mesh::start();
    let config = mesh.path("control.yaml");
    let write = |text: &str| std::fs::write(&config, text).unwrap();
    write("log-level: warn\n");
    std::fs::copy(mesh.path("seal.key"), mesh.path("other.seal")).unwrap();
    let mut command = control(&mesh, "other");
    command.arg("--config").arg(&config);
    let log = mesh.path("other.log");
    let mut process = Process::start_announcing(command.arg("--print-addresses"), &log);
    process.line();
    let hangup_until = |words: &str| {
        process.signal(Signal::SIGHUP);
        eventually(&format!("the log says {words:?}"), || process.log().contains(words).then_some(()));
    };
    write("log-level: debug\n");
    hangup_until("--log-level is debug now");
    write("log-level: debug\nsvid-ttl: 1h\n");
    hangup_until("--svid-ttl is 1h now; it needs a restart");
    write("log-level: debug\nsvid_ttl: 1h\n");
    hangup_until("settings were not read again");
    assert!(process.log().contains("svid_ttl"), "the key is named");
    std::fs::remove_file(&config).unwrap();
    hangup_until("No such file");
    write("log-level: debug\n");
    hangup_until("nothing has changed");
    std::fs::write(mesh.path("other.seal"), "replaced\n").unwrap();
    hangup_until("the file of --seal-key-file");
    assert!(process.is_running());
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn sighup_at_a_sidecar_leaves_open_connections_alone() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let config = mesh.path("api.yaml");
    std::fs::write(&config, "log-level: info\ndrain: 10s\n").unwrap();
    let config_text = config.display().to_string();
    let mut api = mesh.sidecar("api", "api-1", &["--local", &echo.address(), "--config", &config_text]);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "before").is_some());

    std::fs::write(&config, "log-level: debug\ndrain: 20s\n").unwrap();
    api.process().signal(Signal::SIGHUP);
    eventually("the level has changed", || api.log().contains("--log-level is debug now").then_some(()));
    eventually("a restart is asked for", || api.log().contains("--drain is 20s now; it needs a restart").then_some(()));
    assert!(say(&mut open, "after").is_some());
}

#[test]
fn sigterm_drains_a_sidecar_and_the_second_one_ends_it() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let mut api = mesh.sidecar("api", "api-1", &["--local", &echo.address(), "--drain", "600s"]);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "before").is_some());

    api.process().signal(Signal::SIGTERM);
    eventually("it is deregistered", || (!mesh.is_connected("api-1")).then_some(()));
    assert!(say(&mut open, "while it drains").is_some(), "an open connection goes on");
    assert!(api.process().is_running());
    api.process().signal(Signal::SIGTERM);
    assert_eq!(api.process().exit().code(), Some(0));
    assert!(is_closed(&mut open));
}

#[test]
fn a_drain_is_over_when_the_last_connection_has_ended() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let mut api = mesh.sidecar("api", "api-1", &["--local", &echo.address(), "--drain", "600s"]);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "before").is_some());
    api.process().signal(Signal::SIGINT);
    eventually("it is deregistered", || (!mesh.is_connected("api-1")).then_some(()));
    drop(open);
    assert_eq!(api.process().exit().code(), Some(0));
}

#[test]
fn sigterm_reaches_a_sidecar_that_waits_for_the_control_plane() {
    let mut mesh = Mesh::start();
    let token = mesh.token("web");
    mesh.kill_control();
    let mut command = proxy(&mesh, "web", &["--upstream", "api=127.0.0.1:0"]);
    let mut process = Process::start(command.env("POSTERN_PROXY_TOKEN", token), &mesh.path("web.log"));
    eventually("it says what it waits for", || process.log().contains("control plane").then_some(()));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit().code(), Some(0));
}

#[test]
fn sigterm_lets_a_control_plane_answer_what_it_was_asked() {
    let echo = EchoServer::start();
    let mut mesh = Mesh::start();
    let mut api = mesh.serve("api", &echo.address());
    mesh.wait_connected("api-1");
    api.process().signal(Signal::SIGSTOP);
    let mut waiting = mesh.command("intention");
    waiting.args(["allow", "web", "api", "--wait", "60s"]);
    let mut waiting = Process::start(&mut waiting, &mesh.path("waiting.log"));
    eventually("the intention is written", || {
        (mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len() == 1).then_some(())
    });
    mesh.control().signal(Signal::SIGTERM);
    assert_eq!(mesh.control().exit().code(), Some(0));
    waiting.exit();
    assert!(waiting.log().contains("in force on") && waiting.log().contains("api-1"), "{}", waiting.log());
    api.process().signal(Signal::SIGCONT);
}

#[test]
fn a_second_signal_ends_a_control_plane_that_waits_for_a_request() {
    let mut mesh = Mesh::start();
    let token = std::fs::read_to_string(mesh.path("data/operator.token")).unwrap();
    let mut half = connect(&mesh.http);
    let (http, token) = (mesh.http.clone(), token.trim());
    write!(
        half,
        "POST /v1/tokens HTTP/1.1\r\nHost: {http}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
    )
    .unwrap();
    eventually("the request is under way", || mesh.meshctl(&["status"]).contains("revision").then_some(()));
    mesh.control().signal(Signal::SIGTERM);
    eventually("it goes down", || mesh.control().log().contains("SIGTERM: the control plane goes down").then_some(()));
    mesh.control().signal(Signal::SIGINT);
    assert_eq!(mesh.control().exit().code(), Some(0));
    assert!(mesh.control().log().contains("SIGINT again"), "{}", mesh.control().log());
}

#[test]
fn a_control_plane_that_is_gone_is_found_by_doctor() {
    let mut mesh = Mesh::start();
    let healthy = mesh.run(&["doctor"]);
    assert_eq!(healthy.status.code(), Some(0), "{}", String::from_utf8_lossy(&healthy.stdout));
    mesh.kill_control();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let doctor = |arguments: &[&str]| mesh.command("doctor").args(arguments).env("POSTERN_HTTP", &nowhere).output().unwrap();
    let gone = doctor(&[]);
    let text = String::from_utf8_lossy(&gone.stdout);
    assert_eq!(gone.status.code(), Some(1), "{text}");
    assert!(text.contains("control_plane_unreachable") && text.contains(&nowhere) && text.contains("meshctl control"), "{text}");
    let gone = doctor(&["-o", "json"]);
    let findings: serde_json::Value = serde_json::from_slice(&gone.stdout).unwrap();
    assert_eq!(findings[0]["code"], "control_plane_unreachable");
    let unreadable = mesh.command("doctor").env("POSTERN_TOKEN", "postern1.x.y").output().unwrap();
    assert_eq!(unreadable.status.code(), Some(2));
    let others = mesh.run(&["status"]);
    assert_eq!(others.status.code(), Some(2));
}
