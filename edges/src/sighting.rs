//! What was seen of one edge.

use std::borrow::Cow;

use crate::{Edge, Tally};

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
    /// The path of a request like those that were seen: one of them, else one of their shape. `None` for connections.
    pub fn path(&self) -> Option<Cow<'_, str>> {
        let http = self.edge.http.as_ref()?;
        Some(match &self.tally.sample {
            Some(sample) => Cow::Borrowed(sample),
            None => Cow::Owned(http.shape.as_str().replace("{id}", "0")),
        })
    }
}
