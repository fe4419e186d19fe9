//! HTTP through two data planes in one process, with real certificates and snapshots made by hand.

mod mesh;
#[path = "cases/http_protection.rs"]
mod protection;
mod web;

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use mesh::{ALLOW, DENY, Mesh, PATIENCE, Side, eventually, intention};
use postern_intentions::{Action, Intention, Mode, PathCriterion, Permission, Protocol, Rule};
use postern_proxy::data_plane::Limits;
use postern_traffic::settings::{Percent, RateLimit, RetryOn};
use postern_traffic::{Period, ServiceSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use web::{Client, Web, get, post};

/// A service, its sidecar, and a caller with its own.
struct World {
    mesh: Mesh,
    web: Web,
    api: Side,
    caller: Side,
}

impl World {
    async fn speaking(protocol: Protocol) -> Self {
        Self::with(protocol, Limits::default(), |_| {}, vec![intention("web", "api", ALLOW)]).await
    }

    async fn set(change: impl FnOnce(&mut ServiceSettings)) -> Self {
        Self::with(Protocol::Http, Limits::default(), change, vec![intention("web", "api", ALLOW)]).await
    }

    async fn with(protocol: Protocol, limits: Limits, change: impl FnOnce(&mut ServiceSettings), rules: Vec<Intention>) -> Self {
        let mut mesh = Mesh::new();
        mesh.protocol = protocol;
        change(&mut mesh.settings);
        let web = Web::start().await;
        let api = mesh.destination_with("api", web.address, rules, limits.clone()).await;
        let caller = mesh.caller_within(limits, "web", "api", &[("api-1", api.inbound)]).await;
        Self { mesh, web, api, caller }
    }

    async fn client(&self) -> Client {
        Client::http1(self.caller.upstream).await
    }
}

/// Allows `web` what is below a path, with a method.
fn permits(method: &str, prefix: &str) -> Intention {
    let permission = Permission {
        action: Action::Allow,
        methods: vec![method.to_owned()],
        path: Some(PathCriterion::Prefix(prefix.to_owned())),
        headers: Vec::new(),
        query: Vec::new(),
        ports: Vec::new(),
        jwt: Vec::new(),
    };
    let rule = Rule::Permissions { permissions: vec![permission], otherwise: Action::Deny };
    Intention { rule, mode: Mode::Enforce, ..intention("web", "api", ALLOW) }
}

#[tokio::test]
async fn requests_are_answered_over_one_connection_each_way_and_counted() {
    let world = World::speaking(Protocol::Http).await;
    let mut client = world.client().await;
    for _ in 0..20 {
        assert_eq!(client.ask(get("/")).await, (200, "hello".to_owned()));
    }
    assert_eq!(client.ask(post("/echo", "a body")).await, (200, "a body".to_owned()));
    assert_eq!(world.web.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    for side in [&world.api, &world.caller] {
        let metrics = side.metrics();
        assert!(metrics.contains(r#"code="200""#) && metrics.contains(r#"method="GET""#), "{metrics}");
    }
    let text = world.api.metrics();
    assert!(text.contains(r#"method="GET",peer="web",verdict="allow"} 20"#), "{text}");
}

#[tokio::test]
async fn http2_carries_many_requests_at_once() {
    let world = World::speaking(Protocol::Http2).await;
    let mut client = Client::http2(world.caller.upstream).await;
    for _ in 0..20 {
        assert_eq!(client.ask(post("/", "two")).await, (200, "two".to_owned()));
    }
    assert_eq!(world.web.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(client.ask(get("/")).await.0, 200);
    // A caller of HTTP/1 reaches a service of HTTP/2, and the other way round.
    assert_eq!(world.client().await.ask(get("/")).await, (200, "hello".to_owned()));
    let of_http1 = World::speaking(Protocol::Http).await;
    assert_eq!(Client::http2(of_http1.caller.upstream).await.ask(get("/")).await, (200, "hello".to_owned()));
}

#[tokio::test]
async fn a_denied_request_is_told_why_and_reaches_nobody() {
    let world = World::with(Protocol::Http, Limits::default(), |_| {}, vec![permits("GET", "/pub/")]).await;
    let mut client = world.client().await;
    assert_eq!(client.ask(get("/pub/x")).await.0, 200);
    let (status, told) = client.ask(post("/pub/x", "no")).await;
    assert_eq!(status, 403);
    assert!(told.contains(r#""error":"denied","source":"web","destination":"api""#), "{told}");
    assert_eq!(client.ask(get("/private")).await.0, 403);
    assert_eq!(client.ask(get("/pub/..;/private")).await.0, 403);
    assert_eq!(client.ask(get("/pub/%2e%2e/%2e%2e/x")).await.0, 400);
    assert_eq!(world.web.requests(), 1);
    let text = world.caller.metrics();
    assert!(text.contains(r#"code="403",direction="outbound",method="GET",peer="api",verdict="deny"} 2"#), "{text}");
}

#[tokio::test]
async fn the_path_that_was_judged_is_the_one_that_is_sent() {
    let world = World::with(Protocol::Http, Limits::default(), |_| {}, vec![permits("GET", "/pub")]).await;
    let mut client = world.client().await;
    assert_eq!(client.ask(get("/x/..//pub/./%61?q=/../..")).await.0, 200);
    assert_eq!(world.web.last().target, "/pub/a?q=/../..");
}

#[tokio::test]
async fn identity_is_written_by_the_sidecar_alone() {
    let world = World::speaking(Protocol::Http).await;
    let mut request = get("/");
    for name in ["x-forwarded-client-cert", "x_forwarded_client_cert", "x-postern-source", "X-Forwarded_Client-Cert"] {
        request.headers_mut().append(name.parse::<http::HeaderName>().expect("name"), "spoof".parse().expect("value"));
    }
    request.headers_mut().insert("connection", "x-forwarded-client-cert, close-not".parse().expect("value"));
    let mut client = world.client().await;
    let answer = client.send(request).await.expect("answer");
    assert!(!answer.headers().contains_key("x-postern-spoof"), "what the service says in the name of the mesh is taken away");
    let seen = world.web.last().headers;
    let expected = "By=spiffe://mesh.example/ns/default/dc/dc1/svc/api;URI=spiffe://mesh.example/ns/default/dc/dc1/svc/web";
    let of_name: Vec<_> = seen.get_all("x-forwarded-client-cert").iter().collect();
    assert_eq!(of_name, [expected]);
    assert!(seen.keys().all(|name| name == "x-forwarded-client-cert" || !name.as_str().contains("client")), "{seen:?}");
    assert!(!seen.contains_key("x-postern-source") && seen.contains_key("traceparent"));
}

#[tokio::test]
async fn an_idle_connection_sleeps_and_wakes() {
    let mut limits = Limits::default();
    limits.http.drowsy = Duration::from_millis(30);
    let world = World::with(Protocol::Http, limits, |_| {}, vec![intention("web", "api", ALLOW)]).await;
    let mut socket = TcpStream::connect(world.caller.upstream).await.expect("connect");
    for pause in [0, 200, 200] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // In two parts, so that the beginning of a head wakes it.
        socket.write_all(b"GET / HTT").await.expect("write");
        tokio::time::sleep(Duration::from_millis(20)).await;
        socket.write_all(b"P/1.1\r\nhost: api\r\n\r\n").await.expect("write");
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut answer)).await.expect("in time").expect("read");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        }
    }
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_refused_and_told() {
    let mut limits = Limits::default();
    limits.http.head = Duration::from_millis(200);
    let world = World::with(Protocol::Http, limits, |_| {}, vec![intention("web", "api", ALLOW)]).await;
    let mut socket = TcpStream::connect(world.caller.upstream).await.expect("connect");
    socket.write_all(b"GET / HTTP/1.1\r\nhost: a").await.expect("write");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("in time").expect("read");
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(world.web.requests(), 0);
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    let world = World::speaking(Protocol::Http).await;
    let mut socket = TcpStream::connect(world.caller.upstream).await.expect("connect");
    let smuggled = b"POST /a HTTP/1.1\r\nhost: api\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\nhost: api\r\n\r\n";
    socket.write_all(smuggled).await.expect("write");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("in time").expect("read");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(world.web.requests(), 0);
}

async fn begin_stream(world: &World, client: &mut Client) -> hyper::body::Incoming {
    let answer = client.send(get("/stream")).await.expect("answer");
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let sender = world.web.sender().expect("a stream");
    sender.send(Bytes::from_static(b"first")).await.expect("send");
    let first = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("frame").expect("data");
    assert_eq!(first.into_data().expect("data"), "first");
    body
}

#[tokio::test]
async fn a_deny_ends_a_download_that_has_begun() {
    for protocol in [Protocol::Http, Protocol::Http2] {
        let world = World::speaking(protocol).await;
        let mut client =
            if protocol == Protocol::Http { world.client().await } else { Client::http2(world.caller.upstream).await };
        let mut body = begin_stream(&world, &mut client).await;
        let denied = world.api.publish(&world.mesh, vec![intention("web", "api", DENY)]);
        let rest = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time");
        assert!(!matches!(rest, Some(Ok(_)) | None), "{protocol}: it must not look like a whole answer");
        world.api.enforces(denied).await;
        let sender = world.web.sender().expect("the sender");
        eventually("the service sees the end", || async { sender.is_closed() }).await;
        let mut again = if protocol == Protocol::Http { world.client().await } else { client };
        assert_eq!(again.ask(get("/")).await.0, 403, "{protocol}");
    }
}

#[tokio::test]
async fn a_deny_of_one_path_leaves_the_other_streams_of_a_connection() {
    let both = [permits("GET", "/")];
    let world = World::with(Protocol::Http2, Limits::default(), |_| {}, both.to_vec()).await;
    let mut client = Client::http2(world.caller.upstream).await;
    let mut body = begin_stream(&world, &mut client).await;
    let denied = world.api.publish(&world.mesh, vec![permits("GET", "/other")]);
    world.api.enforces(denied).await;
    let rest = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time");
    assert!(matches!(rest, Some(Err(_))));
    assert_eq!(client.ask(get("/other")).await, (200, "hello".to_owned()), "on the same connection");
    assert_eq!(client.ask(get("/stream")).await.0, 403);
}

#[tokio::test]
async fn what_a_snapshot_changes_elsewhere_leaves_a_stream_alone() {
    let world = World::with(Protocol::Http, Limits::default(), |_| {}, vec![permits("GET", "/stream")]).await;
    let mut client = world.client().await;
    let mut body = begin_stream(&world, &mut client).await;
    let sequence = world.api.publish(&world.mesh, vec![permits("GET", "/"), intention("*", "api", DENY)]);
    world.api.enforces(sequence).await;
    world.web.sender().expect("sender").send(Bytes::from_static(b"second")).await.expect("send");
    let second = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("frame").expect("data");
    assert_eq!(second.into_data().expect("data"), "second");
}

#[tokio::test]
async fn another_protocol_goes_on_after_a_101_until_it_is_denied() {
    let world = World::speaking(Protocol::Http).await;
    let mut client = world.client().await;
    let mut request = get("/socket");
    request.headers_mut().insert("connection", "upgrade".parse().expect("value"));
    request.headers_mut().insert("upgrade", "echo".parse().expect("value"));
    let mut answer = client.send(request).await.expect("answer");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut upgraded = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("upgraded"));
    let mut echoed = [0; 4];
    upgraded.write_all(b"ping").await.expect("write");
    upgraded.read_exact(&mut echoed).await.expect("read");
    assert_eq!(&echoed, b"ping");
    let denied = world.api.publish(&world.mesh, vec![intention("web", "api", DENY)]);
    world.api.enforces(denied).await;
    let ended = tokio::time::timeout(PATIENCE, upgraded.read(&mut echoed)).await.expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn what_was_sent_is_sent_again_where_the_settings_say_so() {
    let world = World::set(|settings| {
        settings.retries.attempts = 2;
        settings.retries.on = vec![RetryOn::GatewayError];
        settings.retries.methods = vec!["GET".to_owned(), "PUT".to_owned()];
    })
    .await;
    let mut client = world.client().await;
    let fail = |times: usize| world.web.answers.lock().extend(vec![StatusCode::SERVICE_UNAVAILABLE; times]);
    fail(2);
    let put = http::Request::put("/x").header("host", "api").body(web::body(Bytes::from_static(b"kept"))).expect("request");
    assert_eq!(client.ask(put).await, (200, "kept".to_owned()));
    assert_eq!(world.web.seen.lock().iter().filter(|seen| seen.body == "kept").count(), 3);
    fail(3);
    assert_eq!(client.ask(get("/")).await.0, 503, "no more than two retries");
    fail(1);
    assert_eq!(client.ask(post("/", "once")).await.0, 503, "a POST is not repeated unless told");
    assert_eq!(client.ask(get("/")).await.0, 200);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_time_out() {
    let world = World::set(|settings| settings.timeouts.request = Period::millis(200)).await;
    let (status, told) = world.client().await.ask(get("/slow")).await;
    assert_eq!(status, 504, "{told}");
    assert!(told.contains("did not answer in time"), "{told}");
}

#[tokio::test]
async fn no_more_requests_than_the_breaker_lets_through_are_in_flight() {
    let world = World::set(|settings| settings.circuit_breakers.requests = 1).await;
    let mut first = world.client().await;
    let body = begin_stream(&world, &mut first).await;
    let mut second = world.client().await;
    let refused = second.send(get("/")).await.expect("answer");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("x-postern-overloaded"));
    drop((body, first));
    eventually("there is room again", || async { world.client().await.ask(get("/")).await.0 == 200 }).await;
}

#[tokio::test]
async fn over_a_rate_limit_the_answer_says_when_to_come_again() {
    let world = World::set(|settings| {
        settings.rate_limits =
            vec![RateLimit { matches: None, source: None, per: Default::default(), requests_per_second: 0.01, burst: Some(2) }];
    })
    .await;
    let mut client = world.client().await;
    assert_eq!(client.ask(get("/")).await.0, 200);
    assert_eq!(client.ask(get("/")).await.0, 200);
    let refused = client.send(get("/")).await.expect("answer");
    assert_eq!(refused.status(), 429);
    assert!(refused.headers()["retry-after"].to_str().expect("text").parse::<u32>().expect("seconds") > 0);
    assert_eq!(world.web.requests(), 2);
}

#[tokio::test]
async fn a_fault_that_is_ordered_is_injected() {
    let world = World::set(|settings| {
        settings.faults.abort = Some(postern_traffic::settings::AbortFault { percent: Percent::ALL, status: 418 });
    })
    .await;
    assert_eq!(world.client().await.ask(get("/")).await.0, 418);
    assert_eq!(world.web.requests(), 0);
}

#[tokio::test]
async fn a_service_that_is_gone_is_told_as_503_and_comes_back() {
    let world = World::speaking(Protocol::Http).await;
    let nobody = mesh::NOWHERE;
    let gone = world.mesh.destination("api", nobody, vec![intention("web", "api", ALLOW)]).await;
    world.caller.publish_endpoints(&world.mesh, "api", &[("api-2", gone.inbound)]);
    let mut client = world.client().await;
    eventually("the other instance is asked", || async {
        let (status, told) = world.client().await.ask(get("/")).await;
        status == 503 && told.contains("cannot be reached")
    })
    .await;
    world.caller.publish_endpoints(&world.mesh, "api", &[("api-1", world.api.inbound)]);
    eventually("the first is asked again", || async { world.client().await.ask(get("/")).await.0 == 200 }).await;
    assert_eq!(client.ask(get("/")).await.0, 200);
}
