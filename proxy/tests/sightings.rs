//! What sidecars tell of the calls between them: data planes in one process, with real certificates.

mod mesh;
mod web;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::StatusCode;
use mesh::{ALLOW, AUDIT, DENY, Mesh, NOWHERE, Service, Side, eventually, intention};
use parking_lot::Mutex;
use postern_api::v1;
use postern_intentions::{Intention, Protocol};
use postern_proxy::data_plane::Limits;
use postern_proxy::sightings::Reports;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use web::{Client, Web, get, post};

/// All that one sidecar has told.
struct Told {
    reports: Mutex<Reports>,
    edges: Mutex<BTreeMap<String, v1::SeenEdge>>,
    decisions: Mutex<Vec<v1::SeenDecision>>,
    open: Mutex<Vec<v1::OpenCalls>>,
}

impl Told {
    fn by(side: &Side) -> Self {
        let reports = Mutex::new(side.reports());
        Self { reports, edges: Mutex::default(), decisions: Mutex::default(), open: Mutex::default() }
    }

    fn hear(&self) {
        for seen in self.reports.lock().messages(10) {
            for edge in seen.edges {
                let name = format!("{} {} {} {}", edge.peer, edge.verdict, edge.method, edge.shape);
                let mut edges = self.edges.lock();
                let sum = edges.entry(name.trim_end().to_owned()).or_insert_with(|| v1::SeenEdge {
                    count: 0,
                    errors: 0,
                    bytes_in: 0,
                    bytes_out: 0,
                    ..edge.clone()
                });
                sum.count += edge.count;
                sum.errors += edge.errors;
                sum.bytes_in += edge.bytes_in;
                sum.bytes_out += edge.bytes_out;
            }
            self.decisions.lock().extend(seen.decisions);
            if seen.tells_open {
                *self.open.lock() = seen.open;
            }
        }
    }

    /// Waits until it has told this of an edge, and gives the edge.
    async fn tells(&self, name: &str, wanted: impl Fn(&v1::SeenEdge) -> bool) -> v1::SeenEdge {
        let is_told = || async {
            self.hear();
            self.edges.lock().get(name).is_some_and(&wanted)
        };
        eventually(&format!("{name} is told as wanted"), is_told).await;
        self.edges.lock()[name].clone()
    }

    async fn tells_open(&self, wanted: &[(&str, &str, &str, u32)]) {
        let is_told = || async {
            self.hear();
            let open = self.open.lock();
            let open = open.iter().map(|one| (one.peer.as_str(), one.method.as_str(), one.shape.as_str(), one.count));
            open.collect::<Vec<_>>() == wanted
        };
        eventually(&format!("{wanted:?} is open"), is_told).await;
    }

    fn names(&self) -> Vec<String> {
        self.edges.lock().keys().cloned().collect()
    }
}

async fn echoed(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(b"hello").await.expect("write");
    stream.read_exact(&mut [0; 5]).await.expect("read");
    stream
}

async fn cut_off(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    assert!(!matches!(stream.read(&mut [0; 8]).await, Ok(1..)));
}

#[tokio::test]
async fn a_connection_counts_when_it_is_judged_and_its_bytes_when_it_ends() {
    let (mesh, service) = (Mesh::new(), Service::echo().await);
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let told = Told::by(&api);

    let stream = echoed(web.upstream).await;

    let edge = told.tells("web allow", |edge| edge.count == 1).await;
    assert_eq!(
        (edge.because.as_str(), edge.port.as_str(), edge.protocol.as_str()),
        ("intention web -> api (allow)", "main", "tcp")
    );
    assert_eq!(edge.bytes_in, 0);
    told.tells_open(&[("web", "", "", 1)]).await;

    drop(stream);
    told.tells("web allow", |edge| (edge.bytes_in, edge.bytes_out) == (5, 5)).await;
    told.tells_open(&[]).await;
    let edge = told.tells("web allow", |edge| edge.count == 1).await;
    assert_eq!((edge.count, edge.errors), (1, 0));
    let of_caller = Told::by(&web);
    of_caller.hear();
    assert!(of_caller.names().is_empty(), "the caller tells nothing of what was reached");
}

#[tokio::test]
async fn connections_that_are_denied_or_denied_later_count_as_such() {
    let (mesh, service) = (Mesh::new(), Service::echo().await);
    let api = mesh.destination("api", service.address, vec![intention("web", "api", DENY)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let told = Told::by(&api);

    cut_off(web.upstream).await;
    let edge = told.tells("web deny", |edge| edge.count == 1).await;
    assert_eq!(edge.because, "intention web -> api (deny)");
    assert_eq!(told.decisions.lock().iter().map(|one| one.verdict.as_str()).collect::<Vec<_>>(), ["deny"]);

    api.enforces(api.publish(&mesh, vec![intention("*", "api", AUDIT)])).await;
    let mut stream = echoed(web.upstream).await;
    told.tells("web audit", |edge| edge.count == 1).await;
    api.enforces(api.publish(&mesh, vec![intention("web", "api", DENY)])).await;
    assert!(!matches!(stream.read(&mut [0; 8]).await, Ok(1..)));

    told.tells("web deny", |edge| edge.count == 2).await;
    let audited = told.tells("web audit", |edge| edge.bytes_in == 5).await;
    assert_eq!(audited.count, 1);
}

#[tokio::test]
async fn a_service_that_is_down_is_an_error_of_the_edge() {
    let mesh = Mesh::new();
    let api = mesh.destination("api", NOWHERE, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let told = Told::by(&api);

    cut_off(web.upstream).await;

    told.tells("web allow", |edge| (edge.count, edge.errors) == (1, 1)).await;
}

#[tokio::test]
async fn a_connection_that_reaches_no_instance_is_told_by_the_caller() {
    let mesh = Mesh::new();
    let web = mesh.caller_within(Limits::default(), "web", "api", &[("api-1", NOWHERE)]).await;
    let told = Told::by(&web);

    cut_off(web.upstream).await;

    let edge = told.tells("api failed", |edge| edge.count == 1).await;
    assert!(edge.outbound && edge.because.starts_with("api-1: "), "{edge:?}");
}

async fn speaking(protocol: Protocol, rules: Vec<Intention>) -> (Mesh, Web, Side, Side) {
    let mut mesh = Mesh::new();
    mesh.protocol = protocol;
    let web = Web::start().await;
    let api = mesh.destination("api", web.address, rules).await;
    let caller = mesh.caller("web", "api", &api, true).await;
    (mesh, web, api, caller)
}

#[tokio::test]
async fn requests_count_by_method_and_shape_with_their_errors() {
    let (mesh, web, api, caller) = speaking(Protocol::Http, vec![intention("web", "api", ALLOW)]).await;
    let told = Told::by(&api);
    let mut client = Client::http1(caller.upstream).await;

    for path in ["/v1/invoices/1", "/v1/invoices/2?secret=1", "/v1/invoices/3"] {
        assert_eq!(client.ask(get(path)).await.0, 200);
    }
    web.answers.lock().push_back(StatusCode::SERVICE_UNAVAILABLE);
    client.ask(post("/v1/invoices", "body")).await;
    web.answers.lock().push_back(StatusCode::NOT_FOUND);
    client.ask(get("/nothing")).await;

    let edge = told.tells("web allow GET /v1/invoices/{id}", |edge| edge.count == 3).await;
    assert_eq!((edge.sample.as_str(), edge.errors, edge.bytes_out), ("/v1/invoices/1", 0, 15));
    assert_eq!((edge.protocol.as_str(), edge.because.as_str()), ("http", "intention web -> api (allow)"));
    let edge = told.tells("web allow POST /v1/invoices", |edge| edge.count == 1).await;
    assert_eq!((edge.errors, edge.bytes_in), (1, 4));
    let edge = told.tells("web allow GET /nothing", |edge| edge.count == 1).await;
    assert_eq!(edge.errors, 0);

    api.enforces(api.publish(&mesh, vec![])).await;
    assert_eq!(client.ask(get("/v1/invoices/9?secret=1")).await.0, 403);
    let edge = told.tells("web deny GET /v1/invoices/{id}", |edge| edge.count == 1).await;
    assert_eq!((edge.because.as_str(), edge.errors), ("default (deny)", 0));
    let decisions = told.decisions.lock();
    assert_eq!(decisions.len(), 1);
    assert_eq!((decisions[0].path.as_str(), decisions[0].status), ("/v1/invoices/9", 403));
}

#[tokio::test]
async fn requests_under_way_are_open_and_count_as_denied_when_a_deny_ends_them() {
    let (mesh, web, api, caller) = speaking(Protocol::Http, vec![intention("web", "api", ALLOW)]).await;
    let told = Told::by(&api);
    let mut client = Client::http1(caller.upstream).await;
    let asking = tokio::spawn(async move { client.send(get("/slow?x=1")).await.map(|answer| answer.status()) });

    told.tells_open(&[("web", "GET", "/slow", 1)]).await;
    assert_eq!(web.requests(), 1);
    api.enforces(api.publish(&mesh, vec![intention("web", "api", DENY)])).await;

    let edge = told.tells("web deny GET /slow", |edge| edge.count == 1).await;
    assert_eq!(edge.because, "intention web -> api (deny)");
    told.tells_open(&[]).await;
    assert_eq!(told.names(), ["web deny GET /slow"], "a request counts once");
    let _ = asking.await;
}

#[tokio::test]
async fn a_grpc_status_other_than_ok_is_an_error() {
    let (_mesh, _web, api, caller) = speaking(Protocol::Grpc, vec![intention("web", "api", ALLOW)]).await;
    let told = Told::by(&api);
    let mut client = Client::http2(caller.upstream).await;
    let mut call = post("/shop.Cart/Add", "x");
    call.headers_mut().insert("content-type", "application/grpc".parse().expect("value"));

    client.ask(call).await;

    let edge = told.tells("web allow POST /shop.Cart/Add", |edge| edge.count == 1).await;
    assert_eq!((edge.errors, edge.protocol.as_str()), (1, "grpc"), "200, and no status of gRPC");
}

#[tokio::test]
async fn a_request_that_reaches_no_instance_is_told_by_the_caller() {
    let mut mesh = Mesh::new();
    mesh.protocol = Protocol::Http;
    let web = mesh.caller_within(Limits::default(), "web", "api", &[("api-1", NOWHERE)]).await;
    let told = Told::by(&web);

    assert_eq!(Client::http1(web.upstream).await.ask(get("/v1/7")).await.0, 503);

    let edge = told.tells("api failed GET /v1/{id}", |edge| edge.count == 1).await;
    assert!(edge.outbound && edge.protocol == "http" && edge.because.starts_with("api-1: "), "{edge:?}");
}
