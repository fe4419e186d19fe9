//! What a control plane keeps of the calls that its sidecars saw: by hour, then by day, bounded whatever comes.
//!
//! | bound | what goes beyond it |
//! |---|---|
//! | 20,000 edges a period, 2,000 of them told by one service | is counted as the rest of its pair, port, verdict and reason |
//! | 1,500 such rests a period, 200 of them told by one service | is counted in `left_out` |
//! | 200 shapes of a destination in a period, and in an answer | is counted under the shape `…` |
//! | 48 hours, then 30 days | the hours become days, the days go |
//! | 80 MiB in all | the oldest period goes |
//! | 100 instances of an edge | are not counted |
//!
//! The two hours that may still change are never forgotten: with all their edges at their largest they take less than 80 MiB.

mod open;
mod period;
mod recent;
mod selection;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use postern_names::{InstanceId, ServiceName};

pub use self::open::{MOST_OPEN_KINDS, OpenKey};
pub use self::period::{Period, UnknownPeriod};
use self::recent::Recent;
pub use self::recent::{RECENT, WINDOW, Window};
pub use self::selection::{By, Filter, Seen, Selection};
use self::selection::{Known, Sums};
use crate::{BUCKETS, Edge, HttpPart, MOST_BECAUSE_BYTES, MOST_SHAPE_BYTES, MOST_SHAPES, Method, Shape, Sighting, Tally};

/// What an edge costs in a period beside its texts and histogram: keys, counts, and the places that hold them.
const EDGE_BYTES: usize = 320;
const BUCKET_BYTES: usize = 16;
const INSTANCE_BYTES: usize = 4;
/// The longest sample.
const SAMPLE_BYTES: usize = 200;
/// The most that an edge costs in a period.
pub const MOST_EDGE_BYTES: usize =
    EDGE_BYTES + MOST_BECAUSE_BYTES + MOST_SHAPE_BYTES + SAMPLE_BYTES + BUCKETS as usize * BUCKET_BYTES + 100 * INSTANCE_BYTES;

/// Bounds of a [`Ledger`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Edges of a period.
    pub edges: usize,
    /// Edges of a period that one service tells.
    pub edges_of_service: usize,
    /// Rests of a period: each stands for what a pair, port, verdict and reason has no room for.
    pub rests: usize,
    /// Rests of a period that one service tells.
    pub rests_of_service: usize,
    /// Shapes of a destination.
    pub shapes: usize,
    /// Bytes of all periods; at least twice `edges` and `rests` at [`MOST_EDGE_BYTES`].
    pub bytes: usize,
    /// Hours that are kept as hours.
    pub hours: u32,
    /// Days that are kept after them, today included.
    pub days: u32,
    /// Instances of an edge that are counted.
    pub instances: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            edges: 20_000,
            edges_of_service: 2_000,
            rests: 1_500,
            rests_of_service: 200,
            shapes: MOST_SHAPES,
            bytes: 80 << 20,
            hours: 48,
            days: 30,
            instances: 100,
        }
    }
}

/// What changed, for whoever keeps it elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// A period is no longer kept.
    Gone(Period),
    /// Some edges of a pair in a period.
    Pair {
        /// When.
        period: Period,
        /// The called service.
        destination: ServiceName,
        /// The calling service.
        source: ServiceName,
    },
}

/// The edges of one period.
#[derive(Debug, Default)]
struct Page {
    tallies: BTreeMap<Arc<Edge>, Tally>,
    /// By source and destination.
    pairs: HashMap<(ServiceName, ServiceName), Vec<Arc<Edge>>>,
    tellers: HashMap<ServiceName, Room>,
    /// What all tellers take.
    room: Room,
    /// Those that are told apart, by destination.
    shapes: HashMap<ServiceName, HashSet<Shape>>,
    bytes: usize,
}

/// Places that are taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Room {
    edges: usize,
    rests: usize,
}

/// Which place an edge takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Edge,
    Rest,
}

/// What becomes of an edge for which its page has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// It is counted as the rest of its pair.
    IsRest,
    /// It was counted before: it takes any place as it is.
    StaysItself,
}

/// Counts of edges, by period. See the module for its bounds.
#[derive(Debug, Default)]
pub struct Ledger {
    bounds: Bounds,
    pages: BTreeMap<Period, Page>,
    known: BTreeMap<Arc<Edge>, Known>,
    recent: Recent,
    open: open::Open,
    /// Of `pages` and `known`.
    bytes: usize,
    left_out: u64,
    changed: BTreeSet<Changed>,
}

impl Ledger {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Counts what an instance of `teller` told of an edge. Whether there was room; where not, it is counted as left out.
    ///
    /// It counts to the hour of its last call, but not to one before the last: what comes later than that was held up.
    pub fn record(&mut self, teller: &ServiceName, instance: &InstanceId, edge: Edge, tally: &Tally, now: SystemTime) -> bool {
        let present = Period::hour_of(now);
        let period = Period::hour_of(tally.last_seen).clamp(present.before(1), present);
        let Some(edge) = self.count(period, teller, edge, tally, Beyond::IsRest) else { return false };
        self.recent.record(&edge, tally, now);
        let bounds = &self.bounds;
        if let Some(known) = self.known.get_mut(&edge)
            && known.instances.len() < bounds.instances
            && known.instances.insert(hash_of(instance.as_str()))
        {
            self.bytes += INSTANCE_BYTES;
        }
        self.changed.insert(changed_pair(period, &edge));
        self.make_room(now);
        true
    }

    /// Takes in what was kept elsewhere. `false` where there is no room.
    pub fn restore(&mut self, period: Period, kept: Sighting) -> bool {
        let Sighting { edge, tally, instances } = kept;
        let teller = edge.destination.clone();
        let Some(edge) = self.count(period, &teller, edge, &tally, Beyond::StaysItself) else { return false };
        if let Some(known) = self.known.get_mut(&edge) {
            known.told_before = known.told_before.max(instances);
        }
        true
    }

    /// Counts on the page of a period. Gives the edge that it was counted as.
    fn count(
        &mut self,
        period: Period,
        teller: &ServiceName,
        mut edge: Edge,
        tally: &Tally,
        beyond: Beyond,
    ) -> Option<Arc<Edge>> {
        let bounds = &self.bounds;
        let page = self.pages.entry(period).or_default();
        page.fold_shape(&mut edge, bounds.shapes);
        let before = page.bytes;
        let takes = page.place_of(&mut edge, teller, bounds, beyond);
        let edge = match (page.tallies.get_key_value(&edge), takes) {
            (Some((edge, _)), _) => Arc::clone(edge),
            (None, None) => {
                self.left_out = self.left_out.saturating_add(tally.count);
                return None;
            }
            (None, Some(takes)) => {
                let edge = match self.known.get_key_value(&edge) {
                    Some((edge, _)) => Arc::clone(edge),
                    None => Arc::new(edge),
                };
                self.known.entry(Arc::clone(&edge)).or_default().periods += 1;
                page.begin(&edge, teller, tally, takes);
                edge
            }
        };
        page.add(&edge, tally);
        self.bytes += page.bytes - before;
        if let Some(known) = self.known.get_mut(&edge)
            && known.sample.is_none()
        {
            known.sample.clone_from(&tally.sample);
        }
        Some(edge)
    }

    /// Time goes on: hours become days, and what is too old goes.
    pub fn roll(&mut self, now: SystemTime) {
        self.recent.forget(now);
        let present = Period::hour_of(now);
        let (first_hour, first_day) = (present.before(self.bounds.hours), present.day().before(self.bounds.days));
        let old = |period: &&Period| period.is_hour() && period.start() < first_hour.start();
        for hour in self.pages.keys().filter(old).copied().collect::<Vec<_>>() {
            self.fold(hour);
        }
        let too_old = |period: &&Period| period.start() < first_day.start();
        for period in self.pages.keys().filter(too_old).copied().collect::<Vec<_>>() {
            self.forget(period);
        }
        self.make_room(now);
    }

    /// Adds an hour to its day.
    fn fold(&mut self, hour: Period) {
        let tallies = self.pages.get(&hour).map(|page| page.tallies.clone()).unwrap_or_default();
        for (edge, tally) in tallies {
            // Whoever told it is not known any more; the bound of the page holds.
            if let Some(counted) = self.count(hour.day(), &edge.destination, Edge::clone(&edge), &tally, Beyond::IsRest) {
                if counted != edge {
                    self.inherit(&counted, &edge);
                }
                self.changed.insert(changed_pair(hour.day(), &counted));
            }
        }
        self.forget(hour);
    }

    /// An edge of which another becomes a part was told by its instances, too.
    fn inherit(&mut self, edge: &Arc<Edge>, part: &Arc<Edge>) {
        let Some(Known { instances, told_before, .. }) = self.known.get(part).cloned() else { return };
        let Some(known) = self.known.get_mut(edge) else { return };
        known.told_before = known.told_before.max(told_before);
        for instance in instances {
            if known.instances.len() < self.bounds.instances && known.instances.insert(instance) {
                self.bytes += INSTANCE_BYTES;
            }
        }
    }

    fn make_room(&mut self, now: SystemTime) {
        let present = Period::hour_of(now);
        while self.bytes > self.bounds.bytes {
            let oldest = self.pages.keys().find(|period| period.end() <= present.before(1).start()).copied();
            let Some(oldest) = oldest else { return };
            self.forget(oldest);
        }
    }

    fn forget(&mut self, period: Period) {
        let Some(page) = self.pages.remove(&period) else { return };
        self.bytes -= page.bytes;
        for edge in page.tallies.into_keys() {
            let Some(known) = self.known.get_mut(&edge) else { continue };
            known.periods -= 1;
            if known.periods == 0 {
                self.bytes -= known.instances.len() * INSTANCE_BYTES;
                self.known.remove(&edge);
            }
        }
        self.changed.retain(|changed| !matches!(changed, Changed::Pair { period: of, .. } if *of == period));
        self.changed.insert(Changed::Gone(period));
    }

    /// What is open at the sidecar whose stream has this number, in place of what it told before.
    pub fn set_open(&mut self, teller: u64, calls: Vec<(OpenKey, u64)>) {
        self.left_out = self.left_out.saturating_add(self.open.set(teller, calls));
    }

    /// A stream ended: nothing is known of what is open there.
    pub fn forget_open(&mut self, teller: u64) {
        self.open.forget(teller);
    }

    /// All that is open now.
    pub fn open_calls(&self) -> BTreeMap<OpenKey, u64> {
        self.open.sum()
    }

    /// The edges that were called since a time, as far as the periods tell: of the first one all is counted.
    pub fn select(&self, filter: &Filter, since: SystemTime, by: By, now: SystemTime) -> Selection {
        self.sum(since, by, now, |page, sums| {
            let wanted = page.tallies.iter().filter(|(edge, tally)| tally.last_seen >= since && filter.takes(edge));
            wanted.for_each(|(edge, tally)| sums.add(by, edge, tally));
        })
    }

    /// The same for these edges alone.
    pub fn select_among(&self, edges: &BTreeSet<Edge>, since: SystemTime, now: SystemTime) -> Selection {
        self.sum(since, By::Edge, now, |page, sums| {
            let wanted = edges.iter().filter_map(|edge| page.tallies.get_key_value(edge));
            wanted.filter(|(_, tally)| tally.last_seen >= since).for_each(|(edge, tally)| sums.add(By::Edge, edge, tally));
        })
    }

    fn sum(&self, since: SystemTime, by: By, now: SystemTime, add: impl Fn(&Page, &mut Sums)) -> Selection {
        let mut sums = Sums::default();
        let mut began = since;
        for (period, page) in self.pages.iter().filter(|(period, _)| period.end() > since) {
            began = began.min(period.start());
            add(page, &mut sums);
        }
        for edge in sums.take_edges() {
            if let Some(known) = self.known.get(&edge) {
                sums.know(by, &edge, known, &self.recent.of(&edge, now));
            }
        }
        sums.fold_shapes(self.bounds.shapes);
        Selection { since: began, edges: sums.into_rows(by, self.open.sum(), self.bounds.instances) }
    }

    /// The begin of the first period that is kept.
    pub fn kept_since(&self) -> Option<SystemTime> {
        self.pages.keys().map(|period| period.start()).min()
    }

    /// Edges that were called in the last half minute, or have calls open.
    pub fn lively(&self) -> BTreeSet<Edge> {
        let mut lively: BTreeSet<&Arc<Edge>> = self.recent.edges().filter(|edge| self.known.contains_key(*edge)).collect();
        let open = self.open.sum();
        if !open.is_empty() {
            lively.extend(self.known.keys().filter(|edge| open.contains_key(&OpenKey::of(edge))));
        }
        lively.into_iter().map(|edge| Edge::clone(edge)).collect()
    }

    /// At most `most` of what changed since it was taken, the oldest first.
    pub fn take_changed(&mut self, most: usize) -> Vec<Changed> {
        std::iter::from_fn(|| self.changed.pop_first()).take(most).collect()
    }

    /// What was taken and could not be kept elsewhere changed all the same.
    pub fn put_back(&mut self, changed: Vec<Changed>) {
        for changed in changed {
            let is_kept = |period: &Period| self.pages.contains_key(period);
            match &changed {
                Changed::Pair { period, .. } if !is_kept(period) => {}
                _ => drop(self.changed.insert(changed)),
            }
        }
    }

    /// The edges of a pair in a period.
    pub fn pair(&self, period: Period, source: &ServiceName, destination: &ServiceName) -> Vec<Sighting> {
        let Some(page) = self.pages.get(&period) else { return Vec::new() };
        let of_pair = page.pairs.get(&(source.clone(), destination.clone())).into_iter().flatten();
        let of_pair = of_pair.filter_map(|edge| page.tallies.get_key_value(edge));
        let kept = |(edge, tally): (&Arc<Edge>, &Tally)| {
            let known = self.known.get(edge);
            let sample = known.and_then(|known| known.sample.clone());
            let instances = known.map_or(0, |known| known.instances.len().max(known.told_before));
            Sighting { edge: Edge::clone(edge), tally: Tally { sample, ..tally.clone() }, instances }
        };
        of_pair.map(kept).collect()
    }

    /// Different edges that are kept.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How much changed since it was taken.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Calls that there was no room for, since the start.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Counts calls that others had no room for.
    pub fn leave_out(&mut self, count: u64) {
        self.left_out = self.left_out.saturating_add(count);
    }
}

impl Page {
    /// A shape that there is no room for becomes the rest.
    fn fold_shape(&mut self, edge: &mut Edge, most: usize) {
        let Some(HttpPart { shape, .. }) = &mut edge.http else { return };
        let shapes = self.shapes.entry(edge.destination.clone()).or_default();
        if *shape == Shape::rest() || shapes.contains(shape) {
            return;
        }
        // The rest is one of them.
        if shapes.len() + 1 < most {
            shapes.insert(shape.clone());
        } else {
            *shape = Shape::rest();
        }
    }

    /// The place that an edge takes if it is not there yet; one that there is no room for becomes the rest of its pair.
    fn place_of(&self, edge: &mut Edge, teller: &ServiceName, bounds: &Bounds, beyond: Beyond) -> Option<Takes> {
        let of_teller = self.tellers.get(teller).copied().unwrap_or_default();
        let has_room = self.room.edges < bounds.edges && of_teller.edges < bounds.edges_of_service;
        let is_full = self.tallies.len() >= bounds.edges + bounds.rests;
        let has_rest = !is_full && self.room.rests < bounds.rests && of_teller.rests < bounds.rests_of_service;
        let rest = has_rest.then_some(Takes::Rest);
        let place = has_room.then_some(Takes::Edge);
        let preferred = if edge.is_rest() { rest.or(place) } else { place };
        if preferred.is_some() || edge.is_rest() && beyond == Beyond::IsRest {
            return preferred;
        }
        if beyond == Beyond::StaysItself {
            // It had a place, and whoever told it is not known any more.
            return rest.or_else(|| (!is_full).then_some(Takes::Edge));
        }
        let stays = edge.http.is_none() || self.tallies.contains_key(edge);
        if !stays {
            edge.http = Some(HttpPart { method: Method::Other, shape: Shape::rest() });
        }
        rest
    }

    fn begin(&mut self, edge: &Arc<Edge>, teller: &ServiceName, tally: &Tally, takes: Takes) {
        for room in [&mut self.room, self.tellers.entry(teller.clone()).or_default()] {
            match takes {
                Takes::Edge => room.edges += 1,
                Takes::Rest => room.rests += 1,
            }
        }
        self.bytes += fixed_bytes(edge);
        let pair = (edge.source.clone(), edge.destination.clone());
        self.pairs.entry(pair).or_default().push(Arc::clone(edge));
        let mut first = Tally::new(tally.first_seen);
        first.last_seen = tally.last_seen;
        self.tallies.insert(Arc::clone(edge), first);
    }

    fn add(&mut self, edge: &Arc<Edge>, tally: &Tally) {
        let Some(sum) = self.tallies.get_mut(edge) else { return };
        let before = sum.latency.iter().count();
        sum.merge(tally);
        // It is kept once for all periods.
        sum.sample = None;
        self.bytes += (sum.latency.iter().count() - before) * BUCKET_BYTES;
    }
}

fn fixed_bytes(edge: &Edge) -> usize {
    let shape = edge.http.as_ref().map_or(0, |http| http.shape.as_str().len() + SAMPLE_BYTES);
    EDGE_BYTES + edge.because.len() + shape
}

fn changed_pair(period: Period, edge: &Edge) -> Changed {
    Changed::Pair { period, destination: edge.destination.clone(), source: edge.source.clone() }
}

/// FNV-1a, folded: the same everywhere, and good enough to count up to 100 names.
fn hash_of(text: &str) -> u32 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
