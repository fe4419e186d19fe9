//! Bodies that can be sent a second time, as long as they are small: for retries and for mirrors.
//!
//! What passes is kept up to 64 KiB. A body that is longer, or that streams, passes all the same and cannot be repeated.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::body::{BodyError, Sent, clean};

/// Bytes of a body that are kept.
const MOST_KEPT: usize = 64 * 1024;

/// A request's body, for as long as it may be sent again.
#[derive(Clone)]
pub(crate) struct Replay(Arc<Mutex<State>>);

struct State {
    incoming: Incoming,
    sent: Arc<Sent>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    is_too_long: bool,
    is_over: bool,
    /// Which try reads on; an older one that is still polled gets nothing more.
    tries: u32,
}

/// The body of one try.
pub(crate) struct Try {
    state: Arc<Mutex<State>>,
    number: u32,
    next: usize,
    trailers_given: bool,
}

impl Replay {
    /// Keeps what `incoming` sends. The second part tells how far it is.
    pub(crate) fn of(incoming: Incoming) -> (Self, Arc<Sent>) {
        let sent = Arc::new(Sent::default());
        let state = State {
            incoming,
            sent: sent.clone(),
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            is_too_long: false,
            is_over: false,
            tries: 0,
        };
        (Self(Arc::new(Mutex::new(state))), sent)
    }

    /// The body for another try; `None` when what passed before was not kept.
    pub(crate) fn another_try(&self) -> Option<Try> {
        let mut state = self.0.lock();
        if state.is_too_long {
            return None;
        }
        state.tries += 1;
        Some(Try { state: self.0.clone(), number: state.tries, next: 0, trailers_given: false })
    }

    /// Whether there can be another try.
    pub(crate) fn can_repeat(&self) -> bool {
        !self.0.lock().is_too_long
    }

    /// The whole of it, if all has passed and was kept.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let state = self.0.lock();
        if state.is_too_long || !state.is_over {
            return None;
        }
        let mut whole = BytesMut::with_capacity(state.kept_bytes);
        state.kept.iter().for_each(|part| whole.extend_from_slice(part));
        Some(whole.freeze())
    }
}

impl Try {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.state.lock();
        if state.tries != self.number {
            return Poll::Ready(Some(Err(BodyError::Closed)));
        }
        if let Some(part) = state.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(part.clone()))));
        }
        if state.is_over {
            if let Some(trailers) = state.trailers.as_ref().filter(|_| !self.trailers_given) {
                self.trailers_given = true;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
            }
            return Poll::Ready(None);
        }
        let mut frame = ready!(Pin::new(&mut state.incoming).poll_frame(cx));
        clean(&mut frame);
        let frame = frame.transpose()?;
        let ends = frame.is_none() || state.incoming.is_end_stream();
        if let Some(frame) = &frame {
            if let Some(data) = frame.data_ref() {
                state.keep(data);
                self.next = state.kept.len();
            } else if let Some(trailers) = frame.trailers_ref() {
                state.trailers = Some(trailers.clone());
                self.trailers_given = true;
            }
        }
        if ends {
            state.is_over = true;
            state.sent.ends();
        }
        Poll::Ready(frame.map(Ok))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let state = self.state.lock();
        state.is_over && self.next >= state.kept.len() && (state.trailers.is_none() || self.trailers_given)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let state = self.state.lock();
        let kept: u64 = state.kept.iter().skip(self.next).map(|part| part.len() as u64).sum();
        let rest = state.incoming.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint.set_lower(rest.lower() + kept);
        hint
    }
}

impl State {
    fn keep(&mut self, data: &Bytes) {
        self.sent.adds(data.len() as u64);
        if self.is_too_long {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > MOST_KEPT {
            self.is_too_long = true;
            self.kept = Vec::new();
        } else {
            self.kept.push(data.clone());
        }
    }
}
