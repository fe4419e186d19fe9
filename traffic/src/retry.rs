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

    /// Whether a request is perhaps sent again after part of it was sent: then it has to be kept.
    pub fn keeps_requests(&self) -> bool {
        self.attempts > 0 && (self.on != Conditions::default().with(RetryOn::ConnectFailure) || !self.statuses.is_empty())
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
            // A retry would meet the same breaker.
            Outcome::GrpcStatus(_) | Outcome::Connected | Outcome::Overloaded => false,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Period;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn policy(yaml: &str) -> RetryPolicy {
        RetryPolicy::compile(&serde_yaml::from_str(yaml).expect("retries"))
    }

    fn first_try(method: &str, protocol: CallProtocol) -> Repeatable<'_> {
        Repeatable { method, protocol, tries: 1 }
    }

    #[test]
    fn each_condition_stands_for_what_the_reference_says() {
        let outcomes = [
            ("connect", Outcome::ConnectFailure),
            ("reset", Outcome::Reset { before_answer: true }),
            ("cut", Outcome::Reset { before_answer: false }),
            ("late", Outcome::PerTryTimeout),
            ("connected", Outcome::Connected),
            ("overloaded", Outcome::Overloaded),
            ("200", Outcome::Status(200)),
            ("404", Outcome::Status(404)),
            ("500", Outcome::Status(500)),
            ("502", Outcome::Status(502)),
            ("504", Outcome::Status(504)),
            ("505", Outcome::Status(505)),
            ("g1", Outcome::GrpcStatus(1)),
            ("g4", Outcome::GrpcStatus(4)),
            ("g8", Outcome::GrpcStatus(8)),
            ("g13", Outcome::GrpcStatus(13)),
            ("g14", Outcome::GrpcStatus(14)),
            ("g2", Outcome::GrpcStatus(2)),
        ];
        for (on, expected) in [
            ("connect-failure", "connect"),
            ("reset", "reset"),
            ("gateway-error", "502 504"),
            ("5xx", "reset 500 502 504 505"),
            ("per-try-timeout", "late"),
            ("cancelled", "g1"),
            ("deadline-exceeded", "g4"),
            ("resource-exhausted", "g8"),
            ("internal", "g13"),
            ("unavailable", "g14"),
        ] {
            let policy = policy(&format!("{{on: [{on}]}}"));
            let request = first_try("GET", CallProtocol::Http);
            let retried = outcomes.iter().filter(|(_, outcome)| policy.retries(request, *outcome));
            assert_eq!(retried.map(|(name, _)| *name).collect::<Vec<_>>().join(" "), expected, "{on}");
        }
        let by_status = policy("{on: [], statuses: [429, 404]}");
        assert!(by_status.retries(first_try("GET", CallProtocol::Http), Outcome::Status(404)));
        assert!(!by_status.retries(first_try("GET", CallProtocol::Http), Outcome::Status(500)));
    }

    #[test]
    fn what_may_have_been_done_is_repeated_only_where_that_does_no_harm() {
        let (reset, connect) = (Outcome::Reset { before_answer: true }, Outcome::ConnectFailure);
        let all = policy("{on: [connect-failure, reset, unavailable]}");
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(all.retries(first_try(method, CallProtocol::Http), reset), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", "LOCK"] {
            assert!(!all.retries(first_try(method, CallProtocol::Http), reset), "{method}");
            assert!(all.retries(first_try(method, CallProtocol::Http), connect), "{method}");
        }
        let call = first_try("POST", CallProtocol::Grpc);
        assert!(!all.retries(call, Outcome::GrpcStatus(14)));
        assert!(all.retries(call, connect));
        let told = policy("{on: [reset, unavailable], methods: [POST]}");
        assert!(told.retries(call, Outcome::GrpcStatus(14)));
        assert!(told.retries(first_try("POST", CallProtocol::Http), reset));
        assert!(!told.retries(first_try("GET", CallProtocol::Http), reset), "what is named takes the place of the idempotent");
    }

    #[test]
    fn there_are_as_many_retries_as_attempts() {
        let policy = policy("{attempts: 2}");
        let asked = |tries| {
            let request = Repeatable { method: "GET", protocol: CallProtocol::Http, tries };
            policy.retries(request, Outcome::ConnectFailure)
        };
        assert_eq!([1, 2, 3].map(asked), [true, true, false]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Request,
        Retry(usize),
        EndRequest(usize),
        EndRetry(usize),
        Share(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Request),
            6 => any::<usize>().prop_map(Step::Retry),
            2 => any::<usize>().prop_map(Step::EndRequest),
            3 => any::<usize>().prop_map(Step::EndRetry),
            1 => (0_u16..=100).prop_map(Step::Share),
        ]
    }

    proptest! {
        #[test]
        fn retries_are_never_more_than_the_budget_has(share in 0_u16..=100, steps in prop::collection::vec(step(), 0..200)) {
            let budget = Arc::new(RetryBudget::new(Percent::of(share)));
            let (mut share, mut requests, mut retries) = (usize::from(share), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Request => requests.push(budget.request()),
                    Step::Retry(of) if !requests.is_empty() => {
                        let permit = requests[of % requests.len()].retry();
                        prop_assert_eq!(permit.is_some(), retries.len() < 3.max(requests.len() * share / 100));
                        retries.extend(permit);
                    }
                    Step::EndRequest(at) if !requests.is_empty() => drop(requests.swap_remove(at % requests.len())),
                    Step::EndRetry(at) if !retries.is_empty() => drop(retries.swap_remove(at % retries.len())),
                    Step::Share(to) => {
                        share = usize::from(to);
                        budget.set_share(Percent::of(to));
                    }
                    Step::Retry(_) | Step::EndRequest(_) | Step::EndRetry(_) => {}
                }
                prop_assert_eq!(budget.used(), (requests.len() as u32, retries.len() as u32));
            }
        }

        #[test]
        fn a_pause_is_anywhere_below_a_ceiling_that_doubles(base in 0_u64..1_000, max in 0_u64..10_000, retry in 1_u32..80, seed: u64) {
            let backoff = Backoff { base: Period::millis(base), max: Period::millis(max) };
            let policy = RetryPolicy::compile(&Retries { backoff, ..Retries::default() });
            let ceiling = u128::from(base).saturating_mul(1 << (retry - 1).min(64)).min(u128::from(max));
            let rng = &mut StdRng::seed_from_u64(seed);
            let pauses: Vec<Duration> = (0..64).map(|_| policy.pause(retry, rng)).collect();
            prop_assert!(pauses.iter().all(|pause| pause.as_millis() <= ceiling));
            let (low, high) = (pauses.iter().min(), pauses.iter().max());
            let spread = high.zip(low).map(|(high, low)| (*high - *low).as_micros());
            prop_assert!(spread.is_some_and(|spread| spread >= ceiling * 1_000 / 2), "{:?} of {}", spread, ceiling);
        }
    }
}
