//! The control plane: who may become which service, which intentions are in force, who is where, and the push that
//! tells every sidecar within milliseconds.
//!
//! | module | what it holds |
//! |---|---|
//! | `store` | the store trait with etcd's semantics, and its engines |
//! | `records`, `mirror` | what is in the store, and the view of it that reads are served from |
//! | `identity` | enrolment tokens, the authority and its keys, enrolment, renewal, revocation |
//! | `policy` | changes of intentions as transactions |
//! | `service_config` | changes of settings and JWT providers, and the keys that come from elsewhere |
//! | `kv`, `sessions`, `events` | the key-value store, who holds its locks, and messages to whoever waits |
//! | `registry`, `push`, `grpc` | instances, and their streams |
//! | `edges` | who calls whom, as the sidecars see it |
//! | `queries` | questions for instances that have a name |
//! | `acl` | who may do what with what the HTTP API serves |
//! | `dns` | services and nodes by name |
//! | `http`, `metrics`, `doctor` | the HTTP API and what can be seen |
//! | `ui` | the page that shows it to people |
//! | `snapshot` | the whole store, saved and restored |
//! | `audit`, `seal` | the log that cannot be rewritten unseen, and keys at rest |
//! | `settings`, `server` | one control plane, started and stopped |

pub mod acl;
pub mod audit;
pub mod dns;
pub mod doctor;
pub mod edges;
pub mod events;
pub mod grpc;
pub mod http;
pub mod identity;
pub mod kv;
pub mod metrics;
pub mod mirror;
pub mod policy;
pub mod push;
pub mod queries;
pub mod records;
pub mod registry;
pub mod seal;
pub mod server;
pub mod service_config;
pub mod sessions;
pub mod settings;
pub mod snapshot;
pub mod store;
pub mod ui;

pub use server::{ControlError, run};
pub use settings::{Addresses, Settings};
