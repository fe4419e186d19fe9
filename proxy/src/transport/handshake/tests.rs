//! Handshakes over sockets, with ourselves and with OpenSSL.

mod openssl;

use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use postern_ca::{
    Authority, Expected, PrivateKey, Request, Subject, Svid, SvidSlot, SvidSource, SvidVerifier, Trust, client_config,
    server_config,
};
use tokio::net::TcpListener;

use super::*;
use crate::transport::record::{HEADER, Opened, TRAILER, record_length};

const KINDS: [RecordLayerKind; 2] = [RecordLayerKind::InPlace, RecordLayerKind::Rustls];
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    authority: Authority,
    trust: postern_ca::TrustSource,
}

impl World {
    fn new() -> Self {
        let (domain, datacenter) = ("mesh.example".parse().expect("domain"), "dc1".parse().expect("datacenter"));
        let authority = Authority::create(&domain, &datacenter, SystemTime::now()).expect("authority");
        let trust = Trust { bundle: authority.bundle(), datacenter, revoked: Default::default() };
        Self { authority, trust: Arc::new(ArcSwap::from_pointee(trust)) }
    }

    fn svid(&self, service: &str) -> Svid {
        let key = PrivateKey::generate().expect("key");
        let id = Subject::Service(service.parse().expect("service"));
        let now = SystemTime::now();
        let request = Request { csr_der: &key.csr_der(), id, ports: &[], ttl: Duration::from_secs(3_600), now };
        Svid::new(self.authority.issue(request).expect("issue").chain, key).expect("svid")
    }

    fn slot(&self, service: &str) -> SvidSource {
        Arc::new(SvidSlot::new(Arc::new(self.svid(service))))
    }

    fn server(&self, svid: SvidSource, kind: RecordLayerKind, alpn: &[&[u8]]) -> ServerConfigs {
        let verifier = SvidVerifier::new(self.trust.clone(), Expected::AnyService);
        ServerConfigs::new(server_config(svid.clone(), verifier, alpn), svid, kind)
    }

    fn client(&self, svid: SvidSource, expected: &str, kind: RecordLayerKind, alpn: &[&[u8]]) -> ClientConfigs {
        let verifier = SvidVerifier::new(self.trust.clone(), Expected::Service(expected.parse().expect("service")));
        ClientConfigs::new(client_config(svid.clone(), verifier, alpn), svid, kind)
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("api.mesh.example").expect("name")
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().expect("address")), listener.accept());
    (client.expect("connect"), server.expect("accept").0)
}

/// What the dialler and the acceptor made of it.
type Outcomes = (Result<Established, HandshakeError>, Result<Established, HandshakeError>);

async fn shake(
    client: &ClientConfigs,
    client_kind: RecordLayerKind,
    server: &ServerConfigs,
    server_kind: RecordLayerKind,
) -> Outcomes {
    let (dialled, accepted) = sockets().await;
    let (client, own_leaf) = client.current().expect("svid");
    let choose = |hello: &ClientHello<'_>| {
        assert_eq!(hello.server_name(), Some("api.mesh.example"));
        Ok(server.current().expect("svid"))
    };
    let both =
        async { tokio::join!(connect(dialled, client_kind, client, own_leaf, name()), accept(accepted, server_kind, choose)) };
    tokio::time::timeout(PATIENCE, both).await.expect("handshakes in time")
}

impl Established {
    async fn say(&mut self, plaintext: &[u8]) {
        let mut wire = self.layer.urgent().unwrap_or_default();
        let mut record = vec![0; HEADER + plaintext.len() + TRAILER];
        record[HEADER..HEADER + plaintext.len()].copy_from_slice(plaintext);
        self.layer.seal(&mut record).expect("seal");
        wire.extend(record);
        self.socket.write_all(&wire).await.expect("write");
    }

    /// What the next record holds.
    async fn hear_record(&mut self) -> Result<Heard, crate::transport::record::RecordError> {
        loop {
            if let Some(length) = record_length(&self.unread)?.filter(|length| *length <= self.unread.len()) {
                let mut record: Vec<u8> = self.unread.drain(..length).collect();
                return Ok(match self.layer.open(&mut record)? {
                    Opened::Data(range) => Heard::Data(record[range].to_vec()),
                    Opened::Nothing => Heard::Nothing,
                    Opened::CloseNotify => Heard::Closed,
                });
            }
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.unread)).await.expect("bytes in time");
            assert_ne!(read.expect("read"), 0, "the peer closed without a close_notify");
        }
    }

    /// So many bytes of data.
    async fn hear(&mut self, count: usize) -> Vec<u8> {
        let mut all: Vec<u8> = std::mem::take(&mut self.early).concat();
        while all.len() < count {
            match self.hear_record().await.expect("a record") {
                Heard::Data(data) => all.extend(data),
                Heard::Nothing => {}
                Heard::Closed => panic!("closed after {} bytes", all.len()),
            }
        }
        all
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Data(Vec<u8>),
    Nothing,
    Closed,
}

#[tokio::test]
async fn every_pair_of_layers_shakes_hands_and_talks() {
    let world = World::new();
    let (web, api) = (world.slot("web"), world.slot("api"));
    for (client_kind, server_kind) in KINDS.into_iter().flat_map(|one| KINDS.map(|other| (one, other))) {
        let client = world.client(web.clone(), "api", client_kind, &[b"postern/1"]);
        let server = world.server(api.clone(), server_kind, &[b"postern/1"]);
        let (client, server) = shake(&client, client_kind, &server, server_kind).await;
        let (mut client, mut server) = (client.expect("client"), server.expect("server"));
        assert_eq!((client.alpn.as_deref(), server.alpn.as_deref()), (Some(&b"postern/1"[..]), Some(&b"postern/1"[..])));
        assert_eq!(client.own_leaf, server.peer_chain[0]);
        assert_eq!(server.own_leaf, client.peer_chain[0]);
        client.say(b"from the client").await;
        assert_eq!(server.hear(15).await, b"from the client");
        server.say(b"from the server").await;
        assert_eq!(client.hear(15).await, b"from the server");
    }
}

#[tokio::test]
async fn data_that_comes_with_the_last_flight_is_not_lost() {
    let world = World::new();
    let (web, api) = (world.slot("web"), world.slot("api"));
    for kind in KINDS {
        let (client_configs, server_configs) =
            (world.client(web.clone(), "api", kind, &[]), world.server(api.clone(), kind, &[]));
        let (dialled, accepted) = sockets().await;
        let (config, own_leaf) = client_configs.current().expect("svid");
        // The server reads nothing between its flight and the client's data.
        let (between, to_server) = sockets().await;
        let relay = tokio::spawn(hold_back(accepted, between));
        let client = async {
            let mut client = connect(dialled, kind, config, own_leaf, name()).await.expect("client");
            for number in 0..10_u8 {
                client.say(&[number; 100]).await;
            }
            client
        };
        let server = accept(to_server, kind, |_| Ok(server_configs.current().expect("svid")));
        let (_client, server) = tokio::join!(client, server);
        let mut server = server.expect("server");
        let expected: Vec<u8> = (0..10).flat_map(|number| [number; 100]).collect();
        assert_eq!(server.hear(1_000).await, expected);
        drop(server);
        relay.abort();
    }
}

/// Carries bytes both ways; those of the client's second flight only when its data has come as well.
async fn hold_back(mut client: TcpStream, mut server: TcpStream) {
    let mut hello = vec![0; 16_384];
    let read = client.read(&mut hello).await.expect("ClientHello");
    server.write_all(&hello[..read]).await.expect("ClientHello");
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let upwards = async {
        let mut held = Vec::new();
        while held.len() < 10 * 122 + 500 {
            assert_ne!(from_client.read_buf(&mut held).await.expect("read"), 0);
        }
        to_server.write_all(&held).await.expect("write");
        tokio::io::copy(&mut from_client, &mut to_server).await
    };
    let _ = tokio::join!(upwards, tokio::io::copy(&mut from_server, &mut to_client));
}

#[tokio::test]
async fn a_peer_that_is_refused_is_told_and_named() {
    let world = World::new();
    for kind in KINDS {
        let client = world.client(world.slot("web"), "payments", kind, &[]);
        let server = world.server(world.slot("api"), kind, &[]);
        let (client, server) = shake(&client, kind, &server, kind).await;
        assert_eq!(client.err().expect("refused").word(), "unexpected_peer");
        assert_eq!(server.err().expect("told").word(), "alert");
        let stranger = World::new();
        let client = world.client(stranger.slot("web"), "api", kind, &[]);
        let server = world.server(world.slot("api"), kind, &[]);
        let (_, server) = shake(&client, kind, &server, kind).await;
        assert_eq!(server.err().expect("refused").word(), "unknown_authority");
        let client = world.client(world.slot("web"), "api", kind, &[b"h2"]);
        let server = world.server(world.slot("api"), kind, &[b"postern/1"]);
        let (client, server) = shake(&client, kind, &server, kind).await;
        assert_eq!((client.err().expect("told").word(), server.err().expect("refused").word()), ("alert", "not_tls"));
    }
}

async fn accept_bytes(bytes: &[u8], finish: bool) -> (HandshakeError, Vec<u8>) {
    let (mut dialled, accepted) = sockets().await;
    let world = World::new();
    let server = world.server(world.slot("api"), RecordLayerKind::InPlace, &[]);
    let peer = async {
        // It may have refused before all is written.
        let _ = dialled.write_all(bytes).await;
        if finish {
            let _ = dialled.shutdown().await;
        }
        let mut answer = Vec::new();
        let _ = dialled.read_to_end(&mut answer).await;
        answer
    };
    let accepting = accept(accepted, RecordLayerKind::InPlace, |_| Ok(server.current().expect("svid")));
    let both = async { tokio::join!(accepting, peer) };
    let (accepted, answer) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
    (accepted.err().expect("refused"), answer)
}

#[tokio::test]
async fn what_is_no_client_hello_is_refused_with_an_alert() {
    let (error, answer) = accept_bytes(b"GET / HTTP/1.1\r\n\r\n", false).await;
    assert_eq!(error.word(), "not_tls");
    assert_eq!(answer[..5], [21, 3, 3, 0, 2], "an alert: {answer:?}");
    let (error, _) = accept_bytes(&[22, 3, 1, 0, 4, 1, 0, 0, 0], false).await;
    assert_eq!(error.word(), "not_tls");
}

#[tokio::test]
async fn a_huge_client_hello_is_refused() {
    // A handshake message of 65,000 bytes that never ends, in records of 16,000.
    let mut hello = Vec::new();
    for number in 0..5 {
        hello.extend_from_slice(&[22, 3, 1]);
        hello.extend_from_slice(&16_000_u16.to_be_bytes());
        hello.extend_from_slice(&if number == 0 { [1, 0, 0xff, 0xff] } else { [0; 4] });
        hello.resize(hello.len() + 16_000 - 4, 0);
    }
    let (error, _) = accept_bytes(&hello, false).await;
    assert_eq!(error.word(), "not_tls");
}

#[tokio::test]
async fn a_peer_that_goes_away_is_said_to_have_closed() {
    assert_eq!(accept_bytes(b"", true).await.0.word(), "peer_closed");
    assert_eq!(accept_bytes(&[22, 3, 1, 1], true).await.0.word(), "peer_closed");
}

#[tokio::test]
async fn what_the_chooser_refuses_is_refused() {
    let world = World::new();
    let client = world.client(world.slot("web"), "api", RecordLayerKind::InPlace, &[]);
    let (dialled, accepted) = sockets().await;
    let (config, own_leaf) = client.current().expect("svid");
    let refuse = |hello: &ClientHello<'_>| Err(HandshakeError::WrongName(hello.server_name().unwrap_or_default().to_owned()));
    let (client, server) = tokio::join!(
        connect(dialled, RecordLayerKind::InPlace, config, own_leaf, name()),
        accept(accepted, RecordLayerKind::InPlace, refuse)
    );
    assert_eq!(server.err().expect("refused").word(), "wrong_name");
    assert_eq!(client.err().expect("closed").word(), "peer_closed");
}

#[test]
fn configurations_are_made_once_a_rotation() {
    let world = World::new();
    let slot = world.slot("api");
    let configs = world.server(slot.clone(), RecordLayerKind::InPlace, &[]);
    let (first, leaf) = configs.current().expect("svid");
    assert!(Arc::ptr_eq(&first, &configs.current().expect("svid").0));
    assert!(first.enable_secret_extraction);
    slot.store(Arc::new(world.svid("api")));
    let (second, renewed) = configs.current().expect("svid");
    assert!(!Arc::ptr_eq(&first, &second));
    assert_ne!(leaf, renewed);
    slot.store(None);
    assert!(configs.current().is_none());
    let configs = world.client(world.slot("web"), "api", RecordLayerKind::Rustls, &[]);
    assert!(!configs.current().expect("svid").0.enable_secret_extraction, "only where it is needed");
}

#[tokio::test]
async fn the_futures_are_small() {
    let world = World::new();
    let (dialled, accepted) = sockets().await;
    let (config, own_leaf) = world.client(world.slot("web"), "api", RecordLayerKind::InPlace, &[]).current().expect("svid");
    let server = world.server(world.slot("api"), RecordLayerKind::InPlace, &[]);
    let connecting = connect(dialled, RecordLayerKind::InPlace, config, own_leaf, name());
    let accepting = accept(accepted, RecordLayerKind::InPlace, |_| Ok(server.current().expect("svid")));
    for (what, size) in
        [("connect", size_of_val(&connecting)), ("accept", size_of_val(&accepting)), ("established", size_of::<Established>())]
    {
        println!("{what}: {size} bytes");
        assert!(size <= 400, "{what} has {size} bytes");
    }
}
