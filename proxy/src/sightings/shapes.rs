//! The shapes of paths that are told apart, for all workers together.

use std::collections::HashMap;
use std::time::Duration;

use postern_edges::{MOST_SHAPES, Shape};
use tokio::time::Instant;

/// Shapes from which on only calls that are let through make new ones: nobody who is refused takes their room.
const MOST_FOR_ALL: usize = MOST_SHAPES / 2;

/// At most [`MOST_SHAPES`] of them.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    used: HashMap<Shape, Instant>,
}

impl Shapes {
    /// The shape of this text, if it has room or finds some.
    pub(super) fn admit(&mut self, text: &str, went_through: bool, now: Instant) -> Option<Shape> {
        if let Some((shape, _)) = self.used.get_key_value(text) {
            let shape = shape.clone();
            self.touch(&shape, now);
            return Some(shape);
        }
        let most = if went_through { MOST_SHAPES } else { MOST_FOR_ALL };
        if self.used.len() >= most {
            return None;
        }
        let shape: Shape = text.parse().ok()?;
        self.used.insert(shape.clone(), now);
        Some(shape)
    }

    /// It was used at this time.
    pub(super) fn touch(&mut self, shape: &Shape, at: Instant) {
        if let Some(used) = self.used.get_mut(shape) {
            *used = at.max(*used);
        }
    }

    /// Makes room of those that were not used for so long.
    pub(super) fn forget_unused(&mut self, now: Instant, unused: Duration) {
        self.used.retain(|_, used| now.saturating_duration_since(*used) < unused);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.used.len()
    }
}
