//! When a failed try is worth another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use rand::Rng;

use crate::Outcome;
use crate::settings::{Backoff, Percent, Retries, RetryOn};

/// Retries that are always allowed at once: a service with few requests may retry too.
const LEAST_RETRIES: u32 = 3;

/// The `retries` of a service or of a route, ready to ask.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    attempts: u32,
    on: Conditions,
    statuses: Box<[u16]>,
    methods: Box<[String]>,
    budget: Percent,
    backoff: Backoff,
}

/// A request, as far as repeating it goes.
#[derive(Debug, Clone, Copy)]
pub struct Repeatable<'a> {
    /// As it was sent.
    pub method: &'a str,
    /// Whether it is a gRPC call: its POST says nothing of what it does.
    pub protocol: CallProtocol,
    /// Tries that were made, the first one included; at least 1.
    pub tries: u32,
}

/// What a call is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallProtocol {
    /// HTTP: the method says whether it may be repeated.
    Http,
    /// gRPC.
    Grpc,
}

/// One bit for each [`RetryOn`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Conditions(u16);

/// Keeps retries from melting a service: at most a share of the active requests, but at least three, are retries at once.
#[derive(Debug)]
pub struct RetryBudget {
    /// Hundredths of a percent.
    share: AtomicU16,
    active: AtomicU32,
    retries: AtomicU32,
}

/// A request that is active, retried or not, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct ActiveRequest {
    budget: Arc<RetryBudget>,
}

/// A retry that is running or waiting for its turn, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct RetryPermit {
    budget: Arc<RetryBudget>,
}

impl RetryPolicy {
    /// As the settings say.
    pub fn compile(retries: &Retries) -> Self {
        Self {
            attempts: retries.attempts,
            on: retries.on.iter().fold(Conditions::default(), |all, one| all.with(*one)),
            statuses: retries.statuses.as_slice().into(),
            methods: retries.methods.as_slice().into(),
            budget: retries.budget,
            backoff: retries.backoff,
        }
    }

    /// Tries after the first one, at most. 0: a request need not be kept for another try.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The share of the active requests that may be retries.
    pub fn budget(&self) -> Percent {
        self.budget
    }

    /// Whether a try that ended like this is worth another one. What the caller has to see to itself: that the body can be
    /// sent again, that there is time left, and that the [`RetryBudget`] permits it.
    ///
    /// Where nothing reached the service every method may be repeated; else the idempotent ones (RFC 9110 §9.2.2) or those
    /// that the settings name, for gRPC only those that the settings name. Once a part of the answer has been passed on,
    /// nothing is repeated.
    pub fn retries(&self, request: Repeatable<'_>, outcome: Outcome) -> bool {
        let may_repeat = outcome == Outcome::ConnectFailure || self.may_repeat(request);
        request.tries <= self.attempts && may_repeat && self.is_worth_it(outcome)
    }

    /// The pause before a retry, the first of which is number 1: between nothing and `base`, which doubles up to `max`.
    pub fn pause<R: Rng + ?Sized>(&self, retry: u32, rng: &mut R) -> Duration {
        let doubled = self.backoff.base.duration().saturating_mul(1_u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX));
        rng.random_range(Duration::ZERO..=doubled.min(self.backoff.max.duration()))
    }

    fn may_repeat(&self, request: Repeatable<'_>) -> bool {
        match (self.methods.is_empty(), request.protocol) {
            (false, _) => self.methods.iter().any(|method| method == request.method),
            (true, CallProtocol::Http) => is_idempotent(request.method),
            (true, CallProtocol::Grpc) => false,
        }
    }

    fn is_worth_it(&self, outcome: Outcome) -> bool {
        let on = |condition| self.on.has(condition);
        match outcome {
            Outcome::ConnectFailure => on(RetryOn::ConnectFailure),
            Outcome::Reset { before_answer } => before_answer && (on(RetryOn::Reset) || on(RetryOn::ServerError)),
            Outcome::PerTryTimeout => on(RetryOn::PerTryTimeout),
            Outcome::Status(status) => {
                self.statuses.contains(&status)
                    || (on(RetryOn::ServerError) && (500..600).contains(&status))
                    || (on(RetryOn::GatewayError) && (502..=504).contains(&status))
            }
            Outcome::GrpcStatus(1) => on(RetryOn::Cancelled),
            Outcome::GrpcStatus(4) => on(RetryOn::DeadlineExceeded),
            Outcome::GrpcStatus(8) => on(RetryOn::ResourceExhausted),
            Outcome::GrpcStatus(13) => on(RetryOn::Internal),
            Outcome::GrpcStatus(14) => on(RetryOn::Unavailable),
            Outcome::GrpcStatus(_) => false,
        }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

impl Conditions {
    fn with(self, condition: RetryOn) -> Self {
        Self(self.0 | 1 << condition as u16)
    }

    fn has(self, condition: RetryOn) -> bool {
        self.0 & (1 << condition as u16) != 0
    }
}

impl RetryBudget {
    /// Of `share` of the active requests.
    pub fn new(share: Percent) -> Self {
        Self { share: AtomicU16::new(share.hundredths()), active: AtomicU32::new(0), retries: AtomicU32::new(0) }
    }

    /// Another share from now on.
    pub fn set_share(&self, share: Percent) {
        self.share.store(share.hundredths(), Ordering::Relaxed);
    }

    /// A request begins.
    pub fn request(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest { budget: self.clone() }
    }

    /// Requests and retries that are active, for metrics.
    pub fn used(&self) -> (u32, u32) {
        (self.active.load(Ordering::Relaxed), self.retries.load(Ordering::Relaxed))
    }
}

impl ActiveRequest {
    /// A retry of the request, if the budget permits one more. To be taken before the pause and held until the try has ended.
    pub fn retry(&self) -> Option<RetryPermit> {
        let budget = &self.budget;
        let share = u64::from(budget.share.load(Ordering::Relaxed)) * u64::from(budget.active.load(Ordering::Relaxed));
        let most = LEAST_RETRIES.max((share / u64::from(Percent::ALL.hundredths())) as u32);
        let more = |retries: u32| (retries < most).then(|| retries + 1);
        let taken = budget.retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| RetryPermit { budget: budget.clone() })
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.budget.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.budget.retries.fetch_sub(1, Ordering::Relaxed);
    }
}
