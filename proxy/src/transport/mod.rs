//! A byte stream with a verified peer, and nothing about how it got here.
//!
//! Policy, accounting and copying know only [`Stream`]. Today every stream is one TLS connection of its own ([`direct`]).

pub mod direct;
pub(crate) mod handshake;
pub(crate) mod hello;
pub(crate) mod listen;
pub(crate) mod record;
pub(crate) mod tunnel;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use postern_ca::{Peer, Refusal};
use postern_names::{PortName, ServiceName, TrustDomain};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection to another service whose certificate was verified.
pub struct Stream {
    tls: direct::TlsStream,
    peer: Peer,
    service: ServiceName,
    port: PortName,
}

impl Stream {
    /// Who is at the other end, as its certificate says.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The service at the other end.
    pub fn peer_service(&self) -> &ServiceName {
        &self.service
    }

    /// The port of the destination that this stream is for.
    pub fn port(&self) -> &PortName {
        &self.port
    }

    /// Ends the stream at once: what is queued is dropped, the peer sees a reset.
    pub fn reset(self) {
        reset_on_close(self.tls.socket());
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tls).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_shutdown(cx)
    }
}

/// Why no stream came about. [`HandshakeError::word`] is the reason that the metric and the log carry.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's certificate was refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The handshake was not done in time.
    #[error("the handshake was not done in time")]
    TimedOut,
    /// The peer went away in the middle.
    #[error("the peer closed in the middle of the handshake")]
    PeerClosed,
    /// What the peer sent is not TLS 1.3 as we speak it.
    #[error("not a TLS 1.3 handshake: {0}")]
    NotTls(io::Error),
    /// The peer ended the handshake with an alert (RFC 8446 §6).
    #[error("the peer refused the handshake: {0}")]
    Alert(io::Error),
    /// The caller looked for another service here.
    #[error("the caller asked for {0:?}, which is not served here")]
    WrongName(String),
    /// This sidecar has no certificate that is still valid.
    #[error("this sidecar holds no valid SVID; it is waiting for the control plane")]
    NoSvid,
    /// The socket failed.
    #[error("{0}")]
    Io(io::Error),
}

impl HandshakeError {
    /// The reason in one word, from a fixed list, so that no peer can make a metric series.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.word(),
            Self::TimedOut => "timed_out",
            Self::PeerClosed => "peer_closed",
            Self::NotTls(_) => "not_tls",
            Self::Alert(_) => "alert",
            Self::WrongName(_) => "wrong_name",
            Self::NoSvid => "no_svid",
            Self::Io(_) => "io",
        }
    }
}

/// The TLS server name under which `port` of `service` is reached: `<service>.<trust-domain>`, or
/// `<port>.<service>.<trust-domain>` for a named port.
pub fn server_name(service: &ServiceName, port: &PortName, trust_domain: &TrustDomain) -> String {
    if *port == PortName::main() { format!("{service}.{trust_domain}") } else { format!("{port}.{service}.{trust_domain}") }
}

/// The port that a caller asks for by its TLS server name. A caller that sends none wants `main`.
pub fn asked_port(name: Option<&str>, service: &ServiceName, trust_domain: &TrustDomain) -> Option<PortName> {
    let Some(name) = name else { return Some(PortName::main()) };
    let name = name.to_ascii_lowercase();
    let of_domain = name.strip_suffix(trust_domain.as_str())?.strip_suffix('.')?;
    let before_service = of_domain.strip_suffix(service.as_str())?;
    if before_service.is_empty() {
        return Some(PortName::main());
    }
    before_service.strip_suffix('.')?.parse().ok()
}

/// Options of every TCP connection: no delay, and a keepalive that finds a dead host in about 90 s without ending a
/// connection that is merely idle.
pub(crate) fn set_options(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(3);
    let socket = SockRef::from(stream);
    // They are refinements: a socket that refuses them is as good as closed, and the next read says so.
    if let Err(error) = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
        tracing::debug!(%error, "cannot set socket options");
    }
}

/// Makes the close of this socket a reset that drops what is queued (SO_LINGER 0).
pub(crate) fn reset_on_close(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot set SO_LINGER");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: Option<&str>) -> Option<String> {
        let service = "api".parse().expect("service");
        let domain = "mesh.example".parse().expect("trust domain");
        asked_port(name, &service, &domain).map(|port| port.to_string())
    }

    #[test]
    fn the_server_name_says_which_port_is_wanted() {
        assert_eq!(asked(None).as_deref(), Some("main"));
        assert_eq!(asked(Some("api.mesh.example")).as_deref(), Some("main"));
        assert_eq!(asked(Some("API.Mesh.Example")).as_deref(), Some("main"));
        assert_eq!(asked(Some("grpc.api.mesh.example")).as_deref(), Some("grpc"));
    }

    #[test]
    fn a_name_of_another_service_is_refused() {
        for name in
            ["web.mesh.example", "xapi.mesh.example", "api2.mesh.example", "api.other.example", "a.b.api.mesh.example", "api", ""]
        {
            assert_eq!(asked(Some(name)), None, "{name}");
        }
    }

    #[test]
    fn a_server_name_that_we_make_is_one_that_we_read() {
        let (service, domain) = ("api".parse().expect("service"), "mesh.example".parse().expect("trust domain"));
        for port in [PortName::main(), "grpc".parse().expect("port")] {
            let name = server_name(&service, &port, &domain);
            assert_eq!(asked_port(Some(&name), &service, &domain), Some(port));
        }
    }
}
