//! The dialling end: a stream to an instance, over a warm tunnel where the instance speaks it, else over a connection of
//! its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use postern_ca::{Expected, Peer, Refusal, SvidSource, SvidVerifier, TrustSource};
use postern_names::{InstanceId, PortName, ServiceName, TrustDomain};
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::Clock;
use crate::limits::Limits;
use crate::local::LocalStream;
use crate::metrics::{Direction, Metrics};

use super::accept::{leaf_of, set_tunnel_options};
use super::channel::Channel;
use super::direct::DirectStream;
use super::handshake::{self, ClientConfigs, Established};
use super::peer::PeerIdentity;
use super::record::RecordLayerKind;
use super::tunnel::{
    Budgets, EARLY_DATA, Identities, Link, Machine, Reason, Role, StreamId, TunnelLimits, TunnelStream, Tunnels, Unopened,
};
use super::{Carrier, HandshakeError, Stream, TUNNEL_ALPN, TransportMode, server_name, set_options};

/// Why no stream to an instance came about.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{0}")]
    Connect(Arc<io::Error>),
    #[error("no answer in time")]
    TimedOut,
    #[error("{0}")]
    Handshake(Arc<HandshakeError>),
    #[error("this sidecar itself answered")]
    Ourselves,
    #[error("its sidecar speaks no tunnel, and --transport tunnel allows nothing else")]
    NoTunnel,
    #[error("its sidecar ended the stream: {}", .0.word())]
    Refused(Reason),
    #[error("{0}")]
    Open(Unopened),
    #[error("the tunnel to it ended: {0}")]
    Ended(Arc<io::Error>),
}

impl DialError {
    /// Whether another instance may say otherwise: a denial holds for all of them.
    pub(crate) fn may_try_another(&self) -> bool {
        !matches!(self, Self::Refused(Reason::Denied))
    }
}

/// What all diallers of one sidecar share.
pub(crate) struct DiallerContext {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) svid: SvidSource,
    pub(crate) trust: TrustSource,
    pub(crate) clock: Arc<Clock>,
    pub(crate) limits: Limits,
    pub(crate) tunnel_limits: TunnelLimits,
    pub(crate) mode: TransportMode,
    pub(crate) record_layer: RecordLayerKind,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) budgets: Arc<Budgets>,
}

/// Dials the instances of one port of one service.
pub(crate) struct Dialler {
    context: Arc<DiallerContext>,
    service: ServiceName,
    port: PortName,
    verifier: Arc<SvidVerifier>,
    direct: ClientConfigs,
    direct_name: ServerName<'static>,
    tunnel: ClientConfigs,
    tunnel_name: ServerName<'static>,
}

/// Where an instance is.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) instance: InstanceId,
    pub(crate) address: String,
    pub(crate) speaks_tunnel: bool,
}

impl Dialler {
    /// Makes the dialler for `port` of `service`: only an instance whose SVID says `service` is accepted.
    ///
    /// # Errors
    /// When the server name is longer than DNS allows.
    pub(crate) fn new(
        context: Arc<DiallerContext>,
        service: &ServiceName,
        port: &PortName,
    ) -> Result<Arc<Self>, InvalidDnsNameError> {
        let clock = context.clock.clone();
        let verifier =
            SvidVerifier::new(context.trust.clone(), Expected::Service(service.clone())).with_clock(move || clock.now());
        let configs = |alpn: &[&[u8]]| {
            let base = postern_ca::client_config(context.svid.clone(), verifier.clone(), alpn);
            ClientConfigs::new(base, context.svid.clone(), context.record_layer)
        };
        let direct = configs(&[]);
        let tunnel = configs(&[TUNNEL_ALPN]);
        let direct_name = ServerName::try_from(server_name(service, port, &context.trust_domain))?;
        let tunnel_name = ServerName::try_from(server_name(service, &PortName::main(), &context.trust_domain))?;
        let (service, port) = (service.clone(), port.clone());
        Ok(Arc::new(Self { service, port, verifier, direct, direct_name, tunnel, tunnel_name, context }))
    }

    /// What a caller has sent already, as far as a request for a stream can carry it.
    pub(crate) fn read_ahead(&self, caller: &LocalStream) -> Vec<u8> {
        if self.context.mode == TransportMode::Direct {
            return Vec::new();
        }
        let mut bytes = [0; EARLY_DATA as usize];
        let read = caller.read_ready(&mut bytes);
        bytes[..read].to_vec()
    }

    /// A stream to `target`. `ahead` are the first bytes of the caller, at most 16 KiB: they travel with the request for
    /// the stream. Tells how many of them were sent.
    pub(crate) async fn dial(self: &Arc<Self>, target: &Target, ahead: &[u8]) -> Result<(Stream, usize), DialError> {
        match self.context.mode {
            TransportMode::Direct => self.dial_direct(target).await.map(|stream| (stream, 0)),
            TransportMode::Tunnel if !target.speaks_tunnel => Err(DialError::NoTunnel),
            TransportMode::Auto if !target.speaks_tunnel => self.dial_direct(target).await.map(|stream| (stream, 0)),
            TransportMode::Tunnel => self.dial_through(target, ahead).await,
            TransportMode::Auto => match self.dial_through(target, ahead).await {
                // It says that it does, and does not: an older version was started again at this address.
                Err(DialError::NoTunnel) => self.dial_direct(target).await.map(|stream| (stream, 0)),
                dialled => dialled,
            },
        }
    }

    async fn dial_direct(&self, target: &Target) -> Result<Stream, DialError> {
        let established = self.shake_hands(target, &self.direct, &self.direct_name).await?;
        let (peer, service) = self.verified(&established)?;
        let carrier = Carrier::Direct(Box::new(DirectStream::new(Channel::of(established))));
        Ok(Stream::new(carrier, peer, service, self.port.clone()))
    }

    /// A stream on a tunnel. Where a tunnel that was there before ends under the request, once more on another one: the
    /// process at its other end may have been replaced, and a connection of its own would have reached the new one.
    async fn dial_through(self: &Arc<Self>, target: &Target, ahead: &[u8]) -> Result<(Stream, usize), DialError> {
        let (link, id, was_there) = self.context.tunnels.open(self, target).await?;
        match self.ask(link, id, ahead).await {
            Err(DialError::Ended(error)) if was_there => {
                tracing::debug!(instance = %target.instance, %error, "a tunnel ended under a request for a stream");
                let (link, id, _) = self.context.tunnels.open(self, target).await?;
                self.ask(link, id, ahead).await
            }
            answered => answered,
        }
    }

    /// Waits until the other end has accepted a stream.
    async fn ask(&self, link: Arc<Link>, id: StreamId, ahead: &[u8]) -> Result<(Stream, usize), DialError> {
        let stream = TunnelStream::new(link.clone(), id);
        let sent = stream.send_ahead(ahead).map_err(|error| DialError::Ended(Arc::new(error)))?;
        match timeout(self.context.limits.dial, stream.accepted()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(stream.reset_reason().map_or_else(|| DialError::Ended(Arc::new(error)), DialError::Refused));
            }
            Err(_) => {
                stream.reset(Reason::TimedOut);
                return Err(DialError::TimedOut);
            }
        }
        let (peer, service) = (link.peer().clone(), link.service().clone());
        Ok((Stream::new(Carrier::Tunnel(stream), peer, service, self.port.clone()), sent))
    }

    /// A new tunnel to `target`; `None` if its sidecar does not know the protocol, which an older one may not.
    pub(crate) async fn dial_tunnel(&self, target: &Target) -> Result<Option<(Arc<Link>, Identities)>, DialError> {
        let established = self.shake_hands(target, &self.tunnel, &self.tunnel_name).await?;
        let (peer, service) = self.verified(&established)?;
        if established.alpn.as_deref() != Some(TUNNEL_ALPN) {
            return Ok(None);
        }
        let identities = Identities {
            svid: self.context.svid.clone(),
            trust: self.context.trust.clone(),
            verifier: self.verifier.clone(),
            clock: self.context.clock.clone(),
            own_leaf: established.own_leaf.clone(),
            peer_leaf: leaf_of(&established.peer_chain),
        };
        set_tunnel_options(&established.socket);
        let machine = Machine::new(Role::Dialler, self.context.tunnel_limits, Instant::now().into_std());
        Ok(Some((Link::new(machine, Channel::of(established), peer, service, &self.context.budgets), identities)))
    }

    async fn shake_hands(
        &self,
        target: &Target,
        configs: &ClientConfigs,
        name: &ServerName<'static>,
    ) -> Result<Established, DialError> {
        let failed = |error| DialError::Handshake(Arc::new(error));
        let connected = timeout(self.context.limits.dial, TcpStream::connect(&target.address)).await;
        let socket = connected.map_err(|_| DialError::TimedOut)?.map_err(|error| DialError::Connect(Arc::new(error)))?;
        set_options(&socket);
        let is_valid = |svid: &postern_ca::Svid| svid.not_after() >= self.context.clock.now();
        if !self.context.svid.load().is_some_and(|svid| is_valid(&svid)) {
            return Err(failed(HandshakeError::NoSvid));
        }
        let (config, own_leaf) = configs.current().ok_or_else(|| failed(HandshakeError::NoSvid))?;
        let begun = Instant::now();
        let handshake = handshake::connect(socket, self.context.record_layer, config, own_leaf, name.clone());
        let shaken = timeout_at(begun + self.context.limits.handshake, handshake).await;
        let established = shaken.unwrap_or(Err(HandshakeError::TimedOut)).map_err(failed)?;
        self.context.metrics.handshake_done(Direction::Outbound, begun.elapsed());
        Ok(established)
    }

    fn verified(&self, established: &Established) -> Result<(PeerIdentity, ServiceName), DialError> {
        let failed = |refusal| DialError::Handshake(Arc::new(HandshakeError::Refused(refusal)));
        let peer = Peer::of(&established.peer_chain, &self.context.trust.load()).map_err(failed)?;
        let service = peer.service.clone().ok_or_else(|| failed(Refusal::BadSpiffeId))?;
        if leaf_of(&established.peer_chain) == established.own_leaf {
            super::reset_on_close(&established.socket);
            return Err(DialError::Ourselves);
        }
        Ok((PeerIdentity::new(peer), service))
    }

    /// The service that it dials.
    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The port that it dials.
    pub(crate) fn port(&self) -> &PortName {
        &self.port
    }

    /// How long a whole dial of a tunnel may take.
    pub(crate) fn most_time(&self) -> Duration {
        self.context.limits.dial + self.context.limits.handshake
    }
}
