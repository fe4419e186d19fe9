//! A TCP connection that carries TLS records: reads that open many at once where they lie, writes that send many at once.
//!
//! Nothing is copied on the way: what a source gives is written between the gaps for record headers, sealed there and
//! sent; what was received is opened there and handed on. Buffers are held only while bytes wait.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Read};
use std::net::Shutdown;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use nix::sys::socket::MsgFlags;
use smallvec::SmallVec;
use socket2::{SockRef, Socket};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::buffers::{Buffer, LARGE, SMALL};
use super::handshake::Established;
use super::record::{HEADER, MOST_PLAINTEXT, Opened, RecordError, RecordLayer, TRAILER, record_length};

/// The records that one buffer has room for, and so the most slots that a source is shown.
const MOST_SLOTS: usize = LARGE / (HEADER + MOST_PLAINTEXT + TRAILER);

/// Where plaintexts lie in a buffer.
pub(crate) type Ranges = SmallVec<[Range<usize>; 2]>;

/// Gives bytes to send: fills the slots in their order and tells how many bytes it gave; 0 is its end.
pub(crate) type Source<'a> = dyn FnMut(&mut Context<'_>, &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> + 'a;

/// What goes before the payload of each record that a source fills.
pub(crate) trait Framing {
    /// Bytes before the payload.
    const HEAD: usize;

    /// Writes them; `payload` bytes follow.
    fn head(&mut self, head: &mut [u8], payload: usize);
}

/// Nothing: the payload is the application's.
pub(crate) struct Unframed;

impl Framing for Unframed {
    const HEAD: usize = 0;

    fn head(&mut self, _: &mut [u8], _: usize) {}
}

/// Which side of a transfer failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The stream itself.
    Stream(io::Error),
    /// What its bytes were given to, or taken from.
    Other(io::Error),
}

impl Fault {
    /// What went wrong, wherever it was.
    pub(crate) fn into_error(self) -> io::Error {
        match self {
            Self::Stream(error) | Self::Other(error) => error,
        }
    }
}

/// A socket and the record layer over it.
pub(crate) struct Channel {
    socket: TcpStream,
    layer: Box<dyn RecordLayer>,
    /// Plaintexts that came with the end of the handshake.
    early: VecDeque<Vec<u8>>,
    /// Received and not opened: the beginning of a record, or what came together with the end of the handshake.
    unopened: Vec<u8>,
    /// Whether `unopened` may hold whole records.
    unopened_whole: bool,
    /// The peer has said that nothing more comes.
    ended: bool,
    outgoing: Option<Outgoing>,
    read_size: usize,
    write_size: usize,
    /// Bytes that the socket has taken.
    written: u64,
    /// How they are written.
    joining: Joining,
}

/// Writes of less than this are joined whatever is asked for: each would be a packet of its own.
const SMALLEST_APART: usize = 2 * 1024;

/// Whether the kernel may join what is written to what already waits in the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    /// It may, up to 64 KiB: the fewest segments for the fastest links.
    Joined,
    /// Each write stands for itself, so that the socket is full when its bound says so (TCP_NOTSENT_LOWAT is only looked at
    /// where a segment begins).
    Apart,
}

impl Joining {
    fn flags(self, bytes: usize) -> MsgFlags {
        match self {
            Self::Apart if bytes >= SMALLEST_APART => MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_EOR,
            _ => MsgFlags::MSG_NOSIGNAL,
        }
    }
}

/// Sealed records that the socket has not taken yet.
struct Outgoing {
    buffer: Buffer,
    size: usize,
    sent: usize,
    filled: usize,
}

impl Outgoing {
    fn take(size: usize) -> Self {
        let mut buffer = Buffer::take(size);
        let size = buffer.bytes().len();
        Self { buffer, size, sent: 0, filled: 0 }
    }

    fn unsent(&self) -> usize {
        self.filled - self.sent
    }

    /// Moves what is unsent to where `room` more bytes fit behind it, if they fit anywhere.
    fn make_room(&mut self, room: usize) -> bool {
        if self.size - self.filled >= room {
            return true;
        }
        let unsent = self.unsent();
        if unsent + room > LARGE {
            return false;
        }
        if self.size < LARGE && unsent + room > self.size {
            let mut larger = Self::take(LARGE);
            larger.buffer.bytes()[..unsent].copy_from_slice(&self.buffer.bytes()[self.sent..self.filled]);
            larger.filled = unsent;
            *self = larger;
        } else {
            self.buffer.bytes().copy_within(self.sent..self.filled, 0);
            (self.sent, self.filled) = (0, unsent);
        }
        true
    }
}

impl Channel {
    /// Takes over after a handshake.
    pub(crate) fn of(established: Established) -> Self {
        let Established { socket, layer, unread: unopened, early, .. } = established;
        let unopened_whole = !unopened.is_empty();
        Self {
            socket,
            layer,
            early: early.into(),
            unopened,
            unopened_whole,
            ended: false,
            outgoing: None,
            read_size: SMALL,
            write_size: SMALL,
            written: 0,
            joining: Joining::Joined,
        }
    }

    /// The socket under it.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Bytes that the socket has not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        self.outgoing.as_ref().map_or(0, Outgoing::unsent)
    }

    /// Bytes that the socket has taken so far, of all records.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// How bytes are written from now on.
    pub(crate) fn set_joining(&mut self, joining: Joining) {
        self.joining = joining;
    }

    /// Whether there may be something to read.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended || self.unopened_whole || !self.early.is_empty() {
            Poll::Ready(())
        } else {
            self.socket.poll_read_ready(cx).map(drop)
        }
    }

    /// Reads once and opens every record that is whole. `None` is the orderly end (close_notify, RFC 8446 §6.1); a
    /// connection that ends without it fails with `UnexpectedEof`. `plain` may stay empty: half a record came.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>, plain: &mut Ranges) -> Poll<io::Result<Option<Buffer>>> {
        if let Some(early) = self.early.pop_front() {
            // A record has at most 2^14 bytes.
            let mut buffer = Buffer::take(early.len());
            if let Some(bytes) = buffer.bytes().get_mut(..early.len()) {
                bytes.copy_from_slice(&early);
                plain.push(0..early.len());
            }
            return Poll::Ready(Ok(Some(buffer)));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        if self.unopened_whole {
            self.unopened_whole = false;
            let mut buffer = Buffer::take(self.unopened.len() + 1);
            let bytes = self.unopened.len();
            buffer.bytes()[..bytes].copy_from_slice(&self.unopened);
            return Poll::Ready(self.open_all(buffer, bytes, plain));
        }
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let mut buffer = Buffer::take(self.read_size);
            let before = self.unopened.len();
            let bytes = buffer.bytes();
            let size = bytes.len();
            bytes[..before].copy_from_slice(&self.unopened);
            match read_once(&self.socket, |socket| socket.read(&mut bytes[before..]), size - before) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    self.read_size = next_size(self.read_size, read, size - before);
                    return Poll::Ready(self.open_all(buffer, before + read, plain));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Opens the whole records of the first `filled` bytes and keeps the rest for the next read.
    fn open_all(&mut self, mut buffer: Buffer, filled: usize, plain: &mut Ranges) -> io::Result<Option<Buffer>> {
        let bytes = &mut buffer.bytes()[..filled];
        let mut at = 0;
        let mut ended = false;
        loop {
            let length = match record_length(&bytes[at..]) {
                Ok(Some(length)) if length <= filled - at => length,
                Ok(_) => break,
                Err(error) => return Err(self.violated(&error)),
            };
            match self.layer.open(&mut bytes[at..at + length]) {
                Ok(Opened::Data(range)) if range.is_empty() => {}
                Ok(Opened::Data(range)) => plain.push(at + range.start..at + range.end),
                Ok(Opened::Nothing) => {}
                Ok(Opened::CloseNotify) => {
                    ended = true;
                    break;
                }
                Err(error) => return Err(self.violated(&error)),
            }
            at += length;
        }
        if ended {
            self.unopened = Vec::new();
            self.ended = true;
            return Ok((!plain.is_empty()).then_some(buffer));
        }
        if at < filled {
            self.unopened.clear();
            self.unopened.extend_from_slice(&bytes[at..]);
        } else {
            self.unopened = Vec::new();
        }
        if let Some(sealed) = self.layer.urgent() {
            self.append_sealed(&sealed);
        }
        Ok(Some(buffer))
    }

    fn violated(&mut self, error: &RecordError) -> io::Error {
        tracing::debug!(reason = error.word(), %error, "a TLS connection ends for what the peer sent");
        let alert = self.layer.fatal_alert(error);
        self.append_sealed(&alert);
        // The peer may be told or not; the connection ends either way.
        let _ = self.write_once();
        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
    }

    /// Lets `source` fill records behind what is unsent, at most `most` bytes of payload, and seals them. Pending when the
    /// source has nothing yet or the buffer is full. 0 is the end of the source.
    pub(crate) fn poll_fill<F: Framing>(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        framing: &mut F,
        source: &mut Source<'_>,
    ) -> Poll<Result<usize, Fault>> {
        if let Some(sealed) = self.layer.urgent() {
            self.append_sealed(&sealed);
        }
        let write_size = self.write_size;
        let outgoing = self.outgoing.get_or_insert_with(|| Outgoing::take(write_size));
        if !outgoing.make_room(HEADER + F::HEAD + 1 + TRAILER) {
            return Poll::Pending;
        }
        let filled = Self::fill(outgoing, &mut *self.layer, cx, most, framing, source);
        if let Poll::Ready(Ok((bytes, offered))) = filled {
            self.write_size = next_size(self.write_size, bytes, offered);
        }
        if outgoing.unsent() == 0 {
            self.outgoing = None;
        }
        filled.map_ok(|(bytes, _)| bytes)
    }

    fn fill<F: Framing>(
        outgoing: &mut Outgoing,
        layer: &mut dyn RecordLayer,
        cx: &mut Context<'_>,
        most: usize,
        framing: &mut F,
        source: &mut Source<'_>,
    ) -> Poll<Result<(usize, usize), Fault>> {
        let start = outgoing.filled;
        let room = &mut outgoing.buffer.bytes()[start..];
        let overhead = HEADER + F::HEAD + TRAILER;
        let stride = HEADER + MOST_PLAINTEXT + TRAILER;
        let mut slots: SmallVec<[IoSliceMut<'_>; MOST_SLOTS]> = SmallVec::new();
        let mut offered = 0;
        for slot in room.chunks_mut(stride) {
            if slot.len() <= overhead || offered >= most || slots.len() == MOST_SLOTS {
                break;
            }
            let payload = (slot.len() - overhead).min(most - offered);
            slots.push(IoSliceMut::new(&mut slot[HEADER + F::HEAD..][..payload]));
            offered += payload;
        }
        let given = ready!(source(cx, &mut slots)).map_err(Fault::Other)?;
        drop(slots);
        let mut left = given;
        for slot in room.chunks_mut(stride) {
            if left == 0 {
                break;
            }
            let payload = left.min(slot.len() - overhead);
            framing.head(&mut slot[HEADER..HEADER + F::HEAD], payload);
            let record = &mut slot[..overhead + payload];
            layer.seal(record).map_err(|error| Fault::Stream(io::Error::other(error.to_string())))?;
            outgoing.filled += record.len();
            left -= payload;
        }
        Poll::Ready(Ok((given, offered)))
    }

    /// Seals one record of `plaintext` (at most 2^14 bytes) behind what is unsent. False when there is no room now.
    pub(crate) fn append(&mut self, plaintext: &[u8]) -> io::Result<bool> {
        let length = HEADER + plaintext.len() + TRAILER;
        let outgoing = self.outgoing.get_or_insert_with(|| Outgoing::take(SMALL));
        if !outgoing.make_room(length) {
            return Ok(false);
        }
        if let Some(sealed) = self.layer.urgent() {
            self.append_sealed(&sealed);
        }
        let Some(outgoing) = &mut self.outgoing else { return Ok(false) };
        if !outgoing.make_room(length) {
            return Ok(false);
        }
        let filled = outgoing.filled;
        let record = &mut outgoing.buffer.bytes()[filled..filled + length];
        record[HEADER..HEADER + plaintext.len()].copy_from_slice(plaintext);
        self.layer.seal(record).map_err(|error| io::Error::other(error.to_string()))?;
        outgoing.filled += length;
        Ok(true)
    }

    /// Bytes that are sealed already: alerts and key updates, each a few dozen bytes.
    fn append_sealed(&mut self, sealed: &[u8]) {
        let outgoing = self.outgoing.get_or_insert_with(|| Outgoing::take(SMALL));
        if outgoing.make_room(sealed.len()) {
            let filled = outgoing.filled;
            outgoing.buffer.bytes()[filled..filled + sealed.len()].copy_from_slice(sealed);
            outgoing.filled += sealed.len();
        }
    }

    /// Writes until the socket takes no more; ready when nothing is left.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing.is_some() {
            match self.write_once() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write_once(&mut self) -> io::Result<()> {
        let Some(outgoing) = &mut self.outgoing else { return Ok(()) };
        let unsent = &outgoing.buffer.bytes()[outgoing.sent..outgoing.filled];
        let socket = SockRef::from(&self.socket);
        let flags = self.joining.flags(unsent.len()).bits();
        let mut written = 0;
        // A short write fills the socket's buffer: asking again would cost a system call to hear so.
        let result = self.socket.try_io(Interest::WRITABLE, || {
            written = socket.send_with_flags(unsent, flags)?;
            if written < unsent.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        outgoing.sent += written;
        self.written += written as u64;
        if outgoing.sent == outgoing.filled {
            self.outgoing = None;
        }
        if written > 0 { Ok(()) } else { result }
    }

    /// Sends what is left and the close_notify, and ends the sending half.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>, told: &mut bool) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if !*told {
            *told = true;
            let sealed = self.layer.close_notify();
            self.append_sealed(&sealed);
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(SockRef::from(&self.socket).shutdown(Shutdown::Write))
    }
}

/// One read or write that tells tokio when a short transfer has emptied the socket, so that nobody asks in vain.
pub(crate) fn read_once(
    socket: &TcpStream,
    read: impl FnOnce(&mut &Socket) -> io::Result<usize>,
    room: usize,
) -> io::Result<usize> {
    let mut got = None;
    let result = socket.try_io(Interest::READABLE, || {
        let n = read(&mut &*SockRef::from(socket))?;
        got = Some(n);
        if n > 0 && n < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    });
    got.map_or(result, Ok)
}

/// The buffer for the next transfer: a large one after one that was filled, a small one after one that was not half used.
fn next_size(size: usize, moved: usize, room: usize) -> usize {
    if moved >= room {
        LARGE
    } else if moved <= SMALL / 2 {
        SMALL
    } else {
        size
    }
}
