//! Single calls, for people who watch.

use std::mem;

use postern_api::seen::{MOST_DECISIONS, MOST_PATH_BYTES};
use postern_edges::Method;
use tokio::time::Instant;

/// The newest decisions, alike ones together, at most [`MOST_DECISIONS`] of them. What is overwritten is counted.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    ring: Vec<DecisionOf>,
    next: usize,
    left_out: u64,
}

/// Calls that are alike.
#[derive(Debug, Clone)]
pub(super) struct DecisionOf {
    hash: u64,
    /// The place of their edge.
    pub(super) edge: usize,
    /// As received, where the edge stands for more than one.
    pub(super) method: Option<Method>,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) count: u32,
    /// The last of them.
    pub(super) at: Instant,
}

impl Decisions {
    /// Adds a call, known by `hash` among those that are kept.
    pub(super) fn add(&mut self, hash: u64, edge: usize, method: Option<Method>, path: &str, status: u16, at: Instant) {
        let is_alike = |kept: &&mut DecisionOf| {
            (kept.hash, kept.edge, kept.method, kept.status) == (hash, edge, method, status) && kept.path == path
        };
        if let Some(alike) = self.ring.iter_mut().find(is_alike) {
            alike.count = alike.count.saturating_add(1);
            alike.at = at;
            return;
        }
        if self.ring.len() < MOST_DECISIONS {
            let mut kept = String::with_capacity(MOST_PATH_BYTES);
            kept.push_str(path);
            self.ring.push(DecisionOf { hash, edge, method, path: kept, status, count: 1, at });
            return;
        }
        let Some(oldest) = self.ring.get_mut(self.next) else { return };
        self.next = (self.next + 1) % MOST_DECISIONS;
        self.left_out = self.left_out.saturating_add(oldest.count.into());
        let mut kept = mem::take(&mut oldest.path);
        kept.clear();
        kept.push_str(path);
        *oldest = DecisionOf { hash, edge, method, path: kept, status, count: 1, at };
    }

    /// Counts a call of which there is no edge.
    pub(super) fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    /// Whether one of them is of this edge.
    pub(super) fn name(&self, edge: usize) -> bool {
        self.ring.iter().any(|kept| kept.edge == edge)
    }

    /// Takes them, in the order in which they began, and how many calls there was no room for.
    pub(super) fn take(&mut self) -> (Vec<DecisionOf>, u64) {
        let mut ring = mem::take(&mut self.ring);
        let oldest = mem::take(&mut self.next).min(ring.len());
        ring.rotate_left(oldest);
        (ring, mem::take(&mut self.left_out))
    }
}
