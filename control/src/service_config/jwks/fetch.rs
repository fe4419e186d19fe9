//! One GET of a key set over HTTPS, or over HTTP on loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use postern_traffic::settings::JWKS_LIMIT;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

/// For everything, from the look-up of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why no key set came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The URL names no host that can be dialled.
    #[error("the URL is not valid: {0}")]
    Url(String),
    /// Nobody answers, or not as HTTP.
    #[error("{host} does not answer: {why}")]
    Unreachable {
        /// HOST:PORT.
        host: String,
        /// What was said.
        why: String,
    },
    /// Its certificate was refused.
    #[error(
        "the TLS handshake with {host} failed: {why}; the roots of this system, or of SSL_CERT_FILE, decide, and TLS is 1.2 or 1.3"
    )]
    Tls {
        /// HOST:PORT.
        host: String,
        /// What rustls says.
        why: String,
    },
    /// Plain HTTP to somewhere else than loopback.
    #[error("{0} is not on loopback: use https")]
    NotLoopback(String),
    /// Something else than 200; a redirect is not followed.
    #[error("{host} answered {status}; give the URL that answers 200")]
    Status {
        /// HOST:PORT.
        host: String,
        /// What it answered.
        status: StatusCode,
    },
    /// A body past the limit, cut off, or no text.
    #[error("the answer of {host} is not valid: {why}")]
    Body {
        /// HOST:PORT.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// Too slow.
    #[error("{0} did not answer within 5 s")]
    TimedOut(String),
}

/// Gets key sets. The roots of the system are read at the first one over HTTPS.
#[derive(Default)]
pub(super) struct Fetcher {
    tls: OnceCell<TlsConnector>,
}

impl Fetcher {
    /// The body of the answer, as text.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(super) async fn get(&self, url: &str) -> Result<String, FetchError> {
        let uri: Uri = url.parse().map_err(|error| FetchError::Url(format!("{error}")))?;
        let name = uri.host().ok_or_else(|| FetchError::Url("it has no host".into()))?.to_owned();
        let is_plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let host = format!("{name}:{port}");
        let got = tokio::time::timeout(TIMEOUT, async {
            let unreachable = |error: std::io::Error| FetchError::Unreachable { host: host.clone(), why: error.to_string() };
            let socket = TcpStream::connect(&host).await.map_err(unreachable)?;
            if is_plain {
                if !socket.peer_addr().map_err(unreachable)?.ip().is_loopback() {
                    return Err(FetchError::NotLoopback(host.clone()));
                }
                return ask(socket, &uri, &host).await;
            }
            let tls_failed = |why: String| FetchError::Tls { host: host.clone(), why };
            let server =
                ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(|error| tls_failed(error.to_string()))?;
            let connector = self.tls.get_or_try_init(connector).await.map_err(&tls_failed)?;
            let stream = connector.connect(server, socket).await.map_err(|error| tls_failed(error.to_string()))?;
            ask(stream, &uri, &host).await
        });
        got.await.unwrap_or_else(|_| Err(FetchError::TimedOut(host.clone())))
    }
}

/// TLS with the roots of this system.
async fn connector() -> Result<TlsConnector, String> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await.map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(format!("this system has no root certificates{why}"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // Issuers are no part of the mesh: they may know TLS 1.2 only.
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, uri: &Uri, host: &str) -> Result<String, FetchError> {
    let unreachable = |error: hyper::Error| FetchError::Unreachable { host: host.to_owned(), why: error.to_string() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("postern/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Url(error.to_string()))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { host: host.to_owned(), status: response.status() });
        }
        let invalid = |why: String| FetchError::Body { host: host.to_owned(), why };
        let body = Limited::new(response.into_body(), JWKS_LIMIT).collect().await.map_err(|error| invalid(error.to_string()))?;
        String::from_utf8(body.to_bytes().to_vec()).map_err(|_| invalid("it is no UTF-8".into()))
    };
    // The connection carries the answer, and ends with it.
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(unreachable(error)),
        },
    }
}
