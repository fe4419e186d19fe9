//! One connection to the control plane: TCP, TLS or a UNIX socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::outcome::Failure;

/// How long dialling and the TLS handshake may take.
const DIAL: Duration = Duration::from_secs(5);
/// Where systems keep the authorities that they trust; the first that exists is used.
const SYSTEM_AUTHORITIES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// The sending half of a connection.
pub type Sender = SendRequest<Full<Bytes>>;

/// Where the control plane is.
#[derive(Clone)]
pub enum Target {
    /// Plain HTTP.
    Http {
        /// Name or IP literal without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// HTTP over TLS.
    Https {
        /// Name or IP literal without brackets.
        host: String,
        /// Its port.
        port: u16,
        /// What is trusted.
        tls: Arc<rustls::ClientConfig>,
        /// `POSTERN_CA_FILE`, where it says what is trusted.
        ca_file: Option<PathBuf>,
    },
    /// The socket in a data directory; whoever can open it needs no token.
    Socket(PathBuf),
}

impl Target {
    /// What the Host header says.
    pub fn authority(&self) -> String {
        match self {
            Target::Socket(_) => "localhost".into(),
            Target::Http { host, port } | Target::Https { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Http { host, port } | Target::Https { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// Dials and shakes hands.
    pub async fn connect(&self) -> io::Result<Sender> {
        match tokio::time::timeout(DIAL, self.dial()).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it took longer than 5s")),
        }
    }

    /// What cures a connection that did not stand, where the reason tells.
    pub fn cure(&self, error: &io::Error) -> Option<String> {
        use rustls::{CertificateError as Fault, Error};
        let Self::Https { host, ca_file, .. } = self else { return None };
        let fault = error.get_ref()?.downcast_ref::<Error>()?;
        let named = ca_file.as_ref().map(|path| path.display());
        Some(match (fault, named) {
            (Error::InvalidCertificate(Fault::UnknownIssuer), None) => "the control plane shows a certificate of the mesh's own authority: run `meshctl ca export` on its host, and name a copy of the file in POSTERN_CA_FILE".into(),
            (Error::InvalidCertificate(Fault::UnknownIssuer), Some(file)) => format!("{file} (POSTERN_CA_FILE) holds another authority: run `meshctl ca export` on the host of the control plane, and copy it anew"),
            (Error::InvalidCertificate(Fault::NotValidForName | Fault::NotValidForNameContext { .. }), _) => format!("its certificate is for other names than {host}: address it by the host name or an address of its host, or give it a certificate with --http-cert"),
            (
                Error::InvalidCertificate(
                    Fault::Expired | Fault::ExpiredContext { .. } | Fault::NotValidYet | Fault::NotValidYetContext { .. },
                ),
                _,
            ) => "look at the clocks of both hosts; a certificate of --http-cert has to be renewed by its owner".into(),
            (Error::InvalidMessage(_), _) => "it does not speak TLS there; write http:// (loopback only)".into(),
            _ => return None,
        })
    }

    async fn dial(&self) -> io::Result<Sender> {
        match self {
            Target::Socket(path) => over(UnixStream::connect(path).await?).await,
            Target::Http { host, port } => over(tcp(host, *port).await?).await,
            Target::Https { host, port, tls, .. } => {
                let name =
                    ServerName::try_from(host.clone()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                let stream = tcp(host, *port).await?;
                over(tokio_rustls::TlsConnector::from(tls.clone()).connect(name, stream).await?).await
            }
        }
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The connection is driven by a task of its own, which ends with it.
async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> io::Result<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the control plane ended");
        }
    });
    Ok(sender)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Socket(path) => write!(f, "unix:{}", path.display()),
            Target::Http { .. } => write!(f, "http://{}", self.authority()),
            Target::Https { .. } => write!(f, "https://{}", self.authority()),
        }
    }
}

/// TLS that trusts the authorities of `file`, or those of the system.
pub fn tls(file: Option<&Path>) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let cure = "POSTERN_CA_FILE names a PEM file; `meshctl ca export` prints the one of the mesh";
    let (path, source) = match file {
        Some(path) => (path.to_owned(), "POSTERN_CA_FILE"),
        None => (
            system_authorities().ok_or_else(|| Failure::new("this system has no list of trusted authorities").cure(cure))?,
            "the system's authorities",
        ),
    };
    let refuse = |why: String| Failure::new(format!("cannot use {} ({source}): {why}", path.display())).cure(cure);
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| refuse(error.to_string()))? {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        match (roots.add(certificate), file) {
            (Err(error), Some(_)) => return Err(refuse(error.to_string())),
            (Err(error), None) => tracing::debug!(%error, "an authority of the system was left out"),
            (Ok(()), _) => {}
        }
    }
    if roots.is_empty() {
        return Err(refuse("it holds no certificate".into()));
    }
    let config = rustls::ClientConfig::builder_with_provider(postern_ca::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refuse(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn system_authorities() -> Option<PathBuf> {
    SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists())
}
