//! What happens with HTTP that the service sends to another one: head → where to → an instance → answer → account.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version as HttpVersion};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use postern_names::ServiceName;
use postern_traffic::RequestHead;
use tokio::sync::Semaphore;

use super::answer::{Answer, Refusal};
use super::authority::check_authority;
use super::body::Body;
use super::exchange::{Decider, Exchange, Side};
use super::headers::{self, DENIED};
use super::instances::{Instances, Unreached};
use super::serve::{Active, Activity, Ended, Server};
use super::trace::Trace;
use super::tries::{Request as Outgoing, Tries};
use super::wire::Wire;
use super::{mirror, tries, upgrade};
use crate::local::LocalStream;
use crate::metrics::{Direction, Judged, RequestMetrics};
use crate::outbound::Outbound;
use crate::upstreams::Compiled;

/// The HTTP half of one upstream.
pub(crate) struct HttpOutbound {
    pub(crate) server: Server,
    pub(crate) instances: Arc<Instances>,
    /// Room for copies of requests.
    pub(crate) mirrors: Arc<Semaphore>,
}

/// One HTTP connection of the own service.
pub(super) struct CallerConnection {
    pub(super) outbound: Arc<Outbound>,
    side: Arc<Side>,
    metrics: Arc<RequestMetrics>,
    activity: Arc<Activity>,
    /// Of the process that called; for consistent hashing.
    source: IpAddr,
}

impl HttpOutbound {
    /// Serves one connection of the own service until it ends.
    pub(crate) async fn serve(&self, outbound: &Arc<Outbound>, caller: LocalStream) -> Ended {
        let source = caller.peer_ip();
        let wire = Wire::from(caller);
        let activity = Activity::of(&wire);
        let side = Side {
            direction: Direction::Outbound,
            source: outbound.service.clone(),
            port: outbound.upstream.port.clone(),
            address: None,
            log: outbound.log.clone(),
            spans: outbound.spans.clone(),
            protocol: outbound.protocol(),
            seen: outbound.seen.clone(),
        };
        let connection = Arc::new(CallerConnection {
            side: Arc::new(side),
            metrics: Arc::new(outbound.metrics.requests(Direction::Outbound, &outbound.upstream.service)),
            activity: activity.clone(),
            outbound: outbound.clone(),
            source,
        });
        let service = service_fn(move |request| {
            // At once: what is read behind it waits for its answer.
            let active = connection.activity.request();
            connection.clone().request(request, active)
        });
        self.server.serve(wire, &activity, service).await
    }
}

impl CallerConnection {
    pub(super) fn http(&self) -> &HttpOutbound {
        &self.outbound.http
    }

    fn upstream(&self) -> &ServiceName {
        &self.outbound.upstream.service
    }

    async fn request(self: Arc<Self>, mut request: Request<Incoming>, active: Active) -> Result<Answer, Infallible> {
        let caller_upgrade = upgrade::asked_for(&mut request);
        let (head, body) = request.into_parts();
        let mut exchange = Exchange::begin(self.side.clone(), self.metrics.clone(), self.upstream().clone(), &head);
        if head.method == Method::CONNECT {
            return Ok(exchange.refused(Refusal::BadRequest, "CONNECT is not served"));
        }
        if let Err(because) = check_authority(&head) {
            return Ok(exchange.refused(Refusal::BadRequest, because));
        }
        let upstreams = self.known().await;
        Ok(self.route(head, body, &upstreams, exchange, caller_upgrade, active).await)
    }

    /// Why the destination has denied a request that was under way, as far as this side knows by now.
    pub(super) fn denied_because(&self, service: &ServiceName) -> String {
        let compiled = self.outbound.upstreams.of(&self.outbound.snapshots.borrow());
        match compiled.get(service) {
            Some(called) if !called.verdict.allowed => called.verdict.because.clone(),
            // The destination knew of the change before this side did, or judges requests one by one.
            _ => "denied by the destination".to_owned(),
        }
    }

    /// What is known of the upstreams. Waits a moment where nothing is of this one.
    async fn known(&self) -> Arc<Compiled> {
        let compiled = self.outbound.upstreams.of(&self.outbound.snapshots.borrow());
        if compiled.get(self.upstream()).is_some_and(|called| called.service.instances() > 0) {
            return compiled;
        }
        // An instance that starts together with its caller is told of within milliseconds.
        let _ = Box::pin(self.outbound.first_pick()).await;
        self.outbound.upstreams.of(&self.outbound.snapshots.borrow())
    }

    /// Where does it go, is there room for it, is it made to fail?
    async fn route(
        &self,
        mut head: Parts,
        body: Incoming,
        upstreams: &Compiled,
        mut exchange: Box<Exchange>,
        caller_upgrade: Option<OnUpgrade>,
        active: Active,
    ) -> Answer {
        let Some(called) = upstreams.get(self.upstream()) else {
            return exchange.refused(Refusal::Unavailable, &Unreached::UnknownService.to_string());
        };
        let said = headers::strip(&mut head.headers);
        exchange.is_part_of(Trace::carry(&mut head.headers, &mut rand::rng()));
        let of_head = head_of(&head);
        let destination = match upstreams.route(called, &of_head) {
            Ok(destination) => destination,
            Err(error) => return exchange.refused(Refusal::Unavailable, &error.to_string()),
        };
        let service = destination.service.unwrap_or(self.upstream());
        let Some(reached) = upstreams.get(service) else {
            let because = format!("a route leads to {service}, of which the control plane has not told yet");
            return exchange.refused(Refusal::Unavailable, &because);
        };
        let hash = reached.service.hash(&of_head, self.source);
        exchange.goes_to(service, || Arc::new(self.outbound.metrics.requests(Direction::Outbound, service)));
        exchange.judged(Judged::new(true, reached.verdict.would_deny), Decider::Words(reached.because.clone()));
        self.outbound.upstreams.was_called();
        let injected = reached.service.settings.faults.draw(&mut rand::rng());
        if let Some(delay) = injected.delay {
            tokio::time::sleep(delay).await;
        }
        if let Some(status) = injected.abort.and_then(|status| StatusCode::from_u16(status).ok()) {
            return exchange.refused(Refusal::Injected(status), "a fault that the settings of the service order");
        }
        match reached.service.breakers.request() {
            Ok(permit) => exchange.takes(permit, reached.service.budget.request()),
            Err(overloaded) => return exchange.refused(Refusal::Overloaded, &overloaded.to_string()),
        }
        let outgoing = match Outgoing::new(head, said, body, &destination, service, reached.protocol, exchange.language()) {
            Ok(outgoing) => Box::new(outgoing),
            Err(because) => return exchange.refused(Refusal::BadRequest, because),
        };
        exchange.sends(outgoing.sent());
        let way = tries::Way { upstreams, service, called: reached, destination: &destination, hash };
        self.send(outgoing, &way, exchange, caller_upgrade, active).await
    }

    async fn send(
        &self,
        mut outgoing: Box<Outgoing>,
        way: &tries::Way<'_>,
        mut exchange: Box<Exchange>,
        caller_upgrade: Option<OnUpgrade>,
        active: Active,
    ) -> Answer {
        let wants_upgrade = outgoing.wants_upgrade();
        let answered = Tries::new(self, way).send(&mut outgoing, &mut exchange).await;
        if let Some(mirror) = way.destination.mirror {
            mirror::send(self, way.upstreams, mirror, outgoing.copy());
        }
        let answer = match answered {
            Ok(answer) => answer,
            Err((refusal, because)) => return exchange.refused(refusal, &because),
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let caller = caller_upgrade.filter(|_| wants_upgrade);
            return upgrade::switch(answer, caller, &self.activity, exchange, active, &self.http().server.tasks);
        }
        let (mut head, body) = answer.into_parts();
        if let Some(because) = head.headers.get(DENIED) {
            let because = because.to_str().unwrap_or("denied by the destination");
            exchange.judged(Judged::Deny, Decider::Words(because.into()));
            exchange.fails("denied");
        }
        headers::strip(&mut head.headers);
        way.destination.response_headers.apply(&mut head.headers);
        head.version = HttpVersion::HTTP_11;
        exchange.answers(head.status, &head.headers);
        exchange.may_idle(way.destination.timeouts.idle.duration());
        exchange.holds(active);
        Response::from_parts(head, Body::answered(body, exchange))
    }
}

/// What routing looks at.
fn head_of(head: &Parts) -> RequestHead<'_> {
    RequestHead { method: head.method.as_str(), path: head.uri.path(), query: head.uri.query(), headers: &head.headers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_small_while_it_waits() {
        fn size<F>(_: impl FnOnce(Arc<CallerConnection>, Request<Incoming>, Active) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(CallerConnection::request);
        assert!((1_024..=5_120).contains(&size), "{size} bytes");
    }
}
