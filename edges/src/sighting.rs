//! What was seen of one edge.

use std::borrow::Cow;

use crate::{Edge, REST, Tally};

/// What stands in a path for what is not known of it: `…`, as a path may hold it.
const UNKNOWN: &str = "%E2%80%A6";

/// An edge with what was counted of it over some time, at all instances together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Who called whom, and how it was judged.
    pub edge: Edge,
    /// How often, and so on.
    pub tally: Tally,
    /// Instances of the destination that saw it.
    pub instances: usize,
}

impl Sighting {
    /// The path of a request like those that were seen: one of them, else one of their shape. `None` for connections. Where
    /// nothing is known of it, it is one that only a rule for all paths allows.
    pub fn path(&self) -> Option<Cow<'_, str>> {
        let http = self.edge.http.as_ref()?;
        Some(match &self.tally.sample {
            Some(sample) => Cow::Borrowed(sample),
            None => {
                let shape = http.shape.as_str();
                let root = if shape == REST { "/" } else { "" };
                Cow::Owned(format!("{root}{}", shape.replace("{id}", "0").replace(REST, UNKNOWN)))
            }
        })
    }
}
