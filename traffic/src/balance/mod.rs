//! Which of several instances takes a request.
//!
//! The instances of a service are one list for each set of endpoints ([`ServiceTargets`](crate::ServiceTargets)); what is
//! learned of an instance ([`InstanceStats`]) outlives the list. A pick takes no lock and allocates nothing.

mod choose;
mod hash;
mod hash_on;
mod latency;
mod maglev;
mod open_request;
mod picker;
mod ring;
mod stats;

pub use hash_on::HashKeys;
pub use open_request::OpenRequest;
pub(crate) use picker::Picker;
pub use stats::InstanceStats;

#[cfg(test)]
pub(crate) fn hash_for_tests(n: u64) -> u64 {
    hash::again(n, 1)
}
