//! A byte stream with a verified peer, and nothing about how it got here.
//!
//! Policy, accounting and copying know only [`Stream`]: one TLS connection of its own (direct), or one of many streams over
//! a warm connection between two sidecars (tunnel).

pub(crate) mod accept;
#[doc(hidden)]
pub mod bare;
pub(crate) mod buffers;
pub(crate) mod channel;
pub(crate) mod dial;
mod direct;
pub(crate) mod handshake;
pub(crate) mod hello;
pub(crate) mod listen;
pub(crate) mod peer;
pub(crate) mod record;
pub(crate) mod tunnel;

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use postern_ca::Refusal;
use postern_names::{PortName, ServiceName, TrustDomain};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use channel::{Fault, Source};
use direct::DirectStream;
use tunnel::{ALPN as TUNNEL_ALPN, Reason, TunnelStream};

pub use peer::PeerIdentity;
pub use record::RecordLayerKind;

/// How instances are dialled, and whether tunnels are accepted. Direct connections always are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TransportMode {
    /// A tunnel to an instance whose sidecar speaks it, else a connection for each stream.
    #[default]
    Auto,
    /// A connection for each stream, and no tunnel is accepted.
    Direct,
    /// Tunnels only: an instance that speaks none is not dialled.
    Tunnel,
}

impl FromStr for TransportMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "direct" => Ok(Self::Direct),
            "tunnel" => Ok(Self::Tunnel),
            _ => Err(format!("{text:?} is no transport; use auto, direct or tunnel")),
        }
    }
}

impl fmt::Display for TransportMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
        })
    }
}

/// Takes received bytes: a vectored write, which tells how many it took.
pub(crate) type Sink<'a> = dyn FnMut(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>> + 'a;

/// A byte stream to another service whose certificate was verified.
pub struct Stream {
    carrier: Carrier,
    peer: PeerIdentity,
    service: ServiceName,
    port: PortName,
}

/// What carries a stream.
pub(crate) enum Carrier {
    /// A TLS connection of its own.
    Direct(Box<DirectStream>),
    /// A tunnel that it shares.
    Tunnel(TunnelStream),
}

impl Stream {
    pub(crate) fn new(carrier: Carrier, peer: PeerIdentity, service: ServiceName, port: PortName) -> Self {
        Self { carrier, peer, service, port }
    }

    /// Who is at the other end, as its certificates say.
    pub fn peer(&self) -> &PeerIdentity {
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

    /// What carries it, in one word.
    pub fn transport(&self) -> &'static str {
        match self.carrier {
            Carrier::Direct(_) => "direct",
            Carrier::Tunnel(_) => "tunnel",
        }
    }

    /// Tells the caller that its stream leads somewhere: it was allowed, and the service was reached.
    pub fn accept(&self) {
        if let Carrier::Tunnel(stream) = &self.carrier {
            stream.accept();
        }
    }

    /// Ends the stream at once: what is queued is dropped, the peer sees a reset. Over a tunnel it is told `reason`.
    pub(crate) fn reset(self, reason: Reason) {
        match self.carrier {
            Carrier::Direct(stream) => stream.reset(),
            Carrier::Tunnel(stream) => stream.reset(reason),
        }
    }

    /// Gives received bytes to `sink` without copying them. Tells how many it took; 0 is the orderly end.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'_>) -> Poll<Result<usize, Fault>> {
        match &mut self.carrier {
            Carrier::Direct(stream) => stream.poll_recv(cx, sink),
            Carrier::Tunnel(stream) => stream.poll_recv(cx, sink),
        }
    }

    /// Has `source` write into the records that are sent next. Tells how many bytes it gave; 0 is its end. Poll until it is
    /// pending: then what was given before is sent or waits for the socket.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, source: &mut Source<'_>) -> Poll<Result<usize, Fault>> {
        match &mut self.carrier {
            Carrier::Direct(stream) => stream.poll_send(cx, source),
            Carrier::Tunnel(stream) => stream.poll_send(cx, source),
        }
    }

    /// Sends what was given before, as far as the socket takes it; the driver of a tunnel does so by itself.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Direct(stream) => stream.poll_flush(cx),
            Carrier::Tunnel(_) => Poll::Ready(Ok(())),
        }
    }

    /// Says that nothing more will be sent; what comes from the peer can still be read.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Direct(stream) => stream.poll_finish(cx),
            Carrier::Tunnel(stream) => {
                stream.finish();
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut sink = |_: &mut Context<'_>, slices: &[IoSlice<'_>]| {
            let before = buf.remaining();
            for slice in slices {
                buf.put_slice(&slice[..slice.len().min(buf.remaining())]);
            }
            Poll::Ready(Ok(before - buf.remaining()))
        };
        self.get_mut().poll_recv(cx, &mut sink).map_ok(drop).map_err(Fault::into_error)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// Copies once, into the records that are sent.
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut source = |_: &mut Context<'_>, slots: &mut [IoSliceMut<'_>]| Poll::Ready(Ok(gather(bytes, slots)));
        self.get_mut().poll_send(cx, &mut source).map_err(Fault::into_error)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_finish(cx)
    }
}

/// Copies `bytes` into `slots` as far as they go, and tells how many.
fn gather(bytes: &[IoSlice<'_>], slots: &mut [IoSliceMut<'_>]) -> usize {
    let mut copied = 0;
    let mut slices = bytes.iter().map(|slice| &slice[..]);
    let mut rest: &[u8] = &[];
    for slot in slots {
        let mut room = &mut slot[..];
        while !room.is_empty() {
            if rest.is_empty() {
                let Some(next) = slices.next() else { return copied };
                rest = next;
                continue;
            }
            let step = room.len().min(rest.len());
            let (now, later) = std::mem::take(&mut room).split_at_mut(step);
            now.copy_from_slice(&rest[..step]);
            room = later;
            rest = &rest[step..];
            copied += step;
        }
    }
    copied
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
    set_no_delay(stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(3);
    // A refinement: a socket that refuses it is as good as closed, and the next read says so.
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "cannot set the keepalive of a socket");
    }
}

/// Small messages go out at once (RFC 9293 §3.7.4).
pub(crate) fn set_no_delay(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn what_is_gathered_is_what_was_given_in_order(
            given in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            slots in prop::collection::vec(0_usize..9, 0..9),
        ) {
            let slices: Vec<IoSlice<'_>> = given.iter().map(|bytes| IoSlice::new(bytes)).collect();
            let mut room: Vec<Vec<u8>> = slots.iter().map(|len| vec![0; *len]).collect();
            let copied = {
                let mut slots: Vec<IoSliceMut<'_>> = room.iter_mut().map(|slot| IoSliceMut::new(slot)).collect();
                gather(&slices, &mut slots)
            };
            let (all, filled) = (given.concat(), room.concat());
            prop_assert_eq!(copied, all.len().min(filled.len()));
            prop_assert_eq!(&filled[..copied], &all[..copied]);
        }
    }
}
