//! What was told of calls, in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postern_api::http::SeenDecision;
use postern_api::seen::{self, MOST_DECISIONS, MOST_EDGES, MOST_OPEN, NotTaken};
use postern_api::v1;
use postern_edges::{By, Edge, Filter, Ledger, OpenKey, Selection, Sighting};
use postern_names::{InstanceId, ServiceName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::allowance::Allowance;
use super::decision;
use super::lately::Lately;

/// Decisions that a follower may fall behind before it is told that it lagged.
const FOLLOWER_BACKLOG: usize = 2_048;
/// Followers at once.
const FOLLOWERS: usize = 100;
/// How often is looked for what has become too old.
const ROLL: Duration = Duration::from_secs(5);

/// Who tells.
#[derive(Debug, Clone)]
pub struct Teller {
    /// The number of its stream.
    pub stream: u64,
    /// The service in its SVID.
    pub service: ServiceName,
    /// Its instance.
    pub instance: InstanceId,
}

/// What `/metrics` tells of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TrafficCounts {
    /// Edges that are kept.
    pub edges: u64,
    /// Bytes that they take, about.
    pub bytes: u64,
    /// Calls that there was no room for.
    pub left_out: u64,
    /// Decisions that were told.
    pub decisions: u64,
    /// Decisions that there was no room for, here or at a sidecar.
    pub decisions_left_out: u64,
    /// Edges, open calls and decisions that could not be.
    pub refused: u64,
    /// Whoever follows at the moment.
    pub followers: u64,
}

/// What the sidecars of a mesh see.
pub struct Traffic {
    ledger: Mutex<Ledger>,
    lately: Mutex<Lately>,
    decisions: broadcast::Sender<Arc<SeenDecision>>,
    places: Arc<Semaphore>,
    decisions_told: AtomicU64,
    decisions_left_out: AtomicU64,
    refused: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
}

impl Traffic {
    /// Nothing seen yet. Needs a runtime: what becomes too old goes by itself until this is dropped.
    pub fn start() -> Arc<Self> {
        let traffic = Arc::new(Self {
            ledger: Mutex::default(),
            lately: Mutex::default(),
            decisions: broadcast::Sender::new(FOLLOWER_BACKLOG),
            places: Arc::new(Semaphore::new(FOLLOWERS)),
            decisions_told: AtomicU64::new(0),
            decisions_left_out: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            tasks: Mutex::default(),
        });
        let weak = Arc::downgrade(&traffic);
        traffic.tasks.lock().spawn(async move {
            loop {
                tokio::time::sleep(ROLL).await;
                let Some(traffic) = weak.upgrade() else { return };
                traffic.ledger.lock().roll(SystemTime::now());
            }
        });
        traffic
    }

    /// Takes in what a sidecar tells, as far as it may tell it. What cannot be is counted, one by one.
    pub fn take(&self, teller: &Teller, allowance: &mut Allowance, told: v1::Seen, now: SystemTime) {
        let at = Instant::now();
        self.take_edges(teller, allowance.edges(told.edges.len().min(MOST_EDGES), at), &told.edges, now);
        if told.tells_open {
            self.take_open(teller, allowance.open(told.open.len().min(MOST_OPEN), at), &told.open);
        }
        let taken = allowance.decisions(told.decisions.len().min(MOST_DECISIONS), at);
        self.take_decisions(teller, taken, &told.decisions, now);
        self.decisions_left_out.fetch_add(told.decisions_left_out, Ordering::Relaxed);
    }

    fn take_edges(&self, teller: &Teller, taken: usize, told: &[v1::SeenEdge], now: SystemTime) {
        let (taken, left) = told.split_at(taken);
        let mut ledger = self.ledger.lock();
        for wire in taken {
            match seen::edge_from_wire(&teller.service, wire, now) {
                Ok((edge, tally)) => drop(ledger.record(&teller.service, &teller.instance, edge, &tally, now)),
                Err(why) => self.refuse(teller, &why),
            }
        }
        ledger.leave_out(left.iter().fold(0, |sum, edge| sum.saturating_add(edge.count)));
    }

    fn take_open(&self, teller: &Teller, taken: usize, told: &[v1::OpenCalls]) {
        let mut calls = Vec::with_capacity(taken);
        for wire in told.iter().take(taken) {
            match open_from_wire(teller, wire) {
                Ok(key) => calls.push((key, u64::from(wire.count))),
                Err(why) => self.refuse(teller, &why),
            }
        }
        self.ledger.lock().set_open(teller.stream, calls);
    }

    fn take_decisions(&self, teller: &Teller, taken: usize, told: &[v1::SeenDecision], now: SystemTime) {
        let (taken, left) = told.split_at(taken);
        for wire in taken {
            match decision::from_wire(teller, wire, now) {
                Ok(decision) => self.decided(decision),
                Err(why) => self.refuse(teller, &why),
            }
        }
        self.decisions_left_out.fetch_add(left.len() as u64, Ordering::Relaxed);
    }

    fn decided(&self, decision: SeenDecision) {
        let decision = Arc::new(decision);
        self.decisions_told.fetch_add(decision.count.into(), Ordering::Relaxed);
        self.lately.lock().add(Arc::clone(&decision));
        // Nobody follows: fine.
        let _ = self.decisions.send(decision);
    }

    fn refuse(&self, teller: &Teller, why: &NotTaken) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(instance = %teller.instance, %why, "something seen was not taken");
    }

    /// The stream of this number ended: nothing is known to be open there.
    pub fn ended(&self, stream: u64) {
        self.ledger.lock().forget_open(stream);
    }

    /// The edges that were called since a time.
    pub fn select(&self, filter: &Filter, since: SystemTime, by: By) -> Selection {
        self.ledger.lock().select(filter, since, by, SystemTime::now())
    }

    /// The same, as what suggestions and the effects of a change are made from: one an edge.
    pub fn sightings(&self, filter: &Filter, since: SystemTime) -> Vec<Sighting> {
        self.select(filter, since, By::Edge).edges.into_iter().map(|seen| seen.sighting).collect()
    }

    /// These edges, and those that were called in the last half minute or have calls open.
    pub fn select_lively(&self, mut edges: BTreeSet<Edge>, since: SystemTime) -> Selection {
        let ledger = self.ledger.lock();
        edges.extend(ledger.lively());
        ledger.select_among(&edges, since, SystemTime::now())
    }

    /// What is open now: connections, and HTTP requests under way.
    pub fn open_calls(&self) -> Vec<(OpenKey, u64)> {
        self.ledger.lock().open_calls().into_iter().collect()
    }

    /// The last decisions of a pair that were told, the newest first.
    pub fn lately(&self, source: &ServiceName, destination: &ServiceName) -> Vec<SeenDecision> {
        self.lately.lock().of(source, destination).iter().map(|decision| SeenDecision::clone(decision)).collect()
    }

    /// A place among those who follow, until it is dropped; `None` where all are taken.
    pub fn follow(&self) -> Option<(OwnedSemaphorePermit, broadcast::Receiver<Arc<SeenDecision>>)> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some((place, self.decisions.subscribe()))
    }

    /// Calls that there was no room for since the start.
    pub fn left_out(&self) -> u64 {
        self.ledger.lock().left_out()
    }

    /// Counts for `/metrics`.
    pub fn counts(&self) -> TrafficCounts {
        let ledger = self.ledger.lock();
        TrafficCounts {
            edges: ledger.len() as u64,
            bytes: ledger.bytes() as u64,
            left_out: ledger.left_out(),
            decisions: self.decisions_told.load(Ordering::Relaxed),
            decisions_left_out: self.decisions_left_out.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            followers: (FOLLOWERS - self.places.available_permits()) as u64,
        }
    }
}

fn open_from_wire(teller: &Teller, wire: &v1::OpenCalls) -> Result<OpenKey, NotTaken> {
    let (source, destination) = seen::ends(&teller.service, &wire.peer, false)?;
    Ok(OpenKey { source, destination, port: seen::port(&wire.port)?, http: seen::http_part(&wire.method, &wire.shape)? })
}
