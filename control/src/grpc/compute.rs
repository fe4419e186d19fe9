//! Handshakes take turns.
//!
//! A handshake costs some 400 µs of computing. A thousand of them that are ready at once would stand in the scheduler's
//! queue before every push. So each takes a permit before it computes, and goes once to the end of the queue with it:
//! never more than so many handshakes are ahead of anything else. The permit is given back as soon as the handshake has
//! to wait for its peer, so a slow peer holds none.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// The permits of all handshakes of a port.
#[derive(Debug, Clone)]
pub(crate) struct Computations(Arc<Semaphore>);

impl Computations {
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once.max(1))))
    }

    /// Polls `future` only with a permit in hand.
    pub(crate) fn turn_by_turn<F: Future>(&self, future: F) -> TurnByTurn<F> {
        TurnByTurn { future: Box::pin(future), permits: PollSemaphore::new(Arc::clone(&self.0)), permit: None }
    }
}

/// See [`Computations::turn_by_turn`].
pub(crate) struct TurnByTurn<F> {
    future: Pin<Box<F>>,
    permits: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
}

impl<F: Future> Future for TurnByTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.permit.take().is_some() {
            // The permit of this turn is held by the scheduler's queue no longer: compute, then wait without one.
            return self.future.as_mut().poll(context);
        }
        // The semaphore is never closed, so there is always a permit to come.
        self.permit = ready!(self.permits.poll_acquire(context));
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_future_that_waits_holds_no_permit() {
        let computations = Computations::new(1);
        let slow = tokio::spawn(computations.turn_by_turn(std::future::pending::<()>()));
        let quick = computations.turn_by_turn(async { 7 });
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), quick).await.unwrap(), 7);
        slow.abort();
    }

    #[tokio::test]
    async fn something_else_goes_between_two_handshakes() {
        let computations = Computations::new(2);
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..20 {
            let order = Arc::clone(&order);
            tasks.push(tokio::spawn(computations.turn_by_turn(async move { order.lock().push(n) })));
        }
        let push = {
            let order = Arc::clone(&order);
            tokio::spawn(async move { order.lock().push(1000) })
        };
        for task in tasks {
            task.await.unwrap();
        }
        push.await.unwrap();
        let at = order.lock().iter().position(|n| *n == 1000).unwrap();
        assert!(at <= 2, "behind {at} handshakes");
    }
}
