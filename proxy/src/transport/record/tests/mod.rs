//! What both record layers do, against each other and against records that no honest peer sends.

mod conversation;
mod pair;
mod rules;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use ::rustls::client::UnbufferedClientConnection;
use ::rustls::crypto::CryptoProvider;
use ::rustls::crypto::aws_lc_rs::cipher_suite;
use ::rustls::server::UnbufferedServerConnection;
use ::rustls::sign::SingleCertAndKey;
use ::rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use ::rustls::version::TLS13;
use ::rustls::{ClientConfig, ConnectionTrafficSecrets, ExtractedSecrets, ServerConfig, SupportedCipherSuite};
use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use postern_ca::{Authority, Expected, PrivateKey, Request, Subject, Svid, SvidVerifier, Trust};

use super::*;

pub(super) const KINDS: [RecordLayerKind; 2] = [RecordLayerKind::InPlace, RecordLayerKind::Rustls];
pub(super) const ENDS: [End; 2] = [End::Client, End::Server];
pub(super) const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

struct World {
    svid: Svid,
    verifier: Arc<SvidVerifier>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (domain, datacenter) = ("mesh.example".parse().expect("domain"), "dc1".parse().expect("datacenter"));
    let now = SystemTime::now();
    let authority = Authority::create(&domain, &datacenter, now).expect("authority");
    let key = PrivateKey::generate().expect("key");
    let id = Subject::Service("web".parse().expect("service"));
    let request = Request { csr_der: &key.csr_der(), id, ports: &[], ttl: Duration::from_secs(3_600), now };
    let svid = Svid::new(authority.issue(request).expect("issue").chain, key).expect("svid");
    let trust = Trust { bundle: authority.bundle(), datacenter, revoked: Default::default() };
    let verifier = SvidVerifier::new(Arc::new(ArcSwap::from_pointee(trust)), Expected::AnyService);
    World { svid, verifier }
});

fn provider(suite: SupportedCipherSuite) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: vec![suite], ..(*postern_ca::crypto_provider()).clone() })
}

fn configs(suite: SupportedCipherSuite) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let shown = Arc::new(SingleCertAndKey::from(WORLD.svid.certified_key()));
    let mut client = ClientConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[&TLS13])
        .expect("client")
        .dangerous()
        .with_custom_certificate_verifier(WORLD.verifier.clone())
        .with_client_cert_resolver(shown.clone());
    client.enable_secret_extraction = true;
    let mut server = ServerConfig::builder_with_provider(provider(suite))
        .with_protocol_versions(&[&TLS13])
        .expect("server")
        .with_client_cert_verifier(WORLD.verifier.clone())
        .with_cert_resolver(shown);
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    (Arc::new(client), Arc::new(server))
}

/// Both ends of a connection that has just shaken hands, in memory.
pub(super) fn shaken(suite: SupportedCipherSuite) -> (UnbufferedClientConnection, UnbufferedServerConnection) {
    let (client, server) = configs(suite);
    let name = ::rustls::pki_types::ServerName::try_from("web.mesh.example").expect("name");
    let mut client = UnbufferedClientConnection::new(client, name).expect("client");
    let mut server = UnbufferedServerConnection::new(server).expect("server");
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    loop {
        let client_done = pump(&mut client, &mut to_client, &mut to_server);
        let server_done = pump(&mut server, &mut to_server, &mut to_client);
        if client_done && server_done {
            assert!(to_client.is_empty() && to_server.is_empty());
            return (client, server);
        }
    }
}

fn pump<C: Connection>(connection: &mut C, input: &mut Vec<u8>, output: &mut Vec<u8>) -> bool {
    loop {
        let UnbufferedStatus { discard, state, .. } = connection.step(input);
        let finished = match state.expect("a handshake between friends") {
            ConnectionState::EncodeTlsData(mut data) => {
                encode(&mut data, output);
                None
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                None
            }
            ConnectionState::BlockedHandshake => Some(false),
            ConnectionState::WriteTraffic(_) => Some(true),
            state => panic!("{state:?}"),
        };
        input.drain(..discard);
        if let Some(done) = finished {
            return done;
        }
    }
}

fn kernel_of_client(client: UnbufferedClientConnection) -> (ExtractedSecrets, Kernel) {
    let (secrets, kernel) = client.dangerous_into_kernel_connection().expect("kernel connection");
    (secrets, Kernel::Client(kernel))
}

fn kernel_of_server(server: UnbufferedServerConnection) -> (ExtractedSecrets, Kernel) {
    let (secrets, kernel) = server.dangerous_into_kernel_connection().expect("kernel connection");
    (secrets, Kernel::Server(kernel))
}

fn client_layer(client: UnbufferedClientConnection, kind: RecordLayerKind, limit: u64) -> Box<dyn RecordLayer> {
    match kind {
        RecordLayerKind::Rustls => Box::new(Buffered::with_key_update_after(client, limit)),
        RecordLayerKind::InPlace => {
            let (secrets, kernel) = kernel_of_client(client);
            Box::new(InPlace::new(secrets, kernel, limit).expect("layer"))
        }
    }
}

fn server_layer(server: UnbufferedServerConnection, kind: RecordLayerKind, limit: u64) -> Box<dyn RecordLayer> {
    match kind {
        RecordLayerKind::Rustls => Box::new(Buffered::with_key_update_after(server, limit)),
        RecordLayerKind::InPlace => {
            let (secrets, kernel) = kernel_of_server(server);
            Box::new(InPlace::new(secrets, kernel, limit).expect("layer"))
        }
    }
}

/// The layers of client and server of one connection.
pub(super) fn layers(
    client_kind: RecordLayerKind,
    server_kind: RecordLayerKind,
    suite: SupportedCipherSuite,
    limit: u64,
) -> (Box<dyn RecordLayer>, Box<dyn RecordLayer>) {
    let (client, server) = shaken(suite);
    (client_layer(client, client_kind, limit), server_layer(server, server_kind, limit))
}

/// A layer, and a peer of it that says whatever a test wants.
pub(super) fn against_hostile(end: End, kind: RecordLayerKind, suite: SupportedCipherSuite) -> (Box<dyn RecordLayer>, Hostile) {
    let (client, server) = shaken(suite);
    match end {
        End::Client => (client_layer(client, kind, KEY_UPDATE_AFTER), Hostile::new(kernel_of_server(server))),
        End::Server => (server_layer(server, kind, KEY_UPDATE_AFTER), Hostile::new(kernel_of_client(client))),
    }
}

/// Records for `plaintext`, what is urgent before them.
pub(super) fn sent(layer: &mut dyn RecordLayer, plaintext: &[u8]) -> Vec<u8> {
    let mut wire = layer.urgent().unwrap_or_default();
    let mut record = vec![0; HEADER];
    record.extend_from_slice(plaintext);
    record.resize(HEADER + plaintext.len() + TRAILER, 0);
    layer.seal(&mut record).expect("seal");
    wire.extend_from_slice(&record);
    wire
}

/// What came out of records, up to the first error.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub data: Vec<u8>,
    pub closed: bool,
}

/// Opens whole records one by one.
pub(super) fn heard(layer: &mut dyn RecordLayer, wire: &[u8]) -> Result<Heard, RecordError> {
    let mut wire = wire.to_vec();
    let mut rest = &mut wire[..];
    let mut heard = Heard::default();
    while !rest.is_empty() {
        let length = record_length(rest)?.filter(|length| *length <= rest.len()).expect("whole records");
        let (record, after) = rest.split_at_mut(length);
        match layer.open(record)? {
            Opened::Data(range) => heard.data.extend_from_slice(&record[range]),
            Opened::Nothing => {}
            Opened::CloseNotify => heard.closed = true,
        }
        rest = after;
    }
    Ok(heard)
}

struct HalfOfHostile {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl HalfOfHostile {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("unknown AEAD"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).expect("key"));
        Self { key, iv: iv.as_ref().try_into().expect("iv"), sequence }
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

/// A peer that holds the right keys and sends what it likes.
pub(super) struct Hostile {
    kernel: Kernel,
    write: HalfOfHostile,
    read: HalfOfHostile,
}

impl Hostile {
    fn new((secrets, kernel): (ExtractedSecrets, Kernel)) -> Self {
        Self { kernel, write: HalfOfHostile::new(secrets.tx), read: HalfOfHostile::new(secrets.rx) }
    }

    /// A record with exactly this inner plaintext: content, content type, padding.
    pub(super) fn inner(&mut self, inner: &[u8]) -> Vec<u8> {
        let length = u16::try_from(inner.len() + TAG).expect("a length");
        let mut record = vec![content::APPLICATION_DATA, 3, 3];
        record.extend_from_slice(&length.to_be_bytes());
        let mut sealed = inner.to_vec();
        let aad: [u8; HEADER] = record[..].try_into().expect("header");
        let nonce = self.write.nonce();
        self.write.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).expect("seal");
        record.extend_from_slice(&sealed);
        record
    }

    pub(super) fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        self.inner(&[content, &[kind]].concat())
    }

    pub(super) fn data(&mut self, content: &[u8]) -> Vec<u8> {
        self.record(content::APPLICATION_DATA, content)
    }

    pub(super) fn messages(&mut self, content: &[u8]) -> Vec<u8> {
        self.record(content::HANDSHAKE, content)
    }

    pub(super) fn alert(&mut self, level: u8, description: u8) -> Vec<u8> {
        self.record(content::ALERT, &[level, description])
    }

    /// A KeyUpdate, after which the keys change.
    pub(super) fn key_update(&mut self, request: u8) -> Vec<u8> {
        let record = self.messages(&[24, 0, 0, 1, request]);
        self.change_keys();
        record
    }

    pub(super) fn change_keys(&mut self) {
        self.write = HalfOfHostile::new(
            match &mut self.kernel {
                Kernel::Client(kernel) => kernel.update_tx_secret(),
                Kernel::Server(kernel) => kernel.update_tx_secret(),
            }
            .expect("keys"),
        );
    }

    /// Content type and content of each record, following KeyUpdates.
    pub(super) fn opened(&mut self, wire: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut wire = wire.to_vec();
        let mut rest = &mut wire[..];
        let mut all = Vec::new();
        while !rest.is_empty() {
            let length = record_length(rest).expect("a record").expect("a header");
            let (record, after) = rest.split_at_mut(length);
            let (header, sealed) = record.split_first_chunk_mut::<HEADER>().expect("header");
            let nonce = self.read.nonce();
            let inner = self.read.key.open_in_place(nonce, Aad::from(&*header), sealed).expect("an honest record");
            let (&kind, content) = inner.split_last().expect("content type");
            if kind == content::HANDSHAKE {
                self.read = HalfOfHostile::new(
                    match &mut self.kernel {
                        Kernel::Client(kernel) => kernel.update_rx_secret(),
                        Kernel::Server(kernel) => kernel.update_rx_secret(),
                    }
                    .expect("keys"),
                );
            }
            all.push((kind, content.to_vec()));
            rest = after;
        }
        all
    }
}
