//! Requests that two readers could delimit differently: the service counts exactly those that were allowed.

#[path = "../../proxy/tests/smuggling/mod.rs"]
mod corpus;
#[path = "../../proxy/tests/smuggling/naive.rs"]
mod naive;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use corpus::{CASES, Verdict};
use parking_lot::Mutex;

use crate::support::{Mesh, PATIENCE, Sidecar, SvidFiles, connect, eventually};

/// How long a client that waits listens for what should not come.
const QUIET: Duration = Duration::from_millis(150);

/// A service that answers each whole request, and keeps what it was sent.
struct Counting {
    address: String,
    requests: Arc<Mutex<Vec<naive::Request>>>,
}

impl Counting {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let counting = Self { address: listener.local_addr().unwrap().to_string(), requests: Arc::default() };
        let requests = counting.requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let requests = requests.clone();
                std::thread::spawn(move || count(stream, &requests));
            }
        });
        counting
    }

    fn count(&self) -> usize {
        self.requests.lock().len()
    }
}

fn count(mut stream: TcpStream, seen: &Mutex<Vec<naive::Request>>) {
    let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        held.extend_from_slice(&buffer[..read]);
        let (whole, rest) = naive::requests(&held);
        let rest = rest.to_vec();
        for request in whole {
            seen.lock().push(request);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
        held = rest;
    }
}

/// A connection on which a time-out of reads can be set.
trait Client: Read + Write {
    fn reads_for(&mut self, most: Duration);
}

impl Client for TcpStream {
    fn reads_for(&mut self, most: Duration) {
        self.set_read_timeout(Some(most)).unwrap();
    }
}

impl Client for rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    fn reads_for(&mut self, most: Duration) {
        self.sock.set_read_timeout(Some(most)).unwrap();
    }
}

/// Sends the bytes; what comes back until there are `answers` good answers, or the connection is ended where it should be.
fn answers_to(stream: &mut dyn Client, bytes: &[u8], verdict: Verdict) -> String {
    // It may be closed already in the middle of what is refused.
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let (wanted, patience) = match verdict {
        Verdict::Passes(count) => (Some(count), PATIENCE),
        Verdict::Waits(0) => (None, QUIET),
        Verdict::Waits(count) => (Some(count), PATIENCE),
        Verdict::Refused(..) => (None, PATIENCE),
    };
    stream.reads_for(patience);
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while wanted.is_none_or(|count| text.matches("HTTP/1.1 200").count() < count) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                assert!(matches!(verdict, Verdict::Waits(0)), "it is neither answered nor refused, after {text:?}");
                break;
            }
            Err(_) => break,
        }
    }
    text
}

fn the_service_counts_what_was_allowed(service: &Counting, mut dial: impl FnMut() -> Box<dyn Client>) {
    let mut wrong = Vec::new();
    for (name, bytes, verdict) in CASES {
        // What begins like HTTP/2 is HTTP/2 to a sidecar that speaks both.
        if *name == "the preface of HTTP/2" {
            continue;
        }
        let before = service.count();
        let text = answers_to(&mut *dial(), bytes, *verdict);
        let reached = service.count() - before;
        let (Verdict::Passes(allowed) | Verdict::Waits(allowed) | Verdict::Refused(_, allowed)) = *verdict;
        if reached != allowed || text.matches("HTTP/1.1 200").count() > allowed {
            wrong.push(format!("{name}: {verdict:?}, {reached} reached the service, the caller heard {text:?}"));
        }
        if let Verdict::Refused(_, 0) = verdict
            && !(text.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.0 4"))
        {
            wrong.push(format!("{name}: {verdict:?}, the caller heard {text:?}"));
        }
    }
    let targets: Vec<String> = service.requests.lock().iter().map(|request| request.target.clone()).collect();
    // One case asks for it in the open.
    assert!(targets.iter().filter(|target| *target == "/admin").count() <= 1, "{targets:?}");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
    // Nobody else is disturbed.
    let before = service.count();
    answers_to(&mut *dial(), b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n", Verdict::Passes(1));
    assert_eq!(service.count(), before + 1);
}

fn mesh() -> (Mesh, Counting, Sidecar) {
    let (mesh, service) = (Mesh::start(), Counting::start());
    let api = mesh.serve_as("api", "http", &service.address);
    mesh.allow("web", "api");
    (mesh, service, api)
}

#[test]
fn through_a_callers_sidecar_the_service_counts_what_was_allowed() {
    let (mesh, service, _api) = mesh();
    let web = mesh.call("web", &["api"]);
    the_service_counts_what_was_allowed(&service, || Box::new(connect(web.upstream("api"))));
}

#[test]
fn a_direct_client_gets_no_more_through() {
    let (mesh, service, api) = mesh();
    let files = SvidFiles::of(&mesh, "web");
    let inbound = api.inbound.clone().unwrap();
    the_service_counts_what_was_allowed(&service, || Box::new(files.dial(&inbound)));
}

#[test]
fn what_is_denied_stays_so_between_what_is_allowed() {
    let (mesh, service, _api) = mesh();
    let web = mesh.call("web", &["api"]);
    mesh.apply(
        "intentions:\n- {source: web, destination: api, permissions: [{action: deny, path_prefix: /admin}, {action: allow, path_prefix: /}]}\n",
    );
    let allowed = b"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let denied: [&[u8]; 4] = [
        b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /admin HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\nGET /ok HTTP/1.1\r\nHost: a\r\n",
        b"POST /admin HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /admin HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    ];
    for denied in denied {
        let before = service.count();
        let mut stream = connect(web.upstream("api"));
        stream.write_all(&[&allowed[..], denied, &allowed[..]].concat()).unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        // After a request whose body it did not want a sidecar may close.
        while text.matches("HTTP/1.1 200").count() < 2 {
            match stream.read(&mut buffer) {
                Ok(read @ 1..) => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
                _ => break,
            }
        }
        assert!(text.contains("HTTP/1.1 403"), "{text}");
        let passed = text.matches("HTTP/1.1 200").count();
        eventually("the answers that came are those of requests that were seen", || {
            (service.count() - before == passed).then_some(())
        });
    }
    assert!(service.requests.lock().iter().all(|request| request.target == "/ok"));
}
