//! A deny ends what it denies while it runs, and nothing else.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::{Mesh, Pair, Process, Service, connect, eventually, http_get, script};

/// A client that says what happens to it, a line of JSON each time.
fn client(mesh: &Mesh, name: &str, arguments: &[&str]) -> Process {
    Process::start_announcing(
        script(name).args(arguments),
        &mesh.path(&format!("{name}-{}.log", arguments.join("-").replace('/', "_"))),
    )
}

#[track_caller]
fn said(process: &Process) -> Value {
    serde_json::from_str(&process.line()).unwrap()
}

/// What `http_service.py` says of an upload or an endless download, past the mesh.
fn seen(pair: &Pair, name: &str) -> Value {
    serde_json::from_str(&http_get(&pair.service.address, &format!("/seen?name={name}")).1).unwrap()
}

const ALL_BUT_BOTH: &str = "[{action: deny, path_exact: /pkg.Service/Both}, {action: allow, path_prefix: /pkg.Service/}]";

#[test]
fn a_deny_of_a_method_ends_its_streams_and_the_others_on_the_connection_go_on() {
    let pair = Pair::start("grpc", |mesh| Service::start(mesh, "grpc_service.py"));
    pair.mesh.allow("web", "api");
    let mut live = client(&pair.mesh, "grpc_client.py", &["live", pair.upstream()]);
    assert_eq!(said(&live)["ready"], true);
    pair.permit(ALL_BUT_BOTH);
    for what in ["the stream that ran", "a new one"] {
        let ended = said(&live);
        assert_eq!(ended["code"], "PERMISSION_DENIED", "{what}: {ended}");
        let details = ended["details"].as_str().unwrap();
        assert!(details.contains("intention web -> api (deny, permission 0)"), "{what}: {ended}");
    }
    assert!(live.exit().success(), "the other streams went on");
    eventually("the service is told", || {
        pair.service.requests().iter().any(|line| line["event"] == "ended" && line["method"] == "Both").then_some(())
    });
    assert!(pair.api.log().contains("reason=\"revoked\""), "{}", pair.api.log());
}

#[test]
fn a_deny_of_everything_ends_every_grpc_stream_with_its_reason() {
    let pair = Pair::start("grpc", |mesh| Service::start(mesh, "grpc_service.py"));
    pair.mesh.allow("web", "api");
    let streams: Vec<_> =
        (0..3).map(|number| client(&pair.mesh, "grpc_client.py", &["ticks", pair.upstream(), &number.to_string()])).collect();
    for stream in &streams {
        assert_eq!(said(stream)["ready"], true);
    }
    pair.mesh.deny("web", "api");
    for stream in &streams {
        let ended = said(stream);
        assert_eq!(ended["code"], "PERMISSION_DENIED", "{ended}");
        assert!(ended["details"].as_str().unwrap().contains("intention web -> api (deny)"), "{ended}");
    }
    eventually("the service is told", || {
        let over = pair.service.requests().iter().filter(|line| line["event"] == "over").count();
        (over == 3).then_some(())
    });
}

/// Begins a download that has no end, and has read some of it.
fn endless(pair: &Pair, name: &str) -> TcpStream {
    let mut stream = connect(pair.upstream());
    write!(stream, "GET /endless?name={name}&pause=0.005 HTTP/1.1\r\nHost: api\r\n\r\n").unwrap();
    let mut start = vec![0; 100_000];
    stream.read_exact(&mut start).unwrap();
    assert!(start.starts_with(b"HTTP/1.1 200"));
    stream
}

/// Reads to the end; whether the end was one that HTTP takes for whole.
fn is_cut(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => !rest.ends_with(b"0\r\n\r\n"),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            true
        }
    }
}

fn a_deny_cuts_downloads_and_uploads(protocol: &str) {
    let pair = Pair::allowed(protocol);
    let download = endless(&pair, "down");
    let mut upload = connect(pair.upstream());
    upload.write_all(b"POST /upload?name=up HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").unwrap();
    eventually("the service has part of the upload", || (seen(&pair, "up")["bytes"] == 5).then_some(()));
    let h2 = client(&pair.mesh, "http2_live.py", &[pair.upstream()]);
    assert_eq!(said(&h2)["ready"], true);

    pair.permit("[{action: deny, path_exact: /endless}, {action: deny, path_exact: /upload}, {action: allow, path_prefix: /}]");

    assert!(is_cut(download), "a download that is cut looks whole");
    let mut answer = String::new();
    // It may be told before its connection ends.
    let _ = upload.read_to_string(&mut answer);
    assert!(["", "HTTP/1.1 403"].contains(&answer.get(..12).unwrap_or("")), "{answer}");
    let of_h2 = said(&h2);
    assert_eq!(of_h2["cut"], true, "{of_h2}");
    assert_eq!(of_h2["other"], 200, "the other streams of the connection go on: {of_h2}");
    assert_eq!(of_h2["again"], 403, "{of_h2}");
    eventually("the service is told of each", || {
        let gone = |name: &str| seen(&pair, name)["gone"] == true;
        (gone("down") && gone("up") && gone("h2")).then_some(())
    });
    assert_eq!(seen(&pair, "up"), serde_json::json!({"bytes": 5, "whole": false, "gone": true}));
}

#[test]
fn a_deny_cuts_downloads_and_uploads_of_an_http_1_service() {
    a_deny_cuts_downloads_and_uploads("http");
}

#[test]
fn a_deny_cuts_downloads_and_uploads_of_an_http_2_service() {
    a_deny_cuts_downloads_and_uploads("http2");
}

#[test]
fn a_deny_closes_web_sockets_of_that_path_alone() {
    let pair = Pair::start("http", |mesh| Service::start(mesh, "websocket_service.py"));
    pair.mesh.allow("web", "api");
    let denied = client(&pair.mesh, "websocket_client.py", &["stay", pair.upstream(), "/room/1"]);
    let mut stays = client(&pair.mesh, "websocket_client.py", &["stay", pair.upstream(), "/room/2"]);
    let talks = client(&pair.mesh, "websocket_client.py", &["chatter", pair.upstream()]);
    for socket in [&denied, &stays, &talks] {
        assert_eq!(said(socket)["ready"], true);
    }
    pair.permit("[{action: deny, path_exact: /room/1}, {action: deny, path_exact: /chat}, {action: allow, path_prefix: /}]");
    assert_eq!(said(&denied)["clean"], false);
    assert_eq!(said(&talks)["clean"], false);
    assert!(stays.is_running());
    let closed =
        |path: &str| pair.service.requests().iter().filter(|line| line["event"] == "closed" && line["path"] == path).count();
    eventually("the service is told", || (closed("/room/1") == 1 && closed("/chat") == 1).then_some(()));
    assert_eq!(closed("/room/2"), 0);
}

#[test]
fn a_temporary_intention_that_ends_ends_what_it_allowed() {
    let pair = Pair::start("http", |mesh| Service::start(mesh, "http_service.py"));
    pair.mesh.meshctl(&["intention", "allow", "web", "api", "--for", "5s"]);
    let download = endless(&pair, "brief");
    assert!(is_cut(download));
    let (status, _) = http_get(pair.upstream(), "/");
    assert_eq!(status, 403);
    eventually("the service is told", || (seen(&pair, "brief")["gone"] == true).then_some(()));
}

#[test]
fn every_request_in_flight_at_a_deny_ends_and_none_reaches_the_service_afterwards() {
    let pair = Pair::allowed("http");
    let downloads: Vec<_> = (0..10).map(|number| endless(&pair, &format!("down-{number}"))).collect();
    let upstream = pair.upstream();
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let waits: Vec<_> = (0..10).map(|_| scope.spawn(|| http_get(upstream, "/sleep?seconds=300").0)).collect();
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut statuses = BTreeMap::<u16, usize>::new();
                    while !is_over.load(Ordering::SeqCst) {
                        asked.fetch_add(1, Ordering::SeqCst);
                        *statuses.entry(http_get(upstream, "/x").0).or_default() += 1;
                    }
                    statuses
                })
            })
            .collect();
        let sleeping = || pair.service.requests().iter().filter(|request| request["path"] == "/sleep").count();
        eventually("all wait", || (sleeping() == 10 && asked.load(Ordering::SeqCst) > 100).then_some(()));
        pair.mesh.deny("web", "api");
        let reached = pair.service.requests().len();
        let asked_by_then = asked.load(Ordering::SeqCst);
        eventually("many more are asked", || (asked.load(Ordering::SeqCst) > asked_by_then + 100).then_some(()));
        is_over.store(true, Ordering::SeqCst);
        for wait in waits {
            // Over HTTP/1 the connection that a request is cut off on is closed; it may hear why before.
            let status = wait.join().unwrap();
            assert!([0, 403, 502].contains(&status), "{status}");
        }
        for caller in callers {
            let statuses = caller.join().unwrap();
            println!("{statuses:?}");
            assert!(statuses[&403] > 0);
        }
        assert_eq!(pair.service.requests().len(), reached, "something reached the service after the deny was in force");
    });
    for download in downloads {
        assert!(is_cut(download));
    }
    let active = || pair.api.metric("postern_connections_active", &["direction=\"inbound\""]);
    println!("{} connections are open", active());
}
