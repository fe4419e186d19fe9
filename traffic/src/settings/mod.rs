//! What an operator writes about services, in `meshctl service config apply -f FILE`.
//!
//! The same types are the file (YAML), the record of the store and the message to sidecars (JSON). An unknown field is
//! refused everywhere: a sidecar that does not know a setting says so instead of leaving it out.

mod balancer;
mod ejection;
mod fault;
pub mod file;
mod jwt;
mod limits;
mod percent;
mod requests;
mod routing;
mod validate;

use postern_intentions::{PathSettings, Protocol};
use postern_names::ServiceName;
use serde::{Deserialize, Serialize};

pub use balancer::{Balancer, HashOn, LocalityPreference, Policy, SourceAddress};
pub use ejection::OutlierEjection;
pub use fault::{AbortFault, DelayFault, Faults};
pub use jwt::{JwksSource, JwtProvider, TokenPlace};
pub use limits::{CircuitBreakers, RateKey, RateLimit};
pub use percent::Percent;
pub use requests::{Backoff, DoubleSlash, EncodedSlash, Retries, RetryOn, Timeouts};
pub use routing::{HeaderEdits, Mirror, Redirect, RequestMatch, Resolver, Route, RouteAction, Split, Subset, SubsetRef};
pub(crate) use validate::is_reserved;
pub use validate::{Fault, JWKS_LIMIT, JwksError, Place, SETTINGS_LIMIT, Step, check_jwks};

/// All that a file can hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficFile {
    /// Settings, one entry a service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceSettings>,
    /// Whose tokens permissions can ask for, one entry a provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jwt_providers: Vec<JwtProvider>,
}

/// The settings of one service. All that is absent has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSettings {
    /// Which service.
    pub service: ServiceName,
    /// What it speaks; absent: as its instances declared it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,

    // What its own sidecars do with requests that arrive.
    /// `%2F` and `%5C` in a path.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoded_slash: EncodedSlash,
    /// `//` in a path.
    #[serde(default, skip_serializing_if = "is_default")]
    pub double_slash: DoubleSlash,
    /// How many requests are let in; the first limit that matches and is used up answers 429.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,

    // What the sidecars of its callers do with requests for it.
    /// How long anything may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// What is tried again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: Retries,
    /// Which instance a request goes to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balancer: Balancer,
    /// When an instance that fails is left out for a while.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outlier_ejection: OutlierEjection,
    /// How much one caller's sidecar asks of the service at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub circuit_breakers: CircuitBreakers,
    /// What is made to fail, to see what callers do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub faults: Faults,

    // Where its requests go.
    /// The first route that matches a request says where it goes; without a match it goes on to `split`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Shares of the requests that no route has sent elsewhere; they add up to 100. Empty: all stay here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<Split>,
    /// Which instances are meant.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resolver: Resolver,
    /// Where copies of requests go; what they answer is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
}

impl ServiceSettings {
    /// The settings of a service of which nothing was written.
    pub fn of(service: ServiceName) -> Self {
        Self {
            service,
            protocol: None,
            encoded_slash: EncodedSlash::default(),
            double_slash: DoubleSlash::default(),
            rate_limits: Vec::new(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            balancer: Balancer::default(),
            outlier_ejection: OutlierEjection::default(),
            circuit_breakers: CircuitBreakers::default(),
            faults: Faults::default(),
            routes: Vec::new(),
            split: Vec::new(),
            resolver: Resolver::default(),
            mirror: None,
        }
    }

    /// What its sidecars do with unusual paths.
    pub fn paths(&self) -> PathSettings {
        PathSettings { encoded_slash: self.encoded_slash, double_slash: self.double_slash }
    }

    /// Every other service that requests for this one may be sent to, by routes, splits, redirect, failover and mirror: a
    /// caller has to know their instances too. Not sorted, perhaps with repetitions.
    pub fn other_services(&self) -> impl Iterator<Item = &ServiceName> {
        let routed = self.routes.iter().filter_map(|route| route.to.service.as_ref());
        let mirrored_by_route = self.routes.iter().filter_map(|route| route.to.mirror.as_ref()).map(|mirror| &mirror.service);
        let split = self.split.iter().filter_map(|split| split.service.as_ref());
        let redirected = self.resolver.redirect.iter().filter_map(|redirect| redirect.service.as_ref());
        let failover = self.resolver.failover.iter().filter_map(|target| target.service.as_ref());
        let mirrored = self.mirror.iter().map(|mirror| &mirror.service);
        let all = routed.chain(mirrored_by_route).chain(split).chain(redirected).chain(failover).chain(mirrored);
        all.filter(|service| **service != self.service)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
