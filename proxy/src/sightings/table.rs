//! What one worker counted, by edge.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;
use postern_api::seen::{MOST_PATH_BYTES, cut, path_to_keep};
use postern_edges::{
    BUCKETS, Edge, HttpPart, MOST_BECAUSE_BYTES, MOST_SHAPE_BYTES, Method, REST, Shape, Verdict, bucket_of, write_shape,
};
use postern_intentions::Protocol;
use postern_names::{PortName, ServiceName};
use slab::Slab;
use tokio::time::Instant;

use super::call::Sighting;
use super::decisions::{DecisionOf, Decisions};
use super::shapes::Shapes;
use crate::http::exchange::Decider;
use crate::metrics::Direction;

/// Edges that a worker tells apart.
pub const MOST_EDGES: usize = 2_000;
/// Edges of one peer that a worker tells apart.
pub const MOST_EDGES_OF_PEER: usize = 500;
/// Edges besides, for what those have no room for.
pub const MOST_RESTS: usize = 1_000;
/// The same of one peer.
pub const MOST_RESTS_OF_PEER: usize = 50;

/// Counts of one worker.
#[derive(Debug, Default)]
pub(super) struct Table {
    hasher: DefaultHashBuilder,
    /// Places in `slots`, by the hash of the edge.
    places: HashTable<usize>,
    slots: Slab<Slot>,
    room: Room,
    of_peer: HashMap<ServiceName, Room>,
    /// Slots that something was counted in since they were taken.
    touched: Vec<usize>,
    /// Where the shape of a path is written.
    shape: String,
    decisions: Decisions,
    /// Calls that no edge had room for.
    left_out: u64,
}

/// How much is taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Room {
    edges: usize,
    rests: usize,
}

/// Which of it an edge takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Edge,
    Rest,
}

#[derive(Debug)]
pub(super) struct Slot {
    hash: u64,
    takes: Takes,
    pub(super) kept: Kept,
    counts: Counts,
    is_touched: bool,
    last: Instant,
    sample: Option<Arc<str>>,
    /// The stream that was told the sample.
    sample_told: u64,
}

/// An edge as it is looked for.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) direction: Direction,
    pub(super) peer: ServiceName,
    pub(super) port: PortName,
    pub(super) protocol: Protocol,
    pub(super) verdict: Verdict,
    pub(super) because: Decider,
    /// The same as text.
    pub(super) text: Arc<str>,
    pub(super) http: Option<HttpPart>,
}

/// What was counted since it was taken. All zero: nothing.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) latency: [u32; BUCKETS as usize],
    pub(super) first: Instant,
    pub(super) last: Instant,
}

/// What was taken of one edge.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) edge: Edge,
    pub(super) direction: Direction,
    pub(super) counts: Counts,
    /// Where this stream was not told it.
    pub(super) sample: Option<Arc<str>>,
}

impl Room {
    fn of(&mut self, takes: Takes) -> &mut usize {
        match takes {
            Takes::Edge => &mut self.edges,
            Takes::Rest => &mut self.rests,
        }
    }
}

impl Counts {
    fn nothing(now: Instant) -> Self {
        Self { calls: 0, errors: 0, bytes_in: 0, bytes_out: 0, latency: [0; BUCKETS as usize], first: now, last: now }
    }
}

impl Kept {
    fn is(&self, sighting: &Sighting<'_>, http: Option<(Method, &str)>) -> bool {
        self.verdict == sighting.verdict
            && self.http.as_ref().map(|http| (http.method, http.shape.as_str())) == http
            && self.peer == *sighting.peer
            && self.port == *sighting.port
            && self.direction == sighting.direction
            && self.protocol == sighting.protocol
            && sighting.because.is(&self.because)
    }

    fn edge(&self, own: &ServiceName) -> Edge {
        let (source, destination) = match self.direction {
            Direction::Inbound => (&self.peer, own),
            Direction::Outbound => (own, &self.peer),
        };
        Edge {
            source: source.clone(),
            destination: destination.clone(),
            port: self.port.clone(),
            protocol: self.protocol,
            verdict: self.verdict,
            because: self.text.clone(),
            http: self.http.clone(),
        }
    }
}

impl Slot {
    fn add(&mut self, sighting: &Sighting<'_>) {
        let (counts, amounts) = (&mut self.counts, &sighting.amounts);
        counts.calls += amounts.calls;
        counts.errors += amounts.errors;
        counts.bytes_in += amounts.bytes_in;
        counts.bytes_out += amounts.bytes_out;
        if let Some(took) = amounts.took {
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            if let Some(count) = counts.latency.get_mut(usize::from(bucket_of(us))) {
                *count = count.saturating_add(1);
            }
        }
        if !self.is_touched {
            counts.first = sighting.at;
        }
        counts.last = sighting.at;
        self.last = sighting.at;
    }
}

impl Table {
    /// Counts it; with `tells` also as a single call.
    pub(super) fn count(&mut self, sighting: &Sighting<'_>, shapes: &Mutex<Shapes>, tells: bool) {
        let Some(at) = self.place_of(sighting, shapes) else {
            self.left_out += sighting.amounts.calls;
            if tells {
                self.decisions.leave_out();
            }
            return;
        };
        let slot = &mut self.slots[at];
        slot.add(sighting);
        if !mem::replace(&mut slot.is_touched, true) {
            self.touched.push(at);
        }
        if tells {
            let path = sighting.http.map_or("", |http| cut(http.path, MOST_PATH_BYTES));
            let (method, status) = sighting.http.map_or((None, 0), |http| (Some(http.method), http.status));
            let hash = self.hasher.hash_one((at, method, path, status));
            self.decisions.add(hash, at, method, path, status, sighting.at);
        }
    }

    /// The slot of its edge, or of the one that takes in what has no room.
    fn place_of(&mut self, sighting: &Sighting<'_>, shapes: &Mutex<Shapes>) -> Option<usize> {
        let Some(http) = sighting.http else {
            let found = self.found(sighting, None);
            return found.or_else(|| self.enter(sighting, None, Takes::Edge)).or_else(|| self.enter(sighting, None, Takes::Rest));
        };
        let mut shape = mem::take(&mut self.shape);
        shape.clear();
        write_shape(http.path, &mut shape);
        let found = self.found(sighting, Some((http.method, &shape)));
        let place = found.or_else(|| {
            let admitted = shapes.lock().admit(&shape, sighting.verdict.went_through(), sighting.at);
            match admitted {
                Some(shape) => self.enter(sighting, Some((http.method, shape)), Takes::Edge),
                None => self
                    .found(sighting, Some((http.method, REST)))
                    .or_else(|| self.enter(sighting, Some((http.method, Shape::rest())), Takes::Edge)),
            }
        });
        self.shape = shape;
        place
            .or_else(|| self.found(sighting, Some((Method::Other, REST))))
            .or_else(|| self.enter(sighting, Some((Method::Other, Shape::rest())), Takes::Rest))
    }

    fn found(&self, sighting: &Sighting<'_>, http: Option<(Method, &str)>) -> Option<usize> {
        let hash = self.hash_of(sighting, http);
        self.places.find(hash, |at| self.slots[*at].kept.is(sighting, http)).copied()
    }

    fn hash_of(&self, sighting: &Sighting<'_>, http: Option<(Method, &str)>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        (sighting.direction, sighting.peer, sighting.port, sighting.verdict, http).hash(&mut hasher);
        sighting.because.hash(&mut hasher);
        hasher.finish()
    }

    /// Takes room for a new edge, where there is any.
    fn enter(&mut self, sighting: &Sighting<'_>, http: Option<(Method, Shape)>, takes: Takes) -> Option<usize> {
        let mut of_peer = self.of_peer.get(sighting.peer).copied().unwrap_or_default();
        let (most, most_of_peer) = match takes {
            Takes::Edge => (MOST_EDGES, MOST_EDGES_OF_PEER),
            Takes::Rest => (MOST_RESTS, MOST_RESTS_OF_PEER),
        };
        if *self.room.of(takes) >= most || *of_peer.of(takes) >= most_of_peer {
            return None;
        }
        *self.room.of(takes) += 1;
        *of_peer.of(takes) += 1;
        self.of_peer.insert(sighting.peer.clone(), of_peer);
        Some(self.insert(sighting, http, takes))
    }

    fn insert(&mut self, sighting: &Sighting<'_>, http: Option<(Method, Shape)>, takes: Takes) -> usize {
        let hash = self.hash_of(sighting, http.as_ref().map(|(method, shape)| (*method, shape.as_str())));
        let path = sighting.http.map(|call| call.path);
        let sample = http.as_ref().filter(|(_, shape)| shape.as_str() != REST).and(path);
        let kept = Kept {
            direction: sighting.direction,
            peer: sighting.peer.clone(),
            port: sighting.port.clone(),
            protocol: sighting.protocol,
            verdict: sighting.verdict,
            because: sighting.because.to_kept(),
            text: cut(&sighting.because.to_string(), MOST_BECAUSE_BYTES).into(),
            http: http.map(|(method, shape)| HttpPart { method, shape }),
        };
        let at = self.slots.insert(Slot {
            hash,
            takes,
            kept,
            counts: Counts::nothing(sighting.at),
            is_touched: false,
            last: sighting.at,
            sample: sample.map(|path| path_to_keep(path).into()),
            sample_told: 0,
        });
        let slots = &self.slots;
        self.places.insert_unique(hash, at, |at| slots[*at].hash);
        at
    }
}

/// For the reports.
impl Table {
    /// Takes what was counted of at most `most` edges. `stream` is the number of the stream that is told it.
    pub(super) fn take(&mut self, own: &ServiceName, stream: u64, most: usize, taken: &mut Vec<Taken>) {
        let from = self.touched.len().saturating_sub(most);
        for at in self.touched.drain(from..) {
            let slot = &mut self.slots[at];
            slot.is_touched = false;
            let counts = mem::replace(&mut slot.counts, Counts::nothing(slot.last));
            let is_told = mem::replace(&mut slot.sample_told, stream) == stream;
            let sample = slot.sample.as_ref().filter(|_| !is_told).cloned();
            taken.push(Taken { edge: slot.kept.edge(own), direction: slot.kept.direction, counts, sample });
        }
    }

    /// Whether something was counted that was not taken.
    pub(super) fn has_more(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Calls that no edge had room for, since this was asked.
    pub(super) fn take_left_out(&mut self) -> u64 {
        mem::take(&mut self.left_out)
    }

    /// Takes the single calls with what their edges are, and how many there was no room for.
    pub(super) fn take_decisions(&mut self) -> (Vec<(Kept, DecisionOf)>, u64) {
        let (decisions, left_out) = self.decisions.take();
        // An edge stays as long as a decision names it.
        let with_edge = |decision: DecisionOf| Some((self.slots.get(decision.edge)?.kept.clone(), decision));
        (decisions.into_iter().filter_map(with_edge).collect(), left_out)
    }

    /// Makes room of edges that nothing was counted of for so long.
    pub(super) fn forget_unused(&mut self, now: Instant, unused: Duration) {
        let Self { slots, places, room, of_peer, decisions, .. } = self;
        slots.retain(|at, slot| {
            let is_unused = now.saturating_duration_since(slot.last) >= unused;
            if slot.is_touched || !is_unused || decisions.name(at) {
                return true;
            }
            if let Ok(place) = places.find_entry(slot.hash, |of| *of == at) {
                place.remove();
            }
            *room.of(slot.takes) -= 1;
            if let Some(taken) = of_peer.get_mut(&slot.kept.peer) {
                *taken.of(slot.takes) -= 1;
                if *taken == Room::default() {
                    of_peer.remove(&slot.kept.peer);
                }
            }
            false
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

/// The longest shape is written without growing.
pub(super) fn empty() -> Table {
    Table { shape: String::with_capacity(MOST_SHAPE_BYTES), ..Table::default() }
}
