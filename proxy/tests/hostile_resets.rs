//! Resets at every stage of a handshake. A program of its own, since it counts the files of the process.

mod by_hand;
mod mesh;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use by_hand::ByHand;
use mesh::{ALLOW, Mesh, Service, eventually, intention};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How often at each stage.
const TIMES: usize = 50;

#[derive(Debug, Clone, Copy)]
enum Stage {
    Connected,
    PartOfClientHello,
    ClientHello,
    ServerFlight,
    PartOfFinished,
    Finished,
    InUse,
}

const STAGES: [Stage; 7] = [
    Stage::Connected,
    Stage::PartOfClientHello,
    Stage::ClientHello,
    Stage::ServerFlight,
    Stage::PartOfFinished,
    Stage::Finished,
    Stage::InUse,
];

async fn reset_at(stage: Stage, to: SocketAddr, config: Arc<ClientConfig>) {
    let mut client = ByHand::connect("127.0.0.1", to, config, "api.mesh.example").await.expect("connect");
    let hello = client.client_hello();
    match stage {
        Stage::Connected => return client.reset(),
        Stage::PartOfClientHello => {
            client.send(&hello[..hello.len() / 2]).await.expect("a part");
            return client.reset();
        }
        _ => client.send(&hello).await.expect("the hello"),
    }
    if !matches!(stage, Stage::ClientHello) {
        let finished = client.finished().await.expect("the server's flight");
        match stage {
            Stage::ServerFlight => {}
            Stage::PartOfFinished => client.send(&finished[..finished.len() / 2]).await.expect("a part"),
            Stage::Finished => client.send(&finished).await.expect("the flight"),
            _ => {
                client.send(&finished).await.expect("the flight");
                client.say("hello").await.expect("an echo");
            }
        }
    }
    client.reset();
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

#[tokio::test]
async fn resets_at_every_stage_leave_nothing_behind_and_are_all_counted() {
    let mesh = Mesh::new();
    let service = Service::echo().await;
    let api = mesh.destination("api", service.address, vec![intention("web", "api", ALLOW)]).await;
    let web = mesh.caller("web", "api", &api, true).await;
    let mut beside = TcpStream::connect(web.upstream).await.expect("connect");
    let mut say = async |text: &[u8; 5]| {
        let mut answer = [0; 5];
        let exchange = async {
            beside.write_all(text).await.expect("write");
            beside.read_exact(&mut answer).await.expect("read");
        };
        tokio::time::timeout(Duration::from_secs(10), exchange).await.expect("traffic beside goes on");
        assert_eq!(&answer, text);
    };
    say(b"start").await;
    let runtime = tokio::runtime::Handle::current();
    let (files, tasks) = (open_files(), runtime.metrics().num_alive_tasks());
    let config = mesh.client_config("web");

    for stage in STAGES {
        for _ in 0..TIMES {
            reset_at(stage, api.inbound, config.clone()).await;
        }
        say(b"going").await;
    }

    eventually("every connection is gone", async || api.plane.open_connections() == 1).await;
    eventually("every task is gone", async || runtime.metrics().num_alive_tasks() <= tasks).await;
    eventually("every file is closed", async || open_files() <= files).await;
    let (failures, done) = ("postern_handshake_failures_total", "postern_handshake_seconds_count");
    let all = STAGES.len() * TIMES + 1;
    let counted = || api.sum(failures, "inbound") + api.sum(done, "inbound");
    eventually("each was counted, as failed or as done", async || counted() as usize == all).await;
    let before_the_end = 5 * TIMES;
    let by_reason = api.sum(failures, r#""peer_closed""#) + api.sum(failures, r#""io""#);
    assert_eq!(api.sum(failures, "inbound"), by_reason, "no other reason\n{}", api.metrics());
    assert!(by_reason as usize >= before_the_end, "the first five stages never finish: {by_reason}");
    say(b"after").await;
}
