//! What protects a data plane and a service: idle connections, peers that are gone, floods, circuit breakers.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::*;

const HEAD: usize = 9;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// The end of an HTTP/2 connection that is written by hand. It answers nothing by itself.
struct ByFrames {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl ByFrames {
    async fn connect(to: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(to).await.expect("connect");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("write");
        Self { socket, buffer: Vec::new() }
    }

    /// The kind of the next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Option<u8> {
        loop {
            if let Some([high, middle, low, kind, ..]) = self.buffer.first_chunk::<HEAD>() {
                let whole = HEAD + u32::from_be_bytes([0, *high, *middle, *low]) as usize;
                let kind = *kind;
                if self.buffer.len() >= whole {
                    self.buffer.drain(..whole);
                    return Some(kind);
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await.expect("in time");
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// The kinds of all frames until the end.
    async fn rest(&mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let Some(kind) = self.next().await {
            kinds.push(kind);
        }
        kinds
    }
}

fn limits(change: impl FnOnce(&mut postern_proxy::data_plane::Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

async fn allowed(protocol: Protocol, limits: Limits) -> World {
    World::with(protocol, limits, |_| {}, vec![intention("web", "api", ALLOW)]).await
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_when_it_was_idle_for_long() {
    let limits = limits(|limits| {
        limits.http.idle = Duration::from_millis(300);
        limits.http.drowsy = Duration::from_millis(50);
    });
    let world = allowed(Protocol::Http, limits).await;

    // A request that is under way for longer is no idleness.
    let mut busy = Client::http2(world.caller.upstream).await;
    let mut body = begin_stream(&world, &mut busy).await;

    let mut silent = TcpStream::connect(world.caller.upstream).await.expect("connect");
    let ended = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 16])).await.expect("in time");
    assert!(matches!(ended, Ok(0)), "nothing was ever sent on it: {ended:?}");

    let mut used = TcpStream::connect(world.caller.upstream).await.expect("connect");
    used.write_all(b"GET / HTTP/1.1\r\nhost: api\r\n\r\n").await.expect("write");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, used.read_to_string(&mut answer)).await.expect("in time").expect("closed as agreed");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");

    let mut http2 = ByFrames::connect(world.caller.upstream).await;
    assert!(http2.rest().await.contains(&GOAWAY), "it is told");

    let sender = world.web.sender().expect("a stream");
    sender.send(Bytes::from_static(b"second")).await.expect("send");
    let second = tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("frame").expect("data");
    assert_eq!(second.into_data().expect("data"), "second");
}

#[tokio::test]
async fn a_caller_that_answers_no_ping_is_cut() {
    let limits = limits(|limits| {
        limits.http.ping_interval = Duration::from_millis(200);
        limits.http.ping_timeout = Duration::from_millis(500);
    });
    let world = allowed(Protocol::Http2, limits).await;
    let mut alive = Client::http2(world.caller.upstream).await;
    let mut dead = ByFrames::connect(world.caller.upstream).await;
    let seen = dead.rest().await;
    assert!(seen.contains(&PING), "it was asked: {seen:?}");
    assert_eq!(alive.ask(get("/")).await.0, 200, "who answers is left alone");
}

#[tokio::test]
async fn a_service_that_answers_no_ping_is_cut_and_its_caller_told() {
    let limits = limits(|limits| {
        limits.http.ping_interval = Duration::from_millis(200);
        limits.http.ping_timeout = Duration::from_millis(500);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let service = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("accept");
        socket.read_exact(&mut [0; 24]).await.expect("the preface");
        socket.write_all(b"\0\0\0\x04\0\0\0\0\0").await.expect("write");
        ByFrames { socket, buffer: Vec::new() }.rest().await
    });
    let mut mesh = Mesh::new();
    mesh.protocol = Protocol::Http2;
    let api = mesh.destination_with("api", address, vec![intention("web", "api", ALLOW)], limits).await;
    let caller = mesh.caller_within(Limits::default(), "web", "api", &[("api-1", api.inbound)]).await;
    let mut client = Client::http2(caller.upstream).await;
    let (status, told) = tokio::time::timeout(PATIENCE, client.ask(get("/"))).await.expect("in time");
    assert_eq!(status, 502, "{told}");
    let seen = tokio::time::timeout(PATIENCE, service).await.expect("cut in time").expect("frames");
    assert!(seen.contains(&PING) && seen.contains(&SETTINGS), "{seen:?}");
}

#[tokio::test]
async fn frames_that_say_nothing_end_their_connection_and_no_other() {
    let frame = |kind: u8, payload: &[u8]| {
        let head = [0, 0, payload.len() as u8, kind, 0, 0, 0, 0, 0];
        [&head[..], payload].concat()
    };
    let world = allowed(Protocol::Http2, limits(|limits| limits.http.empty_frames = 100)).await;
    let mut beside = Client::http2(world.caller.upstream).await;
    for flood in [frame(PING, b"12345678"), frame(SETTINGS, b""), frame(2, b"12345"), frame(250, b"")] {
        let mut attacker = ByFrames::connect(world.caller.upstream).await;
        // It may be closed while there is more to send.
        let _ = attacker.socket.write_all(&flood.repeat(5_000)).await;
        attacker.rest().await;
        assert_eq!(beside.ask(get("/")).await.0, 200);
    }
    let floods = || async { world.caller.sum("postern_connections_refused_total", r#"direction="outbound",reason="flooded""#) };
    eventually("each is counted", || async { floods().await == 4.0 }).await;
}

#[tokio::test]
async fn a_second_connection_is_refused_where_the_breaker_lets_one_through() {
    let world = World::set(|settings| settings.circuit_breakers.connections = 1).await;
    let mut first = world.client().await;
    let body = begin_stream(&world, &mut first).await;
    let mut second = world.client().await;
    let refused = second.send(get("/")).await.expect("answer");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("x-postern-overloaded"));
    let told = refused.into_body().collect().await.expect("body").to_bytes();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains(r#""error":"overloaded""#) && told.contains("1 connections at once is the limit"), "{told}");
    let counted = world.caller.sum("postern_http_requests_total", r#"code="503""#);
    assert_eq!(counted, 1.0, "{}", world.caller.metrics());
    drop((body, first));
    eventually("there is room again", || async { world.client().await.ask(get("/")).await.0 == 200 }).await;
}

#[tokio::test]
async fn a_second_request_that_would_wait_is_refused_where_the_breaker_lets_one_wait() {
    let world = World::set(|settings| {
        settings.circuit_breakers.pending = 1;
        settings.retries.attempts = 0;
        settings.outlier_ejection.consecutive_failures = 0;
    })
    .await;
    // It takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    world.caller.publish_endpoints(&world.mesh, "api", &[("api-2", listener.local_addr().expect("address"))]);
    let upstream = world.caller.upstream;
    let waiting = tokio::spawn(async move { Client::http1(upstream).await.ask(get("/")).await });
    let (_held, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("dialled in time").expect("accept");
    let refused = world.client().await.send(get("/")).await.expect("answer");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("x-postern-overloaded"));
    let told = refused.into_body().collect().await.expect("body").to_bytes();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("1 pending at once is the limit"), "{told}");
    assert_eq!(world.caller.sum("postern_http_requests_total", r#"code="503""#), 1.0, "{}", world.caller.metrics());

    let (status, told) = waiting.await.expect("the first");
    assert!(status == 503 && !told.contains("limit"), "nobody answered it: {told}");
    world.caller.publish_endpoints(&world.mesh, "api", &[("api-1", world.api.inbound)]);
    eventually("there is room again", || async { world.client().await.ask(get("/")).await.0 == 200 }).await;
}
