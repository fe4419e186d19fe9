//! The control frames that wait to be sent.

use std::collections::VecDeque;

use postern_names::PortName;

use super::{Reason, StreamId};

/// A frame that waits, or a stream that has some. What a stream's frames say is decided when they are sent.
#[derive(Debug)]
pub(super) enum Queued {
    Open {
        id: StreamId,
        port: PortName,
        trace: Option<Box<str>>,
    },
    /// An acceptance, a CREDIT or a FIN; at most one entry a stream.
    Stream(StreamId),
    Reset {
        id: StreamId,
        reason: Reason,
    },
    /// The questions and answers of the tunnel; at most one entry.
    Tunnel,
}

/// The control frames that wait, in the order in which they were asked for.
///
/// Entries of streams that are gone stay until they are reached. The number of entries is bounded by the machine: it
/// takes no further stream while more wait than the streams that may be open can need.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub queue: VecDeque<Queued>,
    pub ask: Option<[u8; 8]>,
    pub answer: Option<[u8; 8]>,
    pub challenge: Option<[u8; 32]>,
    pub proof: Option<Vec<u8>>,
    is_tunnel_queued: bool,
}

/// Below this no memory is given back.
const SMALL: usize = 64;

impl Outgoing {
    /// Makes sure that what the tunnel itself has to say is reached.
    pub fn queue_tunnel(&mut self) {
        if !self.is_tunnel_queued {
            self.is_tunnel_queued = true;
            self.queue.push_back(Queued::Tunnel);
        }
    }

    /// The first entry was dealt with.
    pub fn pop(&mut self) -> Option<Queued> {
        let first = self.queue.pop_front();
        if matches!(first, Some(Queued::Tunnel)) {
            self.is_tunnel_queued = false;
        }
        if self.queue.is_empty() && self.queue.capacity() > SMALL {
            self.queue.shrink_to(SMALL);
        }
        first
    }
}
