//! Who was seen calling whom: the model of observed traffic.
//!
//! A sidecar counts what it saw by [`Edge`] into [`Tally`]s and tells them to the control plane, which merges and keeps
//! them. An edge says who called whom and how it was judged; of HTTP also the method and the [`Shape`] of the path, in
//! which whatever names one thing among many stands as `{id}`. What was seen of one edge is a [`Sighting`]; from sightings
//! follow the intentions that allow no more than them ([`suggest`]) and what a change of intentions does to them
//! ([`effects`]), both by the one evaluator. A [`Ledger`] keeps it all by hour, bounded whatever comes. Everything here is
//! pure: time comes in as a parameter.

mod edge;
pub mod effects;
mod histogram;
mod judge;
mod ledger;
mod method;
#[cfg(test)]
mod samples;
mod shape;
mod sighting;
pub mod suggest;
mod tally;
mod verdict;

pub use edge::{Edge, HttpPart, MOST_BECAUSE_BYTES};
pub use histogram::{BUCKETS, Histogram, bucket_of, upper_bound};
pub use judge::{Called, judge};
pub use ledger::{
    Bounds, By, Changed, Filter, Ledger, MOST_EDGE_BYTES, MOST_OPEN_KINDS, OpenKey, Period, RECENT, Seen, Selection,
    UnknownPeriod, WINDOW, Window,
};
pub use method::Method;
pub use shape::{MOST_SHAPE_BYTES, MOST_SHAPES, REST, Shape, ShapeError, write_shape};
pub use sighting::Sighting;
pub use tally::Tally;
pub use verdict::{UnknownVerdict, Verdict};
