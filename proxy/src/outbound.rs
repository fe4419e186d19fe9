//! What happens when the service calls another one: accept → pick an instance → handshake → is it the right one → copy → account.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use postern_edges::Verdict;
use postern_intentions::Protocol;
use postern_names::{InstanceId, NameError, PortName, ServiceName};
use postern_traffic::{Ejection, NoInstance, OpenRequest, Outcome, Overloaded, RoutingError};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::access_log::{AccessLog, Call, Record};
use crate::clock::Clock;
use crate::connections::{Connections, Judgeable, What};
use crate::copy::{End, PumpError};
use crate::http::outbound::HttpOutbound;
use crate::inbound::{Copied, copy, error_word, metrics_of_closing};
use crate::limits::Limits;
use crate::local::LocalStream;
use crate::metrics::{ConnectionMetrics, Direction, Judged, Metrics};
use crate::sightings::{Amounts, Counter, Sighting, Why};
use crate::snapshot::{PairVerdict, Snapshot, SnapshotSource};
use crate::spans::SpanSink;
use crate::transport::dial::{DialError, Dialler, Target};
use crate::transport::tunnel::Reason;
use crate::transport::{Stream, listen};
use crate::upstreams::{self, PickedInstance, Upstreams};

/// Which port of which service an upstream listener leads to: `db`, or `api:grpc` for a named port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamSpec {
    /// The service to call.
    pub service: ServiceName,
    /// The port of that service.
    pub port: PortName,
}

impl FromStr for UpstreamSpec {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            None => Ok(Self { service: text.parse()?, port: PortName::main() }),
            Some((service, port)) => Ok(Self { service: service.parse()?, port: port.parse()? }),
        }
    }
}

impl fmt::Display for UpstreamSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.port == PortName::main() { write!(f, "{}", self.service) } else { write!(f, "{}:{}", self.service, self.port) }
    }
}

/// Where the own service finds an upstream.
#[derive(Debug)]
pub enum UpstreamListener {
    /// A TCP address of this host, bound.
    Tcp(std::net::TcpListener),
    /// A UNIX socket, bound, mode 0600; the file is removed when the sidecar stops.
    Unix(PathBuf, std::os::unix::net::UnixListener),
}

impl UpstreamListener {
    /// The same listener, for another worker.
    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(path, listener) => Self::Unix(path.clone(), listener.try_clone()?),
        })
    }
}

/// The dialling half of a sidecar, for one upstream.
pub(crate) struct Outbound {
    pub(crate) service: ServiceName,
    pub(crate) upstream: UpstreamSpec,
    pub(crate) dialler: Arc<Dialler>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) snapshots: SnapshotSource,
    pub(crate) clock: Arc<Clock>,
    pub(crate) limits: Limits,
    pub(crate) log: AccessLog,
    pub(crate) spans: Option<SpanSink>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) seen: Arc<Counter>,
    pub(crate) stopping: CancellationToken,
    pub(crate) http: HttpOutbound,
}

/// A stream to an instance of the upstream.
struct Reached {
    stream: Stream,
    /// How many of the bytes that were read ahead it carries already.
    sent: usize,
    instance: InstanceId,
    open: OpenRequest,
}

/// An instance that was chosen for a connection.
pub(crate) struct Chosen {
    target: Target,
    service: ServiceName,
    open: OpenRequest,
}

/// Why no instance was reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreached {
    #[error("the control plane has not told of this service yet; does it exist?")]
    UnknownService,
    #[error("no healthy instance is known")]
    NoneHealthy,
    #[error("no healthy instance serves this port")]
    NoneWithPort,
    #[error("the only instance is this one, and a sidecar does not dial itself")]
    OnlyOurselves,
    #[error("{0}")]
    NoSubset(NoInstance),
    #[error("{0}")]
    NoRoute(RoutingError),
    #[error("{0}")]
    Overloaded(Overloaded),
    #[error("its name is too long for TLS together with the trust domain")]
    NoServerName,
    #[error("{instance}: {error}")]
    Dial { instance: InstanceId, error: DialError },
}

impl Unreached {
    /// Whether the sidecar of an instance refused it, which counts it then.
    fn is_known_there(&self) -> bool {
        matches!(self, Self::Dial { error: DialError::Refused(reason), .. } if *reason != Reason::Draining)
    }

    /// The reason in one word, from a fixed list.
    fn word(&self) -> &'static str {
        match self {
            Self::UnknownService | Self::NoneHealthy => "no_endpoint",
            Self::NoneWithPort => "no_such_port",
            Self::NoSubset(_) => "no_subset",
            Self::NoRoute(_) => "no_route",
            Self::Overloaded(_) => "overloaded",
            Self::NoServerName => "no_server_name",
            Self::OnlyOurselves | Self::Dial { error: DialError::Ourselves, .. } => "dial_to_self",
            Self::Dial { error: DialError::Connect(_), .. } => "connect_failed",
            Self::Dial { error: DialError::TimedOut, .. } => "connect_timed_out",
            Self::Dial { error: DialError::Handshake(_), .. } => "handshake_failed",
            Self::Dial { error: DialError::NoTunnel, .. } => "no_tunnel",
            Self::Dial { error: DialError::Refused(Reason::Denied), .. } => "denied",
            Self::Dial { error: DialError::Refused(_), .. } => "refused_by_peer",
            Self::Dial { error: DialError::Open(_) | DialError::Ended(_), .. } => "tunnel_ended",
        }
    }
}

/// What is told of a connection at its end.
struct Ending {
    instance: Option<InstanceId>,
    judged: Option<Judged>,
    because: String,
    reason: &'static str,
    bytes_in: u64,
    bytes_out: u64,
}

impl Outbound {
    /// Serves TCP callers until the sidecar stops, and then until the last connection has ended.
    pub(crate) async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let stopping = self.stopping.clone();
        let serve = |(socket, _): (TcpStream, _)| self.clone().connection(LocalStream::tcp(socket));
        listen::serve_each(listener, stopping, serve).await;
    }

    /// Serves callers of a UNIX socket, and removes its file at the end.
    pub(crate) async fn serve_unix(self: Arc<Self>, path: PathBuf, listener: UnixListener) {
        let stopping = self.stopping.clone();
        listen::serve_each(listener, stopping, |socket| self.clone().unix_connection(socket)).await;
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "cannot remove the socket of an upstream");
        }
    }

    /// The mode of the socket file keeps other users out; this holds even where somebody widened it.
    async fn unix_connection(self: Arc<Self>, socket: UnixStream) {
        let ours = nix::unistd::geteuid().as_raw();
        match socket.peer_cred() {
            Ok(caller) if caller.uid() == ours || caller.uid() == 0 => self.connection(LocalStream::Unix(socket)).await,
            _ => self.metrics.refused(Direction::Outbound, "other_user"),
        }
    }

    async fn connection(self: Arc<Self>, caller: LocalStream) {
        let accepted = Instant::now();
        if self.speaks_http().await {
            let ended = Box::pin(self.http.serve(&self, caller)).await;
            if let Some(fault) = ended.fault() {
                self.metrics.refused(Direction::Outbound, fault);
            }
            tracing::debug!(upstream = %self.upstream, reason = ended.word(), "an HTTP connection of the service has ended");
            return;
        }
        let mut metrics = self.metrics.connection(Direction::Outbound, &self.upstream.service);
        let ahead = self.dialler.read_ahead(&caller);
        let ending = match Box::pin(self.reach(&ahead)).await {
            Ok(reached) => self.carry(reached, caller, &ahead, &mut metrics).await,
            Err(Unreached::Dial { instance, error: DialError::Refused(Reason::Denied) }) => {
                caller.reset();
                self.denied(instance, &metrics)
            }
            Err(unreached) => {
                caller.reset();
                self.metrics.refused(Direction::Outbound, unreached.word());
                let because = unreached.to_string();
                if !unreached.is_known_there() {
                    self.see_failed(&because);
                }
                Ending { instance: None, judged: None, because, reason: unreached.word(), bytes_in: 0, bytes_out: 0 }
            }
        };
        self.account(accepted, &ending);
    }

    /// Counts a connection that reached no instance: nobody else knows of it.
    fn see_failed(&self, because: &str) {
        self.seen.count(&Sighting {
            direction: Direction::Outbound,
            peer: &self.upstream.service,
            port: &self.upstream.port,
            protocol: self.protocol(),
            verdict: Verdict::Failed,
            because: Why::Words(because),
            http: None,
            amounts: Amounts::ONE_CALL,
            at: Instant::now(),
        });
    }

    /// What the upstream speaks; tcp while nothing is known of it.
    pub(crate) fn protocol(&self) -> Protocol {
        self.snapshots.borrow().upstreams.get(&self.upstream.service).map_or(Protocol::Tcp, |upstream| upstream.protocol)
    }

    /// Whether the upstream is called request by request. Waits a moment where nothing is known of it yet.
    async fn speaks_http(&self) -> bool {
        let protocol = |snapshot: &Snapshot| Some(snapshot.upstreams.get(&self.upstream.service)?.protocol);
        if let Some(protocol) = protocol(&self.snapshots.borrow()) {
            return protocol.is_http();
        }
        let mut snapshots = self.snapshots.clone();
        let known = snapshots.wait_for(|snapshot| protocol(snapshot).is_some());
        match tokio::time::timeout(self.limits.dial, known).await {
            Ok(Ok(snapshot)) => protocol(&snapshot).is_some_and(Protocol::is_http),
            _ => false,
        }
    }

    /// Picks an instance and shakes hands with it; when that fails, another one.
    async fn reach(&self, ahead: &[u8]) -> Result<Reached, Unreached> {
        let mut tried = Vec::new();
        let mut failed = None;
        for _ in 0..self.limits.dial_attempts {
            let picked = if tried.is_empty() { self.first_pick().await } else { self.pick(&tried) };
            let Chosen { target, service, mut open } = match picked {
                Ok(chosen) if tried.contains(&chosen.target.instance) => break,
                Ok(picked) => picked,
                Err(none) => return Err(failed.unwrap_or(none)),
            };
            self.upstreams.was_called();
            match self.dialler(&service)?.dial(&target, ahead).await {
                Ok((stream, sent)) => {
                    self.tell(&service, open.ended(Outcome::Connected, StdInstant::now()));
                    return Ok(Reached { stream, sent, instance: target.instance, open });
                }
                Err(error) => {
                    if let DialError::Handshake(error) = &error {
                        self.metrics.handshake_failed(Direction::Outbound, error.word());
                    }
                    let Target { instance, address, .. } = target;
                    tracing::debug!(upstream = %self.upstream, %instance, address, %error, "an instance was not reached");
                    let is_final = !error.may_try_another();
                    if !is_final {
                        self.tell(&service, open.ended(Outcome::ConnectFailure, StdInstant::now()));
                    }
                    tried.push(instance.clone());
                    failed = Some(Unreached::Dial { instance, error });
                    if is_final {
                        break;
                    }
                }
            }
        }
        Err(failed.unwrap_or(Unreached::NoneHealthy))
    }

    /// Who dials instances of `service`, which is another one than the upstream where that redirects or has failed over.
    fn dialler(&self, service: &ServiceName) -> Result<Arc<Dialler>, Unreached> {
        if *service == self.upstream.service {
            return Ok(self.dialler.clone());
        }
        self.http.instances.dialler(&UpstreamSpec { service: service.clone(), port: self.upstream.port.clone() })
    }

    fn tell(&self, service: &ServiceName, ejection: Option<Ejection>) {
        if let Some(ejection) = ejection {
            upstreams::tell(service, &ejection);
        }
    }

    /// Waits as long as a dial may take for an instance to be told: a service and its caller that start together should
    /// not fail for the milliseconds in which one knows nothing of the other yet.
    pub(crate) async fn first_pick(&self) -> Result<Chosen, Unreached> {
        let mut snapshots = self.snapshots.clone();
        let deadline = Instant::now() + self.limits.dial;
        loop {
            snapshots.mark_unchanged();
            let none = match self.pick(&[]) {
                Err(none @ (Unreached::UnknownService | Unreached::NoneHealthy)) => none,
                picked => return picked,
            };
            if !matches!(timeout_at(deadline, snapshots.changed()).await, Ok(Ok(()))) {
                return Err(none);
            }
        }
    }

    fn pick(&self, tried: &[InstanceId]) -> Result<Chosen, Unreached> {
        let compiled = self.upstreams.of(&self.snapshots.borrow());
        let called = compiled.get(&self.upstream.service).ok_or(Unreached::UnknownService)?;
        let destination = compiled.route_connection(called).map_err(Unreached::NoRoute)?;
        let service = destination.service.unwrap_or(&self.upstream.service);
        let port = destination.port.unwrap_or(&self.upstream.port);
        let reached = compiled.get(service).ok_or(Unreached::UnknownService)?;
        let picked = compiled.pick(service, &reached.service, destination.subset, port, None, tried);
        let chosen = picked.map(|PickedInstance { endpoint, service, open }| Chosen {
            target: endpoint.target(),
            service: service.clone(),
            open,
        });
        chosen.map_err(|none| match none {
            NoInstance::NoneKnown => Unreached::NoneHealthy,
            NoInstance::NoneWithPort { .. } => Unreached::NoneWithPort,
            NoInstance::OnlyCaller => Unreached::OnlyOurselves,
            none @ (NoInstance::UnknownSubset { .. } | NoInstance::EmptySubset { .. }) => Unreached::NoSubset(none),
        })
    }

    /// Copies until either side, or a revocation, ends it. The sockets are closed when it returns.
    async fn carry(&self, reached: Reached, caller: LocalStream, ahead: &[u8], metrics: &mut ConnectionMetrics) -> Ending {
        let Reached { mut stream, sent, instance, open } = reached;
        let judgeable = Judgeable {
            what: What::Connection,
            direction: Direction::Outbound,
            peer: stream.peer().clone(),
            service: stream.peer_service().clone(),
            port: stream.port().clone(),
        };
        let mut ending = Ending {
            instance: Some(instance),
            judged: None,
            because: String::new(),
            reason: "closed",
            bytes_in: 0,
            bytes_out: 0,
        };
        let Ok(mut registered) = self.connections.register(judgeable) else {
            stream.reset(Reason::Cancelled);
            caller.reset();
            return Ending { reason: "max_connections", ..ending };
        };
        let snapshot = self.snapshots.borrow().clone();
        if let Err(refusal) = registered.judgeable().still_trusted(&snapshot, self.clock.now()) {
            stream.reset(Reason::Cancelled);
            caller.reset();
            self.metrics.handshake_failed(Direction::Outbound, refusal.word());
            return Ending { reason: refusal.word(), because: refusal.to_string(), ..ending };
        }
        let expected = self.verdict(&snapshot);
        drop(snapshot);
        if expected.allowed {
            metrics.judged(Judged::new(true, expected.would_deny), &intention_label(&expected.because));
        }
        metrics.opened();
        let rest = tokio::select! {
            biased;
            closed = registered.closed() => {
                metrics_of_closing(metrics, &closed);
                Err(Copied::Closed(closed))
            }
            written = stream.write_all(&ahead[sent..]) => {
                written.map_err(|error| Copied::Failed(PumpError { end: End::Peer, error }))
            }
        };
        if let Err(failed) = rest {
            stream.reset(Reason::Cancelled);
            caller.reset();
            return self.conclude(ending, expected, &failed, metrics);
        }
        let (copied, bytes_in, bytes_out) = copy(stream, ahead.len(), caller, &mut registered, metrics).await;
        drop((registered, open));
        (ending.bytes_in, ending.bytes_out) = (bytes_in, bytes_out);
        self.conclude(ending, expected, &copied, metrics)
    }

    /// The verdict of the destination cannot be seen from here, only a reset. When the control plane has told that the
    /// pair is denied, a reset before the first byte is that denial.
    fn conclude(&self, mut ending: Ending, before: PairVerdict, copied: &Copied, metrics: &ConnectionMetrics) -> Ending {
        let now = self.verdict(&self.snapshots.borrow());
        let failed = !matches!(copied, Copied::Ended);
        let was_denied = failed && ending.bytes_in == 0 && !before.allowed;
        let is_denied_now = failed && before.allowed && !now.allowed;
        ending.judged = Some(if was_denied { Judged::Deny } else { Judged::new(true, before.would_deny) });
        if !before.allowed {
            metrics.judged(ending.judged.unwrap_or(Judged::Allow), &intention_label(&before.because));
        }
        ending.reason = match copied {
            Copied::Closed(closed) => closed.word(),
            Copied::Failed(_) if was_denied => "denied",
            Copied::Failed(_) if is_denied_now => "revoked",
            Copied::Failed(error) => error_word(error, "reset_by_caller"),
            Copied::Ended => "closed",
        };
        ending.because = match copied {
            Copied::Closed(closed) => closed.because().map_or(before.because, Cow::into_owned),
            _ if is_denied_now => now.because,
            // The destination knew of the change before this side did.
            _ if !before.allowed && !was_denied && now.allowed => now.because,
            _ => before.because,
        };
        ending
    }

    /// The destination has refused the stream; only the control plane's word tells by which intention.
    fn denied(&self, instance: InstanceId, metrics: &ConnectionMetrics) -> Ending {
        let verdict = self.verdict(&self.snapshots.borrow());
        // The destination knew of the change before this side did.
        let because = if verdict.allowed { "denied by the destination".to_owned() } else { verdict.because };
        metrics.judged(Judged::Deny, &intention_label(&because));
        Ending { instance: Some(instance), judged: Some(Judged::Deny), because, reason: "denied", bytes_in: 0, bytes_out: 0 }
    }

    fn verdict(&self, snapshot: &Snapshot) -> PairVerdict {
        snapshot.upstreams.get(&self.upstream.service).map_or_else(PairVerdict::unknown, |upstream| upstream.verdict.clone())
    }

    fn account(&self, accepted: Instant, ending: &Ending) {
        let call = Call {
            direction: Direction::Outbound,
            source: self.service.as_str(),
            destination: self.upstream.service.as_str(),
            instance: ending.instance.as_ref().map_or("", InstanceId::as_str),
            port: self.upstream.port.as_str(),
            address: None,
            judged: ending.judged,
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
}

/// The metric label for a verdict of the control plane: `SRC -> DST`, `default` or `not_understood`.
fn intention_label(because: &str) -> Cow<'static, str> {
    let mut words = because.split_whitespace();
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("intention"), Some(source), Some("->"), Some(destination)) => {
            format!("{source} -> {}", destination.trim_end_matches([',', ':'])).into()
        }
        (Some("default"), ..) => "default".into(),
        _ => "not_understood".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_service_and_perhaps_a_port() {
        for text in ["db", "api:grpc"] {
            assert_eq!(text.parse::<UpstreamSpec>().map(|spec| spec.to_string()).as_deref(), Ok(text));
        }
        assert!("api:".parse::<UpstreamSpec>().is_err());
        assert!("API".parse::<UpstreamSpec>().is_err());
    }

    #[test]
    fn the_task_of_an_outbound_connection_stays_small() {
        fn size_of_task<F>(_: fn(Arc<Outbound>, LocalStream) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_task(Outbound::connection);
        assert!((256..=1_536).contains(&size), "{size} bytes");
    }

    #[test]
    fn the_label_of_a_verdict_is_its_pair() {
        assert_eq!(intention_label("intention * -> api (deny)"), "* -> api");
        assert_eq!(intention_label("intention web -> api (allow, until 2026-01-01T00:00:00Z)"), "web -> api");
        assert_eq!(intention_label("default (deny)"), "default");
        assert_eq!(intention_label("not told by the control plane yet"), "not_understood");
    }
}
