//! The reader of framing around a socket.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::{Framing, FramingError, Limits, Upgrade};

/// How much is read at once behind a part that is held back.
const READ_AHEAD: usize = 8 * 1024;

/// What the connection's task, which owns the socket, and those that serve its requests tell each other.
#[derive(Debug, Default)]
struct Shared {
    refusal: OnceLock<FramingError>,
    upgrade: AtomicU8,
    /// Whether what was read so far ends within the body of a request, or is no HTTP any more.
    within: AtomicBool,
}

/// Values of [`Shared::upgrade`].
mod upgrade {
    pub const NOT_ASKED: u8 = 0;
    pub const ASKED: u8 = 1;
    pub const PREMATURE: u8 = 2;
    pub const ANSWERED: u8 = 3;
}

/// The view of a [`Guarded`] socket from outside.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Shared>);

impl Guard {
    /// Why the requests of this connection were refused. When the server gives the connection up, with or without an
    /// error, and no answer is under way, [`FramingError::answer`] is what the peer is told.
    pub fn refusal(&self) -> Option<FramingError> {
        self.0.refusal.get().copied()
    }

    /// [`Guarded::is_between_requests`], seen from afar.
    pub fn is_between_requests(&self) -> bool {
        !self.0.within.load(Ordering::Acquire) && self.refusal().is_none()
    }

    /// Lets everything pass from the next read on: [`Framing::become_transparent`] from afar. To be called before the
    /// answer 101 is given to the server.
    ///
    /// # Errors
    /// [`FramingError::PrematureUpgrade`]: answer 400 instead, and let the connection end.
    pub fn become_transparent(&self) -> Result<(), FramingError> {
        let answered = self.0.upgrade.compare_exchange(upgrade::ASKED, upgrade::ANSWERED, Ordering::AcqRel, Ordering::Acquire);
        answered.map(|_| ()).map_err(|_| FramingError::PrematureUpgrade)
    }
}

/// A socket of which only requests with unambiguous framing can be read. Writes pass as they are.
///
/// A read gives an error of kind `InvalidData` (`TimedOut` for a slow head) that carries the [`FramingError`] once there
/// is a reason to refuse. While nothing is held back it keeps no buffer and copies nothing.
///
/// The reader sees a head when it is whole, never its beginning, so the time that a head may take is kept here and the
/// reader's own time-out is one for idleness. A reader that looks for the end of the connection while it answers a
/// request, as hyper does, would meet the refusal of the next one then and give up the answer: [`Self::patient_while`].
#[derive(Debug)]
pub struct Guarded<T> {
    socket: T,
    framing: Framing,
    shared: Arc<Shared>,
    /// What was read and not given to the reader: `held[given..]`, of which `passed` bytes may be given.
    held: Vec<u8>,
    given: usize,
    passed: usize,
    /// How many requests are being answered; a refusal waits until there is none.
    answering: Option<Arc<AtomicUsize>>,
    /// Runs while a head is there in part.
    head_deadline: Option<Pin<Box<Sleep>>>,
}

impl<T> Guarded<T> {
    /// Around a socket of which nothing was read.
    pub fn new(socket: T, limits: Limits) -> (Self, Guard) {
        let shared = Arc::new(Shared::default());
        let framing = Framing::new(limits);
        let guard = Guard(shared.clone());
        (Self { socket, framing, shared, held: Vec::new(), given: 0, passed: 0, answering: None, head_deadline: None }, guard)
    }

    /// Lets requests that have passed be answered before the refusal of what came behind them is told: while `answering` is
    /// not 0. hyper reads again when it has answered, so nothing has to wake it. A refusal inside a body waits for nothing:
    /// the request that it belongs to is not whole, and its answer may wait for the rest.
    pub fn patient_while(self, answering: Arc<AtomicUsize>) -> Self {
        Self { answering: Some(answering), ..self }
    }

    fn is_answering_whole_requests(&self) -> bool {
        self.framing.is_between_requests()
            && self.answering.as_ref().is_some_and(|answering| answering.load(Ordering::Relaxed) > 0)
    }

    /// The socket.
    pub fn get_ref(&self) -> &T {
        &self.socket
    }

    /// The socket. Who reads from it takes bytes away from the requests.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.socket
    }

    /// The socket, and what was read of it and not given to the reader.
    pub fn into_parts(mut self) -> (T, Vec<u8>) {
        (self.socket, self.held.split_off(self.given.min(self.held.len())))
    }

    /// Whether what was read so far ends with a whole request, or with the beginning of the head of the next. Only then may
    /// another guard go on with the socket and what is held back: it would take the rest of a body for a request.
    pub fn is_between_requests(&self) -> bool {
        self.framing.is_between_requests() && self.framing.refusal().is_none()
    }

    /// Judges what is held back from `given` on, and says so outside.
    fn judge_held(&mut self) -> io::Result<()> {
        let judged = self.framing.feed(&self.held[self.given..]);
        self.passed = self.publish(judged)?;
        Ok(())
    }

    fn publish(&mut self, judged: Result<usize, FramingError>) -> io::Result<usize> {
        self.shared.within.store(!self.framing.is_between_requests(), Ordering::Release);
        let passed = judged.map_err(|error| self.refuse(error))?;
        let now = match self.framing.upgrade() {
            Upgrade::NotAsked => upgrade::NOT_ASKED,
            Upgrade::Asked => upgrade::ASKED,
            Upgrade::Premature => upgrade::PREMATURE,
        };
        // Only this side leaves ASKED for anything but ANSWERED, and an answer is final.
        let before = self.shared.upgrade.load(Ordering::Acquire);
        if before != now && before != upgrade::ANSWERED {
            let _ = self.shared.upgrade.compare_exchange(before, now, Ordering::AcqRel, Ordering::Acquire);
        }
        Ok(passed)
    }

    fn refuse(&self, error: FramingError) -> io::Error {
        let kind = match error {
            FramingError::HeadTooSlow => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, *self.shared.refusal.get_or_init(|| error))
    }

    /// Whether everything passes from now on.
    fn is_transparent(&mut self) -> io::Result<bool> {
        if self.framing.is_transparent() {
            return Ok(true);
        }
        if self.shared.upgrade.load(Ordering::Acquire) != upgrade::ANSWERED {
            return Ok(false);
        }
        self.framing.become_transparent().map_err(|error| self.refuse(error))?;
        self.shared.within.store(true, Ordering::Release);
        Ok(true)
    }

    /// Gives what has passed.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.passed.min(buffer.remaining());
        buffer.put_slice(&self.held[self.given..self.given + length]);
        self.given += length;
        self.passed -= length;
        if self.given == self.held.len() {
            self.held = Vec::new();
            self.given = 0;
        }
    }
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Reads while nothing is held back: into the reader's own buffer. Ready with `false` when nothing could be given.
    fn poll_read_through(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        let arrived = &buffer.filled()[before..];
        if arrived.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let judged = self.framing.feed(arrived);
        if judged == Ok(arrived.len()) {
            return Poll::Ready(self.publish(judged).map(|_| true));
        }
        let passed = match self.publish(judged) {
            Ok(passed) => passed,
            Err(error) => {
                buffer.set_filled(before);
                return Poll::Ready(Err(error));
            }
        };
        self.held.extend_from_slice(&arrived[passed..]);
        buffer.set_filled(before + passed);
        Poll::Ready(Ok(passed > 0))
    }

    /// Reads behind what is held back. Ready with `false` at the end of the stream.
    fn poll_read_behind(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.held.drain(..std::mem::take(&mut self.given));
        let length = self.held.len();
        self.held.resize(length + READ_AHEAD, 0);
        let mut buffer = ReadBuf::new(&mut self.held[length..]);
        let outcome = Pin::new(&mut self.socket).poll_read(context, &mut buffer);
        let arrived = buffer.filled().len();
        self.held.truncate(length + arrived);
        match outcome {
            Poll::Pending => self.poll_head_deadline(context),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if arrived == 0 => Poll::Ready(Ok(false)),
            Poll::Ready(Ok(())) => Poll::Ready(self.judge_held().map(|()| true)),
        }
    }

    /// Ready when the head that is held back took too long.
    fn poll_head_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if !self.framing.is_within_head(&self.held) {
            return Poll::Pending;
        }
        let time = self.framing.limits.head_time;
        let deadline = self.head_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        ready!(deadline.as_mut().poll(context));
        let error = self.refuse(FramingError::HeadTooSlow);
        Poll::Ready(Err(error))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.poll_judged(context, buffer) {
            Poll::Ready(Err(_)) if this.shared.refusal.get().is_some() && this.is_answering_whole_requests() => Poll::Pending,
            read => read,
        }
    }
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    fn poll_judged(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.passed > 0 {
                this.give(buffer);
                this.head_deadline = None;
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = this.shared.refusal.get().copied().or(this.framing.refusal()) {
                return Poll::Ready(Err(this.refuse(error)));
            }
            if this.held.is_empty() {
                if this.is_transparent()? {
                    return Pin::new(&mut this.socket).poll_read(context, buffer);
                }
                if ready!(this.poll_read_through(context, buffer))? {
                    return Poll::Ready(Ok(()));
                }
            } else if !ready!(this.poll_read_behind(context))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server gives up; the peer is still to be told why.
        if self.shared.refusal.get().is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
