//! As many connections as a sidecar takes. A program of its own: it needs nearly all files that a process may open.

#[path = "e2e/support/mod.rs"]
#[allow(dead_code, unused_imports)] // a part of what the end-to-end tests stand on
mod support;

use std::net::TcpStream;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Mesh, Process, connect, eventually, say};

/// The shipped `--max-connections`.
const SHIPPED: u64 = 10_000;
/// Files that a sidecar keeps for other things.
const OTHER_FILES: u64 = 1_000;

/// In a process of its own, for its files.
const ECHO: &str = include_str!("e2e/scripts/echo.py");

fn resident_mebibytes(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[test]
fn a_sidecar_serves_the_connections_that_it_promises_and_not_one_more() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let quarter = usize::try_from((hard - OTHER_FILES) / 2).unwrap().min(SHIPPED as usize) / 4;
    let all = 4 * quarter;
    println!("{all} connections, by the file limit of {hard}");
    let mesh = Mesh::start();
    let echo = Process::start_announcing(Command::new("python3").args(["-c", ECHO]), &mesh.path("echo.log"));
    let address = echo.line().trim_matches('"').to_owned();
    let (most, local) = (all.to_string(), ["--local", &address]);
    let mut api = mesh.sidecar("api", "api-1", &[&local[..], &["--max-connections", &most]].concat());
    let process = api.process().id();
    mesh.allow("*", "api");
    let callers: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(|name| mesh.call(name, &["api"])).collect();
    let refused = |reason: &str| api.metric("postern_connections_refused_total", &[&format!("reason=\"{reason}\"")]);
    let active = || api.metric("postern_connections_active", &["direction=\"inbound\""]) as usize;

    let mut held: Vec<TcpStream> = Vec::with_capacity(all);
    for caller in &callers[..4] {
        let upstream = caller.upstream("api").to_owned();
        for number in 0..quarter {
            let mut stream = connect(&upstream);
            assert!(say(&mut stream, "x").is_some(), "connection {number} of {quarter} of one peer");
            held.push(stream);
        }
        if held.len() < all {
            assert_eq!(say(&mut connect(&upstream), "x"), None, "its quarter is used up");
        }
    }
    assert!(refused("max_connections_per_peer") >= 3.0);
    assert_eq!(refused("max_connections"), 0.0);

    assert_eq!(say(&mut connect(callers[4].upstream("api")), "x"), None, "there is room for no more");

    assert!(refused("max_connections") >= 1.0);
    assert_eq!(active(), all);
    println!("{} MiB in the sidecar that serves them", resident_mebibytes(process));
    for stream in held.iter_mut().step_by(97) {
        assert!(say(stream, "y").is_some(), "all are served");
    }
    drop(held);
    eventually("all are gone", || (active() == 0).then_some(()));
    eventually("and there is room", || say(&mut connect(callers[4].upstream("api")), "x"));
}
