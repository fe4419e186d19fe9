//! The sidecars' port: its listener, TLS handshakes that starve nobody, and the gRPC services behind them.
//!
//! The client certificate is optional in the handshake, since an enrolment has none yet; every call but `Enroll` demands
//! one, and only `Renew` takes one that expired within the grace.

mod calls;
mod compute;
mod limits;
mod open;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use postern_api::v1::identity_server::Identity;
use postern_ca::{Expected, Peer, Refusal, SvidSource, SvidVerifier, TrustSource};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use self::calls::Calls;
pub(crate) use self::compute::Computations;
use self::limits::{AddressLimits, Admission};
use self::open::OpenConnections;
use crate::doctor::ports;
use crate::identity::CallerInfo;
use crate::mirror::Mirror;
use crate::push::{MeshService, PushStats};

/// Connections that the kernel holds until they are accepted: a whole fleet may come back at once.
const BACKLOG: i32 = 4096;
/// Flow-control windows of HTTP/2: what a peer may park here.
const WINDOW: u32 = 64 << 10;
/// Streams that one connection may have open: the push, and a renewal now and then.
const STREAMS_PER_CONNECTION: u32 = 16;
const HEADER_LIST: u32 = 16 << 10;
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LAST_BACK_OFF: Duration = Duration::from_secs(1);
/// For the last messages of a connection that is ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Limits of the sidecars' port.
#[derive(Debug, Clone)]
pub struct GrpcSettings {
    /// For a whole TLS handshake.
    pub handshake_timeout: Duration,
    /// Handshakes that are computed at once; the others wait their turn, so that pushes go between them.
    pub handshakes_at_once: usize,
    /// Handshakes that are open at once.
    pub open_handshakes: usize,
    /// Connections without a verified certificate, for one IPv4 address or one /64 of IPv6.
    pub unauthenticated_per_address: usize,
    /// Connections over that limit that are kept waiting, in all; more are closed.
    pub parked: usize,
    /// A connection without a valid certificate ends after so long.
    pub unauthenticated_lifetime: Duration,
    /// An SVID that expired no longer ago may call `Renew`; zero turns that off.
    pub renew_grace: Duration,
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            handshakes_at_once: 8,
            open_handshakes: 1024,
            unauthenticated_per_address: 64,
            parked: 1024,
            unauthenticated_lifetime: Duration::from_secs(30),
            renew_grace: Duration::from_secs(72 * 3600),
        }
    }
}

/// Why the sidecars' port did not open.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The address is taken or not ours.
    #[error("cannot bind {address}: {why}; another control plane may be running, or choose another --grpc")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The operating system's words.
        why: io::Error,
    },
    /// The runtime does not take the listener.
    #[error("cannot listen for sidecars: {0}")]
    Listen(#[from] io::Error),
}

/// Binds the sidecars' port. `[::]` listens on IPv4 too, and becomes `0.0.0.0` on a host without IPv6.
///
/// # Errors
/// [`GrpcError::Bind`].
pub fn bind(address: SocketAddr) -> Result<StdTcpListener, GrpcError> {
    let bound = listen(address).or_else(|error| match address.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        _ => Err(error),
    });
    bound.map_err(|why| GrpcError::Bind { address, why: ports::name_holder(address.port(), why) })
}

/// std and tonic listen with a backlog of 128, which doubles the time of a reconnect storm.
pub(crate) fn listen(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What the port serves.
pub struct GrpcConfig<I> {
    /// As [`bind`] gave it.
    pub listener: StdTcpListener,
    /// The control plane's own SVID, its chain with the root.
    pub svid: SvidSource,
    /// What sidecars' certificates are judged by.
    pub trust: TrustSource,
    /// Tells of revocations.
    pub mirror: Arc<Mirror>,
    /// Enrolment and renewal.
    pub identity: Arc<I>,
    /// The push.
    pub mesh: Arc<MeshService>,
    /// Limits.
    pub settings: GrpcSettings,
}

/// The sidecars' port, open.
pub struct GrpcServer {
    address: SocketAddr,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

impl GrpcServer {
    /// Serves until [`GrpcServer::shut_down`].
    ///
    /// # Errors
    /// [`GrpcError::Listen`].
    pub fn start<I: Identity>(config: GrpcConfig<I>) -> Result<Self, GrpcError> {
        let listener = TcpListener::from_std(config.listener)?;
        let address = listener.local_addr()?;
        let verifier =
            SvidVerifier::new(Arc::clone(&config.trust), Expected::ServiceOrNone).with_grace(config.settings.renew_grace);
        let tls = postern_ca::server_config(config.svid, verifier, &[b"h2"]);
        let open = OpenConnections::new();
        config.mirror.observe(open.observer());
        let stop = CancellationToken::new();
        let port = Arc::new(Port {
            acceptor: TlsAcceptor::from(tls),
            trust: config.trust,
            computations: Computations::new(config.settings.handshakes_at_once),
            limits: AddressLimits::new(&config.settings),
            open,
            stats: config.mesh.stats(),
            calls: Calls::new(config.identity, config.mesh, Arc::clone(&config.mirror)),
            settings: config.settings,
            stop: stop.clone(),
        });
        let accepting = tokio::spawn(accept_all(port, listener));
        Ok(Self { address, stop, accepting })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, ends those that are open, and waits for them.
    pub async fn shut_down(self) {
        self.stop.cancel();
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the sidecars' port did not stop in order");
        }
    }
}

/// What every connection shares.
struct Port<I> {
    acceptor: TlsAcceptor,
    trust: TrustSource,
    computations: Computations,
    limits: AddressLimits,
    open: Arc<OpenConnections>,
    stats: Arc<PushStats>,
    calls: Calls<I>,
    settings: GrpcSettings,
    stop: CancellationToken,
}

/// Accepts until it is stopped, then waits for the connections, which see the same signal.
async fn accept_all<I: Identity>(port: Arc<Port<I>>, listener: TcpListener) {
    let mut back_off = FIRST_BACK_OFF;
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = port.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                back_off = FIRST_BACK_OFF;
                let port = Arc::clone(&port);
                tasks.spawn(async move {
                    let stop = port.stop.clone();
                    if let Some(open) = stop.run_until_cancelled(port.admit(stream, address)).await.flatten() {
                        // In a task of its own, the memory of the handshake is given back.
                        port.serve(open).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, pause = ?back_off, "cannot accept a connection of a sidecar");
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(LAST_BACK_OFF);
            }
        }
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// A connection past its handshake.
struct Handshaken {
    stream: TlsStream<TcpStream>,
    caller: CallerInfo,
    /// Held as long as the peer has shown no valid certificate.
    admission: Option<Admission>,
}

impl<I: Identity> Port<I> {
    /// Lets a connection in as far as the limits allow, and shakes hands.
    async fn admit(&self, stream: TcpStream, address: SocketAddr) -> Option<Handshaken> {
        let Some(admission) = self.limits.admit(address.ip()).await else {
            self.stats.count(&self.stats.over_address_limit);
            return None;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %address, "connection ended before its handshake");
            return None;
        }
        let handshake = self.computations.turn_by_turn(self.acceptor.accept(stream));
        match tokio::time::timeout(self.settings.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => self.identify(stream, address, admission),
            Ok(Err(error)) => {
                let reason = Refusal::of_io(&error).map_or("handshake", Refusal::word);
                self.handshake_failed(address, reason, &error.to_string());
                None
            }
            Err(_) => {
                self.handshake_failed(address, "timeout", "not finished in time");
                None
            }
        }
    }

    fn handshake_failed(&self, address: SocketAddr, reason: &str, error: &str) {
        self.stats.count(&self.stats.handshake_failures);
        tracing::info!(%address, reason, error, "handshake of a sidecar failed");
    }

    fn identify(&self, stream: TlsStream<TcpStream>, address: SocketAddr, admission: Admission) -> Option<Handshaken> {
        let peer = match stream.get_ref().1.peer_certificates() {
            None | Some([]) => None,
            Some(chain) => match Peer::of(chain, &self.trust.load()) {
                Ok(peer) => Some(peer),
                Err(refusal) => {
                    self.handshake_failed(address, refusal.word(), &refusal.to_string());
                    return None;
                }
            },
        };
        let is_verified = peer.as_ref().is_some_and(|peer| !peer.is_expired(SystemTime::now()));
        let admission = (!is_verified).then_some(admission);
        Some(Handshaken { stream, caller: CallerInfo { address, peer }, admission })
    }

    async fn serve(&self, handshaken: Handshaken) {
        let Handshaken { stream, caller, admission } = handshaken;
        let address = caller.address;
        let lifetime = match (&admission, &caller.peer) {
            (None, Some(peer)) => peer.not_after.duration_since(SystemTime::now()).unwrap_or_default(),
            _ => self.settings.unauthenticated_lifetime,
        };
        let entry = caller.peer.as_ref().map(|peer| self.open.enter(peer.serial));
        let ended = entry.as_ref().map_or_else(CancellationToken::new, |entry| entry.ended.clone());
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .max_header_list_size(HEADER_LIST)
            .serve_connection(TokioIo::new(stream), self.calls.of(caller));
        let mut connection = std::pin::pin!(connection);
        let because = tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%address, %error, "connection of a sidecar broke");
                }
                return;
            }
            () = ended.cancelled() => "its SVID was revoked",
            () = tokio::time::sleep(lifetime) => "its time was over",
            () = self.stop.cancelled() => "the control plane stops",
        };
        tracing::debug!(%address, because, "ending the connection of a sidecar");
        connection.as_mut().graceful_shutdown();
        // What is still open after that is cut off with the connection.
        let _ = tokio::time::timeout(LAST_WORDS, connection).await;
        drop((entry, admission));
    }
}

#[cfg(test)]
mod tests;
