//! Where a request for a service goes: the router, the split and the redirect, in this order. In Consul these are
//! service-router, service-splitter and service-resolver.
//!
//! 1. The first route of the called service that matches says where to; without a match it is the called service.
//! 2. Where no subset was named, the split of the service reached so far draws one of its shares. A share of another service
//!    without a subset goes on to that one's split.
//! 3. Then the redirect of the service reached so far counts, and that of the service it leads to.
//!
//! Routes count for the called service alone. What a route does not say, time-outs, retries and mirror, is that of the service
//! that is reached in the end, as are balancer, ejection and circuit breakers. Which instances a subset means is
//! [`resolve`](crate::resolve)d later.

mod destination;
mod edits;
mod hops;
mod rewrite;
mod split;
#[cfg(test)]
mod tests;

use postern_names::ServiceName;
use rand::Rng;

pub use destination::Destination;
use destination::Place;
pub use edits::HeaderChanges;
pub use hops::check_hops;
use rewrite::Rewrite;
use split::Shares;

use crate::matching::{MatchError, RequestMatcher};
use crate::retry::RetryPolicy;
use crate::settings::{Mirror, Redirect, Retries, Route, RouteAction, ServiceSettings, Timeouts};
use crate::{Period, RequestHead};

/// How often a request may be sent on to another service by splits and redirects.
pub const MAX_HOPS: usize = 8;

/// What the settings of one service say about where requests go, ready to ask.
#[derive(Debug)]
pub struct Routing {
    service: ServiceName,
    routes: Box<[CompiledRoute]>,
    shares: Shares,
    redirect: Option<Redirect>,
    timeouts: Timeouts,
    retries: RetryPolicy,
    mirror: Option<Mirror>,
}

/// Why settings cannot be compiled, or a request has no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// A match of a route.
    #[error(transparent)]
    Match(#[from] MatchError),
    /// A rewrite that no path can be.
    #[error("rewrite {rewrite:?} is no path; it begins with / and has no //, ?, #, . or .. segment, space or non-ASCII letter")]
    Rewrite {
        /// What was given.
        rewrite: String,
    },
    /// A rewrite without a path to replace.
    #[error("rewrite {rewrite:?} needs path_prefix or path_exact in the match: it takes the place of what that matched")]
    RewriteOfWhat {
        /// What was given.
        rewrite: String,
    },
    /// A header that routes may not touch.
    #[error("header {name:?} cannot be edited: the mesh or the protocol writes it")]
    Header {
        /// Its name.
        name: String,
    },
    /// A value that no header can have.
    #[error("the value for header {name:?} has a control character")]
    HeaderValue {
        /// The name of the header.
        name: String,
    },
    /// Shares that are more or less than everything.
    #[error("the weights of the split add up to {total}, not 100")]
    Shares {
        /// What they add up to, in percent.
        total: String,
    },
    /// Services that send each other round in circles, or a very long way.
    #[error(
        "requests for {service} are sent on to another service more than {MAX_HOPS} times: {path}; splits and redirects may lead through at most {MAX_HOPS} services"
    )]
    TooManyHops {
        /// The service that was called.
        service: ServiceName,
        /// The services, with arrows between them.
        path: String,
    },
    /// A rewritten path and query that is none.
    #[error("the rewritten request target is not valid")]
    Target,
}

#[derive(Debug)]
struct CompiledRoute {
    matcher: RequestMatcher,
    to: CompiledAction,
}

#[derive(Debug)]
struct CompiledAction {
    service: Option<ServiceName>,
    subset: Option<Box<str>>,
    rewrite: Option<Rewrite>,
    request_headers: HeaderChanges,
    response_headers: HeaderChanges,
    timeout: Option<Period>,
    retries: Option<RetryPolicy>,
    mirror: Option<Mirror>,
}

impl Routing {
    /// Compiles regular expressions, reads header names and adds up weights.
    ///
    /// # Errors
    /// The first thing that is not valid; loops through other services are not seen here but by [`check_hops`].
    pub fn compile(settings: &ServiceSettings) -> Result<Self, RoutingError> {
        Ok(Self {
            service: settings.service.clone(),
            routes: settings.routes.iter().map(CompiledRoute::compile).collect::<Result<_, _>>()?,
            shares: Shares::compile(&settings.split)?,
            redirect: settings.resolver.redirect.clone(),
            timeouts: settings.timeouts,
            retries: RetryPolicy::compile(&settings.retries),
            mirror: settings.mirror.clone(),
        })
    }

    /// All requests for `service` stay there: what counts where its settings are not understood.
    pub fn unrouted(service: ServiceName) -> Self {
        Self {
            service,
            routes: Box::default(),
            shares: Shares::default(),
            redirect: None,
            timeouts: Timeouts::default(),
            retries: RetryPolicy::compile(&Retries::default()),
            mirror: None,
        }
    }

    /// The service whose routing this is.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Where a request for this service goes. `others` has the routing of every service that has settings.
    ///
    /// # Errors
    /// [`RoutingError::TooManyHops`] and [`RoutingError::Target`]: the request is answered with 503.
    pub fn route<'r, R: Rng + ?Sized>(
        &'r self,
        request: &RequestHead<'_>,
        others: impl Fn(&ServiceName) -> Option<&'r Self>,
        rng: &mut R,
    ) -> Result<Destination<'r>, RoutingError> {
        let action = self.routes.iter().find(|route| route.matcher.matches(request)).map(|route| &route.to);
        let mut place = Place::of(self);
        if let Some(action) = action {
            place.lead(action.service.as_ref(), action.subset.as_deref(), &others);
        }
        place.split(&others, rng)?;
        place.redirect(&others)?;
        place.destination(action, request, rng)
    }

    /// Where a connection to this service goes whose requests nobody reads: by split and redirect.
    ///
    /// # Errors
    /// [`RoutingError::TooManyHops`].
    pub fn route_connection<'r, R: Rng + ?Sized>(
        &'r self,
        others: impl Fn(&ServiceName) -> Option<&'r Self>,
        rng: &mut R,
    ) -> Result<Destination<'r>, RoutingError> {
        let mut place = Place::of(self);
        place.split(&others, rng)?;
        place.redirect(&others)?;
        Ok(place.plain_destination())
    }
}

impl CompiledRoute {
    fn compile(route: &Route) -> Result<Self, RoutingError> {
        let matcher = RequestMatcher::compile(&route.matches)?;
        Ok(Self { to: CompiledAction::compile(&route.to, &matcher)?, matcher })
    }
}

impl CompiledAction {
    fn compile(action: &RouteAction, matcher: &RequestMatcher) -> Result<Self, RoutingError> {
        let rewrite = action.rewrite.as_deref().map(|by| Rewrite::compile(by, matcher.path())).transpose()?;
        Ok(Self {
            service: action.service.clone(),
            subset: action.subset.as_deref().map(Box::from),
            rewrite,
            request_headers: HeaderChanges::compile(&action.request_headers)?,
            response_headers: HeaderChanges::compile(&action.response_headers)?,
            timeout: action.timeout,
            retries: action.retries.as_ref().map(RetryPolicy::compile),
            mirror: action.mirror.clone(),
        })
    }
}
