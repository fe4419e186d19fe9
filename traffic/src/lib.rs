//! Where calls go: the settings of services, routing, balancing, and what protects both.
//!
//! [`settings`] is what an operator writes, what the control plane stores and what sidecars are told. Everything here is
//! pure: time and randomness come in as parameters, nothing reads a clock, a file or the network. Who may call is not said
//! here: that is `postern-intentions`, and the destination judges every request whichever way it came.
//!
//! The way of a request, at the caller's sidecar: [`Routing::route`] says which service and subset it goes to and how it is
//! treated, [`Breakers`] and [`RetryBudget`] whether there is room for it, [`settings::Faults::draw`] whether it is made to
//! fail, [`ServiceTargets::pick`] which instance takes it, [`OpenRequest`] what is learned of the instance, and
//! [`RetryPolicy::retries`] whether it is tried again. At the destination, [`RateLimits::check`] says whether it is let in.

pub mod balance;
pub mod breaker;
mod draw;
pub mod eject;
pub mod fault;
pub mod locality;
pub mod matching;
mod outcome;
pub mod period;
pub mod rate;
mod request;
pub mod resolve;
pub mod retry;
pub mod route;
pub mod settings;

pub use balance::{HashKeys, InstanceStats, OpenRequest};
pub use breaker::{Breakers, Limit, Overloaded, Permit};
pub use eject::{Ejection, EjectionReason};
pub use fault::Injected;
pub use locality::Locality;
pub use matching::{MatchError, RequestMatcher};
pub use outcome::Outcome;
pub use period::Period;
pub use rate::{Limited, RateLimits};
pub use request::RequestHead;
pub use resolve::{Caller, Instance, NoInstance, Picked, ServiceTargets, Wanted};
pub use retry::{ActiveRequest, CallProtocol, Repeatable, RetryBudget, RetryPermit, RetryPolicy};
pub use route::{Destination, HeaderChanges, Routing, RoutingError};
pub use settings::{JwtProvider, ServiceSettings, TrafficFile};
