//! Strangers against the real sidecar, and one that runs out of file descriptors.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;

use crate::support::{EchoServer, Mesh, connect, eventually, say};

fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// Hundredths of a second that a process has computed.
fn computed(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Both limits: a process may raise its soft one.
fn limit_files(process: u32, files: usize) {
    let arguments = [format!("--pid={process}"), format!("--nofile={files}:{files}")];
    assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
}

fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn client_hello() -> Vec<u8> {
    let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "api.mesh.internal".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn resets_from_strangers_leave_no_file_open_and_no_series_of_their_own() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let mut api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "a").is_some());
    let (process, inbound) = (api.process().id(), api.inbound.clone().unwrap());
    let files = open_files(process);
    let hello = client_hello();

    for cut in [0, 1, hello.len() / 2, hello.len()] {
        for _ in 0..100 {
            let mut stream = connect(&inbound);
            stream.write_all(&hello[..cut]).unwrap();
            reset(&stream);
        }
        assert!(say(&mut open, "b").is_some(), "an open connection is not disturbed");
        assert!(say(&mut connect(web.upstream("api")), "c").is_some(), "nor is a new one");
    }

    let failures = |labels: &[&str]| api.metric("postern_handshake_failures_total", labels);
    eventually("each reset is counted", || (failures(&[]) == 400.0).then_some(()));
    let words = ["peer_closed", "io", "wrong_name", "no_certificate", "alert"];
    let known: f64 = words.iter().map(|word| failures(&[&format!("reason=\"{word}\"")])).sum();
    assert_eq!(known, 400.0, "{}", api.admin("/metrics").1);
    eventually("every file is closed", || (open_files(process) <= files).then_some(()));
}

#[test]
fn out_of_file_descriptors_it_waits_and_serves_again_when_there_are_some() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let mut api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "a").is_some());
    let (process, inbound) = (api.process().id(), api.inbound.clone().unwrap());
    limit_files(process, open_files(process) + 20);

    let held: Vec<TcpStream> = (0..200).map(|_| connect(&inbound)).collect();
    eventually("it runs out", || api.log().contains("cannot accept a connection").then_some(()));
    let before = computed(process);
    std::thread::park_timeout(Duration::from_secs(2));
    let spent = computed(process) - before;

    assert!(spent < 100, "it computed for {spent} hundredths of 2 s: it spins");
    assert!(say(&mut open, "b").is_some(), "open connections are served meanwhile");
    let warnings = api.log().matches("cannot accept a connection").count();
    assert!(warnings < 100, "{warnings} warnings within seconds");
    held.iter().for_each(reset);
    drop(held);
    eventually("new ones are served again", || say(&mut connect(web.upstream("api")), "c"));
    assert!(say(&mut open, "d").is_some());
}
