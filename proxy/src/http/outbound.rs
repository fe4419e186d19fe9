//! What happens with HTTP that the service sends to another one: head → where to → an instance → answer → account.

use std::convert::Infallible;
use std::sync::Arc;

use http::header;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Version as HttpVersion};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use postern_names::ServiceName;
use tokio::time::timeout;

use super::answer::{Answer, Refusal};
use super::body::Body;
use super::exchange::{Decider, Exchange, Side};
use super::headers::{self, DENIED};
use super::inbound::{address, authority_agrees, authority_of};
use super::instances::{Instances, Unreached};
use super::pool::{Failure, Version};
use super::serve::{Active, Activity, Ended, Server};
use super::upgrade::Upgrade;
use super::wire::Wire;
use crate::local::LocalStream;
use crate::metrics::{Direction, Judged, RequestMetrics};
use crate::outbound::Outbound;
use crate::snapshot::PairVerdict;

/// The HTTP half of one upstream.
pub(crate) struct HttpOutbound {
    pub(crate) server: Server,
    pub(crate) instances: Arc<Instances>,
}

/// One HTTP connection of the own service.
struct CallerConnection {
    outbound: Arc<Outbound>,
    side: Arc<Side>,
    metrics: Arc<RequestMetrics>,
    activity: Arc<Activity>,
}

impl HttpOutbound {
    /// Serves one connection of the own service until it ends.
    pub(crate) async fn serve(&self, outbound: &Arc<Outbound>, caller: LocalStream) -> Ended {
        let wire = Wire::from(caller);
        let activity = Activity::of(&wire);
        let side = Side {
            direction: Direction::Outbound,
            source: outbound.service.clone(),
            port: outbound.upstream.port.clone(),
            address: None,
            log: outbound.log.clone(),
        };
        let connection = Arc::new(CallerConnection {
            side: Arc::new(side),
            metrics: Arc::new(outbound.metrics.requests(Direction::Outbound, &outbound.upstream.service)),
            activity: activity.clone(),
            outbound: outbound.clone(),
        });
        let service = service_fn(move |request| connection.clone().request(request));
        self.server.serve(wire, &activity, service).await
    }
}

impl CallerConnection {
    fn http(&self) -> &HttpOutbound {
        &self.outbound.http
    }

    fn upstream(&self) -> &ServiceName {
        &self.outbound.upstream.service
    }

    async fn request(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Answer, Infallible> {
        let active = self.activity.request();
        let caller_upgrade = (request.version() == HttpVersion::HTTP_11 && request.headers().contains_key(header::UPGRADE))
            .then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let mut exchange = Exchange::begin(self.side.clone(), self.metrics.clone(), self.upstream().clone(), &head);
        if head.method == Method::CONNECT {
            return Ok(exchange.refused(Refusal::BadRequest, "CONNECT is not served"));
        }
        if !authority_agrees(&head) {
            return Ok(exchange.refused(Refusal::BadRequest, ":authority and host differ"));
        }
        Ok(self.send(head, body, exchange, caller_upgrade, active).await)
    }

    async fn send(
        &self,
        mut head: http::request::Parts,
        body: Incoming,
        mut exchange: Box<Exchange>,
        caller_upgrade: Option<OnUpgrade>,
        active: Active,
    ) -> Answer {
        let Some((version, verdict)) = self.known() else {
            return exchange.refused(Refusal::Unavailable, &Unreached::UnknownService.to_string());
        };
        exchange.judged(Judged::new(true, verdict.would_deny), Decider::Words(verdict.because.as_str().into()));
        let host = authority_of(&head);
        let target = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let said = headers::strip(&mut head.headers);
        if said.trailers {
            head.headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
        }
        let wants_upgrade = said.upgrade.is_some() && version == Version::Http1;
        if let (true, Some(protocol)) = (wants_upgrade, said.upgrade) {
            head.headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, protocol);
        }
        if let Err(because) = address(&mut head, version, target, host) {
            return exchange.refused(Refusal::BadRequest, because);
        }
        let (body, sent) = Body::sent(body);
        exchange.sends(sent);
        let answered = self.reach(Request::from_parts(head, body), version, &mut exchange).await;
        let mut answer = match answered {
            Ok(answer) => answer,
            Err((refusal, because)) => return exchange.refused(refusal, &because),
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(caller) = caller_upgrade.filter(|_| wants_upgrade) else {
                return exchange.refused(Refusal::BadGateway, "the service answered 101, which nobody asked for");
            };
            let service = hyper::upgrade::on(&mut answer);
            let (mut head, _) = answer.into_parts();
            headers::strip_identity(&mut head.headers);
            exchange.answers(head.status, &head.headers);
            Upgrade { caller, service }.carry(exchange, active, &self.http().server.tasks);
            return Response::from_parts(head, Body::empty());
        }
        let (mut head, body) = answer.into_parts();
        if let Some(because) = head.headers.get(DENIED) {
            let because = because.to_str().unwrap_or("denied by the destination");
            exchange.judged(Judged::Deny, Decider::Words(because.into()));
            exchange.fails("denied");
        }
        headers::strip(&mut head.headers);
        head.version = HttpVersion::HTTP_11;
        exchange.answers(head.status, &head.headers);
        exchange.holds(active);
        Response::from_parts(head, Body::answered(body, exchange))
    }

    /// What is known of the upstream: how it speaks, and what it will decide.
    fn known(&self) -> Option<(Version, PairVerdict)> {
        let snapshot = self.outbound.snapshots.borrow();
        let upstream = snapshot.upstreams.get(self.upstream())?;
        Some((Version::of(upstream.protocol), upstream.verdict.clone()))
    }

    /// Sends the request to an instance; when that cannot be reached, to another one.
    async fn reach(
        &self,
        request: Request<Body>,
        version: Version,
        exchange: &mut Exchange,
    ) -> Result<Response<Incoming>, (Refusal, String)> {
        let mut request = request;
        let mut tried = Vec::new();
        let mut failed = None;
        for _ in 0..self.outbound.limits.dial_attempts {
            let target = match if tried.is_empty() { self.outbound.first_pick().await } else { self.outbound.pick(&tried) } {
                Ok(target) => target,
                Err(none) => return Err(failed.unwrap_or((Refusal::Unavailable, none.to_string()))),
            };
            let pool = self.http().instances.pool(&self.outbound.upstream, &target, version);
            let pool = pool.map_err(|error| (Refusal::Unavailable, error.to_string()))?;
            exchange.reached(target.instance.clone());
            let sent = timeout(REQUEST_TIMEOUT, pool.send(request)).await;
            match sent {
                Ok(Ok((answer, lease))) => {
                    exchange.carried_by(lease);
                    return Ok(answer);
                }
                Ok(Err(Failure::Connect(error, unsent))) => {
                    request = *unsent;
                    failed = Some((Refusal::Unavailable, format!("{}: {error}", target.instance)));
                }
                Ok(Err(Failure::Unsent(error, unsent))) => {
                    request = *unsent;
                    failed = Some((Refusal::Unavailable, format!("{}: {error}", target.instance)));
                }
                Ok(Err(Failure::Sent(error))) => {
                    return Err((Refusal::BadGateway, format!("{} broke off before it answered: {error}", target.instance)));
                }
                Err(_) => return Err((Refusal::TimedOut, format!("{} did not answer in time", target.instance))),
            }
            tried.push(target.instance);
        }
        Err(failed.unwrap_or((Refusal::Unavailable, Unreached::NoneHealthy.to_string())))
    }
}

/// From the head of a request to the head of its answer.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);
