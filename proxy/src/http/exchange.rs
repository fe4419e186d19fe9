//! One request and its answer, from the first byte of its head to the last of the answer: judged, counted, logged.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as StdInstant, SystemTime};

use bytes::{Buf, Bytes};
use http::header::RETRY_AFTER;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame;
use postern_edges::{self as edges, Verdict};
use postern_intentions::{Because, Protocol};
use postern_names::{InstanceId, PortName, ServiceName};
use postern_traffic::{ActiveRequest, Ejection, OpenRequest, Outcome, Permit};
use tokio::time::{Instant, Sleep};

use super::answer::{Answer, Language, Refusal, refuse};
use super::body::Sent;
use super::pool::Lease;
use super::serve::Active;
use super::trace::Trace;
use crate::access_log::{AccessLog, Call, RequestRecord};
use crate::connections::{Closed, Registered};
use crate::metrics::{Direction, Judged, RequestMetrics};
use crate::sightings::{Amounts, Counter, HttpCall, Sighting, verdict_of};
use crate::spans::{Span, SpanSink, bounded};
use crate::upstreams;

/// What all requests on one connection have in common.
pub(crate) struct Side {
    pub(crate) direction: Direction,
    pub(crate) source: ServiceName,
    pub(crate) port: PortName,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) log: AccessLog,
    pub(crate) spans: Option<SpanSink>,
    /// What the called service speaks.
    pub(crate) protocol: Protocol,
    pub(crate) seen: Arc<Counter>,
}

/// Who decided, for the log.
#[derive(Debug, Clone)]
pub(crate) enum Decider {
    /// The evaluator, in this sidecar.
    Rules(Because),
    /// Somebody else's words, or no policy at all.
    Words(Arc<str>),
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(because) => because.fmt(f),
            Self::Words(words) => f.write_str(words),
        }
    }
}

/// One request and its answer. Dropping it ends it: what is known by then is counted and logged.
pub(crate) struct Exchange {
    side: Arc<Side>,
    metrics: Arc<RequestMetrics>,
    begun: Instant,
    method: Method,
    target: Option<PathAndQuery>,
    language: Language,
    destination: ServiceName,
    instance: Option<InstanceId>,
    judged: Option<Judged>,
    because: Decider,
    /// What decided the verdict, where something else ended it.
    ruled_by: Option<Decider>,
    /// It was allowed no more.
    is_revoked: bool,
    /// A sidecar refused it before an instance had it.
    is_unreached: bool,
    status: Option<StatusCode>,
    grpc_status: Option<u8>,
    sent: Option<Arc<Sent>>,
    answered: u64,
    reason: Option<&'static str>,
    complete: bool,
    registered: Option<Registered>,
    lease: Option<Lease>,
    active: Option<Active>,
    open: Option<OpenRequest>,
    room: Option<(Permit, ActiveRequest)>,
    idle: Idle,
    retry_after: Option<Duration>,
    trace: Option<Trace>,
}

/// Ends an exchange in which nothing moves.
#[derive(Default)]
struct Idle {
    /// Zero: never.
    most: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that had moved when the timer was set.
    moved: u64,
}

impl Exchange {
    /// A request whose head has arrived.
    pub(crate) fn begin(
        side: Arc<Side>,
        metrics: Arc<RequestMetrics>,
        destination: ServiceName,
        head: &http::request::Parts,
    ) -> Box<Self> {
        Box::new(Self {
            side,
            metrics,
            begun: Instant::now(),
            method: head.method.clone(),
            target: head.uri.path_and_query().cloned(),
            language: Language::of(&head.headers),
            destination,
            instance: None,
            judged: None,
            because: Decider::Words("".into()),
            ruled_by: None,
            is_revoked: false,
            is_unreached: false,
            status: None,
            grpc_status: None,
            sent: None,
            answered: 0,
            reason: None,
            complete: false,
            registered: None,
            lease: None,
            active: None,
            open: None,
            room: None,
            idle: Idle::default(),
            retry_after: None,
            trace: None,
        })
    }

    /// What its caller understands.
    pub(crate) fn language(&self) -> Language {
        self.language
    }

    /// When its head had arrived.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// It was judged.
    pub(crate) fn judged(&mut self, judged: Judged, because: Decider) {
        self.judged = Some(judged);
        self.because = because;
    }

    /// Its place in a trace.
    pub(crate) fn is_part_of(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    /// From here on a snapshot can end it.
    pub(crate) fn registered(&mut self, registered: Registered) {
        self.registered = Some(registered);
    }

    /// Another service gets it than the one that was called.
    pub(crate) fn goes_to(&mut self, destination: &ServiceName, metrics: impl FnOnce() -> Arc<RequestMetrics>) {
        if self.destination != *destination {
            self.destination = destination.clone();
            self.metrics = metrics();
        }
    }

    /// The places that it takes until it ends.
    pub(crate) fn takes(&mut self, permit: Permit, request: ActiveRequest) {
        self.room = Some((permit, request));
    }

    /// Where it is counted among the requests of its service.
    pub(crate) fn request(&self) -> Option<&ActiveRequest> {
        self.room.as_ref().map(|(_, request)| request)
    }

    /// An instance has it.
    pub(crate) fn open_on(&mut self, open: OpenRequest) {
        self.open = Some(open);
    }

    /// How the try on that instance ended, without an answer that is passed on.
    pub(crate) fn try_ended(&mut self, outcome: Outcome) {
        if let Some(mut open) = self.open.take() {
            self.tell(open.ended(outcome, StdInstant::now()));
        }
    }

    fn tell(&self, ejection: Option<Ejection>) {
        if let Some(ejection) = ejection {
            upstreams::tell(&self.destination, &ejection);
        }
    }

    /// Nothing may move for so long while the answer passes; zero: for ever.
    pub(crate) fn may_idle(&mut self, most: Duration) {
        self.idle.most = most;
    }

    /// Ready when nothing has moved, in either direction, for too long. Asked when nothing moves now.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.idle.most.is_zero() {
            return Poll::Pending;
        }
        loop {
            let moved = self.answered + self.sent.as_ref().map_or(0, |sent| sent.bytes());
            let timer = self.idle.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.idle.most)));
            ready!(timer.as_mut().poll(cx));
            if moved == self.idle.moved {
                self.fails("idle");
                return Poll::Ready(());
            }
            self.idle.moved = moved;
            timer.as_mut().reset(Instant::now() + self.idle.most);
        }
    }

    /// Which instance gets it.
    pub(crate) fn reached(&mut self, instance: InstanceId) {
        self.instance = Some(instance);
    }

    /// How far its body is.
    pub(crate) fn sends(&mut self, sent: Arc<Sent>) {
        self.sent = Some(sent);
    }

    /// The connection that carries it, to be used again after it.
    pub(crate) fn carried_by(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// The head of the answer.
    pub(crate) fn answers(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        let now = StdInstant::now();
        if self.language == Language::Grpc {
            self.note_grpc_status(headers);
        } else if let Some(open) = &mut self.open {
            let ejection = open.ended(Outcome::Status(status.as_u16()), now);
            self.tell(ejection);
        }
        if let Some(open) = &mut self.open {
            open.answered(now);
        }
    }

    /// Part of the answer has passed.
    pub(crate) fn passed(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.answered += data.remaining() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            self.note_grpc_status(trailers);
        }
    }

    fn note_grpc_status(&mut self, headers: &HeaderMap) {
        let status = headers.get("grpc-status").and_then(|status| status.to_str().ok());
        let Some(status) = status.and_then(|status| status.parse().ok()) else { return };
        self.grpc_status = Some(status);
        if let Some(open) = &mut self.open {
            let ejection = open.ended(Outcome::GrpcStatus(status), StdInstant::now());
            self.tell(ejection);
        }
    }

    /// The connection that it came on is busy with it until it ends.
    pub(crate) fn holds(&mut self, active: Active) {
        self.active = Some(active);
    }

    /// When it may be sent again, if it is refused.
    pub(crate) fn retry_after(&mut self, after: Duration) {
        self.retry_after = Some(after);
    }

    /// A sidecar answers in place of the service; what it says is all there is.
    pub(crate) fn refused(&mut self, refusal: Refusal, because: &str) -> Answer {
        let (source, destination) = (self.side.source.as_str(), self.destination.as_str());
        let mut answer = refuse(self.language, refusal, source, destination, because);
        if let Some(after) = self.retry_after {
            // In whole seconds (RFC 9110 §10.2.3), rounded up.
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1_000) as u64));
        }
        self.answers(answer.status(), answer.headers());
        self.reason.get_or_insert(refusal.word());
        self.is_unreached = refusal.is_before_any_instance();
        if refusal != Refusal::Denied {
            self.ruled_by = Some(std::mem::replace(&mut self.because, Decider::Words(because.into())));
        }
        answer
    }

    /// All of the answer has passed.
    pub(crate) fn is_complete(&mut self) {
        self.complete = true;
    }

    /// Why it ends early, in one word, and in the log's `because`.
    pub(crate) fn fails(&mut self, reason: &'static str) {
        self.reason = Some(reason);
    }

    /// The answer broke off.
    pub(crate) fn broke_off(&mut self, error: &hyper::Error) {
        self.reason.get_or_insert(if error.is_timeout() { "answer_timed_out" } else { "answer_broken_off" });
    }

    /// Whether it is allowed no more; then why, once.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let Some(registered) = &mut self.registered else { return Poll::Pending };
        let Poll::Ready(closed) = registered.poll_closed(cx) else { return Poll::Pending };
        Poll::Ready(self.closed_by(&closed))
    }

    fn closed_by(&mut self, closed: &Closed) -> String {
        self.reason = Some(closed.word());
        if let Some(because) = closed.because() {
            self.because = Decider::Words(because.into());
        }
        if *closed != Closed::Draining {
            self.is_revoked = true;
            self.metrics.revoked();
        }
        self.because.to_string()
    }
}

impl Exchange {
    fn span(&self, trace: Trace, took: Duration, reason: &'static str) -> Span {
        let ended = SystemTime::now();
        Span {
            trace,
            begun: ended.checked_sub(took).unwrap_or(ended),
            ended,
            direction: self.side.direction,
            source: self.side.source.clone(),
            destination: self.destination.clone(),
            instance: self.instance.clone(),
            port: self.side.port.clone(),
            address: self.side.address,
            method: bounded(self.method.as_str()),
            // The query may hold secrets.
            path: bounded(self.target.as_ref().map_or("", PathAndQuery::path)),
            is_grpc: self.language == Language::Grpc,
            status: self.status.map(|status| status.as_u16()),
            grpc_status: self.grpc_status,
            judged: self.judged,
            because: self.because.clone(),
            reason,
        }
    }

    /// Counts it on its edge. What reached an instance of another service is counted there.
    fn account(&self, bytes_in: u64, bytes_out: u64, took: Duration) {
        let is_inbound = self.side.direction == Direction::Inbound;
        if !is_inbound && !self.is_unreached {
            return;
        }
        let (verdict, because) = match (&self.ruled_by, verdict_of(self.judged)) {
            _ if !is_inbound => (Verdict::Failed, &self.because),
            _ if self.is_revoked => (Verdict::Deny, &self.because),
            (Some(ruled_by), verdict) if verdict != Verdict::Failed => (verdict, ruled_by),
            (_, verdict) => (verdict, &self.because),
        };
        let is_error = match self.language {
            Language::Grpc => self.grpc_status != Some(0),
            Language::Http => self.status.is_none_or(|status| status.is_server_error()),
        };
        self.side.seen.count(&Sighting {
            direction: self.side.direction,
            peer: if is_inbound { &self.side.source } else { &self.destination },
            port: &self.side.port,
            protocol: self.side.protocol,
            verdict,
            because: because.into(),
            http: Some(HttpCall {
                method: edges::Method::of(self.method.as_str()),
                path: self.target.as_ref().map_or("", PathAndQuery::path),
                status: self.status.map_or(0, |status| status.as_u16()),
            }),
            amounts: Amounts {
                calls: 1,
                errors: u64::from(is_error && verdict.went_through()),
                bytes_in,
                bytes_out,
                took: Some(took),
            },
            at: self.begun + took,
        });
    }

    /// What the end says of the instance.
    fn end_try(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let now = StdInstant::now();
        if self.status.is_none() {
            open.abandoned(now);
        } else if !self.complete && self.reason == Some("answer_broken_off") {
            self.tell(open.ended(Outcome::Reset { before_answer: false }, now));
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // An HTTP/1 connection that a snapshot closes takes its request with it: nobody has asked why yet.
        if !self.complete && self.reason.is_none() {
            let _ = self.poll_closed(&mut Context::from_waker(std::task::Waker::noop()));
        }
        self.end_try();
        let sent = self.sent.as_ref().map_or(0, |sent| sent.bytes());
        let is_over = self.sent.as_ref().is_none_or(|sent| sent.is_over());
        if let Some(lease) = self.lease.take()
            && self.complete
            && is_over
        {
            lease.give_back();
        }
        let took = self.begun.elapsed();
        let reason = self.reason.unwrap_or(if self.complete { "answered" } else { "caller_gone" });
        self.metrics.answered(&self.method, self.status, self.judged, took);
        let is_inbound = self.side.direction == Direction::Inbound;
        let (bytes_in, bytes_out) = if is_inbound { (sent, self.answered) } else { (self.answered, sent) };
        // From the caller and to it, whichever side this is.
        self.account(sent, self.answered, took);
        let call = Call {
            direction: self.side.direction,
            source: self.side.source.as_str(),
            destination: self.destination.as_str(),
            instance: self.instance.as_ref().map_or("", InstanceId::as_str),
            port: self.side.port.as_str(),
            address: self.side.address,
            judged: self.judged,
        };
        self.side.log.write_request(&RequestRecord {
            call,
            because: &self.because,
            method: self.method.as_str(),
            // The query may hold secrets.
            path: self.target.as_ref().map_or("", PathAndQuery::path),
            status: self.status.map(|status| status.as_u16()),
            grpc_status: self.grpc_status,
            bytes_in,
            bytes_out,
            duration: took,
            reason,
            trace: self.trace,
        });
        if let Some(spans) = &self.side.spans
            && let Some(trace) = self.trace.filter(|trace| trace.is_sampled)
        {
            spans.send(self.span(trace, took, reason));
        }
        // Only now is it gone for those who wait until everything that is denied has ended.
        self.registered = None;
    }
}
