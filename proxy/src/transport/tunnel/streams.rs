//! The open streams of a tunnel.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

use super::busy::Moved;
use super::credit::Window;

/// The number of a stream within its tunnel: 1 to 2^31 - 1, rising, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId(u32);

impl StreamId {
    /// The highest id.
    pub const MOST: u32 = (1 << 31) - 1;

    /// The stream with this number; `None` when no stream can have it.
    pub fn new(number: u32) -> Option<Self> {
        (1..=Self::MOST).contains(&number).then_some(Self(number))
    }

    /// Its number on the wire.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a stream is on its way into existence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Dialler: the OPEN waits to be sent.
    Queued,
    /// The OPEN is sent and not answered, or came and was not answered.
    Unanswered,
    /// Accepted, and the acceptance waits to be sent.
    Answering,
    /// Accepted by both.
    Done,
}

/// What this end still sends on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// Data.
    Open,
    /// Only a FIN, which waits to be sent.
    Finishing,
    /// Nothing.
    Finished,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub opening: Opening,
    pub sending: Sending,
    pub peer_finished: bool,
    /// What the peer may send.
    pub window: Window,
    /// What this end may send.
    pub credit: u32,
    pub moved: Moved,
    pub credit_due: bool,
    /// Whether the control queue holds an entry for it.
    pub queued: bool,
}

impl Stream {
    pub fn new(opening: Opening, window: Window, credit: u32) -> Self {
        Self {
            opening,
            sending: Sending::Open,
            peer_finished: false,
            window,
            credit,
            moved: Moved::default(),
            credit_due: false,
            queued: false,
        }
    }

    pub fn is_accepted(&self) -> bool {
        matches!(self.opening, Opening::Answering | Opening::Done)
    }

    /// Both ends have sent all, and the reader took it.
    pub fn is_over(&self) -> bool {
        self.peer_finished && self.sending == Sending::Finished && self.window.unread() == 0
    }
}

/// The open streams by id. Its memory follows their number, down too.
#[derive(Debug)]
pub(super) struct Streams(HashMap<u32, Stream, Mixing>);

/// Below this no memory is given back.
const SMALL: usize = 64;

impl Streams {
    pub fn new() -> Self {
        Self(HashMap::with_hasher(Mixing::default()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, id: StreamId) -> Option<&Stream> {
        self.0.get(&id.0)
    }

    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.0.get_mut(&id.0)
    }

    pub fn insert(&mut self, id: StreamId, stream: Stream) {
        self.0.insert(id.0, stream);
    }

    pub fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.0.remove(&id.0);
        if self.0.capacity() > SMALL && self.0.len() * 8 < self.0.capacity() {
            self.0.shrink_to(self.0.len() * 2);
        }
        stream
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        self.0.iter_mut().map(|(id, stream)| (StreamId(*id), stream))
    }

    pub fn take_all(&mut self) -> impl Iterator<Item = (StreamId, Stream)> + use<> {
        let hasher = self.0.hasher().clone();
        std::mem::replace(&mut self.0, HashMap::with_hasher(hasher)).into_iter().map(|(id, stream)| (StreamId(id), stream))
    }
}

/// A hash of one multiplication. The peer chooses ids, so a seed that it cannot know keeps it from choosing collisions.
#[derive(Debug, Clone)]
pub(super) struct Mixing(u64);

impl Default for Mixing {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0_u8))
    }
}

impl BuildHasher for Mixing {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed(self.0)
    }
}

pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        let product = u128::from(self.0 ^ u64::from(number)) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_streams_that_ended_is_given_back() {
        let mut streams = Streams::new();
        for number in 1..=2_048 {
            streams.insert(StreamId(number), Stream::new(Opening::Done, Window::new(0, 65_536), 0));
        }
        for number in 1..=2_048 {
            streams.remove(StreamId(number));
        }
        assert!(streams.0.capacity() <= 2 * SMALL, "{}", streams.0.capacity());
    }
}
