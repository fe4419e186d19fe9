//! The accepting end: what a caller says first decides whether it gets a stream or a tunnel.

use std::sync::Arc;
use std::time::Duration;

use postern_ca::{Expected, Peer, Refusal, SvidSource, SvidVerifier, TrustSource};
use postern_intentions::Protocol;
use postern_names::{PortName, ServiceName, TrustDomain};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::ClientHello;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::clock::Clock;

use super::channel::Channel;
use super::dial::DiallerContext;
use super::direct::DirectStream;
use super::handshake::{self, Established, ServerConfigs};
use super::peer::PeerIdentity;
use super::record::RecordLayerKind;
use super::tunnel::{Budgets, Identities, Link, Machine, Role, TunnelLimits};
use super::{Carrier, HandshakeError, Stream, TUNNEL_ALPN, TransportMode, asked_port};

/// What a handshake has brought.
pub(crate) enum Accepted {
    /// One stream with a connection to itself.
    Stream(Stream),
    /// A tunnel, on which the peer opens streams.
    Tunnel(AcceptedTunnel),
}

/// A tunnel that the peer has dialled.
pub(crate) struct AcceptedTunnel {
    pub(crate) link: Arc<Link>,
    pub(crate) identities: Identities,
}

/// Shakes hands with those who call one service.
pub(crate) struct Acceptor {
    service: ServiceName,
    trust_domain: TrustDomain,
    svid: SvidSource,
    trust: TrustSource,
    clock: Arc<Clock>,
    verifier: Arc<SvidVerifier>,
    record_layer: RecordLayerKind,
    limits: TunnelLimits,
    budgets: Arc<Budgets>,
    without_alpn: ServerConfigs,
    http: ServerConfigs,
    http2: ServerConfigs,
    tunnel: Option<ServerConfigs>,
}

impl Acceptor {
    /// Makes the acceptor of `service`; certificate and trust are read from their slots at each handshake.
    pub(crate) fn new(service: ServiceName, context: &DiallerContext) -> Self {
        let DiallerContext { svid, trust, clock, mode, record_layer, .. } = context;
        let of_verifier = clock.clone();
        let verifier = SvidVerifier::new(trust.clone(), Expected::AnyService).with_clock(move || of_verifier.now());
        let configs = |alpn: &[&[u8]]| {
            let base = postern_ca::server_config(svid.clone(), verifier.clone(), alpn);
            ServerConfigs::new(base, svid.clone(), *record_layer)
        };
        Self {
            service,
            trust_domain: context.trust_domain.clone(),
            svid: svid.clone(),
            trust: trust.clone(),
            clock: clock.clone(),
            verifier: verifier.clone(),
            record_layer: *record_layer,
            limits: context.tunnel_limits,
            budgets: context.budgets.clone(),
            without_alpn: configs(&[]),
            http: configs(&[b"h2", b"http/1.1"]),
            http2: configs(&[b"h2"]),
            tunnel: (*mode != TransportMode::Direct).then(|| configs(&[TUNNEL_ALPN])),
        }
    }

    /// Reads a ClientHello, checks whom it is for, and does the rest of the handshake, all before `deadline`.
    pub(crate) async fn accept(
        &self,
        socket: TcpStream,
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Accepted, HandshakeError> {
        let mut port = PortName::main();
        let handshake =
            handshake::accept(socket, self.record_layer, |hello: &ClientHello<'_>| self.choose(hello, protocol, &mut port));
        let established = tokio::time::timeout_at(deadline, handshake).await.unwrap_or(Err(HandshakeError::TimedOut))?;
        let peer = Peer::of(&established.peer_chain, &self.trust.load()).map_err(HandshakeError::Refused)?;
        let service = peer.service.clone().ok_or(HandshakeError::Refused(Refusal::BadSpiffeId))?;
        let peer = PeerIdentity::new(peer);
        if established.alpn.as_deref() == Some(TUNNEL_ALPN) {
            return Ok(Accepted::Tunnel(self.tunnel(established, peer, service)));
        }
        let channel = Channel::of(established);
        Ok(Accepted::Stream(Stream::new(Carrier::Direct(Box::new(DirectStream::new(channel))), peer, service, port)))
    }

    fn choose(
        &self,
        hello: &ClientHello<'_>,
        protocol: Protocol,
        port: &mut PortName,
    ) -> Result<(Arc<ServerConfig>, CertificateDer<'static>), HandshakeError> {
        *port = asked_port(hello.server_name(), &self.service, &self.trust_domain)
            .ok_or_else(|| HandshakeError::WrongName(hello.server_name().unwrap_or_default().chars().take(80).collect()))?;
        // rustls refuses a client whose ALPN list has no overlap with ours, so a list is only shown to those who want it.
        let wants = |name: &[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|one| one == name));
        let configs = match &self.tunnel {
            Some(tunnel) if wants(TUNNEL_ALPN) => tunnel,
            _ if wants(b"h2") && matches!(protocol, Protocol::Http2 | Protocol::Grpc) => &self.http2,
            _ if (wants(b"h2") || wants(b"http/1.1")) && protocol == Protocol::Http => &self.http,
            _ => &self.without_alpn,
        };
        configs.current().ok_or(HandshakeError::NoSvid)
    }

    fn tunnel(&self, established: Established, peer: PeerIdentity, service: ServiceName) -> AcceptedTunnel {
        let identities = Identities {
            svid: self.svid.clone(),
            trust: self.trust.clone(),
            verifier: self.verifier.clone(),
            clock: self.clock.clone(),
            own_leaf: established.own_leaf.clone(),
            peer_leaf: leaf_of(&established.peer_chain),
        };
        set_tunnel_options(&established.socket);
        let machine = Machine::new(Role::Acceptor, self.limits, Instant::now().into_std());
        AcceptedTunnel { link: Link::new(machine, Channel::of(established), peer, service, &self.budgets), identities }
    }
}

/// The leaf of a chain that was verified, and so is not empty.
pub(super) fn leaf_of(chain: &[CertificateDer<'static>]) -> CertificateDer<'static> {
    chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
}

/// Both ends of a tunnel always read, so one whose bytes are not acknowledged for 20 s is dead.
pub(super) fn set_tunnel_options(socket: &TcpStream) {
    let socket = socket2::SockRef::from(socket);
    if let Err(error) = socket.set_tcp_user_timeout(Some(Duration::from_secs(20))) {
        tracing::debug!(%error, "cannot set the socket options of a tunnel");
    }
}
