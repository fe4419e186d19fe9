//! Every open connection and every HTTP request under way, so that each can be judged again and closed.
//!
//! Both are registered first and decided on afterwards: a snapshot that comes in between finds them here, and one that
//! came before is the one that the decision reads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use postern_ca::Refusal;
use postern_intentions::{Because, Call, Decision, Mode, Verdict, decide};
use postern_names::{PortName, ServiceName};
use slab::Slab;
use tokio::sync::{Notify, oneshot, watch};

use crate::clock::Clock;
use crate::http::judge::JudgedRequest;
use crate::metrics::Direction;
use crate::snapshot::{Snapshot, SnapshotSource};
use crate::transport::PeerIdentity;

/// Why an open connection is closed by this sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// An intention or the default denies it now.
    Denied(String),
    /// The certificate of the peer is trusted no more.
    Untrusted(&'static str),
    /// The sidecar stops.
    Draining,
}

impl Closed {
    /// The reason in one word, for the log.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Denied(_) => "revoked",
            Self::Untrusted(word) => word,
            Self::Draining => "draining",
        }
    }

    /// What decided, for the log; `None` when nothing of the policy did.
    pub fn because(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Denied(because) => Some(because.into()),
            Self::Untrusted(word) => Some(format!("the certificate of the peer: {word}").into()),
            Self::Draining => None,
        }
    }
}

/// What is judged.
#[derive(Debug, Clone, Default)]
pub enum What {
    /// A connection whose bytes mean nothing to the sidecar: intentions judge it as a whole.
    #[default]
    Connection,
    /// A connection that carries HTTP requests. Each of them is judged by itself; the connection only has to be trusted.
    HttpConnection,
    /// One of those requests, from its head to the last byte of its answer.
    Request(Arc<JudgedRequest>),
}

/// What must be known of a connection, or of a request, to judge it again.
#[derive(Debug, Clone)]
pub struct Judgeable {
    /// What it is.
    pub what: What,
    /// Who dialled. Only what is inbound is judged by intentions: the destination alone enforces.
    pub direction: Direction,
    /// The verified peer.
    pub peer: PeerIdentity,
    /// The peer's service.
    pub service: ServiceName,
    /// The port of the destination.
    pub port: PortName,
}

impl Judgeable {
    /// Whether the peer is still who it was, by what is trusted in `snapshot`.
    ///
    /// # Errors
    /// Why its certificate is trusted no more.
    pub fn still_trusted(&self, snapshot: &Snapshot, now: SystemTime) -> Result<(), Refusal> {
        self.peer.still_trusted(&snapshot.trust, now)
    }

    /// Whether the peer may call `own`. This carries bytes and sees no request in them, so where permissions judge each
    /// request it denies the connection.
    pub fn decide(&self, own: &ServiceName, snapshot: &Snapshot, now: SystemTime) -> Decision {
        let call = Call { source: &self.service, destination: own, port: &self.port, protocol: snapshot.protocol, request: None };
        let decision = decide(&snapshot.rules, &call, now);
        match decision.because {
            Because::PerRequest { mode: Mode::Enforce, .. } => Decision { verdict: Verdict::Deny, ..decision },
            Because::PerRequest { mode: Mode::Audit, .. } => Decision { would_deny: true, ..decision },
            _ => decision,
        }
    }

    fn denied(&self, own: &ServiceName, snapshot: &Snapshot, now: SystemTime) -> Option<Closed> {
        if self.direction == Direction::Outbound {
            return None;
        }
        let decision = match &self.what {
            What::Connection => self.decide(own, snapshot, now),
            What::HttpConnection => return None,
            What::Request(request) => request.decide(self, own, snapshot, now),
        };
        (!decision.allowed()).then(|| Closed::Denied(decision.because.to_string()))
    }

    /// Whether it takes one of the places for connections.
    fn is_connection(&self) -> bool {
        !matches!(self.what, What::Request(_))
    }

    fn takes_a_place(&self) -> bool {
        self.direction == Direction::Inbound && self.is_connection()
    }
}

/// Ends whatever looks at it, which is told once. Looking at it takes no lock: it is done at each turn of a connection.
#[derive(Debug, Default)]
pub struct Kill {
    is_told: AtomicBool,
    waker: AtomicWaker,
}

impl Kill {
    fn tell(&self) {
        self.is_told.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready when it was told. One task looks at a time.
    pub fn poll_told(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_told.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// How much was closed because a snapshot allows it no more, since the start.
#[derive(Debug, Default)]
pub struct Cut {
    connections: AtomicU64,
    requests: AtomicU64,
}

impl Cut {
    /// Connections and requests.
    pub fn so_far(&self) -> (u64, u64) {
        (self.connections.load(Ordering::Acquire), self.requests.load(Ordering::Acquire))
    }

    fn add(&self, connections: u64, requests: u64) {
        self.connections.fetch_add(connections, Ordering::Release);
        self.requests.fetch_add(requests, Ordering::Release);
    }
}

/// There is no room for another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// As many connections as this sidecar takes are open.
    #[error("max_connections")]
    Sidecar,
    /// As many connections as one peer may have are open.
    #[error("max_connections_per_peer")]
    Peer,
}

impl Full {
    /// The reason in one word, for metric and log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sidecar => "max_connections",
            Self::Peer => "max_connections_per_peer",
        }
    }
}

/// The open connections of one data plane.
#[derive(Debug)]
pub struct Connections {
    own: ServiceName,
    most: usize,
    most_per_peer: usize,
    inner: Mutex<Inner>,
    open: Arc<AtomicUsize>,
    cut: Arc<Cut>,
    closing: watch::Sender<usize>,
    ends_sooner: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    inbound: usize,
    inbound_of: HashMap<ServiceName, usize>,
    /// A place is taken again only after whoever had it has left.
    entries: Slab<Entry>,
    earliest_end: Option<SystemTime>,
}

#[derive(Debug)]
struct Entry {
    judgeable: Judgeable,
    /// Gone once it was told to close.
    closer: Option<oneshot::Sender<Closed>>,
    /// Told besides when it is told to close.
    kill: Option<Arc<Kill>>,
}

impl Connections {
    /// The table of the service `own`, with room for `most` inbound connections and `most_per_peer` of one peer.
    pub fn new(own: ServiceName, most: usize, most_per_peer: usize) -> Arc<Self> {
        Arc::new(Self {
            own,
            most,
            most_per_peer,
            inner: Mutex::default(),
            open: Arc::default(),
            cut: Arc::default(),
            closing: watch::Sender::new(0),
            ends_sooner: Notify::new(),
        })
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Where their number can be read at any time.
    pub fn open_counter(&self) -> Arc<AtomicUsize> {
        self.open.clone()
    }

    /// Where can be read at any time how much snapshots have closed.
    pub fn cut(&self) -> Arc<Cut> {
        self.cut.clone()
    }

    /// Whether there is room for another inbound connection of whatever peer.
    pub fn has_room(&self) -> bool {
        self.inner.lock().inbound < self.most
    }

    /// Enters a connection; from here on it is judged with all others.
    ///
    /// # Errors
    /// [`Full`], for inbound connections: those that the own service opens are its own affair.
    pub fn register(self: &Arc<Self>, judgeable: Judgeable) -> Result<Registered, Full> {
        let mut inner = self.inner.lock();
        if judgeable.takes_a_place() {
            if inner.inbound >= self.most {
                return Err(Full::Sidecar);
            }
            if inner.inbound_of.get(&judgeable.service).is_some_and(|open| *open >= self.most_per_peer) {
                return Err(Full::Peer);
            }
            inner.inbound += 1;
            *inner.inbound_of.entry(judgeable.service.clone()).or_default() += 1;
        }
        if judgeable.is_connection() {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.enter(&mut inner, judgeable, None))
    }

    /// Enters a request, which takes no place of its own. `kill` is told too when it has to end.
    pub fn register_request(self: &Arc<Self>, request: Judgeable, kill: Option<Arc<Kill>>) -> Registered {
        self.enter(&mut self.inner.lock(), request, kill)
    }

    fn enter(self: &Arc<Self>, inner: &mut Inner, judgeable: Judgeable, kill: Option<Arc<Kill>>) -> Registered {
        let (closer, closed) = oneshot::channel();
        let ends = judgeable.peer.not_after();
        let id = inner.entries.insert(Entry { judgeable: judgeable.clone(), closer: Some(closer), kill });
        if inner.earliest_end.is_none_or(|earliest| ends < earliest) {
            inner.earliest_end = Some(ends);
            self.ends_sooner.notify_one();
        }
        Registered { connections: self.clone(), id, judgeable, closed }
    }

    /// Judges every connection by `snapshot` and tells those to close that may go on no more. Gives how many connections
    /// and how many requests those are.
    pub fn rejudge(&self, snapshot: &Snapshot, now: SystemTime) -> (u64, u64) {
        self.close_where(|judgeable| match judgeable.still_trusted(snapshot, now) {
            Err(refusal) => Some(Closed::Untrusted(refusal.word())),
            Ok(()) => judgeable.denied(&self.own, snapshot, now),
        })
    }

    /// Tells every connection to close.
    pub fn close_all(&self) {
        self.close_where(|_| Some(Closed::Draining));
    }

    fn close_where(&self, mut verdict: impl FnMut(&Judgeable) -> Option<Closed>) -> (u64, u64) {
        let (mut connections, mut requests) = (0, 0);
        let mut inner = self.inner.lock();
        let mut earliest_end = None;
        for (_, entry) in inner.entries.iter_mut().filter(|(_, entry)| entry.closer.is_some()) {
            let Some(closed) = verdict(&entry.judgeable) else {
                let ends = entry.judgeable.peer.not_after();
                earliest_end = Some(earliest_end.map_or(ends, |earliest: SystemTime| earliest.min(ends)));
                continue;
            };
            if let Some(closer) = entry.closer.take() {
                self.closing.send_modify(|closing| *closing += 1);
                *(if entry.judgeable.is_connection() { &mut connections } else { &mut requests }) += 1;
                // The receiver lives as long as the entry; if it is just going, so is the connection.
                let _ = closer.send(closed);
                if let Some(kill) = &entry.kill {
                    kill.tell();
                }
            }
        }
        inner.earliest_end = earliest_end;
        (connections, requests)
    }

    /// What is open in `most` places of the table from `from` on, if it has so many.
    pub(crate) fn some_open(&self, from: usize, most: usize) -> Option<Vec<Judgeable>> {
        let inner = self.inner.lock();
        if from >= inner.entries.capacity() {
            return None;
        }
        let entries = (from..from.saturating_add(most)).filter_map(|id| inner.entries.get(id));
        Some(entries.map(|entry| entry.judgeable.clone()).collect())
    }

    /// Waits until every connection that was told to close has closed its sockets.
    pub async fn closed(&self) {
        // The sender is a field of this table, so it cannot be gone.
        let _ = self.closing.subscribe().wait_for(|closing| *closing == 0).await;
    }

    fn earliest_end(&self) -> Option<SystemTime> {
        self.inner.lock().earliest_end
    }

    fn leave(&self, id: usize) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.entries.try_remove(id) else { return };
        if entry.judgeable.is_connection() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        if entry.judgeable.takes_a_place() {
            inner.inbound -= 1;
            if let Some(open) = inner.inbound_of.get_mut(&entry.judgeable.service) {
                *open -= 1;
                if *open == 0 {
                    inner.inbound_of.remove(&entry.judgeable.service);
                }
            }
        }
        if entry.closer.is_none() {
            self.closing.send_modify(|closing| *closing -= 1);
        }
    }
}

/// A connection in the table; it leaves when this is dropped, which comes after its sockets were closed.
#[derive(Debug)]
pub struct Registered {
    connections: Arc<Connections>,
    id: usize,
    judgeable: Judgeable,
    closed: oneshot::Receiver<Closed>,
}

impl Registered {
    /// What the connection is judged by.
    pub fn judgeable(&self) -> &Judgeable {
        &self.judgeable
    }

    /// Waits until it has to close.
    pub async fn closed(&mut self) -> Closed {
        std::future::poll_fn(|cx| self.poll_closed(cx)).await
    }

    /// Whether it has to close now. Ready at most once.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        if self.closed.is_terminated() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.closed).poll(cx) {
            Poll::Ready(Ok(closed)) => Poll::Ready(closed),
            // The sender is used up only by sending, so this was answered before; there is nothing more to wait for.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.leave(self.id);
    }
}

/// How long `enforced` waits for connections that were told to close.
const CLOSING: Duration = Duration::from_secs(1);
/// The longest sleep while something is going to expire: no timer tells that the host was asleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The same once no snapshot comes any more: the sidecar stops, and nothing else wakes this.
const UNPUBLISHED_SLEEP: Duration = Duration::from_secs(1);

/// Judges every connection again at each snapshot, and when a temporary intention or a certificate ends. What is in
/// force everywhere is told through `enforced`. Runs until it is dropped.
pub async fn keep_judging(
    connections: Arc<Connections>,
    mut snapshots: SnapshotSource,
    clock: Arc<Clock>,
    enforced: watch::Sender<u64>,
) {
    let mut judged_by = None;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let (closed, ended) = connections.rejudge(&snapshot, clock.now());
        // What time alone ends is nobody's change.
        if judged_by.replace(snapshot.sequence) != Some(snapshot.sequence) {
            connections.cut.add(closed, ended);
        }
        if tokio::time::timeout(CLOSING, connections.closed()).await.is_err() {
            tracing::warn!("connections that are denied now are slow to close");
        }
        enforced.send_replace(snapshot.sequence);
        until_next_judgement(&connections, &mut snapshots, &clock, &snapshot).await;
    }
}

async fn until_next_judgement(connections: &Connections, snapshots: &mut SnapshotSource, clock: &Clock, snapshot: &Snapshot) {
    let judged_at = clock.now();
    let rule_ends = snapshot.rules.next_expiry(judged_at).filter(|ends| *ends > judged_at);
    loop {
        let next = [rule_ends, connections.earliest_end()].into_iter().flatten().min();
        let sleep = next.map(|at| at.duration_since(clock.now()).unwrap_or_default());
        if sleep.is_some_and(|left| left.is_zero()) {
            if next.is_some_and(|at| at <= judged_at) {
                // Judged after that moment and still open: the two ways of reading the end differ by less than this.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            return;
        }
        tokio::select! {
            biased;
            changed = snapshots.changed() => match changed {
                Ok(()) => return,
                // Nobody publishes any more; what expires still ends.
                Err(_) => tokio::time::sleep(sleep.unwrap_or(UNPUBLISHED_SLEEP).min(UNPUBLISHED_SLEEP)).await,
            },
            () = connections.ends_sooner.notified() => {}
            // It may be later than we thought.
            () = clock.moved() => {}
            () = tokio::time::sleep(sleep.unwrap_or_default().min(LONGEST_SLEEP)), if sleep.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests;
