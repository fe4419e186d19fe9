//! Whether a pair does what is measured: carries requests, refuses a caller with another SPIFFE ID, and at L7 refuses the
//! caller itself what no permission names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::certificates::{CLIENT, Certificates, STRANGER};
use crate::http::Connection;
use crate::http2;
use crate::layer::Protocol;
use crate::pair::Pair;
use crate::permission::{FORBIDDEN, FORBIDDEN_CALL, ITEMS, UNARY};

const PATIENCE: Duration = Duration::from_secs(30);
const ONE_TRY: Duration = Duration::from_secs(2);

/// Something to ask for.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// What is measured.
    Allowed,
    /// What the service answers to whoever reaches it, and nobody may ask for.
    Forbidden,
    /// An allowed path by a method that no permission names.
    Method,
}

/// Waits until a request goes through each entry.
pub async fn wait_until_ready(pair: &mut Pair, protocol: Protocol) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for entry in pair.entries.clone() {
        while let Err(error) = ask_plainly(entry, protocol, Question::Allowed).await {
            pair.check_running()?;
            if Instant::now() > deadline {
                return Err(error.context(format!("no answer by {entry} for {PATIENCE:?}")));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Refusals by a pair prove nothing where the service itself would refuse.
pub async fn check_service(address: SocketAddr, protocol: Protocol) -> anyhow::Result<()> {
    for question in questions(protocol) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = ask_plainly(address, protocol, *question).await {
            ensure!(Instant::now() < deadline, "{question:?}: {error:#}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Speaks to the server-side proxy itself: the caller's certificate must get an answer, or the rest would prove nothing, and
/// the stranger's must not, nor must the caller's to what is forbidden.
pub async fn check_authorisation(inbound: SocketAddr, certificates: &Certificates, protocol: Protocol) -> anyhow::Result<()> {
    ask_as(CLIENT, inbound, certificates, protocol, Question::Allowed).await.context("the caller itself is refused")?;
    if ask_as(STRANGER, inbound, certificates, protocol, Question::Allowed).await.is_ok() {
        bail!("a caller with another SPIFFE ID got an answer: authorisation is off");
    }
    for question in &questions(protocol)[1..] {
        if ask_as(CLIENT, inbound, certificates, protocol, *question).await.is_ok() {
            bail!("{question:?}: what no permission names was answered: permissions are off");
        }
    }
    Ok(())
}

fn questions(protocol: Protocol) -> &'static [Question] {
    match protocol {
        Protocol::Tcp => &[Question::Allowed],
        Protocol::Http | Protocol::Http2 => &[Question::Allowed, Question::Forbidden, Question::Method],
        Protocol::Grpc => &[Question::Allowed, Question::Forbidden],
    }
}

async fn ask_plainly(address: SocketAddr, protocol: Protocol, question: Question) -> anyhow::Result<()> {
    timeout(ONE_TRY, async { ask(TcpStream::connect(address).await?, protocol, question).await })
        .await
        .context("no answer in time")?
}

async fn ask_as(
    service: &str,
    inbound: SocketAddr,
    certificates: &Certificates,
    protocol: Protocol,
    question: Question,
) -> anyhow::Result<()> {
    let connector = TlsConnector::from(Arc::new(config_of(service, certificates, protocol)?));
    timeout(ONE_TRY, async {
        let stream = TcpStream::connect(inbound).await?;
        let stream = connector.connect(ServerName::IpAddress(inbound.ip().into()), stream).await?;
        ask(stream, protocol, question).await
    })
    .await
    .context("no answer in time")?
}

/// # Errors
/// Whatever is not a good answer.
async fn ask<S>(stream: S, protocol: Protocol, question: Question) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if protocol == Protocol::Grpc {
        let method = if matches!(question, Question::Allowed) { UNARY } else { FORBIDDEN_CALL };
        let status = http2::call(stream, method).await?;
        ensure!(status == 0, "grpc-status {status}");
        return Ok(());
    }
    let (method, path) = match question {
        Question::Allowed => ("GET", ITEMS),
        Question::Forbidden => ("GET", FORBIDDEN),
        Question::Method => ("DELETE", ITEMS),
    };
    let status = match protocol {
        Protocol::Http2 => http2::status_of(stream, method, path).await?,
        _ => Connection::over(stream).status_of(method, path).await?,
    };
    ensure!(status == 200, "status {status}");
    Ok(())
}

fn config_of(service: &str, certificates: &Certificates, protocol: Protocol) -> anyhow::Result<ClientConfig> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificates.chain(service))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(certificates.key(service))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyServer(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_client_auth_cert(chain, key)?;
    config.alpn_protocols = protocol.alpn().map(|name| name.as_bytes().to_vec()).into_iter().collect();
    Ok(config)
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
