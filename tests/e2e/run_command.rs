//! `meshctl run`: a service and its sidecar, started and stopped as one.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{Mesh, Process, eventually};

fn run(mesh: &Mesh, service: &str, flags: &[&str], command: &[&str]) -> Command {
    let mut process = mesh.command("run");
    process.args(["--service", service, "--control", &mesh.grpc, "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    process.args(["--shutdown-delay", "0s"]);
    process.args(flags).arg("--").args(command);
    process
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let mesh = Mesh::start();
    let status = run(&mesh, "job", &[], &["sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(status.status.code(), Some(7), "{}", String::from_utf8_lossy(&status.stderr));
    let status = run(&mesh, "job", &[], &["sh", "-c", "kill -TERM $$"]).output().unwrap();
    assert_eq!(status.status.code(), Some(128 + 15));
    let status = run(&mesh, "job", &[], &["/nowhere/at-all"]).output().unwrap();
    assert_eq!(status.status.code(), Some(127));
    let status = run(&mesh, "job", &[], &["/etc/passwd"]).output().unwrap();
    assert_eq!(status.status.code(), Some(126));
    let status = run(&mesh, "job", &["--no-such-flag"], &["true"]).output().unwrap();
    assert_eq!(status.status.code(), Some(125));
    let status = run(&mesh, "job", &["--token", "postern1.aaaa.bbbb"], &["true"]).output().unwrap();
    assert_eq!(status.status.code(), Some(125), "{}", String::from_utf8_lossy(&status.stderr));
}

#[test]
fn the_command_knows_its_upstreams_and_no_secret() {
    let mesh = Mesh::start();
    let output = run(&mesh, "web", &["--upstream", "db=127.0.0.1:0"], &["env"])
        .env("POSTERN_RUN_TOKEN", mesh.token("web"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("POSTERN_SERVICE=web"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("POSTERN_UPSTREAM_DB=127.0.0.1:"), "{text}");
    assert!(!text.contains("postern1."), "the token reached the command: {text}");
}

#[test]
fn sigterm_deregisters_and_stops_the_command() {
    let mesh = Mesh::start();
    let marker = mesh.path("ended");
    let started = mesh.path("started");
    let script =
        format!("trap 'echo > {}; exit 3' TERM; echo > {}; while :; do sleep 0.1; done", marker.display(), started.display());
    let mut command = run(&mesh, "job", &["--id", "job-1"], &["sh", "-c", &script]);
    let mut process = Process::start(&mut command, &mesh.path("run.log"));
    mesh.wait_connected("job-1");
    eventually("the command runs", || started.exists().then_some(()));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.exit().code(), Some(3));
    assert!(marker.exists());
    eventually("it is deregistered", || (!mesh.is_connected("job-1")).then_some(()));
}
