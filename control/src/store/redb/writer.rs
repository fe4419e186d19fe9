//! The one thread that changes the file.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use ::redb::{Durability, ReadTransaction, ReadableTable};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::error::StoreError;
use super::super::feed::Feed;
use super::super::types::{Batch, LeaseId, StoreSettings, Txn, TxnResult};
use super::tables::{LAST_LEASE, LEASES, LOG_BYTES, META, OLDEST, REVISION, damaged};
use super::work::Work;
use super::{DataFile, history, number};

/// How many requests share a commit.
const GROUP: usize = 512;

/// What the thread is asked for.
pub(super) enum Request {
    Txn(Txn, Answer<TxnResult>),
    Grant(Duration, Answer<LeaseId>),
    KeepAlive(LeaseId, Answer<Duration>),
    Revoke(LeaseId, Answer<u64>),
    Compact(u64, Answer<()>),
    Expire(Answer<u64>),
    Retain(Answer<()>),
    Stop,
}

/// Who waits for a result. Holds a place in the queue until it is answered.
pub(super) struct Answer<T> {
    sender: oneshot::Sender<Result<T, StoreError>>,
    place: OwnedSemaphorePermit,
}

impl<T> Answer<T> {
    pub fn new(sender: oneshot::Sender<Result<T, StoreError>>, place: OwnedSemaphorePermit) -> Self {
        Self { sender, place }
    }

    /// Who no longer waits is told nothing.
    pub fn send(self, result: Result<T, StoreError>) {
        drop(self.place);
        let _ = self.sender.send(result);
    }
}

/// A result that waits for the commit.
pub(super) type Pending = Box<dyn FnOnce(Result<(), StoreError>)>;

impl Request {
    /// Answers without doing anything.
    fn refuse(self, error: StoreError) {
        match self {
            Self::Txn(_, answer) => answer.send(Err(error)),
            Self::Grant(_, answer) => answer.send(Err(error)),
            Self::KeepAlive(_, answer) => answer.send(Err(error)),
            Self::Revoke(_, answer) | Self::Expire(answer) => answer.send(Err(error)),
            Self::Compact(_, answer) | Self::Retain(answer) => answer.send(Err(error)),
            Self::Stop => {}
        }
    }
}

/// Where the store is, as the file says.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub revision: u64,
    pub oldest: u64,
    pub last_lease: u64,
    pub log_bytes: u64,
    pub lease_ttls: BTreeMap<u64, Duration>,
}

impl State {
    pub fn load(txn: &ReadTransaction) -> Result<Self, StoreError> {
        let meta = txn.open_table(META).map_err(damaged)?;
        let mut lease_ttls = BTreeMap::new();
        for lease in txn.open_table(LEASES).map_err(damaged)?.iter().map_err(damaged)? {
            let (lease, ttl) = lease.map_err(damaged)?;
            lease_ttls.insert(lease.value(), Duration::from_millis(ttl.value()));
        }
        Ok(Self {
            revision: number(&meta, REVISION)?,
            oldest: number(&meta, OLDEST)?,
            last_lease: number(&meta, LAST_LEASE)?,
            log_bytes: number(&meta, LOG_BYTES)?,
            lease_ttls,
        })
    }
}

pub(super) struct Writer {
    file: Arc<DataFile>,
    feed: Arc<Feed>,
    pub settings: StoreSettings,
    pub state: State,
    /// When each lease ends, unless it is kept alive. Not in the file: a restart gives every lease its full time.
    pub deadlines: BTreeMap<u64, Instant>,
    pub next_retention: Instant,
    /// After an error of the file nobody knows what it holds until it is opened again: nothing more is written.
    failed: Option<Failure>,
}

struct Failure {
    error: StoreError,
    at: Instant,
}

impl Writer {
    pub fn new(file: Arc<DataFile>, feed: Arc<Feed>, settings: StoreSettings, state: State) -> Self {
        let now = settings.clock.now();
        let deadlines = state.lease_ttls.iter().map(|(lease, ttl)| (*lease, now + *ttl)).collect();
        let next_retention = Instant::now() + settings.compact_every;
        Self { file, feed, settings, state, deadlines, next_retention, failed: None }
    }

    /// Writes until it is told to stop, or the store is gone.
    pub fn run(mut self, queue: &Receiver<Request>) {
        loop {
            let mut group = VecDeque::new();
            match queue.recv_timeout(self.idle_time()) {
                Ok(request) => group.push_back(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let end = drain(queue, &mut group);
            self.commit(group);
            if end.is_break() {
                return;
            }
        }
    }

    /// How long there is nothing to do if nobody asks.
    fn idle_time(&self) -> Duration {
        if self.failed.is_some() {
            return Duration::MAX;
        }
        let retention = self.next_retention.saturating_duration_since(Instant::now());
        let now = self.settings.clock.now();
        let lease = self.deadlines.values().min().map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        retention.min(lease)
    }

    /// Makes a group durable in one transaction of the file, publishes it, then answers.
    fn commit(&mut self, mut group: VecDeque<Request>) {
        if let Err(error) = self.recover() {
            for request in group {
                request.refuse(error.clone());
            }
            return;
        }
        let mut answers = Vec::with_capacity(group.len());
        let mut batches = Vec::new();
        let written = self.write(&mut group, &mut answers, &mut batches);
        match &written {
            Ok(()) => {
                self.feed.publish(batches);
                self.feed.compacted(self.state.oldest);
            }
            Err(error) => {
                tracing::error!(%error, "the disk failed: what is durable is read again before the next change");
                self.fail(error.clone());
            }
        }
        for answer in answers {
            answer(written.clone());
        }
        if let Err(error) = written {
            for request in group {
                request.refuse(error.clone());
            }
        }
    }

    fn fail(&mut self, error: StoreError) {
        *self.file.failing.lock() = Some(error.clone());
        self.failed = Some(Failure { error, at: Instant::now() });
    }

    /// After a failure: opens a durable copy of the store and begins again from what it holds, or says why that is not
    /// possible yet.
    fn recover(&mut self) -> Result<(), StoreError> {
        let Some(failure) = &self.failed else { return Ok(()) };
        if failure.at.elapsed() < self.settings.reopen_after {
            return Err(failure.error.clone());
        }
        match self.file.reopen().and_then(|()| self.begin_again()) {
            Ok(()) => {
                tracing::warn!(revision = self.state.revision, "the store was opened again and takes changes");
                self.failed = None;
                *self.file.failing.lock() = None;
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the store cannot be opened again yet");
                self.fail(error.clone());
                Err(error)
            }
        }
    }

    /// Takes over what the file says. A group that was refused may turn out to be durable: it is published then.
    fn begin_again(&mut self) -> Result<(), StoreError> {
        let state = self.file.read(State::load)?;
        let published = self.feed.revision();
        if state.revision < published {
            return Err(StoreError::Corrupt(format!(
                "{} lost what it had acknowledged: it is at revision {} and was at {published}; restore a backup",
                self.file.path.display(),
                state.revision
            )));
        }
        while self.feed.revision() < state.revision {
            let next = self.feed.revision() + 1;
            self.feed.publish(self.file.read(|txn| history(txn, next))?);
        }
        let now = self.settings.clock.now();
        self.deadlines.retain(|lease, _| state.lease_ttls.contains_key(lease));
        for (lease, ttl) in &state.lease_ttls {
            self.deadlines.entry(*lease).or_insert(now + *ttl);
        }
        self.state = state;
        Ok(())
    }

    /// An error is one of the file; what was not reached then stays in the group.
    fn write(
        &mut self,
        group: &mut VecDeque<Request>,
        answers: &mut Vec<Pending>,
        batches: &mut Vec<Arc<Batch>>,
    ) -> Result<(), StoreError> {
        let file = Arc::clone(&self.file);
        let database = file.database.read();
        let database = database.as_ref().map_err(Clone::clone)?;
        let mut txn = database.begin_write().map_err(|error| file.error(error))?;
        txn.set_durability(Durability::Immediate).map_err(|error| file.error(error))?;
        let changed = {
            let mut work = Work::open(self, &txn, answers, batches)?;
            work.expire()?;
            while let Some(request) = group.pop_front() {
                work.handle(request)?;
            }
            work.retain_if_due()?;
            work.finish()?
        };
        if changed { txn.commit().map_err(|error| file.error(error)) } else { txn.abort().map_err(|error| file.error(error)) }
    }
}

/// Takes what waits into the group. Breaks when the store is to stop after it.
fn drain(queue: &Receiver<Request>, group: &mut VecDeque<Request>) -> ControlFlow<()> {
    if matches!(group.back(), Some(Request::Stop)) {
        group.pop_back();
        return ControlFlow::Break(());
    }
    while group.len() < GROUP {
        match queue.try_recv() {
            Ok(Request::Stop) => return ControlFlow::Break(()),
            Ok(request) => group.push_back(request),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    ControlFlow::Continue(())
}
