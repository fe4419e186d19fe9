//! HTTP between real clients and real servers: what goes in comes out, as it comes, and no faster than it is taken.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::support::{Mesh, Pair, Service, connect, curl, eventually, free_port, run_script};

const SIZE: u64 = 200 << 20;
/// What a sidecar may keep of a stream that nobody reads, at all its places, buffers of sockets included.
const HELD: u64 = 48 << 20;

/// `SIZE` bytes that are not the same everywhere, and their SHA-256.
fn large_file(mesh: &Mesh) -> (String, String) {
    let file = mesh.path("large").display().to_string();
    let line = format!("openssl enc -aes-128-ctr -nosalt -pass pass:x -in /dev/zero 2>/dev/null | head -c {SIZE} > {file}");
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    let sum = sha256_of(&file);
    (file, sum)
}

fn sha256_of(file: &str) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned()
}

/// Both ways, called over HTTP/1 and over HTTP/2.
fn bulk_is_carried_whole(protocol: &str) {
    let pair = Pair::allowed(protocol);
    let (file, sum) = large_file(&pair.mesh);
    let whole = format!("{SIZE} {sum}");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let up = format!("http://{}/hash", pair.upstream());
        assert_eq!(curl(&[version, "-T", &file, "-H", "Transfer-Encoding: chunked", "-H", "Expect:", &up]), whole, "{version}");
        let arrived = pair.mesh.path("arrived").display().to_string();
        let echo = format!("http://{}/echo", pair.upstream());
        curl(&[version, "-T", &file, "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-o", &arrived, &echo]);
        assert_eq!(sha256_of(&arrived), sum, "{version}");
    }
}

#[test]
fn two_hundred_mib_are_carried_whole_both_ways_to_an_http_1_service() {
    bulk_is_carried_whole("http");
}

#[test]
fn two_hundred_mib_are_carried_whole_both_ways_to_an_http_2_service() {
    bulk_is_carried_whole("http2");
}

#[test]
fn nginx_gives_a_large_file_whole_and_only_the_range_that_was_asked_for() {
    let pair = Pair::start("http", |mesh| Service::nginx(mesh, "", ""));
    pair.mesh.allow("web", "api");
    let (file, sum) = large_file(&pair.mesh);
    std::fs::rename(&file, pair.mesh.path("nginx/www/large")).unwrap();
    let (url, arrived) = (format!("http://{}/large", pair.upstream()), pair.mesh.path("arrived").display().to_string());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        curl(&[version, "-o", &arrived, &url]);
        assert_eq!(sha256_of(&arrived), sum);
        let range = curl(&[version, "-o", &arrived, "-w", "%{http_code} %{size_download}", "-r", "1000-1999", &url]);
        assert_eq!(range, "206 1000");
    }
}

fn a_body_streams(protocol: &str) {
    let pair = Pair::allowed(protocol);
    for scenario in [
        "download_streams_over_http1",
        "download_streams_over_http2",
        "upload_streams_over_http1",
        "upload_streams_over_http2",
        "both_ways_at_once",
    ] {
        // Under HTTP/1.1 Hypercorn takes no more of a request once it answers.
        if (protocol, scenario) != ("http", "both_ways_at_once") {
            run_script("http_client.py", &[scenario, pair.upstream()]);
        }
    }
}

#[test]
fn the_first_part_of_a_body_arrives_before_the_last_is_sent_to_an_http_1_service() {
    a_body_streams("http");
}

#[test]
fn the_first_part_of_a_body_arrives_before_the_last_is_sent_to_an_http_2_service() {
    a_body_streams("http2");
}

fn memory(pair: &Pair) -> [f64; 2] {
    [&pair.web, &pair.api].map(|sidecar| sidecar.metric("process_resident_memory_bytes", &[]))
}

fn who_does_not_read_holds_up_who_writes(protocol: &str, listen: &str) {
    // Takes connections, and nothing of what is sent on them.
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let locations = format!(
        "location = /sink {{ client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1; proxy_pass http://{}; }}",
        sink.local_addr().unwrap()
    );
    let pair = Pair::start(protocol, |mesh| Service::nginx(mesh, listen, &locations));
    pair.mesh.allow("web", "api");
    std::fs::File::create(pair.mesh.path("nginx/www/large")).unwrap().set_len(1 << 30).unwrap();
    curl(&[&format!("http://{}/", pair.upstream())]);
    let before = memory(&pair);
    let is_bounded = |what: &str, sent: u64| {
        println!("{protocol}, {what}: stands still after {sent} bytes");
        assert!(sent < HELD, "{what}: {sent} bytes are on their way");
        for (now, before) in memory(&pair).iter().zip(before) {
            assert!(now - before < HELD as f64, "{what}: a sidecar went from {before} to {now} bytes");
        }
    };
    for reader in ["slow_reader_over_http1", "slow_reader_over_http2"] {
        run_script("http_client.py", &[reader, pair.upstream()]);
        let sent = eventually("the service has heard that its reader is gone", || {
            let requests = pair.service.requests();
            let last = requests.iter().rev().find(|request| request["path"] == "/large")?;
            (requests.iter().filter(|request| request["path"] == "/large").count() == if reader.ends_with('1') { 1 } else { 2 })
                .then(|| last["sent"].as_str().unwrap().parse().unwrap())
        });
        is_bounded(reader, sent);
    }
    is_bounded("slow_service", run_script("http_client.py", &["slow_service", pair.upstream()]).as_u64().unwrap());
}

#[test]
fn who_does_not_read_holds_up_who_writes_to_an_http_1_service() {
    who_does_not_read_holds_up_who_writes("http", "");
}

#[test]
fn who_does_not_read_holds_up_who_writes_to_an_http_2_service() {
    who_does_not_read_holds_up_who_writes("http2", "http2");
}

#[test]
fn wrk_and_h2load_see_no_error_from_an_http_1_service() {
    no_error_under_load("http", "");
}

#[test]
fn wrk_and_h2load_see_no_error_from_an_http_2_service() {
    no_error_under_load("http2", "http2");
}

fn no_error_under_load(protocol: &str, listen: &str) {
    let pair = Pair::start(protocol, |mesh| Service::nginx(mesh, listen, "location = /empty { return 204; }"));
    pair.mesh.allow("web", "api");
    let url = format!("http://{}/", pair.upstream());
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c64", "-d10s", "--timeout", "30s", &url]);
    let mut h2load = Command::new("h2load");
    h2load.args(["-c8", "-m16", "-D10", "-N60", &url]);
    // Side by side, for ten seconds.
    let [wrk, h2load] = [wrk, h2load].map(|mut load| load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let [wrk, h2load] = [wrk, h2load].map(|load| String::from_utf8_lossy(&load.wait_with_output().unwrap().stdout).into_owned());
    println!("{wrk}{h2load}");
    assert!(wrk.contains("Requests/sec") && !wrk.contains("Socket errors") && !wrk.contains("Non-2xx"), "{wrk}");
    let succeeded = h2load.lines().find_map(|line| {
        let (before, _) = line.strip_prefix("requests: ")?.split_once(" succeeded, 0 failed, 0 errored, 0 timeout")?;
        before.rsplit(' ').next()?.parse::<f64>().ok()
    });
    let succeeded = succeeded.unwrap_or_else(|| panic!("{h2load}"));
    assert!(succeeded > 1_000.0, "{h2load}");
    let refused = pair.api.metric("postern_http_requests_total", &["verdict=\"deny\""]);
    let seen = pair.api.metric("postern_http_requests_total", &["direction=\"inbound\"", "peer=\"web\"", "code=\"200\""]);
    assert!(refused == 0.0 && seen >= succeeded, "{refused} denied, {seen} counted");
}

/// Everything that a service says to one connection, by hand: it answers each whole head with the next of `answers`.
struct Canned {
    address: String,
    heard: std::sync::Arc<parking_lot::Mutex<String>>,
}

impl Canned {
    fn start(answers: &'static [&'static str], until: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let canned = Self { address: listener.local_addr().unwrap().to_string(), heard: Default::default() };
        let heard = canned.heard.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let heard = heard.clone();
                std::thread::spawn(move || {
                    let (mut of_this, mut byte) = (String::new(), [0]);
                    for answer in answers {
                        loop {
                            let Ok(1) = stream.read(&mut byte) else { return };
                            of_this.push(char::from(byte[0]));
                            heard.lock().push(char::from(byte[0]));
                            if of_this.ends_with(until) {
                                break;
                            }
                        }
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        canned
    }
}

/// What comes back for these bytes, until `enough` of it is there or the connection ends.
fn raw(address: &str, bytes: &str, enough: impl Fn(&str) -> bool) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes.as_bytes()).unwrap();
    read_until(&mut stream, enough)
}

fn read_until(stream: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !enough(&text) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            Err(error) => panic!("{error} after {text:?}"),
        }
    }
    text
}

#[test]
fn an_answer_before_the_end_of_the_request_is_heard() {
    for (protocol, listen) in [("http", ""), ("http2", "http2")] {
        let pair = Pair::start(protocol, |mesh| Service::nginx(mesh, listen, "location = /status { return 413; }"));
        pair.mesh.allow("web", "api");
        for _ in 0..20 {
            run_script("http_client.py", &["an_early_answer_is_heard", pair.upstream()]);
        }
    }
}

#[test]
fn trailers_pass_both_ways() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-After\r\n\r\n2\r\nok\r\n0\r\nX-After: this\r\n\r\n";
    let service = Canned::start(Box::leak(Box::new([answer])), "0\r\nx-sent-after: that\r\n\r\n");
    let mesh = Mesh::start();
    let _api = mesh.serve_as("api", "http", &service.address);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let request = "POST / HTTP/1.1\r\nHost: api\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\nTrailer: \
                   X-Sent-After\r\n\r\n3\r\nabc\r\n0\r\nX-Sent-After: that\r\n\r\n";
    let heard = raw(web.upstream("api"), request, |text| text.ends_with("this\r\n\r\n"));
    assert!(heard.to_lowercase().contains("0\r\nx-after: this\r\n\r\n"), "{heard}");
    let sent = service.heard.lock().to_lowercase();
    assert!(sent.ends_with("3\r\nabc\r\n0\r\nx-sent-after: that\r\n\r\n"), "{sent}");
}

#[test]
fn a_caller_that_expects_100_continue_is_told_to_go_on() {
    let pair = Pair::allowed("http");
    let mut stream = connect(pair.upstream());
    stream.write_all(b"POST /hash HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
    let told = read_until(&mut stream, |text| text.ends_with("\r\n\r\n"));
    assert!(told.starts_with("HTTP/1.1 100 "), "{told}");
    stream.write_all(b"hello").unwrap();
    let answer = read_until(&mut stream, |text| text.contains("5 2cf24dba5fb0a30e26e83b2ac5b9e29e"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_denied_caller_that_expects_100_continue_is_not_told_to_go_on() {
    let pair = Pair::start("http", |mesh| Service::start(mesh, "http_service.py"));
    let request = "POST /hash HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let told = raw(pair.upstream(), request, |text| text.contains("\"because\""));
    assert!(told.starts_with("HTTP/1.1 403 "), "{told}");
    assert_eq!(pair.service.requests().len(), 0);
}

#[test]
fn one_connection_carries_many_requests_and_pipelined_ones_are_answered_in_order() {
    let pair = Pair::allowed("http");
    let paths = ["/status?code=200", "/status?code=404", "/sleep?seconds=0.3", "/status?code=204", "/status?code=500"];
    let requests: String = paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: api\r\n\r\n")).collect();
    let answers = raw(pair.upstream(), &requests, |text| text.matches("HTTP/1.1 ").count() == 5 && text.ends_with("status\n"));
    let codes: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["200", "404", "200", "204", "500"], "{answers}");
}

#[test]
fn a_pipelined_request_that_is_denied_is_answered_in_its_place() {
    let pair = Pair::allowed("http");
    pair.permit("[{action: deny, path_prefix: /secret}, {action: allow, path_prefix: /}]");
    let requests: String =
        ["/a", "/secret/x", "/b"].iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: api\r\n\r\n")).collect();
    let answers = raw(pair.upstream(), &requests, |text| text.matches("HTTP/1.1 ").count() == 3 && text.ends_with("ok\n"));
    let codes: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["200", "403", "200"], "{answers}");
    let paths: Vec<_> = pair.service.requests().iter().map(|request| request["path"].clone()).collect();
    assert_eq!(paths, ["/a", "/b"]);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let pair = Pair::allowed("http");
    let answer = raw(pair.upstream(), "GET /x HTTP/1.0\r\nHost: api\r\n\r\n", |_| false);
    assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 ") && answer.ends_with("ok\n"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "an old client knows no chunks: {answer}");
    let streamed = raw(pair.upstream(), "GET /bytes?n=100000 HTTP/1.0\r\n\r\n", |_| false);
    assert!(!streamed.to_lowercase().contains("transfer-encoding"), "{}", &streamed[..200]);
    let kept =
        raw(pair.upstream(), "GET /x HTTP/1.0\r\nHost: api\r\nConnection: keep-alive\r\n\r\n", |text| text.ends_with("ok\n"));
    assert!(kept.to_lowercase().contains("connection: keep-alive"), "{kept}");
}

#[test]
fn answers_without_a_body_have_none() {
    for protocol in ["http", "http2"] {
        let pair = Pair::allowed(protocol);
        // A second request on the same connection shows that both sides agree on where the first answer ended.
        for (method, path, code) in [
            ("HEAD", "/status?code=200", "200"),
            ("GET", "/status?code=204", "204"),
            ("GET", "/status?code=304", "304"),
            ("HEAD", "/bytes?n=100000", "200"),
        ] {
            let requests =
                format!("{method} {path} HTTP/1.1\r\nHost: api\r\n\r\nGET /status?code=418 HTTP/1.1\r\nHost: api\r\n\r\n");
            let answers = raw(pair.upstream(), &requests, |text| text.ends_with("status\n"));
            let (head, rest) = answers.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(code) && rest.starts_with("HTTP/1.1 418 "), "{protocol} {method} {path}: {answers}");
            if method == "HEAD" && path.starts_with("/status") {
                assert!(head.to_lowercase().contains("content-length: 7"), "{head}");
            }
        }
        let seen = curl(&["--http2-prior-knowledge", "-I", &format!("http://{}/status?code=200", pair.upstream())]);
        assert!(seen.starts_with("HTTP/2 200"), "{seen}");
    }
}

#[test]
fn a_service_that_is_not_there_is_told_of_and_found_when_it_comes() {
    let address = format!("127.0.0.1:{}", free_port());
    let mesh = Mesh::start();
    let _api = mesh.serve_as("api", "http", &address);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let url = format!("http://{}/", web.upstream("api"));
    let told = curl(&["-w", " %{http_code}", &url]);
    assert!(told.ends_with(" 503") && told.contains("\"error\":\"unavailable\""), "{told}");
    let listener = TcpListener::bind(&address).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 1024];
            if matches!(stream.read(&mut head), Ok(1..)) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhere\n");
            }
        }
    });
    eventually("it is found", || (curl(&["-w", " %{http_code}", &url]) == "here\n 200").then_some(()));
}

#[test]
fn an_idle_connection_that_the_service_closed_costs_no_request() {
    // It closes after each answer without having said so.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut head = [0; 1024];
                if matches!(stream.read(&mut head), Ok(1..)) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhere\n");
                }
            });
        }
    });
    let mesh = Mesh::start();
    let _api = mesh.serve_as("api", "http", &address);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut stream = connect(web.upstream("api"));
    for _ in 0..100 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: api\r\n\r\n").unwrap();
        let answer = read_until(&mut stream, |text| text.ends_with("here\n") || text.contains("error"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // A caller that leaves the service time to close.
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}
