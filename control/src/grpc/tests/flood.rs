//! Connections without a certificate, over real sockets: what one address may hold, and that it holds up nobody else.

use std::pin::pin;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;

/// The beginning of a ClientHello, whose rest never comes.
const PART_OF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
const PLACES: usize = 64;

/// One handshake is computed at a time, and none of these tests waits for one to run out.
fn settings() -> GrpcSettings {
    GrpcSettings { handshake_timeout: Duration::from_secs(300), handshakes_at_once: 1, parked: 2, ..GrpcSettings::default() }
}

async fn dial(rig: &Rig, source: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(rig.server.local_addr()).await.unwrap()
}

async fn half_a_handshake(rig: &Rig, source: &str) -> TcpStream {
    let mut stream = dial(rig, source).await;
    stream.write_all(PART_OF_A_HELLO).await.unwrap();
    stream
}

/// As many as one address may have at work.
async fn fill(rig: &Rig, source: &str) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(half_a_handshake(rig, source).await);
    }
    held
}

/// Shakes hands without a certificate over this connection.
async fn shake_hands(rig: &Rig, stream: TcpStream, svid: Option<Arc<Svid>>) -> Connection {
    let verifier = SvidVerifier::new(Arc::clone(&rig.trust), Expected::ControlPlane);
    let config = postern_ca::client_config(Arc::new(SvidSlot::new(svid)), verifier, &[b"h2"]);
    let name = "control.test.postern".to_owned().try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    Connection(sender)
}

/// A whole sidecar from another address: handshake, stream, everything pushed and acknowledged.
async fn serves_others(rig: &Rig) {
    let svid = rig.service_svid("api");
    rig.record(&svid, "api", "api-1", "api-1").await;
    let connection = shake_hands(rig, dial(rig, "127.0.0.2").await, Some(svid)).await;
    let mut api = open(connection, hello("api-1", &[])).await;
    assert!(matches!(api.next().await, Some(Down::Welcome(_))));
    api.settle().await;
}

#[tokio::test]
async fn the_sixty_fifth_connection_of_an_address_waits_and_other_addresses_do_not() {
    let rig = rig_with(push_settings(), settings()).await;
    let mut held = fill(&rig, "127.0.0.1").await;
    let mut waiting = pin!(shake_hands(&rig, dial(&rig, "127.0.0.1").await, None));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("it was served over the limit of its address"),
        () = serves_others(&rig) => {}
    }
    drop(held.pop());
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("a place was given back");
}

#[tokio::test]
async fn over_what_may_be_parked_the_newest_is_closed_and_counted() {
    let rig = rig_with(push_settings(), settings()).await;
    let _held = fill(&rig, "127.0.0.1").await;
    let stats = rig.mesh.stats();
    let (_first, _second) = (half_a_handshake(&rig, "127.0.0.1").await, half_a_handshake(&rig, "127.0.0.1").await);
    serves_others(&rig).await;
    assert_eq!(stats.over_address_limit.load(Ordering::Relaxed), 0, "two may be parked");
    let mut third = dial(&rig, "127.0.0.1").await;
    let mut byte = [0; 1];
    let ended = tokio::time::timeout(Duration::from_secs(30), third.read(&mut byte)).await.expect("it is closed");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(stats.over_address_limit.load(Ordering::Relaxed), 1);
    serves_others(&rig).await;
}

#[tokio::test]
async fn half_handshakes_of_many_addresses_hold_no_turn_to_compute() {
    let rig = rig_with(push_settings(), settings()).await;
    let mut held = Vec::new();
    for address in 3..10 {
        held.extend(fill(&rig, &format!("127.0.0.{address}")).await);
    }
    serves_others(&rig).await;
}
