//! The protocol of one end of a tunnel, without I/O.

mod receive;
mod send;

use std::time::Instant;

use postern_names::PortName;

use super::busy::Busyness;
use super::credit::Window;
use super::frame::{self, Decoder, EARLY_DATA, FRAME_HEADER, MOST_CONTROL, MOST_DATA, MOST_PROOF, MOST_TRACE};
use super::liveness::{Liveness, Verdict};
use super::outgoing::{Outgoing, Queued};
use super::rate::{Rate, Reserve};
use super::round_trip::RoundTrip;
use super::streams::{Opening, Sending, Stream, StreamId, Streams};
use super::{Event, OpenError, Reason, Role, TunnelLimits, Violation};

/// Frames, other than DATA, that may come for a stream after this end forgot it.
const LATE_FRAMES: u64 = 64;

/// One end of a tunnel.
///
/// The driver calls [`Machine::advance`] or [`Machine::receive`] once a turn, seals everything that
/// [`Machine::take_control`] gives before each header of [`Machine::data_header`], and ends the connection at a
/// [`Violation`]. Calls for a stream that is gone do nothing.
#[derive(Debug)]
pub(crate) struct Machine {
    role: Role,
    limits: TunnelLimits,
    now: Instant,
    ended: Option<Violation>,
    decoder: Decoder,
    streams: Streams,
    /// The highest id that was ever opened.
    highest: u32,
    /// Streams that this end dialled and the peer did not answer.
    unanswered: usize,
    unread: usize,
    /// The parts of all windows that are over the credit which every stream may have, and how large they may be together.
    over: usize,
    most_over: usize,
    is_frozen: bool,
    outgoing: Outgoing,
    /// Credit of streams that this end reset: what the peer may have sent before it knew.
    orphaned_credit: u64,
    /// Frames that may still come for streams that this end forgot.
    late_frames: u64,
    refused: Rate,
    refusals: Reserve,
    pings: Rate,
    asked: u64,
    round_trip: RoundTrip,
    liveness: Liveness,
    busyness: Busyness,
}

impl Machine {
    /// A tunnel whose handshake is done.
    pub fn new(role: Role, limits: TunnelLimits, now: Instant) -> Self {
        let initial_credit = limits.initial_credit.clamp(EARLY_DATA, StreamId::MOST);
        let most_credit = limits.most_credit.clamp(initial_credit, StreamId::MOST);
        let largest_credit = limits.largest_credit.clamp(most_credit, StreamId::MOST);
        Self {
            role,
            limits: TunnelLimits { initial_credit, most_credit, largest_credit, ..limits },
            now,
            ended: None,
            decoder: Decoder::new(),
            streams: Streams::new(),
            highest: 0,
            unanswered: 0,
            unread: 0,
            over: 0,
            most_over: 0,
            is_frozen: false,
            outgoing: Outgoing::default(),
            orphaned_credit: 0,
            late_frames: 0,
            refused: Rate::new(limits.refused_per_second),
            refusals: Reserve::new(limits.refused_per_second, now),
            pings: Rate::new(limits.pings_per_second),
            asked: 0,
            round_trip: RoundTrip::default(),
            liveness: Liveness::new(limits.ping_after, limits.dead_after, now),
            busyness: Busyness::new(limits.busy_bytes, now),
        }
    }

    /// Tells the time of a turn in which nothing was received, or of a reader that comes between turns.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        self.busyness.advance(now);
    }

    /// When [`Machine::on_timeout`] is to be called. It only moves when that was called or bytes came, so a timer that
    /// is set anew only after it fired wakes at most once in the PING interval.
    pub fn next_timeout(&self) -> Instant {
        self.liveness.next_timeout()
    }

    /// Asks whether the peer is there, or finds that it is not. What can be read is to be received first.
    ///
    /// # Errors
    /// [`Violation::Silent`], or the violation that ended the tunnel before.
    pub fn on_timeout(&mut self, now: Instant) -> Result<(), Violation> {
        self.advance(now);
        match self.liveness.on_timeout(now) {
            Verdict::Alive => {}
            Verdict::Ask => self.ask(),
            Verdict::Dead => self.end(Violation::Silent),
        }
        self.still_runs()
    }

    /// Streams that are open, or over with bytes that were not consumed.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes that were told as [`Event::Data`] and not consumed, of streams that were not reset.
    pub fn unread(&self) -> usize {
        self.unread
    }

    /// The parts of all windows that are over [`TunnelLimits::most_credit`].
    pub fn over(&self) -> usize {
        self.over
    }

    /// How large the parts of all windows that are over [`TunnelLimits::most_credit`] may be together. Those that are
    /// larger stay so.
    pub fn set_most_over(&mut self, bytes: usize) {
        self.most_over = bytes;
    }

    /// Whether a stream moved so much within the last second that no new one should join it.
    pub fn is_busy(&self, now: Instant) -> bool {
        self.busyness.is_busy(now)
    }

    /// The connection is gone: tells a reset of each stream that was not over. Nothing of the machine is to be used after.
    pub fn abandon(&mut self, events: &mut Vec<Event>) {
        for (id, stream) in self.streams.take_all() {
            if !(stream.peer_finished && stream.sending == Sending::Finished) {
                events.push(Event::Reset { id, reason: Reason::TunnelEnded });
            }
        }
        (self.unread, self.over) = (0, 0);
        self.unanswered = 0;
        self.outgoing = Outgoing::default();
    }

    /// Bytes and entries that are kept beside the streams.
    pub fn holds(&self) -> usize {
        self.decoder.holds() + self.outgoing.queue.len()
    }

    /// Asks the peer for an answer, by a PING.
    fn ask(&mut self) {
        self.asked += 1;
        self.outgoing.ask = Some(self.asked.to_be_bytes());
        self.outgoing.queue_tunnel();
    }

    fn still_runs(&self) -> Result<(), Violation> {
        self.ended.map_or(Ok(()), Err)
    }

    fn end(&mut self, violation: Violation) {
        self.ended.get_or_insert(violation);
    }

    /// Entries that the control queue holds at most before no further stream is taken: for each stream that may be open
    /// its OPEN and one entry more, and a RESET for each stream of a second's refusals.
    fn most_queued(&self) -> usize {
        self.limits.streams * 2 + self.limits.refused_per_second as usize
    }

    /// Takes the stream out of the books. The caller says what may still come for it.
    fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(id)?;
        self.unread -= stream.window.unread() as usize;
        self.over -= stream.window.over(self.limits.most_credit) as usize;
        if self.role == Role::Dialler && !stream.is_accepted() {
            self.unanswered -= 1;
        }
        Some(stream)
    }

    fn remove_if_over(&mut self, id: StreamId) {
        if self.streams.get(id).is_some_and(Stream::is_over) {
            self.remove(id);
            self.late_frames += LATE_FRAMES;
        }
    }
}
