//! Connections to one place, used again for the next request.
//!
//! Over HTTP/1 a connection has one request at a time and comes back when its answer has passed; over HTTP/2 many share
//! one. A request that met a connection which the other end had closed meanwhile, and of which no byte was sent, is sent
//! once more on a new one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use postern_intentions::Protocol;
use postern_traffic::{Breakers, Overloaded, Permit};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::body::{Body, BodyError};
use super::frames::Watched;
use super::limits::HttpLimits;
use super::serve::Spawner;
use super::wire::Wire;
use crate::connections::Registered;
use crate::transport::tunnel::{Reason, reset_reason};

/// Windows of HTTP/2 connections that we make; what the server grants us is its affair.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Which HTTP is spoken on a connection that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3).
    Http2,
}

impl Version {
    /// What a service of this protocol speaks.
    pub(crate) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http2 | Protocol::Grpc => Self::Http2,
            Protocol::Http | Protocol::Tcp => Self::Http1,
        }
    }
}

/// Makes connections to one place.
pub(crate) trait Connect: Send + Sync + 'static {
    /// Why it cannot.
    type Error: Send;

    /// A new connection.
    fn connect(&self) -> impl Future<Output = Result<Connected, Self::Error>> + Send;
}

/// A new connection, and what it holds for as long as it lives.
pub(crate) struct Connected {
    pub(crate) wire: Wire,
    /// Ends it when its peer is trusted no more.
    pub(crate) registered: Option<Registered>,
    /// Its place among the connections to its instance.
    pub(crate) permit: Option<Permit>,
}

/// What all pools of a worker share.
#[derive(Clone)]
pub(crate) struct PoolContext {
    pub(crate) limits: Arc<HttpLimits>,
    /// Runs the streams of HTTP/2 connections, which end with these.
    pub(crate) tasks: TaskTracker,
}

/// Connections to one place in one version of HTTP.
pub(crate) struct Pool<C> {
    connect: C,
    version: Version,
    context: PoolContext,
    state: Arc<Mutex<Kept>>,
    /// What drives the connections; they end with the pool.
    driving: Mutex<JoinSet<()>>,
    /// One HTTP/2 connection is made at a time: those who wait share it.
    connecting: Semaphore,
}

#[derive(Default)]
struct Kept {
    /// Without a request, the latest last.
    idle: Vec<(http1::SendRequest<Body>, Instant)>,
    shared: Vec<Shared>,
}

#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Body>,
    open: Arc<AtomicUsize>,
    used: Instant,
}

/// Why a request was not sent, or got no answer.
pub(crate) enum Failure<E> {
    /// No connection came about. The request is as it was.
    Connect(E, Box<Request<Body>>),
    /// The connection ended before anything of the request was sent.
    Unsent(hyper::Error, Box<Request<Body>>),
    /// Too many wait for a connection already.
    Overloaded(Overloaded, Box<Request<Body>>),
    /// It ended afterwards.
    Sent(hyper::Error),
}

/// What a request that was sent failed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The caller: its body broke off, or was not one.
    Caller,
    /// The policy of the destination, which has reset the stream.
    Denied,
    /// The other end has not looked at the request (`REFUSED_STREAM`, RFC 9113 §8.7).
    NotLookedAt,
    /// The connection, or who is at its other end.
    Connection,
}

impl Cause {
    /// By what hyper tells.
    pub(crate) fn of(error: &hyper::Error) -> Self {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if cause.is::<BodyError>() {
                return Self::Caller;
            }
            if let Some(error) = cause.downcast_ref::<h2::Error>()
                && error.reason() == Some(h2::Reason::REFUSED_STREAM)
            {
                return Self::NotLookedAt;
            }
            if let Some(error) = cause.downcast_ref::<std::io::Error>()
                && reset_reason(error) == Some(Reason::Denied)
            {
                return Self::Denied;
            }
            source = cause.source();
        }
        Self::Connection
    }
}

/// A connection while a request has it.
pub(crate) struct Lease {
    state: Arc<Mutex<Kept>>,
    most: usize,
    sender: Sender,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>, #[expect(dead_code, reason = "held, not read")] Stream),
}

/// One of the streams of a shared connection.
struct Stream(Arc<AtomicUsize>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lease {
    /// The answer has passed: another request can have the connection.
    pub(crate) fn give_back(self) {
        if let Sender::Http1(sender) = self.sender
            && !sender.is_closed()
        {
            let mut kept = self.state.lock();
            if kept.idle.len() < self.most {
                kept.idle.push((sender, Instant::now()));
            }
        }
    }

    async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, (hyper::Error, Option<Request<Body>>)> {
        let answered = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender, _) => sender.try_send_request(request).await,
        };
        answered.map_err(|mut error| {
            let request = error.take_message();
            (error.into_error(), request)
        })
    }
}

impl<C: Connect> Pool<C> {
    /// Without a connection yet.
    pub(crate) fn new(connect: C, version: Version, context: PoolContext) -> Arc<Self> {
        Arc::new(Self {
            connect,
            version,
            context,
            state: Arc::default(),
            driving: Mutex::default(),
            connecting: Semaphore::new(1),
        })
    }

    /// Sends a request and waits for the head of its answer. The connection is held until the lease goes.
    ///
    /// # Errors
    /// [`Failure`], with the request where nothing of it was sent.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        breakers: Option<&Breakers>,
    ) -> Result<(Response<Incoming>, Lease), Failure<C::Error>> {
        let mut request = request;
        if let Some(mut lease) = self.kept().await {
            match lease.send(request).await {
                Ok(answer) => return Ok((answer, lease)),
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => return Err(Failure::Sent(error)),
            }
        }
        let waits = match breakers.map(Breakers::pending).transpose() {
            Ok(waits) => waits,
            Err(overloaded) => return Err(Failure::Overloaded(overloaded, Box::new(request))),
        };
        let mut lease = match Box::pin(self.fresh()).await {
            Ok(lease) => lease,
            Err(NotMade::Connect(error)) => return Err(Failure::Connect(error, Box::new(request))),
            Err(NotMade::Handshake(error)) => return Err(Failure::Unsent(error, Box::new(request))),
        };
        drop(waits);
        match lease.send(request).await {
            Ok(answer) => Ok((answer, lease)),
            Err((error, Some(unsent))) => Err(Failure::Unsent(error, Box::new(unsent))),
            Err((error, None)) => Err(Failure::Sent(error)),
        }
    }

    /// A connection that is there already.
    async fn kept(&self) -> Option<Lease> {
        if self.version == Version::Http2 {
            return self.shared();
        }
        let mut almost = {
            let mut kept = self.state.lock();
            let mut at = kept.idle.len();
            loop {
                let Some(before) = at.checked_sub(1) else { break kept.idle.pop()?.0 };
                at = before;
                if kept.idle[at].0.is_closed() {
                    kept.idle.swap_remove(at);
                } else if kept.idle[at].0.is_ready() {
                    let (sender, _) = kept.idle.swap_remove(at);
                    return Some(self.lease(Sender::Http1(sender)));
                }
            }
        };
        // Its last answer has just passed: its task only has to see that too.
        let ready = almost.ready().await;
        ready.ok().map(|()| self.lease(Sender::Http1(almost)))
    }

    fn shared(&self) -> Option<Lease> {
        let mut kept = self.state.lock();
        kept.shared.retain(|shared| !shared.sender.is_closed());
        let most = self.context.limits.streams as usize;
        let shared = kept.shared.iter_mut().find(|shared| shared.open.load(Ordering::Relaxed) < most)?;
        shared.open.fetch_add(1, Ordering::Relaxed);
        shared.used = Instant::now();
        let shared = shared.clone();
        Some(self.lease(Sender::Http2(shared.sender, Stream(shared.open))))
    }

    fn lease(&self, sender: Sender) -> Lease {
        Lease { state: self.state.clone(), most: self.context.limits.pooled_most, sender }
    }

    async fn fresh(&self) -> Result<Lease, NotMade<C::Error>> {
        match self.version {
            Version::Http1 => {
                let connected = self.connect.connect().await.map_err(NotMade::Connect)?;
                Ok(self.lease(Sender::Http1(self.http1(connected).await?)))
            }
            Version::Http2 => {
                let _turn = self.connecting.acquire().await;
                if let Some(lease) = self.shared() {
                    return Ok(lease);
                }
                let connected = self.connect.connect().await.map_err(NotMade::Connect)?;
                let sender = self.http2(connected).await?;
                let open = Arc::new(AtomicUsize::new(1));
                self.state.lock().shared.push(Shared { sender: sender.clone(), open: open.clone(), used: Instant::now() });
                Ok(self.lease(Sender::Http2(sender, Stream(open))))
            }
        }
    }

    async fn http1(&self, connected: Connected) -> Result<http1::SendRequest<Body>, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.max_headers(self.context.limits.headers).max_buf_size(self.context.limits.body_bytes);
        let (sender, connection) = builder.handshake(TokioIo::new(connected.wire)).await?;
        self.drive(connection.with_upgrades(), connected.registered, connected.permit);
        Ok(sender)
    }

    async fn http2(&self, connected: Connected) -> Result<http2::SendRequest<Body>, hyper::Error> {
        let limits = &self.context.limits;
        let mut builder = http2::Builder::new(Spawner(self.context.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(limits.streams as usize)
            .max_header_list_size(limits.head_bytes as u32)
            .keep_alive_interval(limits.ping_interval)
            .keep_alive_timeout(limits.ping_timeout);
        let (watched, _) = Watched::new(connected.wire, 0, limits.empty_frames);
        let (sender, connection) = builder.handshake(TokioIo::new(watched)).await?;
        self.drive(connection, connected.registered, connected.permit);
        Ok(sender)
    }

    /// Runs a connection until it ends, its peer is trusted no more, or the data plane goes.
    fn drive(
        &self,
        connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static,
        registered: Option<Registered>,
        permit: Option<Permit>,
    ) {
        let mut driving = self.driving.lock();
        while driving.try_join_next().is_some() {}
        driving.spawn(async move {
            let (mut registered, _permit) = (registered, permit);
            let closed = async {
                match &mut registered {
                    Some(registered) => registered.closed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                closed = closed => tracing::debug!(reason = closed.word(), "a pooled connection is closed"),
                // Whoever waits for an answer hears why; a connection without a request may end as it likes.
                _ = connection => {}
            }
        });
    }

    /// Closes what nobody has used for a while.
    pub(crate) fn trim(&self) {
        let most = self.context.limits.pooled_idle;
        let mut kept = self.state.lock();
        kept.idle.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < most);
        kept.shared.retain(|shared| {
            !shared.sender.is_closed() && (shared.open.load(Ordering::Relaxed) > 0 || shared.used.elapsed() < most)
        });
    }

    /// Whether it holds no connection.
    pub(crate) fn is_empty(&self) -> bool {
        let kept = self.state.lock();
        let is_driving = {
            let mut driving = self.driving.lock();
            while driving.try_join_next().is_some() {}
            !driving.is_empty()
        };
        kept.idle.is_empty() && kept.shared.is_empty() && !is_driving
    }
}

/// Why there is no new connection.
enum NotMade<E> {
    Connect(E),
    Handshake(hyper::Error),
}

impl<E> From<hyper::Error> for NotMade<E> {
    fn from(error: hyper::Error) -> Self {
        Self::Handshake(error)
    }
}
