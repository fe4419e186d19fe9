//! Moves bytes both ways between the peer and the process of this host, until both have said that they are done.
//!
//! A connection that moves nothing holds no buffer: bytes are read into a scratch space of the thread and written from
//! there at once. Only what the other end cannot take yet is kept, and while it is kept nothing more is read.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that one read takes, and so the most that is kept for a slow reader.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    // Borrowed only within one poll, never across one: a poll of a socket polls no other pump.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

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

/// Two streams and the bytes on their way between them.
///
/// It can be stopped at any moment by dropping the future of [`Pump::run`]; streams and totals stay readable.
#[derive(Debug)]
pub struct Pump<P, L> {
    peer: P,
    local: L,
    inward: Way,
    outward: Way,
}

impl<P, L> Pump<P, L>
where
    P: AsyncRead + AsyncWrite + Unpin,
    L: AsyncRead + AsyncWrite + Unpin,
{
    /// Joins `peer` and `local`. The counters are those of the peer: bytes from it, and bytes to it.
    pub fn new(peer: P, local: L, bytes_in: IntCounter, bytes_out: IntCounter) -> Self {
        Self { peer, local, inward: Way::new(bytes_in), outward: Way::new(bytes_out) }
    }

    /// Copies until both directions have ended. The end of one direction is passed on and leaves the other open.
    ///
    /// # Errors
    /// When either end fails, a TLS connection cut without its close_notify included (RFC 8446 §6.1).
    pub async fn run(&mut self) -> Result<(), PumpError> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        let inward = self.inward.poll(cx, (&mut self.peer, End::Peer), (&mut self.local, End::Local))?;
        let outward = self.outward.poll(cx, (&mut self.local, End::Local), (&mut self.peer, End::Peer))?;
        if inward.is_ready() && outward.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
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
    pub fn into_ends(self) -> (P, L) {
        (self.peer, self.local)
    }
}

/// One direction of a connection.
#[derive(Debug)]
struct Way {
    stage: Stage,
    kept: Vec<u8>,
    kept_from: usize,
    unflushed: bool,
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
        Self { stage: Stage::Copying, kept: Vec::new(), kept_from: 0, unflushed: false, moved: 0, counter }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        (from, from_end): (&mut R, End),
        (to, to_end): (&mut W, End),
    ) -> Poll<Result<(), PumpError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let at = |end| move |error| PumpError { end, error };
        loop {
            ready!(self.write_kept(cx, to)).map_err(at(to_end))?;
            match self.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).or_else(ignore_not_connected).map_err(at(to_end))?;
                    self.stage = Stage::Ended;
                }
                Stage::Copying => match self.poll_copy(cx, from, to) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(Fault::Read(error))) => return Poll::Ready(Err(at(from_end)(error))),
                    Poll::Ready(Err(Fault::Write(error))) => return Poll::Ready(Err(at(to_end)(error))),
                    Poll::Pending => {
                        // Nothing more to read now, so what a TLS writer gathered goes out.
                        if self.unflushed && Pin::new(&mut *to).poll_flush(cx).map_err(at(to_end))?.is_ready() {
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Writes what an earlier write left over, and gives the memory back.
    fn write_kept<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while self.kept_from < self.kept.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept[self.kept_from..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept_from += written;
        }
        if !self.kept.is_empty() {
            self.kept = Vec::new();
            self.kept_from = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes as much of it as the other end takes.
    fn poll_copy<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buffer)).map_err(Fault::Read)?;
            let mut rest = buffer.filled();
            if rest.is_empty() {
                self.stage = Stage::Ending;
                return Poll::Ready(Ok(()));
            }
            self.moved += rest.len() as u64;
            self.counter.inc_by(rest.len() as u64);
            self.unflushed = true;
            while !rest.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, rest).map_err(Fault::Write)? {
                    Poll::Ready(0) => return Poll::Ready(Err(Fault::Write(io::ErrorKind::WriteZero.into()))),
                    Poll::Ready(written) => rest = &rest[written..],
                    Poll::Pending => {
                        self.kept = rest.to_vec();
                        break;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

enum Fault {
    Read(io::Error),
    Write(io::Error),
}

/// An end that is gone already needs no shutdown; its read side tells how it went.
fn ignore_not_connected(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn counter() -> IntCounter {
        IntCounter::new("bytes", "bytes").expect("counter")
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_are_counted() {
        let (mut client, peer) = tokio::io::duplex(16);
        let (local, mut service) = tokio::io::duplex(16);
        let mut pump = Pump::new(peer, local, counter(), counter());
        let talk = async {
            let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
            let expected = sent.clone();
            let write = async {
                client.write_all(&sent).await.expect("write");
                client.shutdown().await.expect("shutdown");
            };
            let echo = async {
                let mut got = Vec::new();
                service.read_to_end(&mut got).await.expect("read");
                assert_eq!(got, expected);
                service.write_all(b"after the end").await.expect("write");
                service.shutdown().await.expect("shutdown");
            };
            tokio::join!(write, echo);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("read");
            assert_eq!(answer, "after the end");
        };
        let (result, ()) = tokio::join!(pump.run(), talk);
        result.expect("orderly end");
        assert_eq!((pump.bytes_in(), pump.bytes_out()), (200_000, 13));
        assert_eq!(pump.inward.counter.get(), 200_000);
        assert_eq!(pump.inward.kept.capacity(), 0, "an idle direction holds no buffer");
    }
}
