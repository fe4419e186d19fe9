//! One tunnel at work: the state machine, the records that carry its frames, and the streams that wait on it.
//!
//! A stream fills records and opens chunks itself, under the tunnel's lock; the driver (one task a tunnel) alone reads and
//! writes the socket. So what many streams send while the driver waits for its turn goes out in one write.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use postern_names::{PortName, ServiceName};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::time::Instant;

use crate::transport::Sink;
use crate::transport::buffers::{Buffer, Chunk};
use crate::transport::channel::{Channel, Fault, Framing, Joining, Ranges, Source};
use crate::transport::peer::PeerIdentity;
use crate::transport::record::MOST_PLAINTEXT;

use super::budget::{Budget, Budgets};
use super::end::{End, ended_by, ended_by_io};
use super::pace::Pace;
use super::side::Side;
use super::streams::Mixing;
use super::{Event, FRAME_HEADER, MOST_DATA, Machine, OpenError, Reason, StreamId, StreamReset, Violation};

/// What a stream may send before the next one has its turn.
const TURN: usize = 64 * 1024;
/// How often a tunnel without budget looks whether there is one again.
const FROZEN_LOOK: Duration = Duration::from_millis(100);

/// Why no stream was opened.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unopened {
    #[error("the tunnel has ended: {}", .0.detail)]
    Ended(End),
    #[error("{0}")]
    Refused(#[from] OpenError),
}

/// A stream that the peer has opened.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) id: StreamId,
    pub(crate) port: PortName,
}

/// One tunnel.
pub(crate) struct Link {
    inner: Mutex<Inner>,
    peer: PeerIdentity,
    service: ServiceName,
}

struct Inner {
    machine: Machine,
    channel: Channel,
    pace: Pace,
    streams: HashMap<StreamId, Side, Mixing>,
    /// Streams that have bytes to send and no room, in the order of their turns.
    turns: VecDeque<StreamId>,
    granted: Option<StreamId>,
    /// Streams that were given parts of the last read.
    given: Vec<StreamId>,
    /// Encoded control frames that found no room.
    control: Vec<u8>,
    events: Vec<Event>,
    opened: Vec<Opening>,
    proofs: Vec<Proving>,
    driver: Option<Waker>,
    /// The last stream has gone: once all is sent, the driver looks whether the tunnel goes too.
    emptied: bool,
    /// There is no budget any more: the driver looks when there is again.
    froze: bool,
    budget: Budget,
    is_frozen: bool,
    ended: Option<End>,
}

/// What the peer says of identities (CHALLENGE and PROOF).
pub(crate) enum Proving {
    Challenge([u8; 32]),
    Proof(Vec<u8>),
}

/// Writes the header of a DATA frame before each record's payload.
struct DataFrames<'a> {
    machine: &'a mut Machine,
    id: StreamId,
}

impl Framing for DataFrames<'_> {
    const HEAD: usize = FRAME_HEADER;

    fn head(&mut self, head: &mut [u8], payload: usize) {
        head.copy_from_slice(&self.machine.data_header(self.id, payload));
    }
}

impl Link {
    pub(crate) fn new(
        machine: Machine,
        channel: Channel,
        peer: PeerIdentity,
        service: ServiceName,
        budgets: &Arc<Budgets>,
    ) -> Arc<Self> {
        let budget = budgets.of(&service);
        let mut inner = Inner {
            machine,
            channel,
            pace: Pace::new(),
            streams: HashMap::default(),
            turns: VecDeque::new(),
            granted: None,
            given: Vec::new(),
            control: Vec::new(),
            events: Vec::new(),
            opened: Vec::new(),
            proofs: Vec::new(),
            driver: None,
            emptied: false,
            froze: false,
            budget,
            is_frozen: false,
            ended: None,
        };
        inner.keep_pace();
        Arc::new(Self { inner: Mutex::new(inner), peer, service })
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// The service at the other end.
    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Opens a stream to `port` of the peer. Its first bytes may go before the peer has accepted it.
    pub(crate) fn open(&self, port: &PortName, trace: Option<&str>) -> Result<StreamId, Unopened> {
        let mut inner = self.inner.lock();
        if let Some(end) = &inner.ended {
            return Err(Unopened::Ended(end.clone()));
        }
        let id = inner.machine.open(port, trace)?;
        inner.streams.insert(id, Side::default());
        inner.wake_driver();
        Ok(id)
    }

    /// Tells the peer that the stream it opened leads somewhere.
    pub(crate) fn accept(&self, id: StreamId) {
        let mut inner = self.inner.lock();
        inner.machine.accept(id);
        inner.wake_driver();
    }

    /// Waits until the peer has accepted a stream.
    pub(crate) fn poll_accepted(&self, id: StreamId, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(side) = inner.streams.get_mut(&id) else { return Poll::Ready(Err(gone())) };
        if side.accepted {
            return Poll::Ready(Ok(()));
        }
        failed(side.reset, inner.ended.as_ref())?;
        side.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Why the peer has reset a stream, if it has.
    pub(crate) fn reset_reason(&self, id: StreamId) -> Option<Reason> {
        self.inner.lock().streams.get(&id).and_then(|side| side.reset)
    }

    pub(crate) fn poll_recv(&self, id: StreamId, cx: &mut Context<'_>, sink: &mut Sink<'_>) -> Poll<Result<usize, Fault>> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(side) = inner.streams.get_mut(&id) else { return Poll::Ready(Err(Fault::Stream(gone()))) };
        if let Some(first) = &side.first {
            let chunks = std::iter::once(first).chain(&side.more).take(32);
            let slices: SmallVec<[IoSlice<'_>; 32]> = chunks.map(|chunk| IoSlice::new(chunk.rest())).collect();
            let Poll::Ready(taken) = sink(cx, &slices) else {
                drop(slices);
                // The end of the stream is heard even while nobody takes its bytes.
                if !side.peer_finished {
                    failed(None, inner.ended.as_ref()).map_err(Fault::Stream)?;
                }
                side.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let taken = taken.map_err(Fault::Other)?;
            drop(slices);
            side.advance(taken);
            inner.machine.advance(Instant::now().into_std());
            inner.machine.consumed(id, taken);
            inner.spend();
            if inner.machine.has_control() {
                inner.wake_driver();
            }
            return Poll::Ready(Ok(taken));
        }
        if let Err(error) = failed(side.reset, None) {
            return Poll::Ready(Err(Fault::Stream(error)));
        }
        if side.peer_finished {
            return Poll::Ready(Ok(0));
        }
        failed(None, inner.ended.as_ref()).map_err(Fault::Stream)?;
        side.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_send(&self, id: StreamId, cx: &mut Context<'_>, source: &mut Source<'_>) -> Poll<Result<usize, Fault>> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(side) = inner.streams.get(&id) else { return Poll::Ready(Err(Fault::Stream(gone()))) };
        failed(side.reset, inner.ended.as_ref()).map_err(Fault::Stream)?;
        // What was said before goes out before: an OPEN before its first DATA.
        inner.pack_control().map_err(Fault::Stream)?;
        let credit = inner.machine.may_send(id);
        let unsent = inner.channel.unsent();
        let is_granted = inner.granted == Some(id);
        let most_unsent = inner.pace.before_socket();
        let has_room = unsent < most_unsent && inner.control.is_empty();
        let waits = !has_room || (!inner.turns.is_empty() && !is_granted);
        if credit == 0 || waits {
            let Some(side) = inner.streams.get_mut(&id) else { return Poll::Ready(Err(Fault::Stream(gone()))) };
            side.writer = Some(cx.waker().clone());
            if credit > 0 && !side.waits_its_turn {
                side.waits_its_turn = true;
                inner.turns.push_back(id);
            }
            if is_granted {
                inner.granted = None;
                inner.grant();
            }
            return Poll::Pending;
        }
        // Whole records, of which the last may go over the bound: a part of one costs as much.
        let room = (most_unsent - unsent).next_multiple_of(MOST_DATA.min(most_unsent));
        let most = if inner.turns.is_empty() { room } else { room.min(TURN) };
        let mut frames = DataFrames { machine: &mut inner.machine, id };
        let filled = inner.channel.poll_fill(cx, most.min(credit), &mut frames, source);
        if is_granted {
            inner.granted = None;
        }
        if matches!(filled, Poll::Ready(Ok(1..))) {
            inner.wake_driver();
        }
        inner.grant();
        filled
    }

    /// Says that nothing more will be sent on a stream.
    pub(crate) fn finish(&self, id: StreamId) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(side) = inner.streams.get_mut(&id) else { return };
        if !side.we_finished && side.reset.is_none() {
            side.we_finished = true;
            inner.machine.finish(id);
            inner.wake_driver();
        }
    }

    /// Forgets a stream; if it has not ended in order, the peer is told why it ends now.
    pub(crate) fn leave(&self, id: StreamId, reason: Reason) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(side) = inner.streams.remove(&id) else { return };
        let in_order = side.we_finished && side.peer_finished && side.first.is_none();
        if !in_order && side.reset.is_none() && inner.ended.is_none() {
            inner.machine.reset(id, reason);
        }
        if inner.granted == Some(id) {
            inner.granted = None;
        }
        if side.waits_its_turn {
            inner.turns.retain(|waiting| *waiting != id);
        }
        inner.grant();
        inner.emptied |= inner.streams.is_empty();
        inner.spend();
        inner.wake_driver();
    }

    /// How much credit there is to send on a stream with.
    #[cfg(test)]
    pub(super) fn may_send(&self, id: StreamId) -> usize {
        self.inner.lock().machine.may_send(id)
    }

    /// Gives up the turn of a stream that does not wait for it: the next one is not to wait for nobody.
    pub(crate) fn forgo_turn(&self, id: StreamId) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(side) = inner.streams.get_mut(&id) else { return };
        side.writer = None;
        if std::mem::take(&mut side.waits_its_turn) {
            inner.turns.retain(|waiting| *waiting != id);
        }
        if inner.granted == Some(id) {
            inner.granted = None;
        }
        inner.grant();
    }

    /// Whether a new stream should rather go elsewhere.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        self.inner.lock().machine.is_busy(now.into_std())
    }

    /// Whether it has no stream, and all that was said on its last one is sent.
    pub(crate) fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.streams.is_empty() && !inner.emptied
    }

    /// Streams that are open now, or held by somebody.
    pub(crate) fn open_streams(&self) -> usize {
        self.inner.lock().streams.len()
    }

    /// Whether it can carry no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.inner.lock().ended.is_some()
    }

    /// Ends it for a reason: every stream of it fails.
    pub(crate) fn end(&self, end: End) {
        self.inner.lock().end(end);
    }

    /// Asks the peer to prove who it is now.
    pub(crate) fn challenge(&self, nonce: [u8; 32]) {
        let mut inner = self.inner.lock();
        inner.machine.challenge(nonce);
        inner.wake_driver();
    }

    /// Answers a challenge.
    pub(crate) fn prove(&self, proof: Vec<u8>) {
        let mut inner = self.inner.lock();
        inner.machine.prove(proof);
        inner.wake_driver();
    }

    /// When the machine wants to be asked again.
    pub(crate) fn next_timeout(&self) -> Instant {
        let inner = self.inner.lock();
        let next = Instant::from(inner.machine.next_timeout());
        // What others give back shows only to who looks.
        if inner.is_frozen { next.min(Instant::now() + FROZEN_LOOK) } else { next }
    }

    /// Looks at the machine's timers.
    pub(crate) fn on_timeout(&self, now: Instant) {
        let mut inner = self.inner.lock();
        if let Err(violation) = inner.machine.on_timeout(now.into_std()) {
            inner.end(ended_by(&violation));
        }
        inner.spend();
        if inner.machine.has_control() {
            inner.wake_driver();
        }
    }

    /// Moves bytes between socket and streams. Ready when the tunnel has ended, and whenever there is something for the
    /// driver: streams that the peer has opened, challenges, proofs, the end of the last stream.
    pub(crate) fn poll_drive(&self, cx: &mut Context<'_>, news: &mut News) -> Poll<Option<End>> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if !inner.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.driver = Some(cx.waker().clone());
        }
        if inner.ended.is_none()
            && let Err(end) = inner.move_bytes(cx)
        {
            inner.end(end);
        }
        std::mem::swap(&mut news.opened, &mut inner.opened);
        std::mem::swap(&mut news.proofs, &mut inner.proofs);
        if let Some(end) = &inner.ended {
            return Poll::Ready(Some(end.clone()));
        }
        let has_emptied = inner.emptied && !inner.has_unsent();
        inner.emptied &= !has_emptied;
        let has_frozen = std::mem::take(&mut inner.froze);
        let is_nothing = news.opened.is_empty() && news.proofs.is_empty() && !has_emptied && !has_frozen;
        if is_nothing { Poll::Pending } else { Poll::Ready(None) }
    }

    /// Sends what is left and says goodbye (close_notify).
    pub(crate) fn poll_goodbye(&self, cx: &mut Context<'_>, told: &mut bool) -> Poll<io::Result<()>> {
        self.inner.lock().channel.poll_finish(cx, told)
    }
}

/// What the driver has to see to.
#[derive(Default)]
pub(crate) struct News {
    pub(crate) opened: Vec<Opening>,
    pub(crate) proofs: Vec<Proving>,
}

impl Inner {
    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn has_unsent(&self) -> bool {
        self.channel.unsent() > 0 || !self.control.is_empty() || self.machine.has_control()
    }

    /// Lets the next stream send, if there is room.
    fn grant(&mut self) {
        if self.granted.is_some() || self.channel.unsent() >= self.pace.before_socket() {
            return;
        }
        while let Some(id) = self.turns.pop_front() {
            if let Some(side) = self.streams.get_mut(&id) {
                side.waits_its_turn = false;
                side.wake_writer();
                self.granted = Some(id);
                return;
            }
        }
    }

    /// Seals the control frames that wait, as far as there is room.
    fn pack_control(&mut self) -> io::Result<()> {
        loop {
            if self.control.is_empty() && !self.machine.take_control(MOST_PLAINTEXT, &mut self.control) {
                return Ok(());
            }
            if !self.channel.append(&self.control)? {
                return Ok(());
            }
            self.control.clear();
            self.control.shrink_to(256);
        }
    }

    /// Tells the socket how much may wait in it.
    fn keep_pace(&mut self) {
        self.channel.set_joining(if self.pace.is_slow() { Joining::Apart } else { Joining::Joined });
        let bytes = u32::try_from(self.pace.in_socket()).unwrap_or(u32::MAX);
        if let Err(error) = SockRef::from(self.channel.socket()).set_tcp_notsent_lowat(bytes) {
            tracing::debug!(%error, "cannot bound what waits in the socket of a tunnel");
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        loop {
            self.pack_control().map_err(|error| End::new("tls_error", error))?;
            let before = self.channel.written();
            let flushed = self.channel.poll_flush(cx).map_err(|error| ended_by_io(&error))?;
            let took = (self.channel.written() - before) as usize;
            if self.pace.took(took, flushed.is_pending(), now.into_std()) {
                self.keep_pace();
            }
            if flushed.is_pending() || self.control.is_empty() {
                self.grant();
                return Ok(());
            }
        }
    }

    fn move_bytes(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let now = Instant::now();
        self.machine.advance(now.into_std());
        self.flush(cx, now)?;
        if self.channel.poll_readable(cx).is_pending() {
            return Ok(());
        }
        self.detach_given();
        let mut plain = Ranges::new();
        let buffer = match self.channel.poll_receive(cx, &mut plain) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(None)) => return Err(End::new("closed", "the peer closed the tunnel")),
            Poll::Ready(Err(error)) => return Err(ended_by_io(&error)),
            Poll::Ready(Ok(Some(buffer))) => buffer,
        };
        self.take_in(buffer, &plain, now).map_err(|violation| ended_by(&violation))?;
        self.flush(cx, Instant::now())?;
        // Streams come before the next read, so that what they have got leaves the buffer.
        if self.channel.poll_readable(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// What is still in the buffer of the last read waits for slow readers: it keeps its bytes, not the buffer.
    fn detach_given(&mut self) {
        for id in self.given.drain(..) {
            if let Some(side) = self.streams.get_mut(&id) {
                side.first.iter_mut().chain(&mut side.more).for_each(Chunk::detach);
            }
        }
        self.given.shrink_to(64);
    }

    fn take_in(&mut self, mut buffer: Buffer, plain: &Ranges, now: Instant) -> Result<(), Violation> {
        let mut data: SmallVec<[(StreamId, Range<usize>); 32]> = SmallVec::new();
        let bytes = &*buffer.bytes();
        for range in plain {
            let mut events = std::mem::take(&mut self.events);
            let received = self.machine.receive(&bytes[range.clone()], now.into_std(), &mut events);
            for event in events.drain(..) {
                match event {
                    Event::Data { id, range: part } => data.push((id, range.start + part.start..range.start + part.end)),
                    other => self.take_event(other),
                }
            }
            events.shrink_to(64);
            self.events = events;
            received?;
        }
        self.spend();
        let shared = buffer.share();
        for (id, range) in data {
            let bytes = range.len();
            let Some(side) = self.streams.get_mut(&id) else {
                // Nobody reads it any more, and its credit comes back at once.
                self.machine.consumed(id, bytes);
                continue;
            };
            side.push(Chunk::of(&shared, range));
            side.wake_reader();
            if self.given.last() != Some(&id) {
                self.given.push(id);
            }
        }
        Ok(())
    }

    /// Notes how much waits for readers; while it is too much, nobody gets new credit.
    fn spend(&mut self) {
        self.budget.hold(self.machine.unread(), self.machine.over());
        self.machine.set_most_over(self.budget.most_over());
        let is_spent = self.budget.is_spent();
        if is_spent != self.is_frozen {
            self.is_frozen = is_spent;
            self.machine.set_frozen(is_spent);
            if is_spent {
                self.froze = true;
                self.wake_driver();
            }
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Opened { id, port, .. } => {
                self.streams.insert(id, Side { accepted: true, ..Side::default() });
                self.opened.push(Opening { id, port });
            }
            Event::Accepted { id } => self.with(id, |side| {
                side.accepted = true;
                side.wake_reader();
                side.wake_writer();
            }),
            Event::Writable { id } => self.with(id, Side::wake_writer),
            Event::Finished { id } => self.with(id, |side| {
                side.peer_finished = true;
                side.wake_reader();
            }),
            Event::Reset { id, reason } => self.with(id, |side| {
                side.reset = Some(reason);
                side.drop_chunks();
                side.wake_reader();
                side.wake_writer();
            }),
            Event::Challenge(nonce) => self.proofs.push(Proving::Challenge(nonce)),
            Event::Proof(proof) => self.proofs.push(Proving::Proof(proof)),
            Event::Data { .. } => {}
        }
    }

    fn with(&mut self, id: StreamId, change: impl FnOnce(&mut Side)) {
        if let Some(side) = self.streams.get_mut(&id) {
            change(side);
        }
    }

    fn end(&mut self, end: End) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(end);
        self.machine.abandon(&mut self.events);
        self.events = Vec::new();
        for side in self.streams.values_mut() {
            side.wake_reader();
            side.wake_writer();
        }
        self.wake_driver();
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the stream is closed")
}

fn failed(reset: Option<Reason>, ended: Option<&End>) -> io::Result<()> {
    if let Some(reason) = reset {
        return Err(io::Error::new(io::ErrorKind::ConnectionReset, StreamReset(reason)));
    }
    ended.map_or(Ok(()), |end| Err(end.error()))
}
