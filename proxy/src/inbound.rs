//! What happens when another service connects: accept → handshake → who is it → may it → dial the service → copy → account.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postern_edges::Verdict;
use postern_names::{InstanceId, PortName, ServiceName};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access_log::{AccessLog, Call, Record};
use crate::clock::Clock;
use crate::connections::{Closed, Connections, Judgeable, Registered, What};
use crate::copy::{End, Pump, PumpError};
use crate::http::inbound::{HttpEnd, HttpInbound};
use crate::limits::{Admission, Limits};
use crate::local::{LocalStream, LocalTarget};
use crate::metrics::{ConnectionMetrics, Direction, Judged, Metrics};
use crate::sightings::{Amounts, Counter, Sighting, Why, verdict_of};
use crate::snapshot::SnapshotSource;
use crate::transport::accept::{Accepted, AcceptedTunnel, Acceptor};
use crate::transport::tunnel::{Driver, Opening, PeerTunnels, Reason, Role, TunnelStream, untrusted_word};
use crate::transport::{self, Carrier, HandshakeError, Stream, hello, listen};

/// The accepting half of a sidecar.
pub(crate) struct Inbound {
    pub(crate) service: ServiceName,
    pub(crate) instance: InstanceId,
    pub(crate) acceptor: Acceptor,
    pub(crate) admission: Arc<Admission>,
    pub(crate) tunnels: Arc<PeerTunnels>,
    pub(crate) locals: BTreeMap<PortName, LocalTarget>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) snapshots: SnapshotSource,
    pub(crate) clock: Arc<Clock>,
    pub(crate) limits: Limits,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) seen: Arc<Counter>,
    pub(crate) stopping: CancellationToken,
    pub(crate) http: Arc<HttpInbound>,
}

/// What is told of a connection at its end: how it was judged, and why it ended.
struct Ending<'a> {
    judged: Judged,
    because: Cow<'a, str>,
    reason: &'static str,
    bytes_in: u64,
    bytes_out: u64,
}

impl Inbound {
    /// Serves `listener` until the sidecar stops, and then until the last connection has ended.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let stopping = self.stopping.clone();
        listen::serve_each(listener, stopping, |(socket, address)| self.clone().connection(socket, address)).await;
    }

    async fn connection(self: Arc<Self>, socket: TcpStream, address: SocketAddr) {
        let accepted = Instant::now();
        match self.authenticate(socket, address, accepted).await {
            Some(Accepted::Stream(stream)) => self.stream(stream, address, accepted).await,
            Some(Accepted::Tunnel(tunnel)) => Box::pin(self.tunnel(tunnel, address)).await,
            None => {}
        }
    }

    /// Serves the streams of one tunnel, each by itself, until the tunnel and the last of them have ended.
    async fn tunnel(self: Arc<Self>, tunnel: AcceptedTunnel, address: SocketAddr) {
        let AcceptedTunnel { link, identities } = tunnel;
        let Some(_place) = self.tunnels.enter(link.service(), address.ip()) else {
            self.tell_full("max_tunnels_per_peer", link.service().as_str());
            return;
        };
        let _open = self.metrics.tunnel_opened(Direction::Inbound, link.service());
        let driver = Driver {
            link: link.clone(),
            role: Role::Acceptor,
            identities,
            changes: self.snapshots.clone(),
            stopping: self.stopping.clone(),
            idle: Duration::MAX,
            metrics: self.metrics.clone(),
        };
        let mut streams = JoinSet::new();
        let serve = |stream: TunnelStream, opening: Opening| {
            while streams.try_join_next().is_some() {}
            if self.stopping.is_cancelled() {
                return stream.reset(Reason::Draining);
            }
            let stream = Stream::new(Carrier::Tunnel(stream), link.peer().clone(), link.service().clone(), opening.port);
            streams.spawn(self.clone().stream(stream, address, Instant::now()));
        };
        let end = driver.run(serve).await;
        tracing::debug!(peer = %link.service(), reason = end.word, detail = %end.detail, "a tunnel has ended");
        while streams.join_next().await.is_some() {}
    }

    async fn stream(self: Arc<Self>, stream: Stream, address: SocketAddr, accepted: Instant) {
        let mut metrics = self.metrics.connection(Direction::Inbound, stream.peer_service());
        let is_http = self.snapshots.borrow().protocol.is_http();
        let what = if is_http { What::HttpConnection } else { What::Connection };
        let Some(mut registered) = self.register(&stream, what) else { return stream.reset(Reason::Limit) };
        if is_http {
            return Box::pin(self.requests(stream, &mut registered, &mut metrics, address, accepted)).await;
        }
        let judgeable = registered.judgeable().clone();
        let ending = match self.may_it(&judgeable, &metrics) {
            Ok(allowed) => {
                self.see(&judgeable, &allowed);
                self.carry(stream, &mut registered, &mut metrics, allowed).await
            }
            Err(denied) => {
                stream.reset(Reason::Denied);
                self.see(&judgeable, &denied);
                denied
            }
        };
        drop(registered);
        self.account(&judgeable, address, accepted, &ending);
    }

    /// Serves the requests of one connection, each judged by itself.
    async fn requests(
        &self,
        stream: Stream,
        registered: &mut Registered,
        metrics: &mut ConnectionMetrics,
        address: SocketAddr,
        accepted: Instant,
    ) {
        let judgeable = registered.judgeable().clone();
        if let Err(untrusted) = self.is_trusted(&judgeable) {
            stream.reset(Reason::Untrusted);
            self.see(&judgeable, &untrusted);
            return self.account(&judgeable, address, accepted, &untrusted);
        }
        match self.http.serve(stream, registered, metrics, address).await {
            HttpEnd::Ended(ended) => {
                if let Some(fault) = ended.fault() {
                    self.metrics.refused(Direction::Inbound, fault);
                }
                tracing::debug!(peer = %judgeable.service, reason = ended.word(), "an HTTP connection ended")
            }
            HttpEnd::Closed(closed) => {
                metrics_of_closing(metrics, &closed);
                let because = closed.because().unwrap_or_default().into_owned();
                let ending = Ending::before_copying(Judged::Allow, because, closed.word());
                self.account(&judgeable, address, accepted, &ending);
            }
            HttpEnd::UnknownPort => {
                self.metrics.refused(Direction::Inbound, "unknown_port");
                let ending = Ending::before_copying(Judged::Allow, String::new(), "unknown_port");
                self.count(&judgeable, Verdict::Failed, "the service has no such port", Amounts::ONE_CALL);
                self.account(&judgeable, address, accepted, &ending);
            }
        }
    }

    /// Accept and handshake: a verified stream or tunnel, or nothing and a counted reason.
    async fn authenticate(&self, socket: TcpStream, address: SocketAddr, accepted: Instant) -> Option<Accepted> {
        if !self.connections.has_room() {
            return self.refuse(socket, "max_connections");
        }
        let Some(visit) = self.admission.enter(address.ip()) else {
            return self.refuse(socket, "too_many_unauthenticated");
        };
        transport::set_options(&socket);
        let arrived = tokio::select! {
            () = self.stopping.cancelled() => return None,
            arrived = tokio::time::timeout(self.limits.handshake, hello::arrive(&socket)) => arrived,
        };
        if let Err(error) = arrived.unwrap_or(Err(HandshakeError::TimedOut)) {
            return self.handshake_failed(&error, address, accepted);
        }
        let left = self.limits.handshake.saturating_sub(accepted.elapsed());
        let _place = tokio::select! {
            () = self.stopping.cancelled() => return None,
            place = visit.place() => place?,
        };
        let begun = Instant::now();
        let protocol = self.snapshots.borrow().protocol;
        // Boxed, so that a connection that lives for hours does not carry the room of its handshake.
        match Box::pin(self.acceptor.accept(socket, protocol, begun + left)).await {
            Ok(accepted) => {
                self.metrics.handshake_done(Direction::Inbound, begun.elapsed());
                Some(accepted)
            }
            Err(error) => self.handshake_failed(&error, address, accepted),
        }
    }

    /// Enters the connection into the table, if there is room; from here on a snapshot can close it.
    fn register(&self, stream: &Stream, what: What) -> Option<Registered> {
        let judgeable = Judgeable {
            what,
            direction: Direction::Inbound,
            peer: stream.peer().clone(),
            service: stream.peer_service().clone(),
            port: stream.port().clone(),
        };
        match self.connections.register(judgeable.clone()) {
            Ok(registered) => Some(registered),
            Err(full) => {
                let because = self.tell_full(full.word(), judgeable.service.as_str());
                self.count(&judgeable, Verdict::Failed, &because, Amounts::ONE_CALL);
                None
            }
        }
    }

    /// Decides by the newest snapshot, and counts the verdict.
    fn may_it(&self, judgeable: &Judgeable, metrics: &ConnectionMetrics) -> Result<Ending<'static>, Ending<'static>> {
        self.is_trusted(judgeable)?;
        let snapshot = self.snapshots.borrow().clone();
        let decision = judgeable.decide(&self.service, &snapshot, self.clock.now());
        let judged = Judged::new(decision.allowed(), decision.would_deny);
        metrics.judged(judged, &decision.because.label());
        let ending = Ending::before_copying(judged, decision.because.to_string(), "denied");
        if judged == Judged::Deny { Err(ending) } else { Ok(ending) }
    }

    /// Whether the peer is still who it was when it shook hands.
    fn is_trusted(&self, judgeable: &Judgeable) -> Result<(), Ending<'static>> {
        judgeable.still_trusted(&self.snapshots.borrow(), self.clock.now()).map_err(|refusal| {
            self.metrics.handshake_failed(Direction::Inbound, refusal.word());
            Ending::before_copying(Judged::Deny, refusal.to_string(), refusal.word())
        })
    }

    /// Dials the service and copies until either side, or a snapshot, ends it. The sockets are closed when it returns.
    async fn carry<'a>(
        &self,
        stream: Stream,
        registered: &mut Registered,
        metrics: &mut ConnectionMetrics,
        allowed: Ending<'a>,
    ) -> Ending<'a> {
        let Some(target) = self.locals.get(stream.port()) else {
            self.metrics.refused(Direction::Inbound, "unknown_port");
            stream.reset(Reason::NoSuchPort);
            self.see_more(registered.judgeable(), &allowed, Amounts::ONE_ERROR);
            return Ending { reason: "unknown_port", ..allowed };
        };
        let dialled = tokio::select! {
            biased;
            closed = registered.closed() => {
                stream.reset(reason_of(&closed));
                metrics_of_closing(metrics, &closed);
                return self.closed_by(registered.judgeable(), allowed, &closed);
            }
            dialled = target.dial(self.limits.local_dial) => dialled,
        };
        let local = match dialled {
            Ok(local) => local,
            Err(error) => {
                self.metrics.refused(Direction::Inbound, "local_unavailable");
                tracing::warn!(port = %stream.port(), target = %target, %error, "cannot reach the service; is it running?");
                stream.reset(Reason::DialFailed);
                self.see_more(registered.judgeable(), &allowed, Amounts::ONE_ERROR);
                return Ending { reason: "local_unavailable", ..allowed };
            }
        };
        metrics.opened();
        stream.accept();
        let (copied, bytes_in, bytes_out) = copy(stream, 0, local, registered, metrics).await;
        self.see_more(registered.judgeable(), &allowed, Amounts { bytes_in, bytes_out, ..Amounts::default() });
        let ending = Ending { bytes_in, bytes_out, ..allowed };
        match copied {
            Copied::Ended => Ending { reason: "closed", ..ending },
            Copied::Failed(error) => Ending { reason: error_word(&error, "reset_by_service"), ..ending },
            Copied::Closed(closed) => self.closed_by(registered.judgeable(), ending, &closed),
        }
    }

    fn account(&self, judgeable: &Judgeable, address: SocketAddr, accepted: Instant, ending: &Ending<'_>) {
        let call = Call {
            port: judgeable.port.as_str(),
            address: Some(address),
            judged: Some(ending.judged),
            ..self.call_of(judgeable.service.as_str())
        };
        self.log.write(&Record {
            call,
            because: Cow::Borrowed(&ending.because),
            bytes_in: ending.bytes_in,
            bytes_out: ending.bytes_out,
            duration: accepted.elapsed(),
            reason: ending.reason,
        });
    }

    fn handshake_failed(&self, error: &HandshakeError, address: SocketAddr, accepted: Instant) -> Option<Accepted> {
        self.metrics.handshake_failed(Direction::Inbound, error.word());
        let call = Call { address: Some(address), ..self.call_of("unknown") };
        let record = self.unjudged("unknown", error.word(), error.to_string());
        self.log.write(&Record { call, duration: accepted.elapsed(), ..record });
        None
    }

    fn refuse(&self, socket: TcpStream, word: &'static str) -> Option<Accepted> {
        transport::reset_on_close(&socket);
        drop(socket);
        self.tell_full(word, "unknown");
        None
    }

    /// Tells what has no room, and gives the words of the log.
    fn tell_full(&self, word: &'static str, source: &str) -> String {
        self.metrics.refused(Direction::Inbound, word);
        let because = format!("the limit {word} is reached");
        self.log.write(&self.unjudged(source, word, because.clone()));
        because
    }

    /// Counts a connection that was just judged.
    fn see(&self, judgeable: &Judgeable, ending: &Ending<'_>) {
        self.count(judgeable, verdict_of(Some(ending.judged)), &ending.because, Amounts::ONE_CALL);
    }

    /// Counts what has become of a connection that was let through.
    fn see_more(&self, judgeable: &Judgeable, allowed: &Ending<'_>, amounts: Amounts) {
        self.count(judgeable, verdict_of(Some(allowed.judged)), &allowed.because, amounts);
    }

    /// This sidecar ends it; counted as denied, where that is why.
    fn closed_by<'a>(&self, judgeable: &Judgeable, ending: Ending<'a>, closed: &Closed) -> Ending<'a> {
        if let Some(because) = closed.because() {
            self.count(judgeable, Verdict::Deny, &because, Amounts::ONE_CALL);
        }
        ending.closed_by(closed)
    }

    fn count(&self, judgeable: &Judgeable, verdict: Verdict, because: &str, amounts: Amounts) {
        self.seen.count(&Sighting {
            direction: Direction::Inbound,
            peer: &judgeable.service,
            port: &judgeable.port,
            protocol: self.snapshots.borrow().protocol,
            verdict,
            because: Why::Words(because),
            http: None,
            amounts,
            at: Instant::now(),
        });
    }

    fn unjudged<'a>(&'a self, source: &'a str, reason: &'a str, because: String) -> Record<'a> {
        Record {
            call: self.call_of(source),
            because: because.into(),
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            reason,
        }
    }

    /// A call by `source` of which nothing more is known yet.
    fn call_of<'a>(&'a self, source: &'a str) -> Call<'a> {
        Call {
            direction: Direction::Inbound,
            source,
            destination: self.service.as_str(),
            instance: self.instance.as_str(),
            port: "",
            address: None,
            judged: None,
        }
    }
}

impl<'a> Ending<'a> {
    fn before_copying(judged: Judged, because: String, reason: &'static str) -> Self {
        Self { judged, because: because.into(), reason, bytes_in: 0, bytes_out: 0 }
    }

    /// The end that a snapshot, a clock or the drain made: what decided then is what the line names.
    fn closed_by(self, closed: &Closed) -> Self {
        let because = closed.because().map_or(self.because, |because| because.into_owned().into());
        Self { reason: closed.word(), because, ..self }
    }
}

/// How copying came to its end.
pub(crate) enum Copied {
    /// Both sides said that they were done.
    Ended,
    /// One side failed.
    Failed(PumpError),
    /// This sidecar closed it.
    Closed(Closed),
}

/// Copies between the peer and the local process; gives how it ended and the bytes moved, with both sockets closed.
pub(crate) async fn copy(
    stream: Stream,
    sent_ahead: usize,
    local: LocalStream,
    registered: &mut Registered,
    metrics: &ConnectionMetrics,
) -> (Copied, u64, u64) {
    let (bytes_in, bytes_out) = metrics.bytes();
    let mut pump = Pump::new(stream, local, bytes_in, bytes_out);
    pump.sent_before(sent_ahead);
    let copied = tokio::select! {
        // Where both happen at once, the log says why we closed, not that somebody went.
        biased;
        closed = registered.closed() => Copied::Closed(closed),
        ran = pump.run() => match ran {
            Ok(()) => Copied::Ended,
            // The table of connections hears of it too; whichever was first, it is one reason.
            Err(error) => match untrusted_word(&error.error) {
                Some(word) => Copied::Closed(Closed::Untrusted(word)),
                None => Copied::Failed(error),
            },
        },
    };
    let moved = (pump.bytes_in(), pump.bytes_out());
    if !matches!(copied, Copied::Ended) {
        let (stream, local) = pump.into_ends();
        stream.reset(match &copied {
            Copied::Closed(closed) => reason_of(closed),
            Copied::Failed(_) | Copied::Ended => Reason::ResetByPeer,
        });
        local.reset();
    }
    if let Copied::Closed(closed) = &copied {
        metrics_of_closing(metrics, closed);
    }
    (copied, moved.0, moved.1)
}

/// What the other end of a tunnel is told of a stream that this one closes.
fn reason_of(closed: &Closed) -> Reason {
    match closed {
        Closed::Denied(_) => Reason::Denied,
        Closed::Untrusted(_) => Reason::Untrusted,
        Closed::Draining => Reason::Draining,
    }
}

pub(crate) fn metrics_of_closing(metrics: &ConnectionMetrics, closed: &Closed) {
    if *closed != Closed::Draining {
        metrics.revoked();
    }
}

/// The reason in one word of a connection that failed while it was copied.
pub(crate) fn error_word(error: &PumpError, local_word: &'static str) -> &'static str {
    match (error.end, error.error.kind()) {
        (End::Local, _) => local_word,
        (End::Peer, std::io::ErrorKind::UnexpectedEof) => "truncated_by_peer",
        (End::Peer, std::io::ErrorKind::TimedOut) => "peer_timed_out",
        (End::Peer, std::io::ErrorKind::InvalidData) => "tls_error",
        (End::Peer, _) => "reset_by_peer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_task<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// What a task takes is taken once for every open stream.
    #[test]
    fn the_tasks_of_inbound_connections_stay_small() {
        let of_stream = size_of_task(Inbound::stream);
        assert!((256..=1_280).contains(&of_stream), "a stream of a tunnel: {of_stream} bytes");
        let of_connection = size_of_task(|inbound, socket, address, ()| Inbound::connection(inbound, socket, address));
        assert!((256..=1_536).contains(&of_connection), "a connection: {of_connection} bytes");
        let of_tunnel = size_of_task(|inbound, tunnel, address, ()| Inbound::tunnel(inbound, tunnel, address));
        assert!((512..=2_048).contains(&of_tunnel), "a tunnel: {of_tunnel} bytes");
    }
}
