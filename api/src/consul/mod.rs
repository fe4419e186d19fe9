//! Consul's words for what is said here: for its HTTP API, and for taking over what a Consul has.
//!
//! | module | what it holds |
//! |---|---|
//! | `duration`, `words` | durations as Go writes them, and the words of filters |
//! | `intentions` | single intentions, as Consul lists them |
//! | `entry` | config entries: services, their routes, splits and resolvers, and who may call them |

pub mod duration;
pub mod entry;
pub mod intentions;
pub mod words;

pub use intentions::NotCarried;
