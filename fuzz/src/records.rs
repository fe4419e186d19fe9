//! TLS records after the handshake, from a peer that holds the keys and a network that does not.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use postern_proxy::settings::RecordLayerKind;
use postern_proxy::transport::bare::{AFTER, BEFORE, MOST_CONTENT, Record, Records, record_length, shake};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ServerConnectionData};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConnectionTrafficSecrets, DigitallySignedStruct, ServerConfig, SignatureScheme};

use super::script::Script;

const DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
/// Fewer KeyUpdates without data between them than end a connection: the implementations differ by one in how many do.
const MOST_KEY_UPDATES: usize = 30;
/// Fewer empty records than end a connection with ours; rustls suffers any number.
const MOST_EMPTY: usize = 30;

/// Accepts every server: who it is does not matter to its records.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The configurations of one suite, the cheapest handshake that there is.
fn configs(suite: usize) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    type Configs = (Arc<ClientConfig>, Arc<ServerConfig>);
    static CONFIGS: LazyLock<[Configs; 3]> = LazyLock::new(|| {
        let key = aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING)
            .and_then(|pair| pair.to_pkcs8v1())
            .expect("a key");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.as_ref().to_vec());
        let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key.into()).expect("a key that signs");
        let shown = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![CertificateDer::from(vec![0; 8])], key)));
        let suites = [
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        suites.map(|suite| {
            let provider = CryptoProvider { cipher_suites: vec![suite], kx_groups: vec![kx_group::X25519], ..default_provider() };
            let provider = Arc::new(provider);
            let mut client = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&TLS13])
                .expect("a suite of TLS 1.3")
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone))
                .with_no_client_auth();
            client.enable_secret_extraction = true;
            let mut server = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])
                .expect("a suite of TLS 1.3")
                .with_no_client_auth()
                .with_cert_resolver(shown.clone());
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
            server.enable_secret_extraction = true;
            (Arc::new(client), Arc::new(server))
        })
    });
    let (client, server) = &CONFIGS[suite % CONFIGS.len()];
    (client.clone(), server.clone())
}

/// The dialling end of a new connection, and a server that says what it likes.
fn connection(suite: usize, kind: RecordLayerKind) -> (Records, Peer) {
    let (client, server) = configs(suite);
    let name = ServerName::try_from("web.example.com").expect("a name");
    let (client, server) = shake(client, server, name).expect("a handshake between friends");
    let (secrets, kernel) = server.dangerous_into_kernel_connection().expect("secrets");
    let peer = Peer { kernel, write: Half::new(secrets.tx), read: Half::new(secrets.rx) };
    (Records::of_client(client, kind).expect("records"), peer)
}

/// The keys of one direction.
struct Half {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Half {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("an AEAD of another suite"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).expect("a key"));
        Self { key, iv: iv.as_ref().try_into().expect("an IV"), sequence }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

struct Peer {
    kernel: KernelConnection<ServerConnectionData>,
    write: Half,
    read: Half,
}

impl Peer {
    /// A record with exactly this inner plaintext: content, content type, padding.
    fn inner(&mut self, inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + 16).expect("a length").to_be_bytes();
        let header = [DATA, 3, 3, length[0], length[1]];
        let mut sealed = inner.to_vec();
        let nonce = self.write.nonce();
        self.write.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed).expect("sealed");
        [&header[..], &sealed].concat()
    }

    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        self.inner(&[content, &[kind]].concat())
    }

    fn change_keys(&mut self) {
        self.write = Half::new(self.kernel.update_tx_secret().expect("keys"));
    }

    /// Content type and content of each record, following KeyUpdates.
    fn opened(&mut self, mut wire: Vec<u8>) -> Vec<(u8, Vec<u8>)> {
        let mut rest = &mut wire[..];
        let mut all = Vec::new();
        while !rest.is_empty() {
            let length = record_length(rest).expect("an honest record").expect("a header");
            let (record, after) = rest.split_at_mut(length);
            let (header, sealed) = record.split_first_chunk_mut::<BEFORE>().expect("a header");
            let nonce = self.read.nonce();
            let inner = self.read.key.open_in_place(nonce, Aad::from(*header), sealed).expect("an honest record");
            let (&kind, content) = inner.split_last().expect("a content type");
            if kind == HANDSHAKE {
                assert_eq!(content, [24, 0, 0, 1, 0], "a key update that asks for none");
                self.read = Half::new(self.kernel.update_rx_secret().expect("keys"));
            }
            all.push((kind, content.to_vec()));
            rest = after;
        }
        all
    }
}

/// One thing that happens.
#[derive(Debug)]
enum Act<'a> {
    Data {
        content: Vec<u8>,
        padding: usize,
    },
    KeyUpdate {
        request: u8,
        cut: usize,
    },
    Messages(&'a [u8]),
    Alert(&'a [u8]),
    Inner(&'a [u8]),
    /// Bytes that nobody sealed.
    Raw(&'a [u8]),
    Tampered {
        at: usize,
        bit: u8,
    },
    Repeated,
    Lost,
    /// The end under test sends.
    Answer(usize),
    Close,
}

impl Act<'_> {
    fn is_empty_record(&self) -> bool {
        match self {
            Self::Data { content, .. } => content.is_empty(),
            Self::Inner([DATA, padding @ ..]) => padding.iter().all(|byte| *byte == 0),
            _ => false,
        }
    }
}

fn next<'a>(script: &mut Script<'a>) -> Option<Act<'a>> {
    Some(match script.byte()? % 16 {
        0..=2 => {
            let length = usize::from(script.byte()?);
            Act::Data { content: script.bytes(length).to_vec(), padding: 0 }
        }
        3 => {
            let (length, padding) = (script.number() % (MOST_CONTENT + 1), script.number() % 400);
            Act::Data { content: vec![0xa5; length], padding: padding.min(MOST_CONTENT - length) }
        }
        4 | 5 => Act::KeyUpdate { request: script.byte()? % 2, cut: usize::from(script.byte()?) },
        6 | 7 => {
            let length = usize::from(script.byte()?);
            Act::Messages(script.bytes(length))
        }
        8 => Act::Alert(script.bytes(2)),
        9 => {
            let length = usize::from(script.byte()?);
            Act::Inner(script.bytes(length))
        }
        10 => {
            let length = usize::from(script.byte()?);
            Act::Raw(script.bytes(length))
        }
        11 => Act::Tampered { at: script.number(), bit: script.byte()? % 8 },
        12 => Act::Repeated,
        13 => Act::Lost,
        14 => Act::Answer(script.number() % MOST_CONTENT + 1),
        _ => Act::Close,
    })
}

/// What one end made of an act.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Heard { data: Vec<u8>, closed: bool },
    Refused,
    Sent(Vec<(u8, Vec<u8>)>),
    CannotSend,
}

/// One end under test with its peer.
struct Player {
    records: Records,
    peer: Peer,
    key_updates: usize,
    empty: usize,
}

impl Player {
    fn new(suite: usize, kind: RecordLayerKind) -> Self {
        let (records, peer) = connection(suite, kind);
        Self { records, peer, key_updates: 0, empty: 0 }
    }

    fn play(&mut self, act: &Act<'_>) -> Verdict {
        if act.is_empty_record() {
            self.empty += 1;
            if self.empty > MOST_EMPTY {
                return Verdict::Heard { data: Vec::new(), closed: false };
            }
        }
        let peer = &mut self.peer;
        let wire = match act {
            Act::Data { content, padding } => {
                if !content.is_empty() {
                    (self.key_updates, self.empty) = (0, 0);
                }
                peer.inner(&[content, &[DATA][..], &vec![0; *padding]].concat())
            }
            Act::KeyUpdate { .. } if self.key_updates >= MOST_KEY_UPDATES => Vec::new(),
            Act::KeyUpdate { request, cut } => {
                self.key_updates += 1;
                let message = [24, 0, 0, 1, *request];
                let wire = match message.split_at_checked(*cut) {
                    Some((first, second)) if !first.is_empty() && !second.is_empty() => {
                        [peer.record(HANDSHAKE, first), peer.record(HANDSHAKE, second)].concat()
                    }
                    _ => peer.record(HANDSHAKE, &message),
                };
                peer.change_keys();
                wire
            }
            Act::Messages(content) => peer.record(HANDSHAKE, content),
            Act::Alert(content) => peer.record(ALERT, content),
            Act::Inner(inner) => peer.inner(inner),
            Act::Raw(bytes) => bytes.to_vec(),
            Act::Tampered { at, bit } => {
                let mut wire = peer.record(DATA, &[9; 700]);
                let at = at % wire.len();
                wire[at] ^= 1 << bit;
                wire
            }
            Act::Repeated => {
                let record = peer.record(DATA, b"again");
                [record.clone(), record].concat()
            }
            Act::Lost => {
                peer.record(DATA, b"lost");
                peer.record(DATA, b"found")
            }
            Act::Answer(length) => return self.answer(*length),
            Act::Close => return self.close(),
        };
        self.hear(&wire)
    }

    /// Opens what came, as the channel does: by the length that each header gives, which waits for what it announces. It
    /// comes as zeros.
    fn hear(&mut self, mut wire: &[u8]) -> Verdict {
        let (mut data, mut closed) = (Vec::new(), false);
        while wire.len() >= BEFORE {
            let Ok(Some(length)) = record_length(wire) else { return Verdict::Refused };
            let mut record = wire[..length.min(wire.len())].to_vec();
            record.resize(length, 0);
            match self.records.open(&mut record) {
                Ok(Record::Data(range)) => {
                    assert!(!range.is_empty() && range.len() <= MOST_CONTENT);
                    data.extend_from_slice(&record[range]);
                }
                Ok(Record::Nothing) => {}
                Ok(Record::CloseNotify) => closed = true,
                Err(word) => {
                    assert_ne!(word, "internal", "whatever comes is no fault of ours");
                    assert!(self.records.open(&mut self.peer.record(DATA, b"more")).is_err(), "an error is final");
                    return Verdict::Refused;
                }
            }
            wire = &wire[length.min(wire.len())..];
        }
        Verdict::Heard { data, closed }
    }

    fn answer(&mut self, length: usize) -> Verdict {
        let mut wire = self.records.urgent().unwrap_or_default();
        let mut record = vec![0x5a; BEFORE + length + AFTER];
        if self.records.seal(&mut record).is_err() {
            return Verdict::CannotSend;
        }
        wire.extend_from_slice(&record);
        Verdict::Sent(self.peer.opened(wire))
    }

    fn close(&mut self) -> Verdict {
        let mut wire = self.records.urgent().unwrap_or_default();
        wire.extend(self.records.close_notify());
        Verdict::Sent(self.peer.opened(wire))
    }
}

/// Records that are opened in place: what comes out is what the peer put in, and nothing after something that was not
/// the peer's.
pub fn record(data: &[u8]) {
    let mut script = Script(data);
    let Some(suite) = script.byte() else { return };
    let mut player = Player::new(suite.into(), RecordLayerKind::InPlace);
    let mut is_closed = false;
    while let Some(act) = next(&mut script) {
        let verdict = player.play(&act);
        match (&act, &verdict) {
            (_, Verdict::Refused) => return,
            (_, Verdict::Heard { closed: true, .. }) => is_closed = true,
            // After the peer's close_notify nothing counts.
            _ if is_closed => {}
            (Act::Data { content, .. }, Verdict::Heard { data, .. }) => assert_eq!(data, content),
            (Act::Inner(inner), Verdict::Heard { data, .. }) => assert!(data.is_empty() || inner.starts_with(data)),
            (Act::Answer(length), Verdict::Sent(records)) => {
                let (last, before) = records.split_last().expect("a record");
                assert!(last.0 == DATA && last.1 == vec![0x5a; *length] && before.len() <= 1);
            }
            (Act::Tampered { .. } | Act::Repeated | Act::Lost, heard) => panic!("{act:?} is heard as {heard:?}"),
            (Act::Raw(bytes), heard) if bytes.len() >= BEFORE => panic!("{act:?} is heard as {heard:?}"),
            (_, Verdict::Heard { data, .. }) => assert!(data.is_empty(), "{act:?} is heard as {data:?}"),
            _ => {}
        }
    }
}

/// The same conversation through the records in place and through rustls' own: the same plaintext, the same verdicts.
pub fn record_conversation(data: &[u8]) {
    let mut script = Script(data);
    let Some(suite) = script.byte() else { return };
    let mut ours = Player::new(suite.into(), RecordLayerKind::InPlace);
    let mut theirs = Player::new(suite.into(), RecordLayerKind::Rustls);
    while let Some(act) = next(&mut script) {
        let verdict = ours.play(&act);
        let other = theirs.play(&act);
        // Ours refuses a message as soon as its type is known, rustls when it is whole.
        let is_early = matches!(act, Act::Messages(_)) && other == Verdict::Heard { data: Vec::new(), closed: false };
        if verdict == Verdict::Refused && is_early {
            return;
        }
        assert_eq!(verdict, other, "{act:?}");
        if matches!(verdict, Verdict::Refused | Verdict::Heard { closed: true, .. }) {
            return;
        }
    }
}
