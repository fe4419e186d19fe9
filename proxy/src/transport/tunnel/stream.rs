//! One stream of a tunnel, as the layers above hold it.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::transport::Sink;
use crate::transport::channel::{Fault, Source};

use super::link::Link;
use super::{Reason, StreamId};

/// A stream of a tunnel. Dropping it before both sides have finished resets it.
pub(crate) struct TunnelStream {
    link: Arc<Link>,
    id: StreamId,
    /// What the peer is told if it ends now.
    parting: Reason,
}

impl TunnelStream {
    pub(crate) fn new(link: Arc<Link>, id: StreamId) -> Self {
        Self { link, id, parting: Reason::ResetByPeer }
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> StreamId {
        self.id
    }

    /// Tells the peer, which opened it, that it leads somewhere.
    pub(crate) fn accept(&self) {
        self.link.accept(self.id);
    }

    /// Sends bytes ahead of the acceptance; tells how many the peer takes unasked.
    pub(crate) fn send_ahead(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sent = 0;
        while sent < bytes.len() {
            let mut rest = &bytes[sent..];
            let mut source = |_: &mut Context<'_>, slots: &mut [IoSliceMut<'_>]| {
                let before = rest.len();
                for slot in slots {
                    let step = slot.len().min(rest.len());
                    slot[..step].copy_from_slice(&rest[..step]);
                    rest = &rest[step..];
                }
                Poll::Ready(Ok(before - rest.len()))
            };
            match self.link.poll_send(self.id, &mut cx, &mut source) {
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(Fault::Stream(error) | Fault::Other(error))) => return Err(error),
                Poll::Pending => {
                    self.link.forgo_turn(self.id);
                    break;
                }
            }
        }
        Ok(sent)
    }

    /// Waits until the peer has accepted it.
    ///
    /// # Errors
    /// When the peer, or the end of the tunnel, has refused it; [`TunnelStream::reset_reason`] says more.
    pub(crate) async fn accepted(&self) -> io::Result<()> {
        poll_fn(|cx| self.link.poll_accepted(self.id, cx)).await
    }

    /// Why the peer has ended it, if it has.
    pub(crate) fn reset_reason(&self) -> Option<Reason> {
        self.link.reset_reason(self.id)
    }

    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'_>) -> Poll<Result<usize, Fault>> {
        self.link.poll_recv(self.id, cx, sink)
    }

    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, source: &mut Source<'_>) -> Poll<Result<usize, Fault>> {
        self.link.poll_send(self.id, cx, source)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.link.finish(self.id);
    }

    /// Ends it at once, and tells the peer why.
    pub(crate) fn reset(mut self, reason: Reason) {
        self.parting = reason;
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.link.leave(self.id, self.parting);
    }
}
