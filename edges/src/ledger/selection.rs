//! What is asked of a ledger, and what it answers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use postern_names::ServiceName;

use super::open::OpenKey;
use super::recent::Window;
use crate::{Edge, HttpPart, Shape, Sighting, Tally, Verdict};

/// Which edges are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Calls of or to this service.
    pub service: Option<ServiceName>,
    /// Calls of this service.
    pub source: Option<ServiceName>,
    /// Calls to this service.
    pub destination: Option<ServiceName>,
    /// Calls that were judged so; empty: any.
    pub verdicts: Vec<Verdict>,
}

impl Filter {
    /// Whether an edge is asked for.
    pub fn takes(&self, edge: &Edge) -> bool {
        self.takes_call(&edge.source, &edge.destination, edge.verdict)
    }

    /// Whether a call is asked for.
    pub fn takes_call(&self, source: &ServiceName, destination: &ServiceName, verdict: Verdict) -> bool {
        let is = |wanted: &Option<ServiceName>, name: &ServiceName| wanted.as_ref().is_none_or(|wanted| wanted == name);
        (is(&self.service, source) || is(&self.service, destination))
            && is(&self.source, source)
            && is(&self.destination, destination)
            && (self.verdicts.is_empty() || self.verdicts.contains(&verdict))
    }
}

/// What one row stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// One edge.
    #[default]
    Edge,
    /// All methods and shapes of a pair, port, protocol, verdict and reason.
    Pair,
}

impl By {
    /// What stands for an edge.
    fn row_of(self, edge: &Arc<Edge>) -> Arc<Edge> {
        match self {
            Self::Pair if edge.http.is_some() => Arc::new(Edge { http: None, ..Edge::clone(edge) }),
            Self::Pair | Self::Edge => Arc::clone(edge),
        }
    }
}

/// What was seen of an edge in the time that was asked for, and what is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What was counted.
    pub sighting: Sighting,
    /// The last half minute of it.
    pub recent: Window,
    /// Open now. Where an edge was judged in several ways, all that is open counts to the one that was seen last.
    pub open: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The begin of the first period that was looked at.
    pub since: SystemTime,
    /// By destination, source and the rest of the edge.
    pub edges: Vec<Seen>,
}

/// Rows that are being added up.
#[derive(Default)]
pub(super) struct Sums {
    rows: BTreeMap<Arc<Edge>, Sum>,
    edges: BTreeSet<Arc<Edge>>,
}

struct Sum {
    tally: Tally,
    recent: Window,
    instances: BTreeSet<u32>,
    told_before: usize,
}

/// What is known of an edge beside its counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) sample: Option<Arc<str>>,
    /// Hashes of the instances that told it since the start.
    pub(super) instances: BTreeSet<u32>,
    /// How many had told it before.
    pub(super) told_before: usize,
    /// Periods that count it.
    pub(super) periods: usize,
}

impl Sums {
    pub(super) fn add(&mut self, by: By, edge: &Arc<Edge>, tally: &Tally) {
        self.edges.insert(Arc::clone(edge));
        let fresh = || {
            let mut fresh = Tally::new(tally.first_seen);
            fresh.last_seen = tally.last_seen;
            Sum { tally: fresh, recent: Window::default(), instances: BTreeSet::new(), told_before: 0 }
        };
        self.rows.entry(by.row_of(edge)).or_insert_with(fresh).tally.merge(tally);
    }

    /// The edges that were added.
    pub(super) fn take_edges(&mut self) -> BTreeSet<Arc<Edge>> {
        std::mem::take(&mut self.edges)
    }

    /// Adds what is known of an edge that was added.
    pub(super) fn know(&mut self, by: By, edge: &Arc<Edge>, known: &Known, recent: &Window) {
        let Some(sum) = self.rows.get_mut(&by.row_of(edge)) else { return };
        sum.recent.merge(recent);
        sum.instances.extend(&known.instances);
        sum.told_before = sum.told_before.max(known.told_before);
        if sum.tally.sample.is_none() {
            sum.tally.sample.clone_from(&known.sample);
        }
    }

    /// Folds the shapes of a destination that are called least, where there are too many, into the rest.
    pub(super) fn fold_shapes(&mut self, most: usize) {
        let mut calls: HashMap<ServiceName, HashMap<Shape, u64>> = HashMap::new();
        for (edge, sum) in &self.rows {
            let Some(http) = &edge.http else { continue };
            let of = calls.entry(edge.destination.clone()).or_default().entry(http.shape.clone()).or_default();
            *of = of.saturating_add(sum.tally.count);
        }
        let mut kept: HashMap<ServiceName, HashSet<Shape>> = HashMap::new();
        for (destination, shapes) in calls.into_iter().filter(|(_, shapes)| shapes.len() > most) {
            let mut ranked: Vec<_> = shapes.into_iter().filter(|(shape, _)| *shape != Shape::rest()).collect();
            ranked.sort_by(|(a, calls_a), (b, calls_b)| calls_b.cmp(calls_a).then_with(|| a.cmp(b)));
            kept.insert(destination, ranked.into_iter().take(most.saturating_sub(1)).map(|(shape, _)| shape).collect());
        }
        if kept.is_empty() {
            return;
        }
        for (edge, sum) in std::mem::take(&mut self.rows) {
            let folds = |http: &&HttpPart| kept.get(&edge.destination).is_some_and(|kept| !kept.contains(&http.shape));
            let edge = match edge.http.as_ref().filter(folds) {
                Some(http) => {
                    let http = HttpPart { method: http.method, shape: Shape::rest() };
                    Arc::new(Edge { http: Some(http), ..Edge::clone(&edge) })
                }
                None => edge,
            };
            self.put(edge, sum);
        }
    }

    fn put(&mut self, edge: Arc<Edge>, sum: Sum) {
        match self.rows.get_mut(&edge) {
            Some(of) => {
                of.tally.merge(&sum.tally);
                of.recent.merge(&sum.recent);
                of.instances.extend(sum.instances);
                of.told_before = of.told_before.max(sum.told_before);
            }
            None => {
                self.rows.insert(edge, sum);
            }
        }
    }

    /// The rows, with what is open.
    pub(super) fn into_rows(self, by: By, open: BTreeMap<OpenKey, u64>, most_instances: usize) -> Vec<Seen> {
        let row = |(edge, sum): (Arc<Edge>, Sum)| Seen {
            sighting: Sighting {
                edge: Edge::clone(&edge),
                tally: sum.tally,
                instances: sum.instances.len().max(sum.told_before).min(most_instances),
            },
            recent: sum.recent,
            open: 0,
        };
        let mut rows: Vec<Seen> = self.rows.into_iter().map(row).collect();
        let mut latest: HashMap<OpenKey, usize> = HashMap::new();
        let last_seen = |seen: &Seen| seen.sighting.tally.last_seen;
        for (at, seen) in rows.iter().enumerate().filter(|(_, seen)| seen.sighting.edge.verdict.went_through()) {
            let is_later = |other: &usize| rows.get(*other).is_none_or(|other| last_seen(other) <= last_seen(seen));
            let key = OpenKey::of(&seen.sighting.edge);
            if latest.get(&key).is_none_or(is_later) {
                latest.insert(key, at);
            }
        }
        for (key, count) in open {
            let at = match by {
                By::Edge => latest.get(&key).or_else(|| latest.get(&key.clone().with_rest())),
                By::Pair => latest.get(&OpenKey { http: None, ..key.clone() }),
            };
            if let Some(seen) = at.and_then(|at| rows.get_mut(*at)) {
                seen.open = seen.open.saturating_add(count);
            }
        }
        rows.sort_by(|a, b| {
            let (a, b) = (&a.sighting.edge, &b.sighting.edge);
            (&a.destination, a).cmp(&(&b.destination, b))
        });
        rows
    }
}
