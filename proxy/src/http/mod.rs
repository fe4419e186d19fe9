//! HTTP between services: every request is judged, sent on, counted and logged by itself.
//!
//! What happens when a request arrives from another service is read in `inbound` from the top; what happens when the
//! service calls another is read in `outbound`. Both serve one side of an [`exchange::Exchange`] with `serve`, and send the
//! other with a connection out of a `pool`.

pub(crate) mod answer;
mod authority;
pub(crate) mod body;
pub(crate) mod exchange;
mod expect;
pub mod frames;
pub mod framing;
pub(crate) mod headers;
pub(crate) mod inbound;
pub(crate) mod instances;
pub mod judge;
pub mod jwt;
pub(crate) mod limits;
pub(crate) mod mirror;
pub(crate) mod outbound;
pub(crate) mod own;
pub(crate) mod pool;
mod replay;
pub(crate) mod serve;
pub(crate) mod trace;
mod tries;
pub(crate) mod upgrade;
pub(crate) mod wire;
