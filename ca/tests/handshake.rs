//! Handshakes between real rustls connections, in memory.

mod common;

use std::io;
use std::sync::Arc;

use common::*;
use postern_ca::{
    Expected, Peer, PrivateKey, Refusal, Subject, Svid, SvidSlot, SvidSource, client_config, crypto_provider,
    pinned_client_config, server_config,
};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, NamedGroup, ServerConfig, ServerConnection};

fn slot(svid: Svid) -> SvidSource {
    Arc::new(SvidSlot::new(Arc::new(svid)))
}

struct Ends {
    client: ClientConnection,
    server: ServerConnection,
}

/// The first error of each end: client, server.
type Errors = Box<(Option<rustls::Error>, Option<rustls::Error>)>;

/// Shuttles bytes until neither has more to say.
fn connect(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Ends, Errors> {
    let name = ServerName::try_from("web.example.com").unwrap();
    let mut ends = Ends { client: ClientConnection::new(client, name).unwrap(), server: ServerConnection::new(server).unwrap() };
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let mut moved = 0;
        let mut wire = Vec::new();
        while ends.client.wants_write() {
            moved += ends.client.write_tls(&mut wire).unwrap();
        }
        let mut input = &wire[..];
        while !input.is_empty() && ends.server.read_tls(&mut input).is_ok() {
            if let Err(error) = ends.server.process_new_packets() {
                server_error.get_or_insert(error);
                break;
            }
        }
        let mut wire = Vec::new();
        while ends.server.wants_write() {
            moved += ends.server.write_tls(&mut wire).unwrap();
        }
        let mut input = &wire[..];
        while !input.is_empty() && ends.client.read_tls(&mut input).is_ok() {
            if let Err(error) = ends.client.process_new_packets() {
                client_error.get_or_insert(error);
                break;
            }
        }
        if moved == 0 {
            break;
        }
    }
    if client_error.is_some() || server_error.is_some() {
        return Err(Box::new((client_error, server_error)));
    }
    Ok(ends)
}

fn word(error: &Option<rustls::Error>) -> Option<&'static str> {
    error.as_ref().and_then(Refusal::of).map(Refusal::word)
}

#[test]
fn two_services_shake_hands_with_the_best_algorithms_and_no_tickets() {
    let mesh = Mesh::new();
    let server = server_config(slot(mesh.svid("api")), mesh.verifier(Expected::AnyService), &[b"h2"]);
    let client = client_config(slot(mesh.svid("web")), mesh.verifier(Expected::Service(service("api"))), &[b"h2"]);
    let mut ends = connect(client, server).unwrap();
    assert_eq!(ends.server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(ends.server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    let suite = ends.server.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(ends.server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(ends.server.server_name(), Some("web.example.com"));
    let peer = Peer::of(ends.server.peer_certificates().unwrap(), &mesh.trust.load()).unwrap();
    assert_eq!(peer.service, Some(service("web")));
    assert_eq!(ends.client.process_new_packets().unwrap().plaintext_bytes_to_read(), 0);
    assert_eq!(ends.client.tls13_tickets_received(), 0);
}

#[test]
fn a_client_without_a_certificate_is_refused_unless_it_may_enrol() {
    let mesh = Mesh::new();
    let nobody = || Arc::new(SvidSlot::empty());
    let client = || client_config(nobody(), mesh.verifier(Expected::AnyService), &[]);
    let strict = server_config(slot(mesh.svid("api")), mesh.verifier(Expected::AnyService), &[]);
    let (_, server_error) = *connect(client(), strict).err().unwrap();
    assert_eq!(word(&server_error), Some("no_certificate"));
    let open = server_config(slot(mesh.svid("api")), mesh.verifier(Expected::ServiceOrNone), &[]);
    let ends = connect(client(), open.clone()).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(ends.server.peer_certificates().is_none());
    // Optional is not unverified.
    let other = Mesh::new();
    let stranger = client_config(slot(other.svid("web")), mesh.verifier(Expected::AnyService), &[]);
    assert_eq!(word(&connect(stranger, open).err().unwrap().1), Some("unknown_authority"));
}

#[test]
fn tls_1_2_is_refused_by_both_ends() {
    let mesh = Mesh::new();
    assert!(crypto_provider().cipher_suites.iter().all(|suite| suite.tls13().is_some()));
    let refused = |error: Option<rustls::Error>| matches!(error, Some(rustls::Error::PeerIncompatible(_)));
    let alerted = |error: Option<rustls::Error>| error == Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion));

    let server = server_config(slot(mesh.svid("api")), mesh.verifier(Expected::ServiceOrNone), &[]);
    let (client_error, server_error) = *connect(Arc::new(client_of_tls_1_2()), server).err().unwrap();
    assert!(refused(server_error) && alerted(client_error));

    let dialler = client_config(slot(mesh.svid("web")), mesh.verifier(Expected::AnyService), &[]);
    for client in [dialler, pinned_client_config(None, mesh.authority.pin(), &[])] {
        let (client_error, server_error) = *connect(client, Arc::new(server_of_tls_1_2(&mesh))).err().unwrap();
        assert!(refused(server_error) && alerted(client_error));
    }
}

/// Who speaks TLS 1.2 alone, and trusts nobody: it does not come to that.
fn client_of_tls_1_2() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

fn server_of_tls_1_2(mesh: &Mesh) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(slot(mesh.svid("api")))
}

#[test]
fn a_stolen_certificate_without_its_key_opens_nothing() {
    let mesh = Mesh::new();
    let stolen = mesh.svid("web").chain().to_vec();
    let key = PrivateKey::generate().unwrap();
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec());
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der.into()).unwrap();
    let forged = Arc::new(rustls::sign::CertifiedKey::new(stolen, signer));
    let thief = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(mesh.verifier(Expected::AnyService))
        .with_client_cert_resolver(Arc::new(Fixed(forged)));
    let server = server_config(slot(mesh.svid("api")), mesh.verifier(Expected::AnyService), &[]);
    let (_, server_error) = *connect(Arc::new(thief), server).err().unwrap();
    assert!(matches!(server_error, Some(rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature))));
}

#[derive(Debug)]
struct Fixed(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Fixed {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn each_end_learns_why_it_refused() {
    let mesh = Mesh::new();
    let server = server_config(slot(mesh.svid("api2")), mesh.verifier(Expected::AnyService), &[]);
    let client = client_config(slot(mesh.svid("web")), mesh.verifier(Expected::Service(service("api"))), &[]);
    let (client_error, _) = *connect(client, server.clone()).err().unwrap();
    assert_eq!(word(&client_error), Some("unexpected_peer"));
    let web = mesh.svid("web");
    mesh.revoke(*web.serial());
    let client = client_config(slot(web), mesh.verifier(Expected::Service(service("api2"))), &[]);
    let (_, server_error) = *connect(client, server).err().unwrap();
    assert_eq!(word(&server_error), Some("revoked"));
    let io = io::Error::new(io::ErrorKind::InvalidData, server_error.unwrap());
    assert_eq!(Refusal::of_io(&io), Some(&Refusal::Revoked));
}

#[test]
fn a_new_svid_is_shown_without_a_new_configuration() {
    let mesh = Mesh::new();
    let source = Arc::new(SvidSlot::empty());
    let server = server_config(source.clone(), mesh.verifier(Expected::AnyService), &[]);
    let client = || client_config(slot(mesh.svid("web")), mesh.verifier(Expected::AnyService), &[]);
    assert!(connect(client(), server.clone()).is_err());
    for _ in 0..2 {
        let svid = Arc::new(mesh.svid("api"));
        source.store(svid.clone());
        let ends = connect(client(), server.clone()).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(ends.client.peer_certificates().unwrap()[0], svid.chain()[0]);
    }
}

#[test]
fn a_verifier_may_judge_by_another_clock() {
    let mesh = Mesh::new();
    let late = now() + HOUR * 2;
    let server = server_config(slot(mesh.svid("api")), mesh.verifier(Expected::AnyService).with_clock(move || late), &[]);
    let client = client_config(slot(mesh.svid("web")), mesh.verifier(Expected::AnyService), &[]);
    assert_eq!(word(&connect(client, server).err().unwrap().1), Some("expired"));
}

#[test]
fn an_enrolment_reaches_only_the_pinned_control_plane() {
    let mesh = Mesh::new();
    let control = server_config(slot(mesh.svid_of(Subject::ControlPlane, &[])), mesh.verifier(Expected::ServiceOrNone), &[b"h2"]);
    let ends = connect(pinned_client_config(None, mesh.authority.pin(), &[b"h2"]), control.clone());
    assert!(ends.is_ok());
    let wrong = connect(pinned_client_config(None, [0; 32], &[b"h2"]), control).err().unwrap();
    assert_eq!(word(&wrong.0), Some("unknown_authority"));
    let web = mesh.svid("web");
    let impostor = server_config(slot(web), mesh.verifier(Expected::ServiceOrNone), &[b"h2"]);
    assert!(connect(pinned_client_config(None, mesh.authority.pin(), &[b"h2"]), impostor).is_err());
}
