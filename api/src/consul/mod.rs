//! Consul's words for what is said here: for its HTTP API, and for taking over what a Consul has.

pub mod intentions;
