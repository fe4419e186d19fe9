//! What is open now, by who told it.

use std::collections::{BTreeMap, HashMap};

use postern_names::{PortName, ServiceName};

use crate::{Edge, HttpPart, Shape};

/// Kinds of open calls that are kept of all sidecars together.
pub const MOST_OPEN_KINDS: usize = 50_000;

/// What is equal for calls that are open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenKey {
    /// The calling service.
    pub source: ServiceName,
    /// The called service.
    pub destination: ServiceName,
    /// The called port.
    pub port: PortName,
    /// Of HTTP requests under way; absent for connections.
    pub http: Option<HttpPart>,
}

impl OpenKey {
    /// The calls of an edge.
    pub fn of(edge: &Edge) -> Self {
        Self {
            source: edge.source.clone(),
            destination: edge.destination.clone(),
            port: edge.port.clone(),
            http: edge.http.clone(),
        }
    }

    /// The same, where the destination has no room for the shape.
    pub(super) fn with_rest(mut self) -> Self {
        if let Some(http) = &mut self.http {
            http.shape = Shape::rest();
        }
        self
    }
}

/// Open calls by the stream that told them.
#[derive(Debug, Default)]
pub(super) struct Open {
    by_teller: HashMap<u64, Vec<(OpenKey, u64)>>,
    kinds: usize,
}

impl Open {
    /// Puts `calls` in place of what this teller told before. Gives how many there was no room for.
    pub(super) fn set(&mut self, teller: u64, mut calls: Vec<(OpenKey, u64)>) -> u64 {
        self.forget(teller);
        let room = MOST_OPEN_KINDS.saturating_sub(self.kinds);
        let left_out = calls.iter().skip(room).fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
        calls.truncate(room);
        if !calls.is_empty() {
            self.kinds += calls.len();
            self.by_teller.insert(teller, calls);
        }
        left_out
    }

    pub(super) fn forget(&mut self, teller: u64) {
        self.kinds -= self.by_teller.remove(&teller).map_or(0, |calls| calls.len());
    }

    /// All together.
    pub(super) fn sum(&self) -> BTreeMap<OpenKey, u64> {
        let mut sum = BTreeMap::new();
        for (key, count) in self.by_teller.values().flatten() {
            let of: &mut u64 = sum.entry(key.clone()).or_default();
            *of = of.saturating_add(*count);
        }
        sum
    }
}
