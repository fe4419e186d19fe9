//! Where calls go: the settings of services, routing, balancing, and what protects both.
//!
//! [`settings`] is what an operator writes, what the control plane stores and what sidecars are told. Everything here is
//! pure: time and randomness come in as parameters, nothing reads a clock, a file or the network. Who may call is not said
//! here: that is `postern-intentions`, and the destination judges every request whichever way it came.

pub mod period;
pub mod settings;

pub use period::Period;
pub use settings::{JwtProvider, ServiceSettings, TrafficFile};
