//! Two machines, a pipe each way that is cut anywhere, and a naive model of every stream to judge what comes out.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::super::*;
use super::pair::main_port;

/// What streams carry: byte `n` of a stream is byte `n` from a place in here that depends on stream and direction.
static PATTERN: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..4_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect());

fn expected(id: StreamId, side: usize, from: usize, length: usize) -> &'static [u8] {
    let place = (id.get() as usize * 2 + side) * 977 + from;
    &PATTERN[place..place + length]
}

/// What every stream still carries at the end of a schedule: more than the credit that some have, so that all of it only
/// arrives if credit is granted again and again.
const LAST_WORD: usize = 40_000;

/// One step of a schedule. Numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Open,
    Accept(u8),
    Refuse(u8),
    Send(u8, u8, u16),
    Finish(u8, u8),
    Reset(u8, u8),
    Read(u8, u8, u16),
    TakeControl(u8),
    Carry(u8, u16),
    Freeze(u8),
    Thaw(u8),
    Wait(u16),
    /// How much of large windows there may be.
    Over(u8, u16),
    /// A transfer from one end to a reader that takes everything, over a way of so many milliseconds.
    Stream(u8, u8, u8),
}

/// What one end knows of a stream.
#[derive(Debug, Default)]
struct Half {
    sent: usize,
    has_finished: bool,
    received: usize,
    consumed: usize,
    saw_finish: bool,
    is_accepted: bool,
    /// Reset by either end, as far as this end knows.
    is_reset: bool,
    /// Where its last word ends, once it has begun.
    last_word: Option<usize>,
}

impl Half {
    fn is_over(&self) -> bool {
        self.is_reset || (self.has_finished && self.saw_finish)
    }
}

struct End {
    machine: Machine,
    streams: BTreeMap<StreamId, Half>,
    /// On the way to the other end.
    pipe: Vec<u8>,
}

pub struct Model {
    ends: [End; 2],
    now: Instant,
    most_credit: usize,
    limits: TunnelLimits,
    /// What each end was told last, or more: windows that are larger stay so.
    most_over: [usize; 2],
    events: Vec<Event>,
}

impl Model {
    pub fn new(limits: TunnelLimits) -> Self {
        let now = Instant::now();
        let end = |role| End { machine: Machine::new(role, limits, now), streams: BTreeMap::new(), pipe: Vec::new() };
        let ends = [end(Role::Dialler), end(Role::Acceptor)];
        let most_credit = limits.largest_credit.max(limits.most_credit) as usize;
        Self { ends, now, most_credit, limits, most_over: [0; 2], events: Vec::new() }
    }

    pub fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(*step);
            self.check_unread();
        }
    }

    fn pick(&self, side: usize, number: u8) -> Option<StreamId> {
        let streams = &self.ends[side].streams;
        streams.keys().nth(usize::from(number) % streams.len().max(1)).copied()
    }

    fn step(&mut self, step: Step) {
        let side_of = |side: u8| usize::from(side % 2);
        match step {
            Step::Open => self.open(),
            Step::Accept(number) => self.pick(1, number).into_iter().for_each(|id| self.accept(id)),
            Step::Refuse(number) => {
                if let Some(id) = self.pick(1, number)
                    && self.ends[1].streams.get(&id).is_some_and(|half| !half.is_accepted)
                {
                    self.reset(1, id);
                }
            }
            Step::Send(side, number, length) => {
                let side = side_of(side);
                self.pick(side, number).into_iter().for_each(|id| self.send(side, id, usize::from(length)));
            }
            Step::Finish(side, number) => {
                let side = side_of(side);
                self.pick(side, number).into_iter().for_each(|id| self.finish(side, id));
            }
            Step::Reset(side, number) => {
                let side = side_of(side);
                self.pick(side, number).into_iter().for_each(|id| self.reset(side, id));
            }
            Step::Read(side, number, most) => {
                let side = side_of(side);
                self.pick(side, number).into_iter().for_each(|id| self.read(side, id, usize::from(most)));
            }
            Step::TakeControl(side) => self.take_control(side_of(side)),
            Step::Carry(side, most) => self.carry(side_of(side), usize::from(most)),
            Step::Freeze(side) => self.ends[side_of(side)].machine.set_frozen(true),
            Step::Thaw(side) => self.ends[side_of(side)].machine.set_frozen(false),
            Step::Wait(milliseconds) => self.wait(u64::from(milliseconds)),
            Step::Over(side, kib) => {
                let (side, most) = (side_of(side), usize::from(kib) * 1024);
                self.ends[side].machine.set_most_over(most);
                self.most_over[side] = self.most_over[side].max(most);
            }
            Step::Stream(side, number, milliseconds) => {
                let side = side_of(side);
                self.pick(side, number).into_iter().for_each(|id| self.stream(side, id, u64::from(milliseconds)));
            }
        }
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.ends.iter_mut().for_each(|end| end.machine.advance(self.now));
    }

    fn stream(&mut self, side: usize, id: StreamId, milliseconds: u64) {
        for _ in 0..8 {
            // What streams carry has an end in this model.
            while self.ends[side].streams.get(&id).is_some_and(|half| half.sent < 1 << 20) {
                let before = self.ends[side].machine.may_send(id);
                if before == 0 || self.ends[side].streams.get(&id).is_none_or(|half| half.has_finished || half.is_reset) {
                    break;
                }
                self.send(side, id, MOST_DATA);
            }
            self.wait(milliseconds);
            self.carry(side, usize::MAX);
            if self.ends[1 - side].streams.contains_key(&id) {
                self.read(1 - side, id, usize::MAX);
            }
            self.take_control(1 - side);
            self.wait(milliseconds);
            self.carry(1 - side, usize::MAX);
            self.check_unread();
        }
    }

    fn open(&mut self) {
        if let Ok(id) = self.ends[0].machine.open(&main_port(), Some("trace")) {
            self.ends[0].streams.insert(id, Half { is_accepted: true, ..Half::default() });
        }
    }

    fn accept(&mut self, id: StreamId) {
        self.ends[1].machine.accept(id);
        self.ends[1].streams.entry(id).or_default().is_accepted = true;
    }

    fn reset(&mut self, side: usize, id: StreamId) {
        let half = self.ends[side].streams.entry(id).or_default();
        half.is_reset = true;
        self.ends[side].machine.reset(id, Reason::Cancelled);
    }

    fn send(&mut self, side: usize, id: StreamId, most: usize) {
        self.take_control(side);
        let end = &mut self.ends[side];
        let length = most.min(MOST_DATA).min(end.machine.may_send(id));
        if length == 0 {
            return;
        }
        let half = end.streams.entry(id).or_default();
        assert!(!half.is_reset && !half.has_finished && half.is_accepted, "credit for a stream that may not send");
        end.pipe.extend_from_slice(&end.machine.data_header(id, length));
        end.pipe.extend_from_slice(expected(id, side, half.sent, length));
        half.sent += length;
    }

    fn finish(&mut self, side: usize, id: StreamId) {
        let half = self.ends[side].streams.entry(id).or_default();
        if half.is_accepted && !half.is_reset {
            half.has_finished = true;
            self.ends[side].machine.finish(id);
        }
    }

    fn read(&mut self, side: usize, id: StreamId, most: usize) {
        let half = self.ends[side].streams.entry(id).or_default();
        if half.is_accepted && !half.is_reset {
            let taken = most.min(half.received - half.consumed);
            half.consumed += taken;
            self.ends[side].machine.consumed(id, taken);
        }
    }

    fn take_control(&mut self, side: usize) {
        let end = &mut self.ends[side];
        while end.machine.take_control(MOST_CONTROL, &mut end.pipe) {}
    }

    /// Delivers the next bytes that are on the way from `side`, cut wherever `most` cuts them.
    fn carry(&mut self, side: usize, most: usize) {
        let length = most.min(self.ends[side].pipe.len());
        let rest = self.ends[side].pipe.split_off(length);
        let bytes = std::mem::replace(&mut self.ends[side].pipe, rest);
        let mut events = std::mem::take(&mut self.events);
        self.ends[1 - side].machine.receive(&bytes, self.now, &mut events).expect("neither end violates the protocol");
        for event in events.drain(..) {
            self.judge(1 - side, event, &bytes);
        }
        self.events = events;
    }

    /// Compares an event at `side` with what the other end did.
    fn judge(&mut self, side: usize, event: Event, bytes: &[u8]) {
        let [dialler, acceptor] = &mut self.ends;
        let (own, other) = if side == 0 { (dialler, acceptor) } else { (acceptor, dialler) };
        if let Event::Opened { id, port, trace } = &event {
            assert!(port == &main_port() && trace.as_deref() == Some("trace"));
            assert!(other.streams.contains_key(id));
            assert!(own.streams.insert(*id, Half::default()).is_none(), "opened twice");
            return;
        }
        let (Event::Data { id, .. }
        | Event::Accepted { id }
        | Event::Finished { id }
        | Event::Reset { id, .. }
        | Event::Writable { id }) = event
        else {
            panic!("{event:?}, which nobody sent")
        };
        let half = own.streams.get_mut(&id).expect("an event of a stream that is known");
        assert!(!half.is_reset, "{event:?} after the end");
        let theirs = other.streams.get(&id);
        match event {
            Event::Data { range, .. } => {
                assert!(!half.saw_finish && !range.is_empty());
                assert_eq!(
                    &bytes[range.clone()],
                    expected(id, 1 - side, half.received, range.len()),
                    "lost, doubled or disordered"
                );
                half.received += range.len();
            }
            Event::Finished { .. } => {
                let theirs = theirs.expect("the other end finished it");
                assert!(theirs.has_finished && !half.saw_finish && half.received == theirs.sent);
                half.saw_finish = true;
            }
            Event::Reset { reason, .. } => {
                assert!(theirs.is_none_or(|theirs| theirs.is_reset) || reason == Reason::TunnelEnded);
                half.is_reset = true;
            }
            Event::Accepted { .. } => assert!(theirs.is_some_and(|theirs| theirs.is_accepted)),
            _ => assert!(half.is_accepted && !half.has_finished, "writable without anything to write"),
        }
    }

    /// No more is unread than was granted, and the machine counts the same.
    fn check_unread(&self) {
        for (end, most_over) in self.ends.iter().zip(self.most_over) {
            assert!(end.machine.over() <= most_over, "windows are larger than there is room for");
            let large = |half: &&Half| !half.is_reset && half.received - half.consumed > self.limits.most_credit as usize;
            let large = end.streams.values().filter(large).count();
            assert!(large == 0 || most_over > 0, "more than every stream may have is unread");
            let unread = end.streams.values().filter(|half| !half.is_reset).map(|half| half.received - half.consumed);
            let (sum, most) = unread.fold((0, 0), |(sum, most), unread| (sum + unread, most.max(unread)));
            assert_eq!(end.machine.unread(), sum);
            assert!(most <= self.most_credit, "{most} bytes of a stream are unread");
        }
    }

    /// Both ends accept, read, thaw, and finish what they send: everything comes to its end, all of it.
    pub fn finish_all(&mut self) {
        for side in [0, 1] {
            self.ends[side].machine.set_frozen(false);
        }
        for turn in 0.. {
            assert!(turn < 1_000, "the streams do not come to an end");
            let mut moves = false;
            for side in [0, 1] {
                let ids: Vec<StreamId> = self.ends[side].streams.keys().copied().collect();
                for id in ids {
                    self.accept_and_finish(side, id);
                    self.read(side, id, usize::MAX);
                }
                self.take_control(side);
                moves |= !self.ends[side].pipe.is_empty();
            }
            for side in [0, 1] {
                self.carry(side, usize::MAX);
            }
            if !moves {
                break;
            }
        }
        for end in &self.ends {
            assert!(end.streams.values().all(Half::is_over), "a stream is not over");
            assert_eq!((end.machine.open_streams(), end.machine.unread()), (0, 0));
        }
        self.check_totals();
    }

    fn accept_and_finish(&mut self, side: usize, id: StreamId) {
        let half = self.ends[side].streams.entry(id).or_default();
        if half.is_reset || half.has_finished {
            return;
        }
        if !half.is_accepted {
            self.accept(id);
        }
        let half = self.ends[side].streams.entry(id).or_default();
        let left = half.last_word.get_or_insert(half.sent + LAST_WORD).saturating_sub(half.sent);
        self.send(side, id, left);
        if left == 0 {
            self.finish(side, id);
        }
    }

    fn check_totals(&self) {
        let [dialler, acceptor] = &self.ends;
        for (id, half) in &acceptor.streams {
            let other = &dialler.streams[id];
            if !half.is_reset && !other.is_reset {
                assert_eq!((half.sent, half.received), (other.received, other.sent));
            }
        }
    }

    /// The connection breaks after `most` more bytes each way: each end is told the end of each stream that was not over.
    pub fn kill(&mut self, most: [u16; 2]) {
        for side in [0, 1] {
            self.take_control(side);
            self.carry(side, usize::from(most[side]));
        }
        for side in [0, 1] {
            let mut events = Vec::new();
            self.ends[side].machine.abandon(&mut events);
            for event in events {
                assert!(matches!(event, Event::Reset { reason: Reason::TunnelEnded, .. }));
                self.judge(side, event, &[]);
            }
            assert!(self.ends[side].streams.values().all(Half::is_over), "a stream hangs after a kill");
            assert_eq!(self.ends[side].machine.open_streams(), 0);
        }
    }

    /// All bytes that the dialler has sent and not delivered.
    pub fn dialled_bytes(&mut self) -> Vec<u8> {
        self.take_control(0);
        std::mem::take(&mut self.ends[0].pipe)
    }
}
