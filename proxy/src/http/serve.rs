//! Serves one HTTP connection: asleep without a buffer between requests, awake with hyper while there are any.
//!
//! The first bytes say whether it is HTTP/1 or HTTP/2 (RFC 9113 §3.4): no upgrade and no negotiation is needed for what
//! comes from a process of this host or from another sidecar.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::Answer;
use super::frames::Watched;
use super::framing::{self, FramingError, Guard, Guarded};
use super::limits::HttpLimits;
use super::wire::Wire;
use crate::connections::Kill;
use crate::transport::tunnel::Reason;

/// How an HTTP/2 connection begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a peer is given to take in why it is refused.
const TELLING: Duration = Duration::from_secs(1);

/// What is told to the peer's other end about flow control: enough for a fast bulk stream on a link of some milliseconds.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What an HTTP connection is doing, as its service and its driver share it.
#[derive(Debug)]
pub(crate) struct Activity {
    open: Arc<AtomicUsize>,
    started: Instant,
    /// When the last request ended, in milliseconds since `started`.
    ended: AtomicU64,
    /// Bytes that the connection has received, and how many they were when the last request ended.
    received: Arc<AtomicU64>,
    received_at_end: AtomicU64,
    /// Told when a request on it is denied while it is under way.
    kill: Arc<Kill>,
    /// What judges the framing of its HTTP/1 requests, while it is awake.
    guard: Mutex<Option<Guard>>,
}

impl Activity {
    /// Of a connection over `wire` that has just begun.
    pub(crate) fn of(wire: &Wire) -> Arc<Self> {
        Arc::new(Self {
            open: Arc::default(),
            started: Instant::now(),
            ended: AtomicU64::new(0),
            received: wire.received(),
            received_at_end: AtomicU64::new(0),
            kill: Arc::default(),
            guard: Mutex::default(),
        })
    }

    /// A request is under way until the result is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Active {
        self.open.fetch_add(1, Ordering::Relaxed);
        Active(self.clone())
    }

    /// What ends the whole connection at once.
    pub(crate) fn kill(&self) -> Arc<Kill> {
        self.kill.clone()
    }

    /// The service goes on in another protocol: what the caller sends is no HTTP any more.
    ///
    /// # Errors
    /// When the caller did not wait for it.
    pub(crate) fn goes_on_in_another_protocol(&self) -> Result<(), FramingError> {
        self.guard.lock().as_ref().map_or(Ok(()), Guard::become_transparent)
    }

    fn is_quiet(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Waits until it has had no request for so long, from now on.
    async fn is_idle_for(&self, time: Duration) {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            let ended = self.started + Duration::from_millis(self.ended.load(Ordering::Relaxed));
            let quiet_since = if self.is_quiet() { begun.max(ended) } else { now };
            if now.saturating_duration_since(quiet_since) >= time {
                return;
            }
            tokio::time::sleep_until(quiet_since + time).await;
        }
    }

    /// Whether it has had no request for a while, and nothing came that may become one: what is read next is the beginning
    /// of a request.
    fn is_drowsy(&self, now: Instant, after: Duration) -> bool {
        let ended = self.started + Duration::from_millis(self.ended.load(Ordering::Relaxed));
        self.is_quiet()
            && now.saturating_duration_since(ended) >= after
            && self.received.load(Ordering::Relaxed) == self.received_at_end.load(Ordering::Relaxed)
            && self.guard.lock().as_ref().is_none_or(Guard::is_between_requests)
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Active(Arc<Activity>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.ended.store(self.0.started.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.received_at_end.store(self.0.received.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection is served with.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) limits: Arc<HttpLimits>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// Why a connection has ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By the caller, or by us between two requests.
    Closed,
    /// Without a request for too long.
    Idle,
    /// What was sent is not HTTP as one may send it, or too slow.
    Refused(FramingError),
    /// What was sent is not HTTP, or the connection failed.
    Failed,
    /// Too many frames of HTTP/2 that say nothing.
    Flooded,
    /// A request on it is allowed no more.
    Revoked,
}

impl Ended {
    /// What the peer did that ended it, in one word, where it is to be counted.
    pub(crate) fn fault(self) -> Option<&'static str> {
        matches!(self, Self::Refused(_) | Self::Flooded).then(|| self.word())
    }

    /// The word in the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Refused(error) => error.word(),
            Self::Failed => "failed",
            Self::Flooded => "flooded",
            Self::Revoked => "revoked",
        }
    }
}

/// Runs HTTP/2 streams as tasks that the data plane owns.
#[derive(Clone)]
pub(crate) struct Spawner(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

impl Server {
    /// Serves `wire` until it ends. Each request goes to `service`, which tells `activity` of it.
    pub(crate) async fn serve<S>(&self, mut wire: Wire, activity: &Arc<Activity>, service: S) -> Ended
    where
        S: Service<Request<Incoming>, Response = Answer, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        loop {
            match self.first_bytes(&mut wire).await {
                Ok(Version::Http1) => match Box::pin(self.http1(wire, activity, service.clone())).await {
                    Ok(asleep) => wire = asleep,
                    Err(ended) => return ended,
                },
                Ok(Version::Http2) => return Box::pin(self.http2(wire, activity, service)).await,
                Err(ended) => return ended,
            }
        }
    }

    /// Waits for the beginning of a request, or of HTTP/2.
    async fn first_bytes(&self, wire: &mut Wire) -> Result<Version, Ended> {
        if wire.ahead().is_empty() {
            let first = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Err(Ended::Closed),
                first = timeout(self.limits.idle, wire.wake()) => first,
            };
            match first {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Err(Ended::Closed),
                Ok(Err(_)) => return Err(Ended::Failed),
                Err(_) => return Err(Ended::Idle),
            }
        }
        let deadline = Instant::now() + self.limits.head;
        loop {
            let ahead = wire.ahead();
            let common = ahead.len().min(PREFACE.len());
            if ahead[..common] != PREFACE[..common] {
                return Ok(Version::Http1);
            }
            if common == PREFACE.len() {
                return Ok(Version::Http2);
            }
            match timeout_at(deadline, wire.wake()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Err(Ended::Closed),
                Ok(Err(_)) => return Err(Ended::Failed),
                Err(_) => return Err(Ended::Refused(FramingError::HeadTooSlow)),
            }
        }
    }

    /// Until it has had no request for a moment: then what carries it comes back, to sleep without buffers.
    async fn http1<S>(&self, wire: Wire, activity: &Arc<Activity>, service: S) -> Result<Wire, Ended>
    where
        S: Service<Request<Incoming>, Response = Answer, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
    {
        let limits = &self.limits;
        let mut builder = http1::Builder::new();
        builder
            .max_headers(limits.headers)
            .max_buf_size(limits.body_bytes.max(limits.head_bytes).max(8_192))
            .header_read_timeout(None);
        let of_framing = framing::Limits {
            head: limits.head_bytes,
            fields: limits.headers,
            head_time: limits.head,
            ..framing::Limits::default()
        };
        let (guarded, guard) = Guarded::new(wire, of_framing);
        let guarded = guarded.patient_while(activity.open.clone());
        *activity.guard.lock() = Some(guard.clone());
        let mut connection = builder.serve_connection(TokioIo::new(guarded), service).with_upgrades();
        let mut stopping = pin!(self.stopping.cancelled());
        let mut seen = None;
        let mut ticks = interval_at(Instant::now() + limits.drowsy, limits.drowsy);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut draining = false;
        let ended = poll_fn(|cx| {
            if activity.kill.poll_told(cx).is_ready() {
                return Poll::Ready(Some(Ended::Revoked));
            }
            // Looked at when it was not the caller who woke this: asking takes a lock.
            let received = activity.received.load(Ordering::Relaxed);
            let is_woken_otherwise = seen.replace(received).is_none_or(|before| before == received);
            if is_woken_otherwise && !draining && stopping.as_mut().poll(cx).is_ready() {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Some(Ended::Closed)),
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Ended::Failed)),
                Poll::Pending => {}
            }
            // One timer, which no request sets anew.
            loop {
                let now = ready!(ticks.poll_tick(cx));
                if activity.is_drowsy(now, limits.drowsy) {
                    return Poll::Ready(None);
                }
            }
        })
        .await;
        *activity.guard.lock() = None;
        match (ended, guard.refusal()) {
            (Some(Ended::Revoked), _) => {
                if let Some(parts) = connection.into_parts() {
                    parts.io.into_inner().into_parts().0.reset(Reason::Denied);
                }
                Err(Ended::Revoked)
            }
            (Some(_), Some(refusal)) => {
                if let Some(parts) = connection.into_parts().filter(|_| activity.is_quiet()) {
                    refuse(parts.io.into_inner().into_parts().0, &refusal).await;
                }
                Err(Ended::Refused(refusal))
            }
            (Some(ended), None) => Err(ended),
            (None, _) => {
                let parts = connection.into_parts().ok_or(Ended::Closed)?;
                let (mut wire, held) = parts.io.into_inner().into_parts();
                wire.read_before([&parts.read_buf[..], &held[..]].concat().into());
                Ok(wire)
            }
        }
    }

    async fn http2<S>(&self, wire: Wire, activity: &Activity, service: S) -> Ended
    where
        S: Service<Request<Incoming>, Response = Answer, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
    {
        let limits = &self.limits;
        let mut builder = http2::Builder::new(Spawner(self.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.head_bytes as u32)
            .max_pending_accept_reset_streams(limits.early_resets)
            .max_local_error_reset_streams(limits.own_resets)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(limits.ping_interval)
            .keep_alive_timeout(limits.ping_timeout);
        let (watched, flood) = Watched::new(wire, PREFACE.len(), limits.empty_frames);
        // What a task is made of is moved some times before it runs.
        let service = service_fn(move |request| Box::pin(service.call(request)));
        let mut connection = pin!(builder.serve_connection(TokioIo::new(watched), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = activity.is_idle_for(limits.idle) => {
                connection.as_mut().graceful_shutdown();
                // A request that is on its way is still answered.
                tokio::select! {
                    _ = connection.as_mut() => {}
                    () = activity.is_idle_for(TELLING) => {}
                }
                return Ended::Idle;
            }
        };
        match ended {
            Ok(()) => Ended::Closed,
            Err(_) if flood.is_over_the_limit() => Ended::Flooded,
            Err(_) => Ended::Failed,
        }
    }
}

enum Version {
    Http1,
    Http2,
}

/// Tells the peer what is wrong with what it sent; it may be gone already.
async fn refuse(mut wire: Wire, refusal: &FramingError) {
    let told = async {
        wire.write_all(refusal.answer().as_bytes()).await?;
        wire.shutdown().await
    };
    if !matches!(timeout(TELLING, told).await, Ok(Ok(()))) {
        tracing::debug!(reason = refusal.word(), "a peer was not told why it is refused");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_sleeps_only_between_two_requests() {
        let (mut caller, socket) = tokio::io::duplex(1024);
        let (mut guarded, guard) = Guarded::new(socket, framing::Limits::default());
        let activity = Arc::new(Activity {
            open: Arc::default(),
            started: Instant::now(),
            ended: AtomicU64::new(0),
            received: Arc::default(),
            received_at_end: AtomicU64::new(0),
            kill: Arc::default(),
            guard: Mutex::new(Some(guard)),
        });
        let moment = Duration::from_secs(1);
        let request = activity.request();
        caller.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na").await.expect("write");
        assert_eq!(guarded.read(&mut [0; 64]).await.expect("read"), 48);
        assert!(!activity.is_drowsy(Instant::now() + moment, moment));

        // Answered before it was whole.
        drop(request);
        assert!(!activity.is_drowsy(Instant::now() + moment, moment));
        caller.write_all(b"b").await.expect("write");
        assert_eq!(guarded.read(&mut [0; 64]).await.expect("read"), 1);
        assert!(!activity.is_drowsy(Instant::now(), moment));
        assert!(activity.is_drowsy(Instant::now() + moment, moment));
    }
}
