//! Commands whose capability is not built yet.

use crate::outcome::{Failure, Outcome};

/// Says so, with exit code 2.
pub fn unbuilt(what: &str) -> Outcome {
    Err(Failure::not_built(what))
}
