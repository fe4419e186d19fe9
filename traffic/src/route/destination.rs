//! Where a request goes, and the way there.

use std::sync::LazyLock;

use http::uri::PathAndQuery;
use postern_names::{PortName, ServiceName};
use rand::Rng;

use super::{CompiledAction, HeaderChanges, MAX_HOPS, Routing, RoutingError};
use crate::RequestHead;
use crate::draw::hits;
use crate::retry::RetryPolicy;
use crate::settings::{Mirror, Retries, Timeouts};

static NO_CHANGES: LazyLock<HeaderChanges> = LazyLock::new(HeaderChanges::default);
static DEFAULT_RETRIES: LazyLock<RetryPolicy> = LazyLock::new(|| RetryPolicy::compile(&Retries::default()));

/// What becomes of one request.
#[derive(Debug, Clone)]
#[must_use]
pub struct Destination<'r> {
    /// The service that it goes to; none: the one that was called.
    pub service: Option<&'r ServiceName>,
    /// The subset of it; none: its default subset, which [`ServiceTargets`](crate::ServiceTargets) knows.
    pub subset: Option<&'r str>,
    /// The port of it; none: the one that was called.
    pub port: Option<&'r PortName>,
    /// The path and query to send; none: as received.
    pub rewrite: Option<PathAndQuery>,
    /// What changes in the headers of the request.
    pub request_headers: &'r HeaderChanges,
    /// What changes in the headers of the answer.
    pub response_headers: &'r HeaderChanges,
    /// How long anything may take; the `timeout` of a route is `request` here.
    pub timeouts: Timeouts,
    /// What is tried again.
    pub retries: &'r RetryPolicy,
    /// Where a copy goes, drawn for this request: to this service and subset as they are, by no route, split or redirect.
    pub mirror: Option<&'r Mirror>,
}

/// A service on the way, without or with settings.
#[derive(Clone)]
pub(super) struct Place<'r> {
    called: &'r Routing,
    service: &'r ServiceName,
    routing: Option<&'r Routing>,
    subset: Option<&'r str>,
    port: Option<&'r PortName>,
    hops: usize,
}

impl<'r> Place<'r> {
    pub(super) fn of(called: &'r Routing) -> Self {
        Self { called, service: &called.service, routing: Some(called), subset: None, port: None, hops: 0 }
    }

    /// To a subset of a service, or of this one; true if it is another service.
    pub(super) fn lead(
        &mut self,
        service: Option<&'r ServiceName>,
        subset: Option<&'r str>,
        others: &impl Fn(&ServiceName) -> Option<&'r Routing>,
    ) -> bool {
        self.subset = subset;
        match service.filter(|service| *service != self.service) {
            None => false,
            Some(service) => {
                self.service = service;
                self.routing = if *service == self.called.service { Some(self.called) } else { others(service) };
                true
            }
        }
    }

    /// Draws shares until a subset is named or a service keeps its requests.
    pub(super) fn split<R: Rng + ?Sized>(
        &mut self,
        others: &impl Fn(&ServiceName) -> Option<&'r Routing>,
        rng: &mut R,
    ) -> Result<(), RoutingError> {
        while self.subset.is_none() {
            let Some(share) = self.routing.and_then(|routing| routing.shares.draw(rng)) else { break };
            if !self.lead(share.service.as_ref(), share.subset.as_deref(), others) {
                break;
            }
            self.count_hop()?;
        }
        Ok(())
    }

    /// Follows redirects. One inside a service keeps a subset that was named.
    pub(super) fn redirect(&mut self, others: &impl Fn(&ServiceName) -> Option<&'r Routing>) -> Result<(), RoutingError> {
        while let Some(redirect) = self.routing.and_then(|routing| routing.redirect.as_ref()) {
            self.port = redirect.port.as_ref().or(self.port);
            let named = self.subset;
            if !self.lead(redirect.service.as_ref(), redirect.subset.as_deref(), others) {
                self.subset = self.subset.or(named);
                break;
            }
            self.count_hop()?;
        }
        Ok(())
    }

    pub(super) fn destination<R: Rng + ?Sized>(
        self,
        action: Option<&'r CompiledAction>,
        request: &RequestHead<'_>,
        rng: &mut R,
    ) -> Result<Destination<'r>, RoutingError> {
        let mirror = self.routing.and_then(|routing| routing.mirror.as_ref());
        let mut destination = self.plain_destination();
        if let Some(action) = action {
            let rewrite = action.rewrite.as_ref().map(|rewrite| rewrite.apply(request.path, request.query));
            destination.rewrite = rewrite.transpose()?;
            destination.request_headers = &action.request_headers;
            destination.response_headers = &action.response_headers;
            if let Some(timeout) = action.timeout {
                destination.timeouts.request = timeout;
            }
            destination.retries = action.retries.as_ref().unwrap_or(destination.retries);
        }
        let mirror = action.and_then(|action| action.mirror.as_ref()).or(mirror);
        destination.mirror = mirror.filter(|mirror| hits(mirror.percent, rng));
        Ok(destination)
    }

    pub(super) fn plain_destination(self) -> Destination<'r> {
        Destination {
            service: Some(self.service).filter(|service| **service != self.called.service),
            subset: self.subset,
            port: self.port,
            rewrite: None,
            request_headers: &NO_CHANGES,
            response_headers: &NO_CHANGES,
            timeouts: self.routing.map(|routing| routing.timeouts).unwrap_or_default(),
            retries: self.routing.map_or(&DEFAULT_RETRIES, |routing| &routing.retries),
            mirror: None,
        }
    }

    fn count_hop(&mut self) -> Result<(), RoutingError> {
        self.hops += 1;
        if self.hops <= MAX_HOPS {
            return Ok(());
        }
        let path = format!("… -> {}", self.service);
        Err(RoutingError::TooManyHops { service: self.called.service.clone(), path })
    }
}
