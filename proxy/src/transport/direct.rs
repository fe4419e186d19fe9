//! One TLS connection for each TCP connection: plain mutual TLS 1.3 that any SPIFFE client speaks.
//!
//! The rustls configurations are made once, at start: they resolve certificates and trust through slots that are
//! swapped when the SVID or the bundle changes, so nothing is built per connection or per rotation.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use postern_ca::{Expected, Peer, Refusal, SvidSource, SvidVerifier, TrustSource};
use postern_intentions::Protocol;
use postern_names::{PortName, ServiceName, TrustDomain};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::Acceptor;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::clock::Clock;

use super::{HandshakeError, Stream, asked_port, server_name};

/// A TLS connection of either role. Boxed: it is a kilobyte, and lives in the futures of every connection.
pub(super) struct TlsStream(Box<tokio_rustls::TlsStream<TcpStream>>);

impl TlsStream {
    /// The socket under the TLS connection.
    pub(super) fn socket(&self) -> &TcpStream {
        self.0.get_ref().0
    }

    fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.0.get_ref().1.peer_certificates().unwrap_or_default()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_shutdown(cx)
    }
}

/// The accepting end of direct connections to one service.
pub struct DirectAcceptor {
    service: ServiceName,
    trust_domain: TrustDomain,
    svid: SvidSource,
    trust: TrustSource,
    without_alpn: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl DirectAcceptor {
    /// Makes the acceptor of `service`; certificate and trust are read from their slots at each handshake.
    pub fn new(service: ServiceName, trust_domain: TrustDomain, svid: SvidSource, trust: TrustSource, clock: Arc<Clock>) -> Self {
        let verifier = SvidVerifier::new(trust.clone(), Expected::AnyService).with_clock(move || clock.now());
        let without_alpn = postern_ca::server_config(svid.clone(), verifier.clone(), &[]);
        let http2 = postern_ca::server_config(svid.clone(), verifier, &[b"h2"]);
        Self { service, trust_domain, svid, trust, without_alpn, http2 }
    }

    /// Reads a ClientHello, checks whom it is for, and does the rest of the handshake, all before `deadline`.
    pub async fn accept(&self, socket: TcpStream, protocol: Protocol, deadline: Instant) -> Result<Stream, HandshakeError> {
        let handshake = self.shake_hands(socket, protocol);
        tokio::time::timeout_at(deadline, handshake).await.unwrap_or(Err(HandshakeError::TimedOut))
    }

    async fn shake_hands(&self, socket: TcpStream, protocol: Protocol) -> Result<Stream, HandshakeError> {
        if self.svid.load().is_none() {
            return Err(HandshakeError::NoSvid);
        }
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await.map_err(handshake_error)?;
        let hello = start.client_hello();
        let port = asked_port(hello.server_name(), &self.service, &self.trust_domain)
            .ok_or_else(|| HandshakeError::WrongName(hello.server_name().unwrap_or_default().chars().take(80).collect()))?;
        // rustls refuses a client whose ALPN list has no overlap with ours, so a list is only shown to those who want it.
        let wants_http2 = hello.alpn().is_some_and(|mut offered| offered.any(|name| name == b"h2"));
        let speaks_http2 = matches!(protocol, Protocol::Http2 | Protocol::Grpc);
        let config = if wants_http2 && speaks_http2 { &self.http2 } else { &self.without_alpn };
        let tls = Box::pin(start.into_stream(config.clone())).await.map_err(handshake_error)?;
        verified(TlsStream(Box::new(tls.into())), port, &self.trust)
    }
}

/// The dialling end of direct connections to one upstream service.
pub struct DirectDialler {
    svid: SvidSource,
    trust: TrustSource,
    clock: Arc<Clock>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    port: PortName,
}

impl DirectDialler {
    /// Makes the dialler for `port` of `service`: only an instance whose SVID says `service` is accepted.
    ///
    /// # Errors
    /// When the server name is longer than DNS allows.
    pub fn new(
        service: &ServiceName,
        port: &PortName,
        trust_domain: &TrustDomain,
        svid: SvidSource,
        trust: TrustSource,
        clock: Arc<Clock>,
    ) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        let of_verifier = clock.clone();
        let verifier = SvidVerifier::new(trust.clone(), Expected::Service(service.clone())).with_clock(move || of_verifier.now());
        let config = postern_ca::client_config(svid.clone(), verifier, &[]);
        let name = ServerName::try_from(server_name(service, port, trust_domain))?;
        Ok(Self { svid, trust, clock, config, name, port: port.clone() })
    }

    /// Shakes hands over a connected socket before `deadline`.
    pub async fn connect(&self, socket: TcpStream, deadline: Instant) -> Result<Stream, HandshakeError> {
        if self.svid.load().as_ref().is_none_or(|svid| svid.not_after() < self.clock.now()) {
            return Err(HandshakeError::NoSvid);
        }
        let handshake = Box::pin(TlsConnector::from(self.config.clone()).connect(self.name.clone(), socket));
        let tls =
            tokio::time::timeout_at(deadline, handshake).await.map_err(|_| HandshakeError::TimedOut)?.map_err(handshake_error)?;
        verified(TlsStream(Box::new(tls.into())), self.port.clone(), &self.trust)
    }
}

fn verified(tls: TlsStream, port: PortName, trust: &TrustSource) -> Result<Stream, HandshakeError> {
    let peer = Peer::of(tls.peer_certificates(), &trust.load()).map_err(HandshakeError::Refused)?;
    let service = peer.service.clone().ok_or(HandshakeError::Refused(Refusal::BadSpiffeId))?;
    Ok(Stream { tls, peer, service, port })
}

/// Sorts what tokio-rustls reports into our reasons.
fn handshake_error(error: io::Error) -> HandshakeError {
    if let Some(refusal) = Refusal::of_io(&error) {
        return HandshakeError::Refused(refusal.clone());
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            return HandshakeError::PeerClosed;
        }
        _ => {}
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::NoCertificatesPresented) => HandshakeError::Refused(Refusal::NoCertificate),
        Some(rustls::Error::AlertReceived(_)) => HandshakeError::Alert(error),
        Some(_) => HandshakeError::NotTls(error),
        None => HandshakeError::Io(error),
    }
}
