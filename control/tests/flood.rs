//! Connections without a credential to the HTTP API, over real sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use postern_control::settings::Address;
use postern_control::{Settings, run};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// Connections that one address may have at work.
const PLACES: usize = 64;
/// What says nothing for so long is closed (security.md: 5 s for a head), and its place is free again.
const SILENCE: Duration = Duration::from_secs(5);

async fn dial(to: SocketAddr, source: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /v1/mesh HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
}

async fn is_answered(stream: &mut TcpStream) -> bool {
    let mut status = [0; 12];
    tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut status)).await.unwrap().unwrap();
    &status == b"HTTP/1.1 200"
}

/// Fills one address, asks once more from it, and from another one. Gives the connection that waits, with whether it was
/// answered, and those that hold the places.
async fn flood(to: SocketAddr) -> (TcpStream, bool, Vec<TcpStream>) {
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(dial(to, "127.0.0.1").await);
    }
    let mut waiting = dial(to, "127.0.0.1").await;
    ask(&mut waiting).await;
    let mut other = dial(to, "127.0.0.2").await;
    ask(&mut other).await;
    assert!(is_answered(&mut other).await, "another address has places of its own");
    let mut byte = [0; 1];
    let was_answered = tokio::time::timeout(Duration::from_millis(200), waiting.peek(&mut byte)).await.is_ok();
    (waiting, was_answered, held)
}

#[tokio::test]
async fn the_sixty_fifth_connection_of_an_address_waits_and_other_addresses_do_not() {
    let directory = TempDir::new().unwrap();
    let settings = Settings {
        data_dir: directory.path().join("data"),
        http: Address::loopback(0),
        grpc: Address::loopback(0),
        seal_key_file: Some(directory.path().join("seal.key")),
        drain: Duration::from_secs(1),
        ..Settings::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, ready) = oneshot::channel();
    let shutdown = async { drop(stopped.await) };
    let task = tokio::spawn(run(settings, shutdown, move |addresses| tell.send(addresses.http.parse().unwrap()).unwrap()));
    let http: SocketAddr = ready.await.unwrap();

    // On a host so busy that the silent ones were closed meanwhile, the attempt says nothing.
    let (mut waiting, mut held) = loop {
        let began = Instant::now();
        let (waiting, was_answered, held) = flood(http).await;
        if began.elapsed() < SILENCE - Duration::from_secs(1) {
            assert!(!was_answered, "it was served over the limit of its address");
            break (waiting, held);
        }
    };
    drop(held.pop());
    assert!(is_answered(&mut waiting).await, "a place was given back");
    drop((waiting, held));
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
}
