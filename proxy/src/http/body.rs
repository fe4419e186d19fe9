//! Bodies that pass through: never kept, counted by the byte, and ended when the request is denied.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::answer::{Language, Refusal, grpc_trailers};
use super::exchange::Exchange;
use super::expect::Gate;
use super::headers::strip_identity;
use super::replay::Try;

/// The body of a request that is sent, or of an answer.
pub(crate) struct Body {
    kind: Kind,
    /// Until the service has asked for it.
    gate: Option<Gate>,
}

enum Kind {
    /// A sidecar's own words.
    Own(Option<Bytes>),
    /// What the caller sends.
    Sent(Incoming, Arc<Sent>),
    /// The same, kept for another try.
    Tried(Try),
    /// What the service answers. It holds the exchange, which ends with it.
    Answered(Incoming, Box<Exchange>),
    /// The trailers of a call that was cut off.
    CutOff(Option<HeaderMap>),
}

/// How much of a request was sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Sent {
    /// Bytes of the body so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// More of it has passed.
    pub(crate) fn adds(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of it has passed.
    pub(crate) fn ends(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether all of it was taken by the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The other side broke off.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
    /// The request is allowed no more.
    #[error("the request is allowed no more")]
    Closed,
    /// Nothing has moved for too long.
    #[error("nothing has moved for too long")]
    Idle,
}

impl Body {
    fn of(kind: Kind) -> Self {
        Self { kind, gate: None }
    }

    /// The same, held back until `gate` opens.
    pub(crate) fn behind(self, gate: Option<Gate>) -> Self {
        Self { gate, ..self }
    }

    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::of(Kind::Own(None))
    }

    /// A sidecar's own words.
    pub(crate) fn own(bytes: Bytes) -> Self {
        Self::of(Kind::Own(Some(bytes)))
    }

    /// What a caller sends; the second part tells how far it is.
    pub(crate) fn sent(incoming: Incoming) -> (Self, Arc<Sent>) {
        let sent = Arc::new(Sent::default());
        if http_body::Body::is_end_stream(&incoming) {
            sent.ends();
        }
        (Self::of(Kind::Sent(incoming, sent.clone())), sent)
    }

    /// What a caller sends, kept for another try.
    pub(crate) fn tried(this: Try) -> Self {
        Self::of(Kind::Tried(this))
    }

    /// What the service answers.
    pub(crate) fn answered(incoming: Incoming, mut exchange: Box<Exchange>) -> Self {
        if http_body::Body::is_end_stream(&incoming) {
            exchange.is_complete();
        }
        Self::of(Kind::Answered(incoming, exchange))
    }
}

/// Trailers carry nothing in the mesh's name, in either direction.
pub(super) fn clean<E>(frame: &mut Option<Result<Frame<Bytes>, E>>) {
    if let Some(Ok(frame)) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        strip_identity(trailers);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll_open(cx));
            self.gate = None;
        }
        match &mut self.kind {
            Kind::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::CutOff(trailers) => Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Kind::Sent(incoming, sent) => {
                let mut frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                clean(&mut frame);
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    sent.adds(data.remaining() as u64);
                }
                if frame.is_none() || http_body::Body::is_end_stream(incoming) {
                    sent.ends();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
            Kind::Tried(this) => this.poll_frame(cx),
            Kind::Answered(incoming, exchange) => {
                if let Poll::Ready(because) = exchange.poll_closed(cx) {
                    if exchange.language() == Language::Http {
                        return Poll::Ready(Some(Err(BodyError::Closed)));
                    }
                    let trailers = grpc_trailers(Refusal::Denied, &because);
                    self.kind = Kind::CutOff(None);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                let Poll::Ready(mut frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
                    return match exchange.poll_idle(cx) {
                        Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Idle))),
                        Poll::Pending => Poll::Pending,
                    };
                };
                clean(&mut frame);
                match &frame {
                    Some(Ok(frame)) => exchange.passed(frame),
                    Some(Err(error)) => exchange.broke_off(error),
                    None => {}
                }
                if frame.is_none() || (matches!(frame, Some(Ok(_))) && http_body::Body::is_end_stream(incoming)) {
                    exchange.is_complete();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::CutOff(trailers) => trailers.is_none(),
            Kind::Sent(incoming, _) | Kind::Answered(incoming, _) => incoming.is_end_stream(),
            Kind::Tried(this) => this.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::CutOff(_) => SizeHint::with_exact(0),
            Kind::Sent(incoming, _) | Kind::Answered(incoming, _) => incoming.size_hint(),
            Kind::Tried(this) => this.size_hint(),
        }
    }
}
