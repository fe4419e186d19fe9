//! Who was seen calling whom: the model of observed traffic.
//!
//! A sidecar counts what it saw by [`Edge`] into [`Tally`]s and tells them to the control plane, which merges and keeps
//! them. An edge says who called whom and how it was judged; of HTTP also the method and the [`Shape`] of the path, in
//! which whatever names one thing among many stands as `{id}`. Everything here is pure: time comes in as a parameter.

mod edge;
mod histogram;
mod method;
mod shape;
mod tally;
mod verdict;

pub use edge::{Edge, HttpPart, MOST_BECAUSE_BYTES};
pub use histogram::{BUCKETS, Histogram, bucket_of, upper_bound};
pub use method::Method;
pub use shape::{MOST_SHAPE_BYTES, MOST_SHAPES, REST, Shape, ShapeError, write_shape};
pub use tally::Tally;
pub use verdict::{UnknownVerdict, Verdict};
