//! Whether a pair does what is measured: carries requests, and refuses a caller with another SPIFFE ID.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::certificates::{CLIENT, Certificates, STRANGER};
use crate::http::Connection;
use crate::pair::Pair;

const PATIENCE: Duration = Duration::from_secs(30);
const ONE_TRY: Duration = Duration::from_secs(2);

/// Waits until a request goes through each entry.
pub async fn wait_until_ready(pair: &mut Pair) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for entry in pair.entries.clone() {
        while let Err(error) = request(entry).await {
            pair.check_running()?;
            if Instant::now() > deadline {
                return Err(error.context(format!("no answer by {entry} for {PATIENCE:?}")));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

async fn request(entry: SocketAddr) -> anyhow::Result<()> {
    timeout(ONE_TRY, async { Connection::open(entry).await?.request().await }).await.context("no answer in time")??;
    Ok(())
}

/// Speaks to the server-side proxy itself: the caller's certificate must get an answer, or the second half would prove
/// nothing, and the stranger's must not.
pub async fn check_authorisation(inbound: SocketAddr, certificates: &Certificates) -> anyhow::Result<()> {
    request_as(CLIENT, inbound, certificates).await.context("the caller itself is refused")?;
    match request_as(STRANGER, inbound, certificates).await {
        Ok(()) => bail!("a caller with another SPIFFE ID got an answer: authorisation is off"),
        Err(_) => Ok(()),
    }
}

async fn request_as(service: &str, inbound: SocketAddr, certificates: &Certificates) -> anyhow::Result<()> {
    let connector = TlsConnector::from(Arc::new(config_of(service, certificates)?));
    timeout(ONE_TRY, async {
        let stream = TcpStream::connect(inbound).await?;
        let stream = connector.connect(ServerName::IpAddress(inbound.ip().into()), stream).await?;
        Connection::over(stream).request().await
    })
    .await
    .context("no answer in time")??;
    Ok(())
}

fn config_of(service: &str, certificates: &Certificates) -> anyhow::Result<ClientConfig> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificates.chain(service))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(certificates.key(service))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyServer(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_client_auth_cert(chain, key)?)
}

/// Who the server is does not matter here: the question is whom it lets in.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
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
        Err(rustls::Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
