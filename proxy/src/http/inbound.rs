//! What happens with HTTP from another service: head → who is it → may it → headers → the service → answer → account.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Version as HttpVersion};
use hyper::body::Incoming;
use hyper::service::service_fn;
use parking_lot::Mutex;
use postern_ca::SpiffeId;
use postern_intentions::{Forward, VerifiedTokens};
use postern_names::{InstanceId, PortName, ServiceName};
use postern_traffic::RequestHead;
use tokio::time::timeout;

use super::answer::{Answer, Refusal};
use super::authority::{address, authority_of, check_authority};
use super::body::Body;
use super::exchange::{Decider, Exchange, Side};
use super::expect::expecting;
use super::headers::{self, CLIENT_CERT, DENIED, Said};
use super::judge::JudgedRequest;
use super::jwt::TokenCache;
use super::own::{Own, OwnService};
use super::pool::{Cause, Connect, Connected, Failure, Pool, PoolContext, Version};
use super::serve::{Active, Activity, Ended, Server};
use super::trace::Trace;
use super::upgrade;
use super::wire::Wire;
use crate::access_log::AccessLog;
use crate::clock::Clock;
use crate::connections::{Connections, Judgeable, Registered, What};
use crate::local::LocalTarget;
use crate::metrics::{ConnectionMetrics, Direction, Judged, Metrics, RequestMetrics};
use crate::sightings::Counter;
use crate::snapshot::SnapshotSource;
use crate::spans::SpanSink;
use crate::transport::Stream;

/// The HTTP half of what other services reach.
pub(crate) struct HttpInbound {
    pub(crate) service: ServiceName,
    pub(crate) instance: InstanceId,
    pub(crate) id: SpiffeId,
    pub(crate) connections: Arc<Connections>,
    pub(crate) snapshots: SnapshotSource,
    pub(crate) clock: Arc<Clock>,
    pub(crate) log: AccessLog,
    pub(crate) spans: Option<SpanSink>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) seen: Arc<Counter>,
    pub(crate) server: Server,
    pub(crate) locals: Locals,
    pub(crate) own: Arc<OwnService>,
    /// Tokens that were verified, of this worker.
    pub(crate) tokens: Mutex<TokenCache>,
}

/// Connections to the ports of the service.
pub(crate) struct Locals {
    targets: BTreeMap<PortName, LocalTarget>,
    dial: Duration,
    context: PoolContext,
    pools: Mutex<Vec<LocalPool>>,
}

/// Connections to one port in one version of HTTP.
struct LocalPool {
    port: PortName,
    version: Version,
    pool: Arc<Pool<Local>>,
}

/// Dials a port of the service.
pub(crate) struct Local {
    target: LocalTarget,
    dial: Duration,
}

impl Connect for Local {
    type Error = io::Error;

    async fn connect(&self) -> io::Result<Connected> {
        let stream = self.target.dial(self.dial).await?;
        Ok(Connected { wire: Wire::from(stream), registered: None, permit: None })
    }
}

impl Locals {
    /// Of a service that listens there.
    pub(crate) fn new(targets: BTreeMap<PortName, LocalTarget>, dial: Duration, context: PoolContext) -> Self {
        Self { targets, dial, context, pools: Mutex::default() }
    }

    fn pool(&self, port: &PortName, version: Version) -> Option<Arc<Pool<Local>>> {
        let mut pools = self.pools.lock();
        if let Some(found) = pools.iter().find(|pool| pool.port == *port && pool.version == version) {
            return Some(found.pool.clone());
        }
        let target = self.targets.get(port)?.clone();
        let pool = Pool::new(Local { target, dial: self.dial }, version, self.context.clone());
        pools.push(LocalPool { port: port.clone(), version, pool: pool.clone() });
        Some(pool)
    }

    /// Closes what nobody has used for a while.
    pub(crate) fn trim(&self) {
        self.pools.lock().iter().for_each(|local| local.pool.trim());
    }
}

/// One HTTP connection of a peer.
struct PeerConnection {
    inbound: Arc<HttpInbound>,
    side: Arc<Side>,
    metrics: Arc<RequestMetrics>,
    judgeable: Judgeable,
    activity: Arc<Activity>,
    client_cert: Option<HeaderValue>,
    pool: Arc<Pool<Local>>,
    version: Version,
}

impl HttpInbound {
    /// Serves one stream of a peer that is registered and trusted, until it ends or is closed.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        stream: Stream,
        registered: &mut Registered,
        metrics: &mut ConnectionMetrics,
        address: SocketAddr,
    ) -> HttpEnd {
        let judgeable = registered.judgeable().clone();
        let protocol = self.snapshots.borrow().protocol;
        let version = Version::of(protocol);
        let Some(pool) = self.locals.pool(&judgeable.port, version) else {
            stream.reset(crate::transport::tunnel::Reason::NoSuchPort);
            return HttpEnd::UnknownPort;
        };
        metrics.opened();
        stream.accept();
        let (bytes_in, bytes_out) = metrics.bytes();
        let wire = Wire::from(stream).counted(bytes_in, bytes_out);
        let activity = Activity::of(&wire);
        let side = Side {
            direction: Direction::Inbound,
            source: judgeable.service.clone(),
            port: judgeable.port.clone(),
            address: Some(address),
            log: self.log.clone(),
            spans: self.spans.clone(),
            protocol,
            seen: self.seen.clone(),
        };
        let connection = Arc::new(PeerConnection {
            side: Arc::new(side),
            metrics: Arc::new(self.metrics.requests(Direction::Inbound, &judgeable.service)),
            client_cert: headers::client_cert(&self.id, &judgeable.peer.current().id),
            judgeable,
            activity: activity.clone(),
            pool,
            version,
            inbound: self.clone(),
        });
        let service = service_fn(move |request| {
            // At once: what is read behind it waits for its answer.
            let active = connection.activity.request();
            connection.clone().request(request, active)
        });
        let serving = self.server.serve(wire, &activity, service);
        tokio::select! {
            biased;
            closed = registered.closed() => HttpEnd::Closed(closed),
            ended = serving => HttpEnd::Ended(ended),
        }
    }
}

/// How an HTTP connection came to its end.
pub(crate) enum HttpEnd {
    /// By itself.
    Ended(Ended),
    /// By this sidecar.
    Closed(crate::connections::Closed),
    /// It asked for a port that is not there.
    UnknownPort,
}

impl PeerConnection {
    async fn request(self: Arc<Self>, mut request: Request<Incoming>, active: Active) -> Result<Answer, Infallible> {
        let caller_upgrade = upgrade::asked_for(&mut request);
        let (head, body) = request.into_parts();
        let mut exchange = Exchange::begin(self.side.clone(), self.metrics.clone(), self.inbound.service.clone(), &head);
        let answer = match self.may_it(&head, &mut exchange) {
            Ok(forward) => self.forward(head, body, forward, exchange, caller_upgrade, active).await,
            Err(refused) => {
                // It goes nowhere, so nothing is written into it.
                exchange.is_part_of(Trace::of(&head.headers, &mut rand::rng()));
                self.refuse(&mut exchange, refused.0, &refused.1)
            }
        };
        Ok(answer)
    }

    /// Registers the request, then decides. What is registered stays so until the answer has passed.
    fn may_it(&self, head: &Parts, exchange: &mut Exchange) -> Result<Forward, (Refusal, String)> {
        if head.method == Method::CONNECT {
            return Err((Refusal::BadRequest, "CONNECT is not served".to_owned()));
        }
        check_authority(head).map_err(|because| (Refusal::BadRequest, because.to_owned()))?;
        let snapshot = self.inbound.snapshots.borrow().clone();
        let own = self.inbound.own.of(&snapshot);
        let tokens = self.verified_tokens(&own, head);
        let judged = Arc::new(JudgedRequest::of(head, tokens, own.paths));
        let judgeable = Judgeable { what: What::Request(judged.clone()), ..self.judgeable.clone() };
        // Over HTTP/1 whatever ends a request that is under way ends its connection.
        let kill = (head.version != HttpVersion::HTTP_2).then(|| self.activity.kill());
        let registered = self.inbound.connections.register_request(judgeable, kill);
        let snapshot = self.inbound.snapshots.borrow().clone();
        let decision = judged.judge(registered.judgeable(), &self.inbound.service, &snapshot, self.inbound.clock.now());
        let verdict = Judged::new(decision.decision.allowed(), decision.decision.would_deny);
        exchange.registered(registered);
        exchange.judged(verdict, Decider::Rules(decision.decision.because.clone()));
        match decision.forward() {
            Some(forward) => {
                if !own.limits.is_empty() {
                    self.is_within(&own, head, exchange)?;
                }
                Ok(forward.clone())
            }
            None if decision.refused().is_some() => Err((Refusal::BadRequest, decision.decision.because.to_string())),
            None => Err((Refusal::Denied, decision.decision.because.to_string())),
        }
    }

    /// The tokens that permissions may rely on. A token that is not taken is as good as none.
    fn verified_tokens(&self, own: &Own, head: &Parts) -> VerifiedTokens {
        if own.verifiers.is_empty() {
            return VerifiedTokens::default();
        }
        let now = self.inbound.clock.now();
        let checked = own.verifiers.tokens(&head.headers, head.uri.query(), now, &mut self.inbound.tokens.lock());
        for (provider, error) in &checked.refused {
            self.inbound.metrics.token_refused(error.word());
            tracing::debug!(source = %self.judgeable.service, %provider, %error, "a token of a request is not taken");
        }
        checked.verified
    }

    /// Whether the rate limits of the service have room for it.
    fn is_within(&self, own: &Own, head: &Parts, exchange: &mut Exchange) -> Result<(), (Refusal, String)> {
        let request =
            RequestHead { method: head.method.as_str(), path: head.uri.path(), query: head.uri.query(), headers: &head.headers };
        own.limits.check(&self.judgeable.service, &request, std::time::Instant::now()).map_err(|limited| {
            exchange.retry_after(limited.retry_after);
            (Refusal::TooMany, format!("rate limit {} of the service is used up", limited.limit))
        })
    }

    fn refuse(&self, exchange: &mut Exchange, refusal: Refusal, because: &str) -> Answer {
        let mut answer = exchange.refused(refusal, because);
        if refusal == Refusal::Denied
            && let Ok(because) = HeaderValue::try_from(because)
        {
            // For the log of the caller's sidecar, which takes it away.
            answer.headers_mut().insert(DENIED, because);
        }
        answer
    }

    async fn forward(
        &self,
        head: Parts,
        body: Incoming,
        forward: Forward,
        mut exchange: Box<Exchange>,
        caller_upgrade: Option<hyper::upgrade::OnUpgrade>,
        active: Active,
    ) -> Answer {
        let (mut request, said) = match self.outgoing(head, body, &forward, &mut exchange) {
            Ok(request) => request,
            Err(because) => return self.refuse(&mut exchange, Refusal::BadRequest, because),
        };
        let wants_upgrade = said.upgrade.is_some() && self.version == Version::Http1;
        if let (true, Some(protocol)) = (wants_upgrade, said.upgrade) {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, protocol);
        }
        let request = expecting(request, self.version);
        exchange.reached(self.inbound.instance.clone());
        let sent = {
            let mut sending = pin!(timeout(ANSWER_TIMEOUT, self.pool.send(request, None)));
            poll_fn(|cx| {
                if let std::task::Poll::Ready(because) = exchange.poll_closed(cx) {
                    return std::task::Poll::Ready(Err(because));
                }
                sending.as_mut().poll(cx).map(Ok)
            })
            .await
        };
        let (answer, lease) = match sent {
            Err(because) => return self.refuse(&mut exchange, Refusal::Denied, &because),
            Ok(Err(_)) => return self.refuse(&mut exchange, Refusal::TimedOut, "the service did not answer in time"),
            Ok(Ok(Err(failure))) => {
                let (refusal, because) = told(&failure);
                return self.refuse(&mut exchange, refusal, &because);
            }
            Ok(Ok(Ok(answered))) => answered,
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let caller = caller_upgrade.filter(|_| wants_upgrade);
            return upgrade::switch(answer, caller, &self.activity, exchange, active, &self.inbound.server.tasks);
        }
        let (mut head, body) = answer.into_parts();
        headers::strip(&mut head.headers);
        head.version = HttpVersion::HTTP_11;
        exchange.answers(head.status, &head.headers);
        exchange.carried_by(lease);
        exchange.holds(active);
        Response::from_parts(head, Body::answered(body, exchange))
    }

    /// The request as the service gets it.
    fn outgoing(
        &self,
        mut head: Parts,
        body: Incoming,
        forward: &Forward,
        exchange: &mut Exchange,
    ) -> Result<(Request<Body>, Said), &'static str> {
        let authority = authority_of(&head);
        let target = match forward {
            Forward::Untouched => head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
            Forward::Target(target) => PathAndQuery::try_from(target.as_str()).map_err(|_| "the path cannot be forwarded")?,
        };
        let said = headers::strip(&mut head.headers);
        self.inbound.own.of(&self.inbound.snapshots.borrow()).verifiers.remove_tokens(&mut head.headers);
        exchange.is_part_of(Trace::carry(&mut head.headers, &mut rand::rng()));
        if let Some(client_cert) = &self.client_cert {
            head.headers.insert(CLIENT_CERT, client_cert.clone());
        }
        if said.trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        address(&mut head, self.version, target, authority, &self.inbound.service)?;
        let (body, sent) = Body::sent(body);
        exchange.sends(sent);
        Ok((Request::from_parts(head, body), said))
    }
}

/// How long the service may take to begin its answer; the caller's sidecar has limits of its own, which are shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3_600);

fn told(failure: &Failure<io::Error>) -> (Refusal, String) {
    match failure {
        Failure::Connect(error, _) => (Refusal::Unavailable, format!("the service cannot be reached: {error}")),
        Failure::Overloaded(overloaded, _) => (Refusal::Unavailable, overloaded.to_string()),
        Failure::Unsent(error, _) => (Refusal::Unavailable, format!("the service closed the connection: {error}")),
        Failure::Sent(error) if Cause::of(error) == Cause::Caller => {
            (Refusal::BadRequest, "the body of the request broke off".to_owned())
        }
        Failure::Sent(error) => (Refusal::BadGateway, format!("the service broke off before it answered: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_small_while_it_waits() {
        fn size<F>(_: impl FnOnce(Arc<PeerConnection>, Request<Incoming>, Active) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(PeerConnection::request);
        assert!((1_024..=3_584).contains(&size), "{size} bytes");
    }
}
