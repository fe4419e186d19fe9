//! What strangers may try with the inbound port: each is refused, and good traffic beside it goes on.

mod by_hand;
mod mesh;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use by_hand::ByHand;
use mesh::{ALLOW, Mesh, Service, Side, eventually, intention};
use postern_proxy::data_plane::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// How long something may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    mesh: Mesh,
    api: Side,
    web: Side,
    _service: Service,
}

async fn world(limits: Limits) -> World {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination_with("api", service.address, vec![intention("*", "api", ALLOW)], limits).await;
    let web = mesh.caller("web", "api", &api, true).await;
    World { mesh, api, web, _service: service }
}

impl World {
    /// A client at `from` that has connected.
    async fn client(&self, from: &str) -> ByHand {
        let config = self.mesh.client_config("shop");
        ByHand::connect(from, self.api.inbound, config, "api.mesh.example").await.expect("connect")
    }

    /// One exchange of good traffic, from another address.
    async fn good_traffic_passes(&self) {
        let exchange = async {
            let mut stream = TcpStream::connect(self.web.upstream).await.expect("connect");
            say(&mut stream, b"hello").await.expect("an echo");
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("good traffic goes on");
    }

    /// Fails where a stranger made a series that is not of the fixed lists.
    fn has_no_other_series(&self) {
        const REASONS: [&str; 9] = [
            "timed_out",
            "peer_closed",
            "not_tls",
            "io",
            "alert",
            "wrong_name",
            "max_connections",
            "max_connections_per_peer",
            "too_many_unauthenticated",
        ];
        for line in self.api.metrics().lines().filter(|line| line.starts_with("postern_")) {
            for (label, allowed) in [("reason", &REASONS[..]), ("peer", &["web", "shop"])] {
                let Some((_, rest)) = line.split_once(&format!("{label}=\"")) else { continue };
                let value = rest.split('"').next().expect("a value");
                assert!(allowed.contains(&value), "{line}");
            }
        }
    }
}

async fn say(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, text);
    Ok(())
}

/// All that the other side still says before it ends the connection.
async fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    // Ended by a reset is ended too.
    let _ = tokio::time::timeout(PATIENCE, reading).await.expect("an end");
    rest
}

fn short_handshakes(millis: u64) -> Limits {
    Limits { handshake: Duration::from_millis(millis), ..Limits::default() }
}

#[tokio::test]
async fn a_client_hello_that_drips_is_ended_in_time_though_bytes_keep_coming() {
    let world = world(short_handshakes(600)).await;
    let mut client = world.client("127.0.0.2").await;
    let hello = client.client_hello();
    let begun = Instant::now();

    let mut sent = 0;
    for byte in &hello {
        if client.send(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        world.good_traffic_passes().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    assert!(sent < hello.len(), "it was ended after {:?}", begun.elapsed());
    world.api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="timed_out"} 1"#).await;
    world.has_no_other_series();
}

#[tokio::test]
async fn a_client_hello_of_megabytes_is_refused_by_its_header() {
    let world = world(Limits { handshake: Duration::from_secs(3_600), ..Limits::default() }).await;
    let mut client = world.client("127.0.0.2").await;
    let mut record = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 16_384, 0);

    let mut sent = 0;
    let sending = async {
        while sent < 16 << 20 && client.send(&record).await.is_ok() {
            sent += record.len();
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("it is ended before its time is over");

    assert!(sent < 16 << 20, "it was not read to its end");
    world.api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="not_tls"} 1"#).await;
    world.good_traffic_passes().await;
    world.has_no_other_series();
}

#[tokio::test]
async fn tls_1_2_is_answered_with_protocol_version_and_nothing_else() {
    let world = world(Limits::default()).await;
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, two suites of TLS 1.2, no compression, one group and one signature algorithm (RFC 5246 §7.4.1.2).
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0, 0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
    let mut message = vec![1, 0, 0, body.len() as u8];
    message.append(&mut body);
    let mut record = vec![0x16, 3, 1, 0, message.len() as u8];
    record.append(&mut message);
    let mut stream = TcpStream::connect(world.api.inbound).await.expect("connect");

    stream.write_all(&record).await.expect("write");

    assert_eq!(rest_of(&mut stream).await, [0x15, 3, 3, 0, 2, 2, 70], "a fatal alert, protocol_version");
    world.api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="not_tls"} 1"#).await;
    world.good_traffic_passes().await;
    world.has_no_other_series();
}

#[tokio::test]
async fn a_peer_that_ends_in_the_middle_of_its_client_hello_is_let_go_at_once() {
    let world = world(Limits { handshake: Duration::from_secs(3_600), ..Limits::default() }).await;
    let mut client = world.client("127.0.0.2").await;
    let hello = client.client_hello();

    client.send(&hello[..hello.len() / 2]).await.expect("a part");
    client.socket.shutdown().await.expect("half-close");

    assert_eq!(rest_of(&mut client.socket).await, b"");
    world.api.counts(r#"postern_handshake_failures_total{direction="inbound",reason="peer_closed"} 1"#).await;
}

#[tokio::test]
async fn parts_of_client_hellos_keep_out_nobody_of_the_same_address() {
    let world = world(Limits { handshake: Duration::from_secs(3_600), ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut client = world.client("127.0.0.2").await;
        let hello = client.client_hello();
        client.send(&hello[..hello.len() - 1]).await.expect("nearly all");
        held.push(client);
    }

    let mut good = world.client("127.0.0.2").await;
    let exchange = async {
        good.shake_hands().await.expect("handshake");
        good.say("hello").await.expect("an echo");
    };

    tokio::time::timeout(PATIENCE, exchange).await.expect("served among them");
}

#[tokio::test]
async fn over_its_64_an_address_is_parked_without_its_time_running_and_others_are_served() {
    let world = world(short_handshakes(3_000)).await;
    let begun = Instant::now();
    let mut stalled = Vec::new();
    for _ in 0..64 {
        let mut client = world.client("127.0.0.2").await;
        client.send_client_hello().await.expect("hello");
        client.finished().await.expect("an answer: it is at work");
        stalled.push(client);
    }
    let mut parked = world.client("127.0.0.2").await;
    parked.send_client_hello().await.expect("hello");
    let waiting = tokio::spawn(async move {
        let finished = parked.finished().await?;
        parked.send(&finished).await?;
        parked.say("hello").await
    });

    world.good_traffic_passes().await;
    let is_parked = !waiting.is_finished();
    // On a machine so slow that the first of the stalled are gone by now, there was nothing to see.
    assert!(is_parked || begun.elapsed() > Duration::from_secs(3), "the 65th is not at work");

    let served = tokio::time::timeout(PATIENCE, waiting).await.expect("served in the end").expect("no panic");
    served.expect("it had its whole time once it was at work");
    world.api.counts(r#"reason="timed_out"} 64"#).await;
    world.has_no_other_series();
}

#[tokio::test]
async fn over_the_handshakes_at_once_the_next_one_waits_and_is_served() {
    let world = world(Limits { handshakes: 4, ..short_handshakes(2_000) }).await;
    let begun = Instant::now();
    let mut stalled = Vec::new();
    for from in 2..6 {
        let mut client = world.client(&format!("127.0.0.{from}")).await;
        client.send_client_hello().await.expect("hello");
        client.finished().await.expect("an answer: it is at work");
        stalled.push(client);
    }

    let mut fifth = world.client("127.0.0.9").await;
    fifth.send_client_hello().await.expect("hello");
    let answered = tokio::time::timeout(Duration::from_millis(200), fifth.finished()).await;
    assert!(answered.is_err() || begun.elapsed() > Duration::from_secs(2), "four are at work");

    let finished = match answered {
        Ok(finished) => finished,
        Err(_) => tokio::time::timeout(PATIENCE, fifth.finished()).await.expect("its turn comes"),
    };
    let finished = finished.expect("an answer");
    fifth.send(&finished).await.expect("the rest");
    fifth.say("hello").await.expect("an echo");
    world.has_no_other_series();
}

#[tokio::test]
async fn a_thousand_handshakes_stalled_by_sixteen_addresses_end_and_good_traffic_goes_on() {
    let world = world(short_handshakes(3_000)).await;
    let mut stalled = Vec::new();
    for from in 2..18 {
        for _ in 0..64 {
            let mut client = world.client(&format!("127.0.1.{from}")).await;
            client.send_client_hello().await.expect("hello");
            stalled.push(client);
        }
    }

    world.good_traffic_passes().await;

    world.api.counts(r#"reason="timed_out"} 1024"#).await;
    world.has_no_other_series();
}

#[tokio::test]
async fn over_the_parked_of_the_shipped_limits_the_newest_is_closed() {
    let world = world(Limits { handshake: Duration::from_secs(3_600), ..Limits::default() }).await;
    let mut held = Vec::new();
    for _ in 0..64 + 1_024 {
        held.push(mesh::connect_from("127.0.0.2", world.api.inbound).await);
    }
    let refused = || world.api.sum("postern_connections_refused_total", "too_many_unauthenticated") as usize;
    assert_eq!(refused(), 0);

    for _ in 0..10 {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.bind("127.0.0.2:0".parse().expect("address")).expect("bind");
        // The reset may come before the connect has returned.
        held.extend(socket.connect(world.api.inbound).await);
    }

    eventually("the ten are closed", async || refused() == 10).await;
    world.good_traffic_passes().await;
    world.has_no_other_series();
}

#[tokio::test]
async fn the_number_of_connections_is_kept_exactly() {
    let world = world(Limits::with_max_connections(8, Some(8))).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(world.web.upstream).await.expect("connect");
        say(&mut stream, b"hello").await.expect("one of the eight");
        held.push(stream);
    }

    let mut ninth = TcpStream::connect(world.web.upstream).await.expect("connect");
    let refused = say(&mut ninth, b"hello").await.expect_err("no room");
    assert!(matches!(refused.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused}");
    assert!(world.api.sum("postern_connections_refused_total", r#"reason="max_connections""#) >= 1.0);
    assert_eq!(world.api.plane.open_connections(), 8);

    held.pop();
    eventually("its place is free", async || world.api.plane.open_connections() == 7).await;
    world.good_traffic_passes().await;
    world.has_no_other_series();
}

#[tokio::test]
async fn one_peer_has_a_quarter_of_the_connections_unless_told_otherwise() {
    let world = world(Limits::with_max_connections(16, None)).await;
    let shop = world.mesh.caller("shop", "api", &world.api, true).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(world.web.upstream).await.expect("connect");
        say(&mut stream, b"hello").await.expect("one of the four");
        held.push(stream);
    }

    let mut fifth = TcpStream::connect(world.web.upstream).await.expect("connect");
    say(&mut fifth, b"hello").await.expect_err("its quarter is used up");

    world.api.counts(r#"reason="max_connections_per_peer"} 1"#).await;
    let mut other = TcpStream::connect(shop.upstream).await.expect("connect");
    say(&mut other, b"hello").await.expect("another peer has its own");
    world.has_no_other_series();
}
