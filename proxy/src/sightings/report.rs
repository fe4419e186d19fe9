//! What is told of it, message by message.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_api::seen::{MOST_DECISIONS, MOST_EDGES as MOST_EDGES_OF_MESSAGE, edge_to_wire, path_to_keep};
use postern_api::v1;
use postern_edges::{Edge, Histogram, Tally};
use prost::Message;
use tokio::time::Instant;

use super::counter::Sightings;
use super::decisions::DecisionOf;
use super::table::{Counts, Kept, Taken};
use crate::metrics::{Direction, Metrics};

/// Edges that are taken from a worker in one go: it cannot count meanwhile.
const AT_ONCE: usize = 128;
/// Edges that wait for room on the stream; while there are more, none are taken from the workers.
const MOST_WAITING: usize = 4_000;
/// Messages of one report; what they have no room for waits for the next one.
const MOST_MESSAGES: usize = 2;
/// The longest message, apart from its last edge.
const MOST_BYTES: usize = 256 * 1_024;
/// Edges and shapes that nothing was counted of for so long make room for others.
const UNUSED: Duration = Duration::from_secs(600);
/// How often those are looked for.
const FORGETTING: Duration = Duration::from_secs(60);

/// Takes what workers have counted and puts it into messages.
#[derive(Debug)]
pub struct Reports {
    sightings: Arc<Sightings>,
    metrics: Arc<Metrics>,
    /// Taken, and not told yet.
    waiting: HashMap<(Direction, Edge), Tally>,
    /// Their keys, the one that waits the longest first.
    queue: VecDeque<(Direction, Edge)>,
    /// Counts up with each stream.
    stream: u64,
    tells_open: bool,
    forget_at: Instant,
}

impl Reports {
    /// Of what is counted there.
    pub fn new(sightings: Arc<Sightings>, metrics: Arc<Metrics>) -> Self {
        let forget_at = Instant::now() + FORGETTING;
        let (waiting, queue) = (HashMap::new(), VecDeque::new());
        Self { sightings, metrics, waiting, queue, stream: 0, tells_open: false, forget_at }
    }

    /// Where it is counted.
    pub(crate) fn sightings(&self) -> &Arc<Sightings> {
        &self.sightings
    }

    /// A new stream begins, which was told nothing.
    pub fn begin_stream(&mut self) {
        self.stream += 1;
        self.tells_open = true;
    }

    /// What is to be told now, in at most `most` messages and never more than two; what they have no room for is told the
    /// next time.
    pub fn messages(&mut self, most: usize) -> Vec<v1::Seen> {
        let most = most.min(MOST_MESSAGES);
        if most == 0 {
            return Vec::new();
        }
        self.gather();
        let now = SystemTime::now();
        let mut first = self.decisions().unwrap_or_default();
        let open = self.sightings.open();
        // An empty list is told once: nothing is open any more.
        first.tells_open = std::mem::replace(&mut self.tells_open, !open.is_empty()) || !open.is_empty();
        first.open = open;
        first.edges = self.some_edges(now);
        let mut messages = vec![first];
        while messages.len() < most && !self.waiting.is_empty() {
            messages.push(v1::Seen { edges: self.some_edges(now), ..v1::Seen::default() });
        }
        messages.retain(|seen| *seen != v1::Seen::default());
        messages.iter().for_each(|seen| self.metrics.edges_told(seen.edges.len(), seen.encoded_len()));
        messages
    }

    /// The single calls that are to be told now, if there are any.
    pub fn decisions(&mut self) -> Option<v1::Seen> {
        self.sightings.is_not_urgent();
        let now = Instant::now();
        let mut told = v1::Seen::default();
        let counters = self.sightings.counters.lock().clone();
        for counter in counters {
            let (decisions, left_out) = counter.table.lock().take_decisions();
            told.decisions_left_out = told.decisions_left_out.saturating_add(left_out);
            for (kept, decision) in decisions {
                if told.decisions.len() < MOST_DECISIONS {
                    told.decisions.push(decision_to_wire(&kept, &decision, now));
                } else {
                    told.decisions_left_out = told.decisions_left_out.saturating_add(decision.count.into());
                }
            }
        }
        (told != v1::Seen::default()).then_some(told)
    }

    fn gather(&mut self) {
        let now = Instant::now();
        let counters = self.sightings.counters.lock().clone();
        let mut taken = Vec::with_capacity(AT_ONCE);
        for counter in &counters {
            let left_out = counter.table.lock().take_left_out();
            self.metrics.edges_left_out(left_out);
            let mut has_more = true;
            while has_more && self.waiting.len() < MOST_WAITING {
                let mut table = counter.table.lock();
                table.take(&self.sightings.common.own, self.stream, AT_ONCE, &mut taken);
                has_more = table.has_more();
                drop(table);
                taken.drain(..).for_each(|taken| self.wait(taken, now));
            }
        }
        if now >= self.forget_at {
            self.forget_at = now + FORGETTING;
            counters.iter().for_each(|counter| counter.table.lock().forget_unused(now, UNUSED));
            self.sightings.common.shapes.lock().forget_unused(now, UNUSED);
        }
    }

    fn wait(&mut self, taken: Taken, now: Instant) {
        if let Some(http) = &taken.edge.http {
            self.sightings.common.shapes.lock().touch(&http.shape, taken.counts.last);
        }
        let tally = tally_of(&taken.counts, taken.sample, now);
        match self.waiting.entry((taken.direction, taken.edge)) {
            Entry::Occupied(mut waits) => waits.get_mut().merge(&tally),
            Entry::Vacant(place) => {
                self.queue.push_back(place.key().clone());
                place.insert(tally);
            }
        }
    }

    /// As many of those that wait as one message holds.
    fn some_edges(&mut self, now: SystemTime) -> Vec<v1::SeenEdge> {
        let mut bytes = 0;
        let mut some = Vec::new();
        while some.len() < MOST_EDGES_OF_MESSAGE
            && bytes < MOST_BYTES
            && let Some(key) = self.queue.pop_front()
        {
            let Some(tally) = self.waiting.remove(&key) else { continue };
            let edge = edge_to_wire(&key.1, key.0 == Direction::Outbound, &tally, now);
            bytes += edge.encoded_len();
            some.push(edge);
        }
        some
    }
}

fn tally_of(counts: &Counts, sample: Option<Arc<str>>, now: Instant) -> Tally {
    let wall = SystemTime::now();
    let time = |at: Instant| wall.checked_sub(now.saturating_duration_since(at)).unwrap_or(wall);
    let mut latency = Histogram::default();
    for (bucket, count) in (0u8..).zip(counts.latency) {
        latency.add(bucket, count.into());
    }
    Tally {
        count: counts.calls,
        errors: counts.errors,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        latency,
        first_seen: time(counts.first),
        last_seen: time(counts.last),
        sample,
    }
}

fn decision_to_wire(kept: &Kept, decision: &DecisionOf, now: Instant) -> v1::SeenDecision {
    let ago = now.saturating_duration_since(decision.at).as_millis();
    v1::SeenDecision {
        ago_ms: u32::try_from(ago).unwrap_or(u32::MAX),
        peer: kept.peer.to_string(),
        outbound: kept.direction == Direction::Outbound,
        port: kept.port.to_string(),
        protocol: kept.protocol.as_str().to_owned(),
        verdict: kept.verdict.as_str().to_owned(),
        because: kept.text.to_string(),
        method: decision.method.map(|method| method.as_str().to_owned()).unwrap_or_default(),
        path: path_to_keep(&decision.path),
        status: decision.status.into(),
        count: decision.count,
    }
}
