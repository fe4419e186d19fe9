//! Headers that carry identity, and those that belong to one connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::support::{Mesh, Pair, Service, connect, curl, eventually, run_script};

/// How a caller may try to speak in the mesh's name.
const SPOOFS: [&str; 22] = [
    "X-Forwarded-Client-Cert: spoof",
    "x-forwarded-client-cert: spoof",
    "X-FORWARDED-CLIENT-CERT: By=spoof;URI=spoof",
    "X_Forwarded_Client_Cert: spoof",
    "x_forwarded_client_cert: spoof",
    "X-Forwarded_Client-Cert: spoof",
    "x-forwarded-client-cert: spoof\r\nx-forwarded-client-cert: spoof again",
    "x-forwarded-client-cert: spoof\r\nX_Forwarded-Client_Cert: spoof again",
    "x-forwarded-client-cert:",
    "Connection: x-forwarded-client-cert\r\nx-forwarded-client-cert: spoof",
    "Connection: x-forwarded-client-cert",
    "Connection: close, X-Forwarded-Client-Cert",
    "Connection: X-Forwarded-Client-Cert, keep-alive",
    "Connection: x_forwarded_client_cert\r\nx_forwarded_client_cert: spoof",
    "X-Postern-Denied: spoof",
    "x-postern-source: spoof",
    "X_Postern_Source: spoof",
    "X-POSTERN_ANYTHING-ELSE: spoof",
    "x-postern-: spoof",
    "Connection: x-postern-source\r\nx-postern-source: spoof",
    "Keep-Alive: x-forwarded-client-cert\r\nConnection: keep-alive",
    "TE: trailers\r\nConnection: TE, x-forwarded-client-cert",
];

/// A request by hand; the headers that came to the service, as it lists them in its answer.
fn headers_at_service(address: &str, lines: &str) -> (String, Vec<(String, String)>) {
    let mut stream = connect(address);
    write!(stream, "GET /headers HTTP/1.1\r\nHost: api.example\r\nX-Last: 1\r\n{lines}\r\n\r\n").unwrap();
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.trim_end().ends_with(']') && !answer.contains("\"error\"") {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            read => answer.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), serde_json::from_str(body).unwrap_or_default())
}

/// A name as a framework may read it.
fn read(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

#[track_caller]
fn only_the_mesh_speaks(headers: &[(String, String)], what: &str) {
    let is_client_cert = |name: &str| read(name) == "x-forwarded-client-cert";
    let client_cert: Vec<_> = headers.iter().filter(|(name, _)| is_client_cert(name)).map(|(_, value)| value.as_str()).collect();
    assert_eq!(client_cert.len(), 1, "{what}: {headers:?}");
    let domain = client_cert[0].split('/').nth(2).unwrap();
    let id = |service: &str| format!("spiffe://{domain}/ns/default/dc/dc1/svc/{service}");
    assert_eq!(client_cert, [format!("By={};URI={}", id("api"), id("web"))], "{what}");
    assert!(domain.ends_with(".postern"), "{what}: {domain}");
    assert!(
        !headers.iter().any(|(name, value)| read(name).starts_with("x-postern") || value.contains("spoof")),
        "{what}: {headers:?}"
    );
}

fn a_service_hears_who_calls_from_the_mesh_alone(protocol: &str) {
    let pair = Pair::allowed(protocol);
    for lines in SPOOFS {
        // What has two readings may be refused instead.
        let (head, headers) = headers_at_service(pair.upstream(), lines);
        if head.starts_with("HTTP/1.1 200") {
            only_the_mesh_speaks(&headers, lines);
        } else {
            assert!(head.starts_with("HTTP/1.1 400"), "{lines}: {head}");
        }
    }
    let mut arguments = vec!["--http2-prior-knowledge".to_owned(), format!("http://{}/headers", pair.upstream())];
    let of_one_line = SPOOFS.iter().flat_map(|lines| lines.split("\r\n")).filter(|line| line.ends_with("spoof"));
    arguments.extend(of_one_line.flat_map(|line| ["-H".to_owned(), line.to_owned()]));
    let headers: Vec<(String, String)> =
        serde_json::from_str(&curl(&arguments.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    only_the_mesh_speaks(&headers, "over HTTP/2");
    let seen = pair.service.requests();
    assert!(!seen.iter().any(|request| request.to_string().contains("spoof")));
    assert!(seen.len() > SPOOFS.len() / 2);
}

#[test]
fn an_http_1_service_hears_who_calls_from_the_mesh_alone() {
    a_service_hears_who_calls_from_the_mesh_alone("http");
}

#[test]
fn an_http_2_service_hears_who_calls_from_the_mesh_alone() {
    a_service_hears_who_calls_from_the_mesh_alone("http2");
}

#[test]
fn a_grpc_service_hears_who_calls_from_the_mesh_alone() {
    let pair = Pair::start("grpc", |mesh| Service::start(mesh, "grpc_service.py"));
    pair.mesh.allow("web", "api");
    let spoofs = [
        "x-forwarded-client-cert=spoof",
        "x_forwarded_client_cert=spoof",
        "x-postern-denied=spoof",
        "x_postern_source=spoof",
        "mine=1",
    ];
    let arguments: Vec<&str> = ["headers", pair.upstream()].into_iter().chain(spoofs).collect();
    let headers: Vec<(String, String)> = serde_json::from_value(run_script("grpc_client.py", &arguments)).unwrap();
    only_the_mesh_speaks(&headers, "gRPC");
    assert!(headers.contains(&("mine".into(), "1".into())), "{headers:?}");
}

#[test]
fn headers_of_one_connection_do_not_pass_and_all_others_do() {
    for protocol in ["http", "http2"] {
        let pair = Pair::allowed(protocol);
        let (_, headers) = headers_at_service(
            pair.upstream(),
            "Connection: keep-alive, X-Mine, TE\r\nX-Mine: gone\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
             TE: trailers\r\nProxy-Authorization: Basic x\r\nX-Yours: stays\r\nX-Many: a\r\nX-Many: b\r\nCookie: c=d\r\nVia: 1.0 x",
        );
        let names: Vec<String> = headers.iter().map(|(name, _)| read(name)).collect();
        for gone in ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "transfer-encoding"] {
            assert!(!names.contains(&gone.to_owned()), "{protocol}: {gone} in {headers:?}");
        }
        for (name, value) in [("x-yours", "stays"), ("x-many", "a"), ("x-many", "b"), ("cookie", "c=d"), ("host", "api.example")]
        {
            assert!(headers.contains(&(name.into(), value.into())), "{protocol}: {name} of {headers:?}");
        }
    }
}

/// Answers every request with the same bytes, and keeps what it heard.
fn canned(answer: &'static str) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heard) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<String>>::default());
    let of_service = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let heard = of_service.clone();
            std::thread::spawn(move || answer_all(&mut stream, answer, &heard));
        }
    });
    (address, heard)
}

fn answer_all(stream: &mut TcpStream, answer: &str, heard: &Mutex<String>) {
    let (mut of_this, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        heard.lock().push_str(&text);
        of_this.push_str(&text);
        if of_this.ends_with("\r\n\r\n") && (!of_this.contains("chunked") || of_this.contains("\r\n0\r\n")) {
            of_this.clear();
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// A mesh whose `api` gives this answer, and what comes back to its caller for a request.
fn answered(answer: &'static str, request: &str, ends: &str) -> (String, String) {
    let (address, heard) = canned(answer);
    let mesh = Mesh::start();
    let _api = mesh.serve_as("api", "http", &address);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut stream = connect(web.upstream("api"));
    stream.write_all(request.as_bytes()).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.to_lowercase().ends_with(ends) {
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            end => panic!("{end:?} after {text:?}; the service heard {:?}", heard.lock()),
        }
    }
    let heard = heard.lock().to_lowercase();
    (text.to_lowercase(), heard)
}

#[test]
fn headers_of_one_connection_and_the_meshs_own_do_not_come_back() {
    let (answer, _) = answered(
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: gone\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: \
         Basic\r\nX-Postern-Denied: gone\r\nX_Postern_Other: gone\r\nX-Forwarded-Client-Cert: gone\r\nX-Stays: stays\r\nSet-Cookie: \
         a=b\r\nSet-Cookie: c=d\r\nContent-Length: 3\r\n\r\nend",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "end",
    );
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(!answer.contains("gone") && !answer.contains("keep-alive: timeout") && !answer.contains("proxy-"), "{answer}");
    assert!(answer.contains("x-stays: stays") && answer.contains("a=b") && answer.contains("c=d"), "{answer}");
}

#[test]
fn a_denied_caller_sees_nothing_of_the_meshs_own_headers() {
    let pair = Pair::start("http", |mesh| Service::start(mesh, "http_service.py"));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let answer = curl(&[version, "-i", &format!("http://{}/", pair.upstream())]).to_lowercase();
        assert!(answer.contains(" 403") && answer.contains("default (deny)") && !answer.contains("x-postern"), "{answer}");
    }
    eventually("both logs say why", || {
        [&pair.web, &pair.api].iter().all(|sidecar| sidecar.log().contains("default (deny)")).then_some(())
    });
}

#[test]
fn a_101_that_nobody_asked_for_is_no_answer() {
    let (answer, _) = answered(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "}",
    );
    assert!(answer.starts_with("http/1.1 502"), "{answer}");
    let told: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(told["error"], "bad_gateway");
}

#[test]
fn a_trace_is_passed_on_or_begun() {
    for protocol in ["http", "http2"] {
        let pair = Pair::allowed(protocol);
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let parents = |headers: &[(String, String)]| -> Vec<String> {
            headers.iter().filter(|(name, _)| name == "traceparent").map(|(_, value)| value.clone()).collect()
        };
        let given = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\ntracestate: a=b");
        let (_, headers) = headers_at_service(pair.upstream(), &given);
        let passed = parents(&headers);
        assert!(passed.len() == 1 && passed[0].contains(trace) && passed[0].ends_with("-01"), "{headers:?}");
        assert!(headers.contains(&("tracestate".into(), "a=b".into())), "{headers:?}");
        let mut begun = std::collections::BTreeSet::new();
        for bad in
            ["x-no: trace", "traceparent: ff-0-0-0", "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01"]
        {
            let (_, headers) = headers_at_service(pair.upstream(), bad);
            let one = parents(&headers);
            assert!(
                one.len() == 1 && one[0].len() == 55 && !one[0].contains("00000000000000000000000000000000"),
                "{bad}: {headers:?}"
            );
            begun.insert(one[0].clone());
        }
        assert_eq!(begun.len(), 3, "each begins a trace of its own");
    }
}

#[test]
fn trailers_do_not_carry_what_headers_may_not() {
    let (answer, _) = answered(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Postern-Denied, X-Forwarded-Client-Cert, X-Sum\r\n\r\n3\r\nend\r\n\
         0\r\nX-Postern-Denied: gone\r\nX-Forwarded-Client-Cert: gone\r\nX-Sum: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
        "x-sum: 1\r\n\r\n",
    );
    assert!(!answer.contains("gone"), "{answer}");
}
