//! The byte stream under an HTTP connection, and what was read of it ahead.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::local::LocalStream;
use crate::transport::Stream;
use crate::transport::tunnel::Reason;

/// Bytes that are read ahead to wake a connection.
const FIRST_READ: usize = 4_096;

/// What carries the bytes.
enum Carrier {
    /// Another service.
    Peer(Stream),
    /// A process of this host.
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A byte stream under an HTTP connection. What was read ahead comes first.
pub(crate) struct Wire {
    carrier: Carrier,
    ahead: Bytes,
    received: Arc<AtomicU64>,
    counters: Option<(IntCounter, IntCounter)>,
}

impl From<Stream> for Wire {
    fn from(stream: Stream) -> Self {
        Self::of(Carrier::Peer(stream))
    }
}

impl From<LocalStream> for Wire {
    fn from(stream: LocalStream) -> Self {
        Self::of(match stream {
            LocalStream::Tcp(stream) => Carrier::Tcp(stream),
            LocalStream::Unix(stream) => Carrier::Unix(stream),
        })
    }
}

impl Wire {
    fn of(carrier: Carrier) -> Self {
        Self { carrier, ahead: Bytes::new(), received: Arc::default(), counters: None }
    }

    /// Counts the bytes from the other end, and those to it.
    pub(crate) fn counted(self, received: IntCounter, sent: IntCounter) -> Self {
        Self { counters: Some((received, sent)), ..self }
    }

    /// Puts bytes back that were read.
    pub(crate) fn read_before(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// What was read ahead.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// How many bytes were received, as the HTTP connection above sees them; readable while that owns this.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// Waits for bytes and keeps them, behind those that were read ahead. False at the end. Between requests this is all
    /// that a connection has: no buffer waits with it.
    pub(crate) async fn wake(&mut self) -> io::Result<bool> {
        let more = poll_fn(|cx| {
            let mut bytes = [0; FIRST_READ];
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(self.poll_carrier(cx, &mut buf))?;
            Poll::Ready(Ok::<_, io::Error>(Bytes::copy_from_slice(buf.filled())))
        })
        .await?;
        if more.is_empty() {
            return Ok(false);
        }
        self.ahead = if self.ahead.is_empty() { more } else { [&self.ahead[..], &more[..]].concat().into() };
        Ok(true)
    }

    /// Ends it at once; the peer is told `reason` where there is a way to.
    pub(crate) fn reset(self, reason: Reason) {
        match self.carrier {
            Carrier::Peer(stream) => stream.reset(reason),
            Carrier::Tcp(stream) => LocalStream::Tcp(stream).reset(),
            Carrier::Unix(_) => {}
        }
    }

    fn poll_carrier(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(match &mut self.carrier {
            Carrier::Peer(stream) => Pin::new(stream).poll_read(cx, buf),
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Carrier::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        })?;
        let read = (buf.filled().len() - before) as u64;
        self.received.fetch_add(read, Ordering::Relaxed);
        if let Some((received, _)) = &self.counters {
            received.inc_by(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return self.poll_carrier(cx, buf);
        }
        let step = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..step]);
        self.ahead.advance(step);
        if self.ahead.is_empty() {
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = ready!(match &mut self.carrier {
            Carrier::Peer(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Carrier::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        })?;
        if let Some((_, sent)) = &self.counters {
            sent.inc_by(written as u64);
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Peer(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Peer(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
