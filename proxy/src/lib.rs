//! The sidecar: the proxy beside one instance of a service.
//!
//! What happens when a connection arrives is read in `inbound` from the top; what happens when the service calls
//! another is read in `outbound`. `sidecar` assembles the parts, `control_client` keeps the snapshot fresh.

pub mod access_log;
pub mod admin;
pub mod clock;
pub mod configuration;
pub mod connections;
pub mod control_client;
pub mod copy;
pub mod data_plane;
pub mod http;
pub mod identity;
pub mod inbound;
pub mod limits;
pub mod local;
pub mod metrics;
pub mod outbound;
pub mod settings;
pub mod sidecar;
pub mod sightings;
pub mod snapshot;
pub mod spans;
pub mod state;
pub mod status;
pub mod transport;
pub(crate) mod upstreams;

pub use settings::Settings;
pub use sidecar::{Addresses, ProxyError, Shutdown, run};
