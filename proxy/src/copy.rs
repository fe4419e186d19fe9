//! Moves bytes both ways between the peer and the process of this host, until both have said that they are done.
//!
//! What the process sends is read between the gaps of TLS records, and what the peer sends is written from where it was
//! opened: nothing is copied, and a connection that moves nothing holds no buffer.

use std::io::{self, IoSlice, IoSliceMut};
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;

use crate::local::LocalStream;
use crate::transport::Stream;
use crate::transport::channel::Fault;

/// Reads in a row of one direction before other connections have their turn.
const TURNS: usize = 16;

/// The end of a connection at which something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other service, over the network.
    Peer,
    /// The process of this host.
    Local,
}

/// A connection that did not end in order.
#[derive(Debug, thiserror::Error)]
#[error("{end:?}: {error}")]
pub struct PumpError {
    /// Where it went wrong.
    pub end: End,
    /// What went wrong.
    pub error: io::Error,
}

impl From<Fault> for PumpError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Stream(error) => Self { end: End::Peer, error },
            Fault::Other(error) => Self { end: End::Local, error },
        }
    }
}

/// Two streams and the bytes on their way between them.
///
/// It can be stopped at any moment by dropping the future of [`Pump::run`]; streams and totals stay readable.
pub struct Pump {
    peer: Stream,
    local: LocalStream,
    inward: Way,
    outward: Way,
}

/// One direction of a connection.
#[derive(Debug)]
struct Way {
    stage: Stage,
    moved: u64,
    counter: IntCounter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Copying,
    Ending,
    Ended,
}

impl Way {
    fn new(counter: IntCounter) -> Self {
        Self { stage: Stage::Copying, moved: 0, counter }
    }

    fn count(&mut self, bytes: usize) {
        self.moved += bytes as u64;
        self.counter.inc_by(bytes as u64);
        if bytes == 0 {
            self.stage = Stage::Ending;
        }
    }
}

impl Pump {
    /// Joins `peer` and `local`. The counters are those of the peer: bytes from it, and bytes to it.
    pub fn new(peer: Stream, local: LocalStream, bytes_in: IntCounter, bytes_out: IntCounter) -> Self {
        Self { peer, local, inward: Way::new(bytes_in), outward: Way::new(bytes_out) }
    }

    /// Counts bytes that went to the peer before this began.
    pub fn sent_before(&mut self, bytes: usize) {
        if bytes > 0 {
            self.outward.count(bytes);
        }
    }

    /// Copies until both directions have ended. The end of one direction is passed on and leaves the other open.
    ///
    /// # Errors
    /// When either end fails, a TLS connection cut without its close_notify included (RFC 8446 §6.1).
    pub async fn run(&mut self) -> Result<(), PumpError> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        let inward = self.poll_inward(cx)?;
        let outward = self.poll_outward(cx)?;
        if inward.is_ready() && outward.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_inward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        let (peer, local, way) = (&mut self.peer, &mut self.local, &mut self.inward);
        for _ in 0..TURNS {
            match way.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    ready!(local.poll_finish(cx)).map_err(|error| PumpError { end: End::Local, error })?;
                    way.stage = Stage::Ended;
                }
                Stage::Copying => {
                    let mut sink = |cx: &mut Context<'_>, slices: &[IoSlice<'_>]| local.poll_write_slices(cx, slices);
                    way.count(ready!(peer.poll_recv(cx, &mut sink))?);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_outward(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        let (peer, local, way) = (&mut self.peer, &mut self.local, &mut self.outward);
        for _ in 0..TURNS {
            match way.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    ready!(peer.poll_finish(cx)).or_else(ignore_not_connected).map_err(Fault::Stream)?;
                    way.stage = Stage::Ended;
                }
                Stage::Copying => {
                    if local.poll_readable(cx).is_pending() {
                        // Nothing new; what was given before still goes out.
                        ready!(peer.poll_flush(cx)).map_err(Fault::Stream)?;
                        return Poll::Pending;
                    }
                    let mut source = |cx: &mut Context<'_>, slots: &mut [IoSliceMut<'_>]| local.poll_read_slots(cx, slots);
                    way.count(ready!(peer.poll_send(cx, &mut source))?);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Bytes that came from the peer so far.
    pub fn bytes_in(&self) -> u64 {
        self.inward.moved
    }

    /// Bytes that came from the local process, for the peer, so far.
    pub fn bytes_out(&self) -> u64 {
        self.outward.moved
    }

    /// Gives the two streams back.
    pub fn into_ends(self) -> (Stream, LocalStream) {
        (self.peer, self.local)
    }
}

/// An end that is gone already needs no shutdown; its read side tells how it went.
fn ignore_not_connected(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}
