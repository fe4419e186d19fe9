//! Two machines back to back.

use std::collections::HashMap;
use std::time::Instant;

use super::super::*;

pub fn id(number: u32) -> StreamId {
    StreamId::new(number).expect("stream id")
}

pub fn main_port() -> PortName {
    PortName::main()
}

/// A machine with what a driver keeps: events, and the bytes that were told and not read.
pub struct Side {
    pub machine: Machine,
    pub events: Vec<Event>,
    pub unread: HashMap<StreamId, Vec<u8>>,
    pub out: Vec<u8>,
    pub now: Instant,
}

impl Side {
    pub fn new(role: Role, limits: TunnelLimits, now: Instant) -> Self {
        Self { machine: Machine::new(role, limits, now), events: Vec::new(), unread: HashMap::new(), out: Vec::new(), now }
    }

    pub fn try_receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut events = Vec::new();
        let outcome = self.machine.receive(bytes, self.now, &mut events);
        for event in events {
            match event {
                Event::Data { id, range } => self.unread.entry(id).or_default().extend_from_slice(&bytes[range]),
                event => self.events.push(event),
            }
        }
        outcome
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.try_receive(bytes).expect("no violation");
    }

    /// Seals, as it were, `bytes` of the stream, all of which it has credit for.
    pub fn send(&mut self, id: StreamId, bytes: &[u8]) {
        self.take_control();
        for piece in bytes.chunks(MOST_DATA) {
            let header = self.machine.data_header(id, piece.len());
            self.out.extend_from_slice(&header);
            self.out.extend_from_slice(piece);
        }
    }

    pub fn take_control(&mut self) {
        while self.machine.take_control(MOST_CONTROL, &mut self.out) {}
    }

    /// The reader takes all that is there.
    pub fn read(&mut self, id: StreamId) -> Vec<u8> {
        let bytes = self.unread.remove(&id).unwrap_or_default();
        self.machine.consumed(id, bytes.len());
        bytes
    }
}

pub struct Pair {
    pub dialler: Side,
    pub acceptor: Side,
    pub now: Instant,
}

impl Pair {
    pub fn new() -> Self {
        Self::with(TunnelLimits::default())
    }

    pub fn with(limits: TunnelLimits) -> Self {
        let now = Instant::now();
        Self { dialler: Side::new(Role::Dialler, limits, now), acceptor: Side::new(Role::Acceptor, limits, now), now }
    }

    /// Carries bytes until there are none.
    pub fn settle(&mut self) {
        loop {
            for side in [&mut self.dialler, &mut self.acceptor] {
                side.now = self.now;
                side.machine.advance(self.now);
                side.take_control();
            }
            if self.dialler.out.is_empty() && self.acceptor.out.is_empty() {
                return;
            }
            self.acceptor.receive(&std::mem::take(&mut self.dialler.out));
            self.dialler.receive(&std::mem::take(&mut self.acceptor.out));
        }
    }

    /// Carries what the dialler has sent, and nothing back.
    pub fn settle_one_way(&mut self) {
        self.advance();
        self.dialler.take_control();
        self.acceptor.receive(&std::mem::take(&mut self.dialler.out));
    }

    /// Carries what the acceptor has sent, and nothing there.
    pub fn settle_back(&mut self) {
        self.advance();
        self.dialler.receive(&std::mem::take(&mut self.acceptor.out));
    }

    fn advance(&mut self) {
        for side in [&mut self.dialler, &mut self.acceptor] {
            side.now = self.now;
            side.machine.advance(self.now);
        }
    }

    pub fn open_accepted(&mut self) -> StreamId {
        let id = self.dialler.machine.open(&main_port(), None).expect("open");
        self.settle();
        self.acceptor.machine.accept(id);
        self.settle();
        id
    }

    /// Carries `bytes` from the dialler to a reader that keeps up.
    pub fn pump(&mut self, id: StreamId, mut bytes: usize) {
        while bytes > 0 {
            let piece = bytes.min(self.dialler.machine.may_send(id));
            assert!(piece > 0, "a reader that keeps up gives credit");
            self.dialler.send(id, &vec![0; piece]);
            self.settle();
            self.acceptor.read(id);
            self.settle();
            bytes -= piece;
        }
    }
}
