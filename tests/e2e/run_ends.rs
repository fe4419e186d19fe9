//! The ends of `meshctl run` that nobody wished for.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Mesh, Process, eventually};

fn run(mesh: &Mesh, id: &str, flags: &[&str], script: &str) -> Command {
    let mut process = mesh.command("run");
    process.args(["--service", "job", "--id", id, "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    process.env("POSTERN_RUN_CONTROL", &mesh.grpc).env("POSTERN_RUN_SHUTDOWN_DELAY", "0s");
    process.args(flags).args(["--", "bash", "-c", script]);
    process
}

/// A script that writes its process id and stays.
fn staying(mesh: &Mesh, name: &str) -> String {
    let file = mesh.path(name).display().to_string();
    format!("echo $$ > {file}.new; mv {file}.new {file}; exec sleep 1000")
}

fn written_pid(mesh: &Mesh, name: &str) -> Pid {
    eventually("the command runs", || {
        let text = std::fs::read_to_string(mesh.path(name)).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    })
}

#[test]
fn kill_9_of_run_ends_its_command() {
    let mesh = Mesh::start();
    let mut process = Process::start(&mut run(&mesh, "job-1", &[], &staying(&mesh, "pid")), &mesh.path("run.log"));
    let command = written_pid(&mesh, "pid");
    process.kill_hard();
    eventually("the command has ended", || kill(command, None).is_err().then_some(()));
}

#[test]
fn a_sidecar_that_is_refused_stops_the_command_or_never_starts_it() {
    let mesh = Mesh::start();
    let marker = mesh.path("started");
    let touch = format!("echo > {}", marker.display());
    let refused = |flags: &[&str], words: &[&str]| {
        let output = run(&mesh, "job-9", flags, &touch).env("POSTERN_DATA_DIR", mesh.path("nobody")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{flags:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{flags:?}: no {word:?} in {text}");
        }
        assert!(!marker.exists(), "{flags:?}: the command was started");
    };
    refused(&[], &["no enrolment token", "token create"]);
    let revoked = mesh.json(&["token", "create", "--service", "job"]);
    mesh.meshctl(&["token", "revoke", revoked["id"].as_str().unwrap()]);
    refused(&["--token", revoked["token"].as_str().unwrap()], &["refused", "token create"]);
    let other = mesh.token("other");
    refused(&["--token", &other], &["other", "job"]);
    let file = mesh.path("token");
    std::fs::write(&file, "postern-op1.AAAA").unwrap();
    refused(&["--token-file", file.to_str().unwrap()], &["operator token", "not sent"]);
    let good = mesh.token("job");
    refused(
        &["--token", &good, "--control", "127.0.0.1:1", "--ready-timeout", "2s"],
        &["not ready within 2s", "--ready-timeout"],
    );
}

#[test]
fn an_id_that_runs_already_is_named() {
    let mesh = Mesh::start();
    let mut first = Process::start(&mut run(&mesh, "job-1", &[], &staying(&mesh, "pid")), &mesh.path("run.log"));
    written_pid(&mesh, "pid");
    let second = run(&mesh, "job-1", &[], "true").output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(125), "{text}");
    assert!(
        text.contains("job-1 already runs here") && text.contains(&first.id().to_string()) && text.contains("--id"),
        "{text}"
    );
    first.signal(Signal::SIGTERM);
    assert_eq!(first.exit().code(), Some(143), "the command ended by SIGTERM");
}

#[test]
fn a_second_signal_kills_a_command_that_does_not_listen() {
    let mesh = Mesh::start();
    let file = mesh.path("pid").display().to_string();
    let deaf = format!("trap '' TERM; echo $$ > {file}.new; mv {file}.new {file}; while :; do sleep 1; done");
    let mut process = Process::start(
        &mut run(&mesh, "job-1", &["--kill-timeout", "600s", "--shutdown-delay", "600s"], &deaf),
        &mesh.path("run.log"),
    );
    let command = written_pid(&mesh, "pid");
    process.signal(Signal::SIGTERM);
    eventually("it is deregistered", || (!mesh.is_connected("job-1")).then_some(()));
    assert!(process.is_running(), "the delay of the shutdown is not over");
    process.signal(Signal::SIGTERM);
    // The next one can only be told from the one before once that was taken.
    eventually("the command has ended", || {
        process.signal(Signal::SIGTERM);
        kill(command, None).is_err().then_some(())
    });
    assert_eq!(process.exit().code(), Some(137));
}

#[test]
fn the_command_has_its_own_file_limit_back_and_its_own_group() {
    let mesh = Mesh::start();
    let inner = run(&mesh, "job-1", &[], "ulimit -Sn; ps -o pgid= -p $$ | tr -d ' '; echo $$");
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -Sn 512; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    limited.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "512", "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines[1], lines[2], "it leads its group");
}
