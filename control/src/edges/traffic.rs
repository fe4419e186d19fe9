//! What was told of calls, in memory.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postern_api::http::SeenDecision;
use postern_api::seen::{self, MOST_DECISIONS, MOST_EDGES, MOST_OPEN, NotTaken};
use postern_api::v1;
use postern_edges::{By, Changed, Edge, Filter, Ledger, OpenKey, Selection, Sighting};
use postern_names::{InstanceId, ServiceName};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::allowance::Allowance;
use super::lately::Lately;
use super::places::{Follower, NoPlace, Place, Places};
use super::{decision, kept};
use crate::store::{MAX_OPS, MAX_TXN_BYTES, Op, Store, StoreError, Txn};

/// Decisions that a follower may fall behind before it is told that it lagged.
const FOLLOWER_BACKLOG: usize = 2_048;
/// How often is looked for what has become too old.
const ROLL: Duration = Duration::from_secs(5);
/// How often what changed is written: so much is lost with the process.
pub const KEEP_EVERY: Duration = Duration::from_secs(60);
/// Pairs that are taken at once to be written.
const PAIRS_AT_ONCE: usize = 64;
/// Bytes of a transaction; the store takes 1 MiB.
const TXN_BYTES: usize = MAX_TXN_BYTES / 2;

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
    /// Pairs that are to be written to the store.
    pub unwritten: u64,
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
    store: Arc<dyn Store>,
    ledger: Mutex<Ledger>,
    lately: Mutex<Lately>,
    decisions: broadcast::Sender<Arc<SeenDecision>>,
    places: Places,
    decisions_told: AtomicU64,
    decisions_left_out: AtomicU64,
    refused: AtomicU64,
    /// Pairs that are being written.
    writing: AtomicU64,
    stopping: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

impl Traffic {
    /// What the store holds of it. From here on what changes is written every `keep_every`, until this is dropped.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(store: Arc<dyn Store>, keep_every: Duration) -> Result<Arc<Self>, StoreError> {
        let ledger = load(store.as_ref()).await?;
        let traffic = Arc::new(Self {
            store,
            ledger: Mutex::new(ledger),
            lately: Mutex::default(),
            decisions: broadcast::Sender::new(FOLLOWER_BACKLOG),
            places: Places::default(),
            decisions_told: AtomicU64::new(0),
            decisions_left_out: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            writing: AtomicU64::new(0),
            stopping: CancellationToken::new(),
            tasks: Mutex::default(),
        });
        let mut tasks = traffic.tasks.lock();
        tasks.spawn(roll_on(Arc::downgrade(&traffic), traffic.stopping.clone()));
        tasks.spawn(keep_on(Arc::downgrade(&traffic), traffic.stopping.clone(), keep_every));
        drop(tasks);
        Ok(traffic)
    }

    /// Writes what changed since the last time.
    ///
    /// # Errors
    /// The store refused; what was not written is written the next time.
    pub async fn keep(&self) -> Result<(), StoreError> {
        loop {
            let changed = {
                let mut ledger = self.ledger.lock();
                let changed = ledger.take_changed(PAIRS_AT_ONCE);
                self.writing.store(changed.len() as u64, Ordering::Relaxed);
                changed
            };
            if changed.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.write(&changed).await {
                self.ledger.lock().put_back(changed);
                return Err(error);
            }
        }
    }

    async fn write(&self, changed: &[Changed]) -> Result<(), StoreError> {
        let mut txn = Txn::new();
        let mut bytes = 0;
        for changed in changed {
            for op in self.ops_of(changed) {
                let (length, is_put) = match &op {
                    Op::Put { key, value, .. } => (key.len() + value.len(), true),
                    Op::Delete(key) | Op::DeletePrefix(key) => (key.len(), false),
                };
                // What is deleted may be put again: not in one transaction.
                if txn.then.len() >= MAX_OPS || (bytes > 0 && bytes + length > TXN_BYTES) || !is_put {
                    self.commit(&mut txn).await?;
                    bytes = 0;
                }
                bytes += length;
                txn.then.push(op);
                if !is_put {
                    self.commit(&mut txn).await?;
                    bytes = 0;
                }
            }
        }
        self.commit(&mut txn).await
    }

    async fn commit(&self, txn: &mut Txn) -> Result<(), StoreError> {
        let txn = std::mem::take(txn);
        if !txn.then.is_empty() {
            self.store.txn(txn).await?;
        }
        Ok(())
    }

    fn ops_of(&self, changed: &Changed) -> Vec<Op> {
        match changed {
            Changed::Gone(period) => vec![kept::delete(*period)],
            Changed::Pair { period, source, destination } => {
                let edges = self.ledger.lock().pair(*period, source, destination);
                kept::put(*period, source, destination, &edges).unwrap_or_else(|error| {
                    tracing::error!(%error, %source, %destination, "what was seen of calls cannot be written");
                    Vec::new()
                })
            }
        }
    }

    /// Ends its upkeep, and writes what changed.
    pub async fn stop(&self) {
        self.stopping.cancel();
        // What is being written is not cut off: it would not be known to have changed any more.
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
        if let Err(error) = self.keep().await {
            tracing::warn!(%error, "what was seen of calls was not written: the last minute of it is lost");
        }
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
                Ok((edge, tally)) => {
                    ledger.record(&teller.service, &teller.instance, edge, &tally, now);
                }
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

    /// The begin of what is kept.
    pub fn kept_since(&self) -> Option<SystemTime> {
        self.ledger.lock().kept_since()
    }

    /// What is open now: connections, and HTTP requests under way.
    pub fn open_calls(&self) -> Vec<(OpenKey, u64)> {
        self.ledger.lock().open_calls().into_iter().collect()
    }

    /// The last decisions of a pair that were told, the newest first.
    pub fn lately(&self, source: &ServiceName, destination: &ServiceName) -> Vec<SeenDecision> {
        self.lately.lock().of(source, destination).iter().map(|decision| SeenDecision::clone(decision)).collect()
    }

    /// A place among those who follow, until it is dropped.
    ///
    /// # Errors
    /// [`NoPlace`] where all are taken, or all that this one may have.
    pub fn follow(&self, follower: Follower) -> Result<(Place, broadcast::Receiver<Arc<SeenDecision>>), NoPlace> {
        let place = self.places.take(follower)?;
        Ok((place, self.decisions.subscribe()))
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
            unwritten: ledger.changed() as u64 + self.writing.load(Ordering::Relaxed),
            left_out: ledger.left_out(),
            decisions: self.decisions_told.load(Ordering::Relaxed),
            decisions_left_out: self.decisions_left_out.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            followers: self.places.taken() as u64,
        }
    }
}

async fn roll_on(traffic: Weak<Traffic>, stopping: CancellationToken) {
    while stopping.run_until_cancelled(tokio::time::sleep(ROLL)).await.is_some() {
        let Some(traffic) = traffic.upgrade() else { return };
        traffic.ledger.lock().roll(SystemTime::now());
    }
}

async fn keep_on(traffic: Weak<Traffic>, stopping: CancellationToken, every: Duration) {
    while stopping.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        let Some(traffic) = traffic.upgrade() else { return };
        if let Err(error) = traffic.keep().await {
            tracing::warn!(%error, "what was seen of calls was not written; trying again");
        }
    }
}

async fn load(store: &dyn Store) -> Result<Ledger, StoreError> {
    let range = store.range(kept::PREFIX, 0).await?;
    let mut ledger = Ledger::default();
    let mut unreadable = 0;
    for kv in &range.kvs {
        match kept::read(kv) {
            Ok((period, edges)) => {
                for edge in edges {
                    ledger.restore(period, edge);
                }
            }
            Err(why) => {
                unreadable += 1;
                tracing::debug!(%why, "what was seen of calls is left out");
            }
        }
    }
    if unreadable > 0 {
        tracing::warn!(unreadable, "some of what was seen of calls cannot be read by this version and is left out");
    }
    ledger.roll(SystemTime::now());
    Ok(ledger)
}

fn open_from_wire(teller: &Teller, wire: &v1::OpenCalls) -> Result<OpenKey, NotTaken> {
    let (source, destination) = seen::ends(&teller.service, &wire.peer, false)?;
    Ok(OpenKey { source, destination, port: seen::port(&wire.port)?, http: seen::http_part(&wire.method, &wire.shape)? })
}
