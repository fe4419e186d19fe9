//! How tunnels end, and what becomes of their streams: drained, idle, moved, cut, refused.

mod mesh;

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mesh::tunnel_end::{CREDIT, DATA, DRAINING, FIN, OPEN, RESET, TunnelEnd};
use mesh::{ALLOW, DENY, HOUR, Mesh, NOWHERE, PATIENCE, Service, Side, eventually, intention};
use postern_intentions::Intention;
use postern_proxy::data_plane::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("write");
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.expect("read");
    assert_eq!(answer, text.as_bytes());
}

async fn end_of(stream: &mut TcpStream) -> Result<usize, ErrorKind> {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("an end in time");
    read.map_err(|error| error.kind())
}

fn web_may() -> Vec<Intention> {
    vec![intention("web", "api", ALLOW)]
}

async fn tunnels(side: &Side, direction: &str, peer: &str, number: usize) {
    side.counts(&format!(r#"postern_tunnels_active{{direction="{direction}",peer="{peer}"}} {number}"#)).await;
}

#[tokio::test]
async fn a_destination_that_drains_carries_what_is_open_and_sends_what_is_new_to_another_instance() {
    let mesh = Mesh::new();
    let (first, second) = (Service::echo().await, Service::echo().await);
    let api = mesh.destination("api", first.address, web_may()).await;
    let other = mesh.destination("api", second.address, web_may()).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut open = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut open, "before").await;
    // The one that drains has not been taken out yet where its callers look.
    web.publish_endpoints(&mesh, "api", &[("api-1", api.inbound), ("api-2", other.inbound)]);

    let inbound = api.inbound;
    let draining = tokio::spawn(api.plane.drain(Duration::from_secs(60)));
    eventually("the listener closes", || async move { TcpStream::connect(inbound).await.is_err() }).await;

    for _ in 0..20 {
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "carried by the other").await;
    }
    say(&mut open, "while it drains").await;
    assert_eq!((first.connections(), second.connections()), (1, 20));
    drop(open);
    let drained = tokio::time::timeout(PATIENCE, draining).await;
    drained.expect("the drain ends with the last stream").expect("drain");
}

#[tokio::test]
async fn an_open_that_comes_while_a_destination_drains_is_refused_with_that_reason() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, web_may()).await;
    let mut end = TunnelEnd::dial(&mesh, mesh.svid("web", HOUR), api.inbound).await;
    end.open_accepted(1).await;
    let inbound = api.inbound;
    let draining = tokio::spawn(api.plane.drain(Duration::from_secs(60)));
    eventually("the listener closes", || async move { TcpStream::connect(inbound).await.is_err() }).await;

    end.open(2).await;

    let refused = end.next(RESET).await;
    assert_eq!((refused.stream, &refused.payload[..]), (2, &[DRAINING][..]));
    end.say(1, "still here").await;
    end.send(FIN, 1, &[]).await;
    assert_eq!(end.ended().await.last().map(|frame| (frame.kind, frame.stream)), Some((FIN, 1)), "in order, to the last byte");
    tokio::time::timeout(PATIENCE, draining).await.expect("the drain ends").expect("drain");
}

#[tokio::test]
async fn a_caller_that_drains_carries_what_is_open_and_then_ends_its_tunnels() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, web_may()).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut open = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut open, "before").await;

    let upstream = web.upstream;
    let draining = tokio::spawn(web.plane.drain(Duration::from_secs(60)));
    eventually("the listener closes", || async move { TcpStream::connect(upstream).await.is_err() }).await;

    say(&mut open, "while it drains").await;
    open.shutdown().await.expect("half-close");
    assert_eq!(end_of(&mut open).await, Ok(0));
    tokio::time::timeout(PATIENCE, draining).await.expect("the drain ends").expect("drain");
    assert_eq!(service.last_end().await, Ok(()), "in order");
    tunnels(&api, "inbound", "web", 0).await;
}

#[tokio::test]
async fn what_was_said_last_arrives_though_the_sidecar_stops_at_once() {
    for _ in 0..20 {
        let mesh = Mesh::new();
        let service = Service::echo().await;
        let api = mesh.destination("api", service.address, web_may()).await;
        let web = mesh.caller("web", "api", &api, true).await;
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "hello").await;
        let much = vec![5; 3 << 20];
        let (mut reader, mut writer) = stream.split();
        let draining = web.plane.drain(Duration::from_secs(60));
        let send = async {
            writer.write_all(&much).await.expect("write");
            writer.shutdown().await.expect("half-close");
        };
        let receive = async {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.expect("all of it");
            got.len()
        };

        let ((), (), got) =
            tokio::time::timeout(PATIENCE, async { tokio::join!(draining, send, receive) }).await.expect("in time");

        assert_eq!(got, much.len());
    }
}

#[tokio::test]
async fn a_tunnel_without_streams_is_closed_after_a_while_and_dialled_again() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, web_may()).await;
    let limits = Limits { tunnel_idle: Duration::from_millis(300), ..Limits::default() };
    let web = mesh.caller_within(limits, "web", "api", &[("api-1", api.inbound)]).await;
    for _ in 0..2 {
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "hello").await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        say(&mut stream, "an open stream keeps it, busy or not").await;
        tunnels(&web, "outbound", "api", 1).await;

        drop(stream);

        tunnels(&web, "outbound", "api", 0).await;
        tunnels(&api, "inbound", "web", 0).await;
    }
    web.counts(r#"postern_handshake_seconds_count{direction="outbound"} 2"#).await;
}

#[tokio::test]
async fn the_acceptor_closes_no_tunnel_for_being_idle() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let limits = Limits { tunnel_idle: Duration::from_millis(100), ..Limits::default() };
    let api = mesh.destination_with("api", service.address, web_may(), limits).await;
    let mut end = TunnelEnd::dial(&mesh, mesh.svid("web", HOUR), api.inbound).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    end.open_accepted(1).await;
    end.say(1, "hello").await;
}

#[tokio::test]
async fn an_instance_that_has_moved_is_dialled_where_it_is_and_what_is_open_stays() {
    let mesh = Mesh::new();
    let (before, after) = (Service::echo().await, Service::echo().await);
    let old = mesh.destination("api", before.address, web_may()).await;
    let new = mesh.destination("api", after.address, web_may()).await;
    let web = mesh.caller("web", "api", &old, true).await;
    let mut open = TcpStream::connect(web.upstream).await.expect("connect");
    say(&mut open, "before").await;

    web.publish_endpoints(&mesh, "api", &[("api-1", new.inbound)]);

    for _ in 0..5 {
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "at the new address").await;
    }
    say(&mut open, "at the old one").await;
    assert_eq!((before.connections(), after.connections()), (1, 5));
}

/// Carries bytes to `target` until it is told to cut everything, with a reset both ways.
async fn relay(target: SocketAddr) -> (SocketAddr, tokio::sync::watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (cut, cuts) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cuts = cuts.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await.expect("connect");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cuts.wait_for(|cut| *cut) => {}
                }
                for socket in [near, far] {
                    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("linger");
                }
            });
        }
    });
    (address, cut)
}

#[tokio::test]
async fn a_tunnel_that_dies_ends_its_streams_with_an_error_on_both_sides() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, web_may()).await;
    let (between, cut) = relay(api.inbound).await;
    let web = mesh.caller_within(Limits::default(), "web", "api", &[("api-1", between)]).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        say(&mut stream, "hello").await;
        streams.push(stream);
    }

    cut.send_replace(true);

    for stream in &mut streams {
        assert_eq!(end_of(stream).await, Err(ErrorKind::ConnectionReset));
    }
    assert_eq!(service.last_end().await, Err(ErrorKind::ConnectionReset));
    tunnels(&web, "outbound", "api", 0).await;
    tunnels(&api, "inbound", "web", 0).await;
    api.counts(r#"postern_connections_active{direction="inbound",peer="web"} 0"#).await;
}

#[tokio::test]
async fn a_stream_whose_reader_is_stuck_ends_with_its_tunnel() {
    let mesh = Mesh::new();
    let stuck = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let api = mesh.destination("api", stuck.local_addr().expect("address"), web_may()).await;
    let (between, cut) = relay(api.inbound).await;
    let web = mesh.caller_within(Limits::default(), "web", "api", &[("api-1", between)]).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    let (_service, _) = stuck.accept().await.expect("accept");
    let bytes = vec![0; 64 * 1024];
    while tokio::time::timeout(Duration::from_millis(300), stream.write_all(&bytes)).await.is_ok() {}

    cut.send_replace(true);

    api.counts(r#"postern_connections_active{direction="inbound",peer="web"} 0"#).await;
}

#[tokio::test]
async fn a_stream_whose_reader_is_stuck_ends_when_its_caller_resets_it() {
    let mesh = Mesh::new();
    let stuck = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let api = mesh.destination("api", stuck.local_addr().expect("address"), web_may()).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
    let (_service, _) = stuck.accept().await.expect("accept");
    let bytes = vec![0; 64 * 1024];
    while tokio::time::timeout(Duration::from_millis(300), stream.write_all(&bytes)).await.is_ok() {}

    // At the deadline of a drain.
    web.plane.drain(Duration::ZERO).await;

    api.counts(r#"postern_connections_active{direction="inbound",peer="web"} 0"#).await;
}

#[tokio::test]
async fn a_denial_is_final_and_no_other_instance_is_asked() {
    let mesh = Mesh::new();
    let (first, second) = (Service::echo().await, Service::echo().await);
    let denying = mesh.destination("api", first.address, vec![intention("web", "api", DENY)]).await;
    let allowing = mesh.destination("api", second.address, web_may()).await;
    let instances = [("api-1", denying.inbound), ("api-2", allowing.inbound)];
    let web = mesh.caller_within(Limits::default(), "web", "api", &instances).await;

    let (mut carried, mut denied) = (0, 0);
    while denied < 5 {
        let mut stream = TcpStream::connect(web.upstream).await.expect("connect");
        stream.write_all(b"hello").await.expect("write");
        match end_of(&mut stream).await {
            Ok(5) => carried += 1,
            Err(ErrorKind::ConnectionReset) => denied += 1,
            other => panic!("{other:?}"),
        }
    }

    denying.counts(&format!(r#"intention="web -> api",peer="web",verdict="deny"}} {denied}"#)).await;
    assert_eq!((first.connections(), second.connections()), (0, carried));
}

/// Connects and sends before anything else has its turn: the bytes are there when the sidecar accepts.
fn connect_sending(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = std::net::TcpStream::connect(address).expect("connect");
    stream.write_all(bytes).expect("write");
    stream.set_nonblocking(true).expect("non-blocking");
    TcpStream::from_std(stream).expect("stream")
}

#[tokio::test]
async fn bytes_ahead_of_the_acceptance_are_delivered_once_though_the_first_instance_refuses() {
    for length in [1, 5_000, 16 * 1024, 40_000] {
        let mesh = Mesh::new();
        let service = Service::echo().await;
        let down = mesh.destination("api", NOWHERE, web_may()).await;
        let up = mesh.destination("api", service.address, web_may()).await;
        let instances = [("api-1", down.inbound), ("api-2", up.inbound)];
        let web = mesh.caller_within(Limits::default(), "web", "api", &instances).await;
        let sent: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let refusals = || down.sum("postern_connections_refused_total", "local_unavailable");

        // Once it has refused, the other one is preferred.
        while refusals() < 1.0 {
            let mut stream = connect_sending(web.upstream, &sent);
            stream.shutdown().await.expect("half-close");
            let mut got = Vec::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("in time");
            read.expect("delivered, by the second one");
            assert!(got == sent, "{} bytes of {length}", got.len());
        }
    }
}

#[tokio::test]
async fn bytes_ahead_of_the_acceptance_go_with_the_open_and_no_more_than_16_kib() {
    let mesh = Mesh::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let instances = [("api-1", listener.local_addr().expect("address"))];
    let web = mesh.caller_within(Limits::default(), "web", "api", &instances).await;
    let sent: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
    let _caller = connect_sending(web.upstream, &sent);
    let mut end = TunnelEnd::accept(&mesh, mesh.svid("api", HOUR), &listener).await;

    assert_eq!(end.next(OPEN).await.stream, 1);
    let mut got = Vec::new();
    while got.len() < 16 * 1024 {
        got.extend(end.next(DATA).await.payload);
    }
    assert_eq!(got.len(), 16 * 1024, "what needs no acceptance");
    end.send(CREDIT, 1, &65_536_u32.to_be_bytes()).await;
    while got.len() < sent.len() {
        got.extend(end.next(DATA).await.payload);
    }
    assert!(got == sent);
}

#[tokio::test]
async fn a_warm_tunnel_that_ends_under_an_open_is_replaced_without_the_caller_noticing() {
    let mesh = Mesh::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let instances = [("api-1", listener.local_addr().expect("address"))];
    let web = mesh.caller_within(Limits::default(), "web", "api", &instances).await;
    let mut first = TcpStream::connect(web.upstream).await.expect("connect");
    let mut before = TunnelEnd::accept(&mesh, mesh.svid("api", HOUR), &listener).await;
    before.next(OPEN).await;
    before.send(CREDIT, 1, &65_536_u32.to_be_bytes()).await;
    before.send(DATA, 1, b"hello").await;
    first.read_exact(&mut [0; 5]).await.expect("the tunnel is warm");

    // The process behind the tunnel is replaced by another one at the same address, with an OPEN on its way.
    let mut second = TcpStream::connect(web.upstream).await.expect("connect");
    second.write_all(b"ahead").await.expect("write");
    assert_eq!(before.next(OPEN).await.stream, 2);
    drop(before);
    let mut after = TunnelEnd::accept(&mesh, mesh.svid("api", HOUR), &listener).await;
    assert_eq!(after.next(OPEN).await.stream, 1);
    after.send(CREDIT, 1, &65_536_u32.to_be_bytes()).await;
    after.send(DATA, 1, b"welcome").await;

    second.read_exact(&mut [0; 7]).await.expect("the second stream lives");
    assert_eq!(end_of(&mut first).await, Err(ErrorKind::ConnectionReset), "what was accepted is not repeated");
}
