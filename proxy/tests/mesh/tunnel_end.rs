//! One end of a tunnel by hand, after docs/tunnel.md and not after our code: it says what it is told to, true or not.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use postern_ca::{Expected, Svid, SvidSlot, SvidVerifier, TrustSource, check_signature_by, client_config, server_config};
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{Mesh, PATIENCE};

pub const OPEN: u8 = 0;
pub const DATA: u8 = 1;
pub const FIN: u8 = 2;
pub const RESET: u8 = 3;
pub const CREDIT: u8 = 4;
pub const PING: u8 = 5;
pub const CHALLENGE: u8 = 6;
pub const PROOF: u8 = 7;

/// The reasons of a RESET.
pub const DENIED: u8 = 1;
pub const DRAINING: u8 = 3;
pub const LIMIT: u8 = 5;

/// Who signs a proof: the TLS client or the TLS server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    Client,
    Server,
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What a proof on one tunnel is bound to, beside the challenge.
#[derive(Debug, Clone)]
pub struct Leaves {
    pub client: CertificateDer<'static>,
    pub server: CertificateDer<'static>,
}

/// The end of a tunnel.
pub struct TunnelEnd {
    tls: TlsStream<TcpStream>,
    pub leaves: Leaves,
}

impl TunnelEnd {
    /// Dials the sidecar of `api` as who `svid` says.
    pub async fn dial(mesh: &Mesh, svid: Svid, to: std::net::SocketAddr) -> Self {
        let own = svid.chain()[0].clone();
        let config = client_config(Arc::new(SvidSlot::new(Arc::new(svid))), verifier(mesh), &[b"postern/1"]);
        let socket = TcpStream::connect(to).await.expect("connect");
        let name = ServerName::try_from("api.mesh.example").expect("name");
        let tls = TlsConnector::from(config).connect(name, socket).await.expect("handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"postern/1"[..]));
        let server = tls.get_ref().1.peer_certificates().expect("certificates")[0].clone();
        Self { tls: tls.into(), leaves: Leaves { client: own, server: server.into_owned() } }
    }

    /// Takes the tunnel that a sidecar dials to `listener`, as who `svid` says.
    pub async fn accept(mesh: &Mesh, svid: Svid, listener: &TcpListener) -> Self {
        let own = svid.chain()[0].clone();
        let config = server_config(Arc::new(SvidSlot::new(Arc::new(svid))), verifier(mesh), &[b"postern/1"]);
        let (socket, _) = listener.accept().await.expect("accept");
        let tls = TlsAcceptor::from(config).accept(socket).await.expect("handshake");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"postern/1"[..]));
        let client = tls.get_ref().1.peer_certificates().expect("certificates")[0].clone();
        Self { tls: tls.into(), leaves: Leaves { client: client.into_owned(), server: own } }
    }

    /// Sends a frame; whether the other end still listens shows when it is read from.
    pub async fn send(&mut self, kind: u8, stream: u32, payload: &[u8]) {
        let _ = self.tls.write_all(&encoded(kind, stream, payload)).await;
        let _ = self.tls.flush().await;
    }

    /// Sends many frames at once.
    pub async fn send_all(&mut self, frames: impl IntoIterator<Item = (u8, u32, Vec<u8>)>) {
        let bytes: Vec<u8> = frames.into_iter().flat_map(|(kind, stream, payload)| encoded(kind, stream, &payload)).collect();
        let _ = self.tls.write_all(&bytes).await;
        let _ = self.tls.flush().await;
    }

    /// The next frame that is no PING, which is answered; `None` when the tunnel has ended.
    pub async fn frame(&mut self) -> Option<Frame> {
        let next = async {
            loop {
                let frame = self.any_frame().await?;
                match frame.payload.split_first() {
                    Some((0, rest)) if frame.kind == PING => self.send(PING, 0, &[&[1], rest].concat()).await,
                    _ if frame.kind == PING => {}
                    _ => return Some(frame),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a frame, or the end, in time")
    }

    async fn any_frame(&mut self) -> Option<Frame> {
        let mut head = [0; 8];
        self.tls.read_exact(&mut head).await.ok()?;
        let [l0, l1, l2, i0, i1, i2, i3, kind] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.tls.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, stream: u32::from_be_bytes([i0, i1, i2, i3]), payload })
    }

    /// The next frame of this kind; those of others before it are not looked at.
    pub async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await.expect("the tunnel lives");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Waits until the other end has ended the tunnel; gives the frames that came before.
    pub async fn ended(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }

    /// The challenge that the other end sends next.
    pub async fn challenge(&mut self) -> Vec<u8> {
        self.next(CHALLENGE).await.payload
    }

    /// Opens a stream to the port `main`, with credit for 64 KiB.
    pub async fn open(&mut self, stream: u32) {
        self.send(OPEN, stream, &open()).await;
    }

    /// Opens a stream and waits until it is accepted.
    pub async fn open_accepted(&mut self, stream: u32) {
        self.open(stream).await;
        let answer = self.next(CREDIT).await;
        assert_eq!(answer.stream, stream);
    }

    /// Sends `text` on a stream and waits until it comes back.
    pub async fn say(&mut self, stream: u32, text: &str) {
        self.send(DATA, stream, text.as_bytes()).await;
        let mut answer = Vec::new();
        while answer.len() < text.len() {
            let frame = self.next(DATA).await;
            assert_eq!(frame.stream, stream);
            answer.extend_from_slice(&frame.payload);
        }
        assert_eq!(answer, text.as_bytes());
    }
}

fn verifier(mesh: &Mesh) -> Arc<SvidVerifier> {
    let trust: TrustSource = Arc::new(ArcSwap::new(mesh.trust(Default::default())));
    SvidVerifier::new(trust, Expected::AnyService)
}

/// The bytes of a frame.
pub fn encoded(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("length").to_be_bytes();
    [&length[1..], &stream.to_be_bytes(), &[kind], payload].concat()
}

/// The payload of an OPEN for `main` with credit for 64 KiB.
pub fn open() -> Vec<u8> {
    [&65_536_u32.to_be_bytes()[..], &[4], b"main", &[0]].concat()
}

/// What the key of a renewed leaf signs.
fn signed(signer: Signer, challenge: &[u8], leaves: &Leaves, renewed: &[u8]) -> Vec<u8> {
    let context: &[u8] = match signer {
        Signer::Client => b"postern/1 proof, client",
        Signer::Server => b"postern/1 proof, server",
    };
    let mut content = [&[0x20; 64][..], context, &[0]].concat();
    for part in [challenge, &leaves.client, &leaves.server, renewed] {
        content.extend_from_slice(digest(&SHA256, part).as_ref());
    }
    content
}

/// A proof that the holder of `renewed` answers this challenge on the tunnel of these leaves.
pub fn proof(signer: Signer, challenge: &[u8], leaves: &Leaves, renewed: &Svid) -> Vec<u8> {
    let (scheme, signature) = renewed.sign(&signed(signer, challenge, leaves, &renewed.chain()[0])).expect("signature");
    let u24 = |length: usize| u32::try_from(length).expect("length").to_be_bytes()[1..].to_vec();
    let chain: Vec<u8> =
        renewed.chain().iter().flat_map(|certificate| [&u24(certificate.len())[..], certificate].concat()).collect();
    let length = u16::try_from(signature.len()).expect("length").to_be_bytes();
    [&u24(chain.len())[..], &chain, &u16::from(scheme).to_be_bytes(), &length, &signature].concat()
}

/// The leaf of a proof, if the proof is good for this challenge on the tunnel of these leaves.
pub fn proven(bytes: &[u8], signer: Signer, challenge: &[u8], leaves: &Leaves) -> Option<CertificateDer<'static>> {
    let u24 = |at: usize| u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]) as usize;
    let leaf = CertificateDer::from(bytes[6..6 + u24(3)].to_vec());
    let rest = &bytes[3 + u24(0)..];
    let scheme = SignatureScheme::from(u16::from_be_bytes([rest[0], rest[1]]));
    assert_eq!(usize::from(u16::from_be_bytes([rest[2], rest[3]])), rest.len() - 4);
    check_signature_by(&leaf, scheme, &signed(signer, challenge, leaves, &leaf), &rest[4..]).ok()?;
    Some(leaf)
}
