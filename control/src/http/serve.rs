//! Listeners of the HTTP API, their connections, and the limits of those.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::auth::{Connection, Origin};
use super::certificate::CertificateSlot;
use crate::doctor::ports;
use crate::grpc::Computations;
use crate::settings::Address;

/// For the head of a request, the first included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LAST_BACK_OFF: Duration = Duration::from_secs(1);

/// Why the HTTP API did not open.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot bind {address}: {why}; another control plane may be running, or choose another --http")]
    Bind {
        /// The address asked for.
        address: String,
        /// The operating system's words.
        why: io::Error,
    },
    /// Plain HTTP would carry the operator token over the network.
    #[error("--http {0} is reachable from other hosts and needs TLS: give --http-cert and --http-key, or bind loopback")]
    NeedsTls(Address),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The certificate or its key cannot be used.
    #[error("cannot use {}: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A listener that is bound.
pub enum Listener {
    /// TCP, with TLS where a certificate was given.
    Tcp(TcpListener, Option<TlsAcceptor>),
    /// A UNIX socket.
    Unix(UnixListener),
}

impl Listener {
    /// Binds an address; beyond loopback only with TLS.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn bind(address: &Address, tls: Option<TlsAcceptor>) -> Result<Self, ServeError> {
        match address {
            Address::Unix(path) => Self::bind_unix(path),
            Address::Tcp { .. } if tls.is_none() && !address.is_loopback() => Err(ServeError::NeedsTls(address.clone())),
            Address::Tcp { host, port } => {
                let bound = match TcpListener::bind((host.as_str(), *port)).await {
                    Err(error) if host == "::" && error.kind() != io::ErrorKind::AddrInUse => {
                        TcpListener::bind(("0.0.0.0", *port)).await
                    }
                    bound => bound,
                };
                bound
                    .map(|listener| Self::Tcp(listener, tls))
                    .map_err(|why| ServeError::Bind { address: address.to_string(), why: ports::name_holder(*port, why) })
            }
        }
    }

    /// Binds a UNIX socket that only its owner may use. Whoever calls this holds the lock of its directory, so a socket
    /// that is there already belongs to nobody.
    ///
    /// # Errors
    /// [`ServeError::Bind`].
    pub fn bind_unix(path: &Path) -> Result<Self, ServeError> {
        let bind = || -> io::Result<UnixListener> {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        bind().map(Self::Unix).map_err(|why| ServeError::Bind { address: format!("unix:{}", path.display()), why })
    }

    /// HOST:PORT as bound; `None` for a UNIX socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// TLS for the HTTP API, and the names in its certificate.
pub struct Tls {
    /// Shakes hands.
    pub acceptor: TlsAcceptor,
    /// DNS names that the certificate is for.
    pub names: Vec<String>,
}

/// Reads a PEM certificate chain and its key.
///
/// # Errors
/// [`ServeError::Certificate`] names the file.
pub fn load_tls(certificate: &Path, key: &Path) -> Result<Tls, ServeError> {
    let bad = |path: &Path, why: String| ServeError::Certificate { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| bad(certificate, error.to_string()))?;
    let Some(leaf) = chain.first() else {
        return Err(bad(certificate, "it holds no certificate; give a PEM file, leaf first".into()));
    };
    let names = dns_names(leaf).map_err(|why| bad(certificate, why))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
    let config = rustls::ServerConfig::builder_with_provider(postern_ca::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let config = config.map_err(|error| bad(certificate, format!("{error}; the key must be that of the certificate")))?;
    Ok(Tls { acceptor: acceptor(config), names })
}

/// TLS with whatever certificate the slot holds.
///
/// # Errors
/// None that can happen: the algorithms of the mesh have suites of TLS 1.3.
pub fn tls_of(certificate: Arc<CertificateSlot>) -> Result<TlsAcceptor, ServeError> {
    let config = rustls::ServerConfig::builder_with_provider(postern_ca::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ServeError::Tls(error.to_string()))?;
    Ok(acceptor(config.with_no_client_auth().with_cert_resolver(certificate)))
}

fn acceptor(mut config: rustls::ServerConfig) -> TlsAcceptor {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn dns_names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| format!("it is not a certificate: {error}"))?;
    let names = parsed.subject_alternative_name().map_err(|error| format!("its names cannot be read: {error}"))?;
    let names = names.into_iter().flat_map(|extension| &extension.value.general_names);
    Ok(names.filter_map(|name| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None }).collect())
}

/// Limits of the connections of all listeners together.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections without a valid credential, for one IPv4 address or one /64 of IPv6.
    pub unauthenticated_per_address: usize,
    /// Connections over that limit that wait unread, in all; more are closed.
    pub parked: usize,
    /// How long one waits for a place.
    pub wait: Duration,
    /// TLS handshakes that are open at once.
    pub open_handshakes: usize,
    /// TLS handshakes that are computed at once.
    pub handshakes_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unauthenticated_per_address: 64,
            parked: 1024,
            wait: Duration::from_secs(10),
            open_handshakes: 1024,
            handshakes_at_once: 8,
        }
    }
}

/// Places for connections that have not shown a credential.
struct Places {
    limits: Limits,
    by_address: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
    parked: AtomicUsize,
}

impl Places {
    fn new(limits: Limits) -> Self {
        Self { limits, by_address: Mutex::default(), parked: AtomicUsize::new(0) }
    }

    /// A place for a connection from this address; `None` when it has waited for too long or too many wait.
    async fn take(&self, address: IpAddr) -> Option<OwnedSemaphorePermit> {
        let places = self.of(address);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Some(place);
        }
        if self.parked.fetch_add(1, Ordering::Relaxed) >= self.limits.parked {
            self.parked.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let place = tokio::time::timeout(self.limits.wait, places.acquire_owned()).await;
        self.parked.fetch_sub(1, Ordering::Relaxed);
        place.ok()?.ok()
    }

    fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        let key = network(address);
        let mut by_address = self.by_address.lock();
        if by_address.len() > 4096 {
            // Nobody holds or waits for a place of these.
            by_address.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let fresh = || Arc::new(Semaphore::new(self.limits.unauthenticated_per_address));
        Arc::clone(by_address.entry(key).or_insert_with(fresh))
    }
}

/// One IPv4 address, or a /64 of IPv6: whoever has one of those has all.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// The HTTP API, open.
pub struct HttpServer {
    stop: CancellationToken,
    accepting: JoinSet<()>,
}

impl HttpServer {
    /// Serves on every listener until [`HttpServer::shut_down`], which cancels `stop`.
    pub fn start(listeners: Vec<Listener>, router: Router, limits: Limits, stop: CancellationToken) -> Self {
        let port = Arc::new(Port {
            router,
            computations: Computations::new(limits.handshakes_at_once),
            handshakes: Semaphore::new(limits.open_handshakes.max(1)),
            places: Places::new(limits),
            stop: stop.clone(),
        });
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept_all(Arc::clone(&port), listener));
        }
        Self { stop, accepting }
    }

    /// Takes no more connections and waits for the requests that are under way, at most until `deadline`.
    pub async fn shut_down(mut self, deadline: Duration) {
        self.stop.cancel();
        let ended = async { while self.accepting.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, ended).await.is_err() {
            tracing::warn!(?deadline, "requests that did not end in time are dropped");
        }
        self.accepting.shutdown().await;
    }
}

struct Port {
    router: Router,
    places: Places,
    handshakes: Semaphore,
    computations: Computations,
    stop: CancellationToken,
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

async fn accept_all(port: Arc<Port>, listener: Listener) {
    let mut back_off = FIRST_BACK_OFF;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = port.stop.cancelled() => break,
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                back_off = FIRST_BACK_OFF;
                let tls = if let Listener::Tcp(_, tls) = &listener { tls.clone() } else { None };
                let port = Arc::clone(&port);
                connections.spawn(async move {
                    match accepted {
                        Accepted::Tcp(stream, address) => port.serve_tcp(stream, address, tls).await,
                        Accepted::Unix(stream) => port.serve_unix(stream).await,
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, pause = ?back_off, "cannot accept a connection to the HTTP API");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(LAST_BACK_OFF);
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener, _) => listener.accept().await.map(|(stream, address)| Accepted::Tcp(stream, address)),
        Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

impl Port {
    async fn serve_tcp(&self, stream: TcpStream, address: SocketAddr, tls: Option<TlsAcceptor>) {
        let ip = address.ip().to_canonical();
        let place = tokio::select! {
            () = self.stop.cancelled() => return,
            place = self.places.take(ip) => place,
        };
        let Some(place) = place else {
            tracing::warn!(%address, "too many connections without a credential from this address: closed");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %address, "connection ended at once");
            return;
        }
        let connection = Connection::new(Origin::Tcp(ip), Some(place));
        let Some(tls) = tls else { return self.serve(stream, connection).await };
        if let Some(stream) = self.shake_hands(tls, stream, address).await {
            self.serve(stream, connection).await;
        }
    }

    async fn shake_hands(&self, tls: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> Option<TlsStream<TcpStream>> {
        // The semaphore is never closed.
        let _open = self.handshakes.acquire().await.ok()?;
        let handshake = self.computations.turn_by_turn(tls.accept(stream));
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake);
        match self.stop.run_until_cancelled(handshake).await? {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "TLS handshake not finished in time"),
        }
        None
    }

    async fn serve_unix(&self, stream: UnixStream) {
        let uid = match stream.peer_cred() {
            Ok(credentials) => credentials.uid(),
            Err(error) => return tracing::warn!(%error, "the peer of a UNIX socket has no name"),
        };
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            return tracing::warn!(uid, "a connection of another user to the UNIX socket was refused");
        }
        self.serve(stream, Connection::new(Origin::Unix { uid }, None)).await;
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, connection: Connection) {
        let service = hyper::service::service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(connection.clone());
            self.router.clone().oneshot(request.map(Body::new))
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = self.stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "connection to the HTTP API broke");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_http_is_served_on_loopback_only() {
        let refused = Listener::bind(&":0".parse().unwrap(), None).await.err().unwrap();
        assert!(refused.to_string().contains("--http-cert"), "{refused}");
        assert!(Listener::bind(&Address::loopback(0), None).await.is_ok());
    }

    #[tokio::test]
    async fn an_address_gets_no_more_places_than_its_limit() {
        let places = Places::new(Limits {
            unauthenticated_per_address: 2,
            parked: 1,
            wait: Duration::from_millis(20),
            ..Limits::default()
        });
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let first = places.take(address).await.unwrap();
        let _second = places.take(address).await.unwrap();
        assert!(places.take(address).await.is_none(), "nobody gives a place back in time");
        assert!(places.take("10.0.0.2".parse().unwrap()).await.is_some(), "others have their own");
        drop(first);
        assert!(places.take(address).await.is_some());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
