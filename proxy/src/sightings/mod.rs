//! What this sidecar saw of calls, for the control plane: who called whom, how it was judged, how it went.
//!
//! Each worker counts into a [`Counter`] of its own; every few seconds, and for denials sooner, [`Reports`] takes what
//! was counted since and tells it on the stream. Nothing is told twice. While the stream is away, it stays in the counters
//! and is told later; what was handed to a stream that then broke is lost.
//!
//! The service of this sidecar is the destination of what it counts, since it alone judges. Of the calls that its own
//! service makes, only those are counted that never reached an instance: nobody else knows of them.
//!
//! A connection counts when it is judged, and its bytes when it ends, on the same edge. A request counts when it has ended.
//! What is closed because it is allowed no more counts as denied, with the reason that the log gives: a connection besides
//! having been let through, a request in place of it.
//!
//! Whatever is sent to it, a worker keeps at most [`MOST_EDGES`] edges, [`MOST_EDGES_OF_PEER`] of them for one peer, and
//! [`MOST_RESTS`] more ([`MOST_RESTS_OF_PEER`]) that take in what has no room: method `other` and shape `…`, one for each
//! peer, port, verdict and reason. What fits in none of them is counted as left out. An edge takes about 500 bytes.

mod call;
mod counter;
mod decisions;
mod open;
mod report;
mod shapes;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use call::{Amounts, HttpCall, Sighting, Why, verdict_of};
pub(crate) use counter::Counter;
pub use counter::Sightings;
pub use report::Reports;
pub use table::{MOST_EDGES, MOST_EDGES_OF_PEER, MOST_RESTS, MOST_RESTS_OF_PEER};
