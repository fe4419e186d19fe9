//! One TLS connection for each TCP connection: plain mutual TLS 1.3 that any SPIFFE client speaks.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;

use super::buffers::{Buffer, LARGE, SMALL};
use super::channel::{Channel, Fault, Ranges, Source, Unframed};
use super::{Sink, reset_on_close};

/// The slices that one write is made of: the records of one buffer.
pub(super) type Slices<'a> = SmallVec<[IoSlice<'a>; 32]>;

/// A stream that has a TLS connection to itself.
pub(crate) struct DirectStream {
    channel: Channel,
    received: Option<Received>,
    close_notified: bool,
}

/// Opened plaintexts that were not taken yet.
struct Received {
    buffer: Buffer,
    plain: Ranges,
    next: usize,
}

impl Received {
    fn advance(&mut self, mut taken: usize) -> bool {
        while let Some(range) = self.plain.get_mut(self.next) {
            let step = taken.min(range.len());
            range.start += step;
            taken -= step;
            if range.start < range.end {
                return false;
            }
            self.next += 1;
        }
        true
    }

    /// What waits for a slow reader moves to a buffer of its size.
    fn shrink(&mut self) {
        let rest: usize = self.plain[self.next..].iter().map(Range::len).sum();
        if rest > SMALL || self.buffer.bytes().len() < LARGE {
            return;
        }
        let mut smaller = Buffer::take(SMALL);
        let mut filled = 0;
        for range in &self.plain[self.next..] {
            smaller.bytes()[filled..filled + range.len()].copy_from_slice(&self.buffer.bytes()[range.clone()]);
            filled += range.len();
        }
        let mut plain = Ranges::new();
        plain.push(0..filled);
        *self = Self { buffer: smaller, plain, next: 0 };
    }
}

impl DirectStream {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, received: None, close_notified: false }
    }

    /// Gives received bytes to `sink`, and tells how many it took; 0 is the peer's orderly end.
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'_>) -> Poll<Result<usize, Fault>> {
        loop {
            if let Some(received) = &mut self.received {
                let bytes = &*received.buffer.bytes();
                let slices: Slices<'_> =
                    received.plain[received.next..].iter().map(|range| IoSlice::new(&bytes[range.clone()])).collect();
                let Poll::Ready(taken) = sink(cx, &slices) else {
                    drop(slices);
                    received.shrink();
                    return Poll::Pending;
                };
                let taken = taken.map_err(Fault::Other)?;
                drop(slices);
                if received.advance(taken) {
                    self.received = None;
                }
                return Poll::Ready(Ok(taken));
            }
            let mut plain = Ranges::new();
            let Some(buffer) = ready!(self.channel.poll_receive(cx, &mut plain)).map_err(Fault::Stream)? else {
                return Poll::Ready(Ok(0));
            };
            if !plain.is_empty() {
                self.received = Some(Received { buffer, plain, next: 0 });
            } else if self.channel.unsent() > 0 {
                // An answer of the record layer itself; whether it is out does not matter to who reads.
                let _ = self.channel.poll_flush(cx).map_err(Fault::Stream)?;
            }
        }
    }

    /// Takes bytes from `source` and sends them, once all that came before is sent; tells how many, 0 at its end.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, source: &mut Source<'_>) -> Poll<Result<usize, Fault>> {
        ready!(self.channel.poll_flush(cx)).map_err(Fault::Stream)?;
        let sent = ready!(self.channel.poll_fill(cx, usize::MAX, &mut Unframed, source))?;
        // What the socket does not take now goes first the next time.
        let _ = self.channel.poll_flush(cx).map_err(Fault::Stream)?;
        Poll::Ready(Ok(sent))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.poll_flush(cx)
    }

    /// Ends the sending half: close_notify (RFC 8446 §6.1), then the end of the TCP half.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.poll_finish(cx, &mut self.close_notified)
    }

    pub(super) fn reset(&self) {
        reset_on_close(self.channel.socket());
    }
}
