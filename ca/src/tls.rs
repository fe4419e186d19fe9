//! The rustls configurations of the mesh: TLS 1.3 only, X25519MLKEM768 and AES-128-GCM first, no resumption (it would
//! skip the certificate checks, RFC 8446 §4.6.1).

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::{PinnedVerifier, SvidSlot, SvidSource, SvidVerifier};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..default_provider()
    })
});

pub(crate) fn provider() -> &'static CryptoProvider {
    &PROVIDER
}

/// The algorithms of the mesh, best first.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// The configuration of a listener: the peer's certificate is demanded, unless the verifier expects nobody yet.
pub fn server_config(svid: SvidSource, verifier: Arc<SvidVerifier>, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(svid);
    config.alpn_protocols = owned(alpn);
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// The configuration of a dialler.
pub fn client_config(svid: SvidSource, verifier: Arc<SvidVerifier>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    dialler(svid, verifier, alpn)
}

/// The configuration of an enrolment: nothing is known of the control plane but the pin of the token.
pub fn pinned_client_config(svid: Option<SvidSource>, pin: [u8; 32], alpn: &[&[u8]]) -> Arc<ClientConfig> {
    dialler(svid.unwrap_or_else(|| Arc::new(SvidSlot::empty())), Arc::new(PinnedVerifier::new(pin)), alpn)
}

fn dialler(svid: SvidSource, verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(svid);
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}
