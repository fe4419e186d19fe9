//! The frames of a tunnel, from a peer that says what it likes to an end that does what it may.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use postern_proxy::transport::bare::{End, MOST_DATA, Told, TunnelEnd};

use super::script::Script;

/// Streams at once: few, so that the limit is met.
const STREAMS: usize = 8;
/// What a stream may have unread at most.
const MOST_CREDIT: usize = 1024 * 1024;
/// Twice the longest frame that is put together (a vector grows by doubling), and the longest queue of control frames.
const MOST_HELD: usize = 2 * 8 * 1024 + 4 * STREAMS + 500 + 2;

/// One thing that happens. Streams go by a byte.
#[derive(Debug, Clone, Copy)]
enum Act<'a> {
    Receive(&'a [u8]),
    /// So many zero bytes come: data, cheap to write.
    ReceiveZeros(usize),
    TakeControl,
    Accept(u32),
    Refuse(u32),
    Finish(u32),
    Reset(u32),
    Consume(u32, usize),
    Send(u32, usize),
    Open,
    Freeze,
    Thaw,
    Challenge,
    Prove(usize),
    Wait(Duration),
    Timeout,
}

const BYTES: RangeInclusive<u8> = 0..=0x5f;
const ZEROS: RangeInclusive<u8> = 0x60..=0x7f;

fn next<'a>(script: &mut Script<'a>) -> Option<Act<'a>> {
    let act = script.byte()?;
    let mut number = || u32::from(script.byte().unwrap_or_default());
    Some(match act {
        0x81 => Act::Accept(number()),
        0x82 => Act::Refuse(number()),
        0x83 => Act::Finish(number()),
        0x84 => Act::Reset(number()),
        0x85 => Act::Consume(number(), 256 * number() as usize),
        0x86 => Act::Send(number(), 64 * number() as usize + 1),
        0x87 => Act::Open,
        0x88 => Act::Freeze,
        0x89 => Act::Thaw,
        0x8a => Act::Challenge,
        0x8b => Act::Prove(32 * number() as usize + 1),
        0x8c => Act::Wait(Duration::from_millis(16 * u64::from(number()))),
        0x8d => Act::Timeout,
        length if BYTES.contains(&length) => Act::Receive(script.bytes(length.into())),
        length if ZEROS.contains(&length) => Act::ReceiveZeros(1024 * usize::from(length - ZEROS.start() + 1)),
        _ => Act::TakeControl,
    })
}

/// What an end told, with the bytes of a stream joined.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Told(Told),
    Data(u32, usize),
}

/// One end, and what is known of it from outside.
struct Observed {
    machine: TunnelEnd,
    end: End,
    /// The length of the pieces in which it hears what comes.
    piece: usize,
    now: Instant,
    heard: Vec<Heard>,
    sent: Vec<u8>,
    outcome: Result<(), &'static str>,
    unread: HashMap<u32, usize>,
    opened: HashSet<u32>,
    accepted: HashSet<u32>,
    finished: HashSet<u32>,
    over: HashSet<u32>,
    highest: u32,
}

impl Observed {
    fn new(end: End, piece: usize, now: Instant) -> Self {
        Self {
            machine: TunnelEnd::new(end, STREAMS, now),
            end,
            piece,
            now,
            heard: Vec::new(),
            sent: Vec::new(),
            outcome: Ok(()),
            unread: HashMap::new(),
            opened: HashSet::new(),
            accepted: HashSet::new(),
            finished: HashSet::new(),
            over: HashSet::new(),
            highest: 0,
        }
    }

    fn act(&mut self, act: Act<'_>) {
        match act {
            Act::Receive(bytes) => self.receive(bytes),
            Act::ReceiveZeros(length) => self.receive(&vec![0; length]),
            Act::TakeControl => self.take_control(),
            Act::Accept(stream) if self.opened.contains(&stream) => {
                self.machine.accept(stream);
                self.accepted.insert(stream);
            }
            Act::Refuse(stream) => self.end_stream(stream, TunnelEnd::refuse),
            Act::Finish(stream) if self.end == End::Dialler || self.accepted.contains(&stream) => self.machine.finish(stream),
            Act::Accept(_) | Act::Finish(_) => {}
            Act::Reset(stream) => self.end_stream(stream, TunnelEnd::reset),
            Act::Consume(stream, most) => {
                if let Some(unread) = self.unread.get_mut(&stream) {
                    let taken = most.min(*unread);
                    *unread -= taken;
                    self.machine.consumed(stream, taken);
                }
            }
            Act::Send(stream, most) => {
                self.take_control();
                let length = most.min(self.machine.may_send(stream)).min(MOST_DATA);
                if length > 0 {
                    self.sent.extend(self.machine.data_header(stream, length).expect("a stream that may send has a number"));
                    self.sent.resize(self.sent.len() + length, 0);
                }
            }
            Act::Open => {
                self.machine.open();
            }
            Act::Freeze => self.machine.freeze(),
            Act::Thaw => self.machine.thaw(),
            Act::Challenge => self.machine.challenge([7; 32]),
            Act::Prove(length) => self.machine.prove(vec![7; length]),
            Act::Wait(time) => {
                self.now += time;
                self.machine.advance(self.now);
            }
            Act::Timeout => {
                self.now = self.now.max(self.machine.next_timeout());
                self.outcome = self.machine.on_timeout(self.now);
            }
        }
        // What ends the tunnel may be an act of its own end too.
        self.outcome = self.machine.receive(&[], self.now, |told| panic!("{told:?} from nothing"));
    }

    fn receive(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            let mut all = Vec::new();
            self.outcome = self.machine.receive(piece, self.now, |told| all.push(told));
            all.into_iter().for_each(|told| self.hear(told, piece.len()));
            if self.outcome.is_err() {
                return;
            }
        }
    }

    fn hear(&mut self, told: Told, received: usize) {
        let stream = match told {
            Told::Opened(stream)
            | Told::Accepted(stream)
            | Told::Data(stream, _)
            | Told::Finished(stream)
            | Told::Reset(stream, _)
            | Told::Writable(stream) => Some(stream),
            Told::Challenge(_) | Told::Proof(_) => None,
        };
        assert!(stream.is_none_or(|stream| !self.over.contains(&stream)), "{told:?} of a stream that is over");
        match &told {
            Told::Opened(stream) => {
                assert!(self.end == End::Acceptor && *stream > self.highest, "{told:?}");
                self.highest = *stream;
                self.opened.insert(*stream);
            }
            Told::Accepted(stream) => assert!(self.end == End::Dialler && self.accepted.insert(*stream), "{told:?} twice"),
            Told::Data(stream, range) => {
                assert!(!range.is_empty() && range.end <= received && !self.finished.contains(stream), "{told:?}");
                *self.unread.entry(*stream).or_default() += range.len();
                let more = range.len();
                match self.heard.last_mut() {
                    Some(Heard::Data(last, length)) if last == stream => *length += more,
                    _ => self.heard.push(Heard::Data(*stream, more)),
                }
                return;
            }
            Told::Finished(stream) => assert!(self.finished.insert(*stream), "{told:?} twice"),
            Told::Reset(stream, word) => {
                assert!(!word.is_empty() && self.over.insert(*stream));
                self.unread.remove(stream);
            }
            Told::Writable(_) | Told::Challenge(_) => {}
            Told::Proof(proof) => assert!((1..=8 * 1024).contains(&proof.len())),
        }
        self.heard.push(Heard::Told(told));
    }

    fn end_stream(&mut self, stream: u32, end: fn(&mut TunnelEnd, u32)) {
        let open = self.machine.open_streams();
        end(&mut self.machine, stream);
        if self.machine.open_streams() < open {
            self.unread.remove(&stream);
            self.over.insert(stream);
        }
    }

    fn take_control(&mut self) {
        while self.machine.take_control(&mut self.sent) {}
    }

    fn check_bounds(&self) {
        assert!(self.machine.open_streams() <= STREAMS, "{} streams", self.machine.open_streams());
        assert!(self.machine.holds() <= MOST_HELD, "{} bytes and entries are kept", self.machine.holds());
        assert!(self.unread.values().all(|unread| *unread <= MOST_CREDIT), "{:?} unread", self.unread);
        assert_eq!(self.machine.unread(), self.unread.values().sum::<usize>());
    }

    /// The connection ends, after a violation or without one.
    fn end(mut self) {
        let outcome = self.machine.receive(&[], self.now, |told| panic!("{told:?} from nothing"));
        assert_eq!(outcome, self.outcome, "an ended tunnel stays ended, one that runs runs on");
        let mut all = Vec::new();
        self.machine.abandon(|told| all.push(told));
        for told in all {
            let Told::Reset(stream, _) = told else { panic!("{told:?} after the end") };
            assert!(self.over.insert(stream), "{stream} ends twice");
        }
        assert_eq!((self.machine.open_streams(), self.machine.unread()), (0, 0));
    }
}

/// Frames whole and in pieces, between whatever the other side of the machine may do. First byte: the end, and the length
/// of the pieces.
pub fn tunnel_frames(data: &[u8]) {
    static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);
    let mut script = Script(data);
    let Some(first) = script.byte() else { return };
    let end = if first & 1 == 0 { End::Acceptor } else { End::Dialler };
    let mut whole = Observed::new(end, usize::MAX, *NOW);
    let mut pieces = Observed::new(end, usize::from(first >> 1) + 1, *NOW);
    while let Some(act) = next(&mut script) {
        for observed in [&mut whole, &mut pieces] {
            observed.act(act);
            observed.check_bounds();
        }
        assert_eq!((&whole.outcome, &whole.heard), (&pieces.outcome, &pieces.heard), "how bytes are cut changes what they say");
        assert_eq!(whole.sent, pieces.sent, "nor what is answered");
        whole.heard.clear();
        pieces.heard.clear();
        whole.sent.clear();
        pieces.sent.clear();
        if whole.outcome.is_err() {
            break;
        }
    }
    whole.end();
    pieces.end();
}
