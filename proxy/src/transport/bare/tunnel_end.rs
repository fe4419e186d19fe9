//! One end of a tunnel.

use std::ops::Range;
use std::time::Instant;

use postern_names::PortName;

use super::End;
use crate::transport::record::MOST_PLAINTEXT;
use crate::transport::tunnel::{Event, FRAME_HEADER, Machine, Reason, StreamId, TunnelLimits, Violation};

pub use crate::transport::tunnel::MOST_DATA;

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It opened the stream.
    Opened(u32),
    /// It accepted the stream.
    Accepted(u32),
    /// It sent bytes of the stream, which are at this range of what was received.
    Data(u32, Range<usize>),
    /// It sends no more on the stream.
    Finished(u32),
    /// It ended the stream, for the reason in one word.
    Reset(u32, &'static str),
    /// There is credit again for the stream.
    Writable(u32),
    /// It asks for a proof.
    Challenge([u8; 32]),
    /// It sent a proof.
    Proof(Vec<u8>),
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        match event {
            Event::Opened { id, .. } => Self::Opened(id.get()),
            Event::Accepted { id } => Self::Accepted(id.get()),
            Event::Data { id, range } => Self::Data(id.get(), range),
            Event::Finished { id } => Self::Finished(id.get()),
            Event::Reset { id, reason } => Self::Reset(id.get(), reason.word()),
            Event::Writable { id } => Self::Writable(id.get()),
            Event::Challenge(nonce) => Self::Challenge(nonce),
            Event::Proof(proof) => Self::Proof(proof),
        }
    }
}

/// The protocol of one end. Streams go by their numbers; a call for a number that is no open stream does nothing.
#[derive(Debug)]
pub struct TunnelEnd {
    machine: Machine,
    events: Vec<Event>,
}

impl TunnelEnd {
    /// An end that carries at most so many streams at once; everything else as shipped.
    pub fn new(end: End, streams: usize, now: Instant) -> Self {
        let limits = TunnelLimits { streams, ..TunnelLimits::default() };
        Self { machine: Machine::new(end.role(), limits, now), events: Vec::new() }
    }

    /// Takes plaintext from the peer and tells what it did, up to the first violation.
    ///
    /// # Errors
    /// What ends the tunnel, in one word.
    pub fn receive(&mut self, plaintext: &[u8], now: Instant, mut told: impl FnMut(Told)) -> Result<(), &'static str> {
        let outcome = self.machine.receive(plaintext, now, &mut self.events);
        self.events.drain(..).for_each(|event| told(event.into()));
        outcome.map_err(word)
    }

    /// Tells the time.
    pub fn advance(&mut self, now: Instant) {
        self.machine.advance(now);
    }

    /// When [`TunnelEnd::on_timeout`] is due.
    pub fn next_timeout(&self) -> Instant {
        self.machine.next_timeout()
    }

    /// Looks after the liveness of the peer.
    ///
    /// # Errors
    /// What ends the tunnel, in one word.
    pub fn on_timeout(&mut self, now: Instant) -> Result<(), &'static str> {
        self.machine.on_timeout(now).map_err(word)
    }

    /// The connection is gone: tells the end of each stream that was not over.
    pub fn abandon(&mut self, mut told: impl FnMut(Told)) {
        self.machine.abandon(&mut self.events);
        self.events.drain(..).for_each(|event| told(event.into()));
    }

    /// Opens a stream to the port `main`, if one can be opened now.
    pub fn open(&mut self) -> Option<u32> {
        self.machine.open(&PortName::main(), None).ok().map(StreamId::get)
    }

    /// Accepts a stream of the peer.
    pub fn accept(&mut self, stream: u32) {
        self.on(stream, Machine::accept);
    }

    /// Refuses a stream of the peer.
    pub fn refuse(&mut self, stream: u32) {
        self.on(stream, |machine, id| machine.refuse(id, Reason::Denied));
    }

    /// Sends no more on the stream.
    pub fn finish(&mut self, stream: u32) {
        self.on(stream, Machine::finish);
    }

    /// Ends the stream.
    pub fn reset(&mut self, stream: u32) {
        self.on(stream, |machine, id| machine.reset(id, Reason::Cancelled));
    }

    /// The reader took so many bytes of the stream, which it was told of before.
    pub fn consumed(&mut self, stream: u32, bytes: usize) {
        self.on(stream, |machine, id| machine.consumed(id, bytes));
    }

    /// How many bytes may be sent on the stream.
    pub fn may_send(&self, stream: u32) -> usize {
        StreamId::new(stream).map_or(0, |id| self.machine.may_send(id))
    }

    /// The header before `length` bytes of the stream: 1 to [`MOST_DATA`], at most [`TunnelEnd::may_send`], after all control
    /// frames were taken. `None` if no stream has this number.
    pub fn data_header(&mut self, stream: u32, length: usize) -> Option<[u8; FRAME_HEADER]> {
        StreamId::new(stream).map(|id| self.machine.data_header(id, length))
    }

    /// Appends control frames that are due, at most a record of them; true when there were some.
    pub fn take_control(&mut self, out: &mut Vec<u8>) -> bool {
        self.machine.take_control(MOST_PLAINTEXT, out)
    }

    /// Grants no more credit.
    pub fn freeze(&mut self) {
        self.machine.set_frozen(true);
    }

    /// Grants credit again.
    pub fn thaw(&mut self) {
        self.machine.set_frozen(false);
    }

    /// Asks for a proof.
    pub fn challenge(&mut self, nonce: [u8; 32]) {
        self.machine.challenge(nonce);
    }

    /// Answers a challenge with 1 to 8,192 bytes.
    pub fn prove(&mut self, proof: Vec<u8>) {
        self.machine.prove(proof);
    }

    /// Streams that are open, or over with bytes that were not consumed.
    pub fn open_streams(&self) -> usize {
        self.machine.open_streams()
    }

    /// Bytes that were told of and not consumed.
    pub fn unread(&self) -> usize {
        self.machine.unread()
    }

    /// Bytes and entries that are kept beside the streams.
    pub fn holds(&self) -> usize {
        self.machine.holds()
    }

    fn on(&mut self, stream: u32, act: impl FnOnce(&mut Machine, StreamId)) {
        if let Some(id) = StreamId::new(stream) {
            act(&mut self.machine, id);
        }
    }
}

fn word(violation: Violation) -> &'static str {
    violation.word()
}
