//! Frames of HTTP/2 that make work and say nothing: empty DATA, SETTINGS, PING, PRIORITY and kinds that nobody knows
//! (CVE-2019-9512, CVE-2019-9515, CVE-2019-9518). RFC 9113 §10.5 leaves it to us how many there may be: here traffic pays for
//! them. Floods of other kinds end by the limits that h2 has.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long the head of a frame is (RFC 9113 §4.1).
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;
/// The longest payload that may be padding alone.
const MOST_PADDING: usize = 256;
/// Bytes to the peer that pay for a frame of it: who downloads much may ask much how far it is.
const PAYS: u64 = 1_024;
/// The share of the limit that each second pays for.
const A_SECOND: u32 = 10;

/// A socket that gives an error when its peer sends too many frames that say nothing.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    socket: T,
    frames: Frames,
    written: u64,
    flood: Flood,
}

/// Whether the peer of a [`Watched`] socket has sent too many.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flood(Arc<AtomicBool>);

impl Flood {
    /// So that it was ended.
    pub(crate) fn is_over_the_limit(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Finds the frames in what is read, and counts those that say nothing.
#[derive(Debug)]
pub struct Frames {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD],
    /// Bytes of the head that were read.
    held: usize,
    /// How many frames that say nothing may still come, and the most that may.
    room: u32,
    most: u32,
    /// When time has last paid.
    paid: Instant,
}

/// Too many frames that say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl<T> Watched<T> {
    /// Around a socket on which `preface` bytes come before the first frame. `most` frames that say nothing may come at once, a
    /// tenth of it in each second after that, and one more for each frame with content and each KiB that is sent.
    pub(crate) fn new(socket: T, preface: usize, most: u32) -> (Self, Flood) {
        let flood = Flood::default();
        (Self { socket, frames: Frames::new(preface, most), written: 0, flood: flood.clone() }, flood)
    }
}

impl Frames {
    /// Of a connection on which `preface` bytes come before the first frame, and on which `most` frames that say nothing may
    /// come at once.
    pub fn new(preface: usize, most: u32) -> Self {
        Self { skip: preface, head: [0; HEAD], held: 0, room: most, most, paid: Instant::now() }
    }

    /// Looks at what was read. `written` is how many bytes were sent that have paid for no frame yet.
    ///
    /// # Errors
    /// [`TooMany`]: the connection has to end.
    pub fn pass(&mut self, mut bytes: &[u8], written: &mut u64) -> Result<(), TooMany> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let step = (HEAD - self.held).min(bytes.len());
            self.head[self.held..self.held + step].copy_from_slice(&bytes[..step]);
            self.held += step;
            bytes = &bytes[step..];
            if self.held == HEAD {
                self.held = 0;
                let [high, middle, low, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.frame(kind, flags, written)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, written: &mut u64) -> Result<(), TooMany> {
        let padding = if flags & PADDED == 0 { 0 } else { MOST_PADDING };
        match kind {
            DATA if self.skip > padding || flags & END_STREAM != 0 => self.room = (self.room + 1).min(self.most),
            HEADERS => self.room = (self.room + 1).min(self.most),
            RST_STREAM | GOAWAY | WINDOW_UPDATE | CONTINUATION => {}
            _ => self.take(written)?,
        }
        Ok(())
    }

    /// Looks at the clock only when what there was is used up.
    fn take(&mut self, written: &mut u64) -> Result<(), TooMany> {
        if self.room == 0 {
            let now = Instant::now();
            let passed = now.duration_since(self.paid).as_millis().min(u128::from(u32::MAX)) as u64;
            let by_time = passed * u64::from((self.most / A_SECOND).max(1)) / 1_000;
            let paid = (by_time + *written / PAYS).min(self.most.into());
            self.room = paid as u32;
            if paid == 0 {
                return Err(TooMany);
            }
            (self.paid, *written) = (now, 0);
        }
        self.room -= 1;
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let arrived = &buf.filled()[before..];
        Poll::Ready(this.frames.pass(arrived, &mut this.written).map_err(|TooMany| {
            this.flood.0.store(true, Ordering::Relaxed);
            io::Error::new(io::ErrorKind::InvalidData, "too many HTTP/2 frames that say nothing")
        }))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, parts))?;
        self.written += written as u64;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const MOST: u32 = 10;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, (payload >> 8) as u8, payload as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + payload, b'x');
        frame
    }

    fn frames() -> Frames {
        Frames::new(0, MOST)
    }

    /// How many of these frames pass.
    fn passing(frame: &[u8], most: usize) -> usize {
        let mut frames = frames();
        (0..most).take_while(|_| frames.pass(frame, &mut 0).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_say_nothing_are_counted_and_no_others() {
        for (kind, flags, payload) in [(DATA, 0, 0), (DATA, PADDED, 256), (SETTINGS, 0, 6), (SETTINGS, 0, 0), (PING, 0, 8)] {
            assert_eq!(passing(&frame(kind, flags, payload), 100), MOST as usize, "{kind} {flags} {payload}");
        }
        for kind in [2, 5, 10, 200] {
            assert_eq!(passing(&frame(kind, 0, 5), 100), MOST as usize, "{kind}");
        }
        for (kind, flags, payload) in
            [(DATA, 0, 1), (DATA, END_STREAM, 0), (DATA, PADDED, 257), (HEADERS, 0, 0), (WINDOW_UPDATE, 0, 4), (RST_STREAM, 0, 4)]
        {
            assert_eq!(passing(&frame(kind, flags, payload), 100), 100, "{kind} {flags} {payload}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_and_traffic_pay_for_them() {
        let mut frames = frames();
        let mut pass = |kind: u8, written: u64| {
            frames.skip = 8;
            frames.frame(kind, 0, &mut { written }).is_ok()
        };
        (0..MOST).for_each(|_| assert!(pass(PING, 0)));
        assert!(!pass(PING, PAYS - 1));
        assert!(pass(PING, PAYS) && !pass(PING, 0), "what was sent pays");
        assert!(pass(DATA, 0) && pass(PING, 0) && !pass(PING, 0), "what came pays");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(pass(PING, 0) && pass(PING, 0) && !pass(PING, 0), "a tenth a second");
        tokio::time::advance(Duration::from_secs(3_600)).await;
        (0..MOST).for_each(|_| assert!(pass(PING, 0)));
        assert!(!pass(PING, 0), "never more than the limit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watched_socket_gives_an_error_at_the_limit_and_counts_what_it_sends() {
        let (mut peer, socket) = tokio::io::duplex(1 << 20);
        let (mut watched, flood) = Watched::new(socket, 3, MOST);
        watched.write_all(&[0; PAYS as usize]).await.expect("write");
        peer.write_all(b"PRI").await.expect("write");
        let mut buffer = vec![0; 1 << 16];
        watched.read_exact(&mut buffer[..3]).await.expect("the preface");
        for _ in 0..MOST + 1 {
            peer.write_all(&frame(PING, 0, 8)).await.expect("write");
            watched.read_exact(&mut buffer[..HEAD + 8]).await.expect("a frame");
        }
        assert!(!flood.is_over_the_limit());
        peer.write_all(&frame(PING, 0, 8)).await.expect("write");
        watched.read(&mut buffer).await.expect_err("too many");
        assert!(flood.is_over_the_limit());
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_frames_are_found(
            sent in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..600), 1..60),
            cuts in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let all: Vec<u8> = sent.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, *payload)).collect();
            let whole = frames().pass(&all, &mut 0);
            let mut cut = frames();
            let (mut rest, mut cuts, mut became) = (&all[..], cuts.iter().cycle(), Ok(()));
            while let (Some(step), false, Ok(())) = (cuts.next(), rest.is_empty(), became) {
                let (now, later) = rest.split_at((*step).min(rest.len()));
                became = cut.pass(now, &mut 0);
                rest = later;
            }
            prop_assert_eq!(became, whole);
        }
    }
}
