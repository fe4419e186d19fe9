//! Rate limits at the destination, by the generic cell rate algorithm (ITU-T I.371 annex A; the same as a leaky bucket).
//!
//! A limit is one number: the time at which the bucket will be empty again. Time comes in as a parameter and no key is ever
//! evicted under load, which the libraries for it do not offer; the algorithm is ten lines.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use postern_names::ServiceName;

use crate::RequestHead;
use crate::matching::{MatchError, RequestMatcher};
use crate::settings::{RateKey, RateLimit};

/// Callers that have a share of their own in a limit; all further ones share one more. A mesh has fewer services than this;
/// it bounds what callers can make a sidecar remember.
pub const MAX_CALLERS: usize = 1_000;

/// All limits of a service, in the order of its settings.
#[derive(Debug)]
pub struct RateLimits {
    epoch: Instant,
    limits: Vec<Arc<Limiter>>,
}

/// A request is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Which limit, counted from 0.
    pub limit: usize,
    /// When the next request would be let in, for `retry-after` (RFC 9110 §10.2.3).
    pub retry_after: Duration,
}

#[derive(Debug)]
struct Limiter {
    settings: RateLimit,
    matcher: Option<RequestMatcher>,
    rate: Rate,
    /// What all share: `per: service`, a limit of one source, and callers beyond [`MAX_CALLERS`].
    shared: Cell,
    /// Read without a lock; copied when a new caller comes, which is seldom.
    callers: ArcSwap<HashMap<ServiceName, Arc<Cell>>>,
}

/// Nanoseconds since the epoch at which the bucket is empty.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

/// Nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// That one request adds.
    interval: u64,
    /// That may be ahead of now before a request is refused.
    tolerance: u64,
}

impl RateLimits {
    /// Makes limiters of the settings. A limit that `previous` has too, word for word, goes on where it is: settings that are
    /// pushed again give nobody a new burst. `epoch` is any time not later than the first request.
    ///
    /// # Errors
    /// A `match` that does not compile.
    pub fn compile(limits: &[RateLimit], previous: Option<&Self>, epoch: Instant) -> Result<Self, MatchError> {
        let mut known: Vec<&Arc<Limiter>> = previous.iter().flat_map(|previous| &previous.limits).collect();
        let epoch = previous.map_or(epoch, |previous| previous.epoch);
        let limits = limits.iter().map(|settings| {
            let same = known.iter().position(|limiter| limiter.settings == *settings);
            same.map_or_else(|| Limiter::compile(settings).map(Arc::new), |at| Ok(known.remove(at).clone()))
        });
        Ok(Self { epoch, limits: limits.collect::<Result<_, _>>()? })
    }

    /// None at all.
    pub fn none() -> Self {
        Self { epoch: Instant::now(), limits: Vec::new() }
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// Counts a request in every limit that it falls under, up to the first that is used up.
    ///
    /// # Errors
    /// [`Limited`]: answered with 429, for gRPC with status 8.
    pub fn check(&self, caller: &ServiceName, request: &RequestHead<'_>, now: Instant) -> Result<(), Limited> {
        let now = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        for (limit, limiter) in self.limits.iter().enumerate() {
            if limiter.covers(caller, request) {
                limiter.take(caller, now).map_err(|retry_after| Limited { limit, retry_after })?;
            }
        }
        Ok(())
    }
}

impl Limiter {
    fn compile(settings: &RateLimit) -> Result<Self, MatchError> {
        Ok(Self {
            matcher: settings.matches.as_ref().map(RequestMatcher::compile).transpose()?,
            rate: Rate::of(settings),
            shared: Cell::default(),
            callers: ArcSwap::default(),
            settings: settings.clone(),
        })
    }

    fn covers(&self, caller: &ServiceName, request: &RequestHead<'_>) -> bool {
        self.settings.source.as_ref().is_none_or(|source| source == caller)
            && self.matcher.as_ref().is_none_or(|matcher| matcher.matches(request))
    }

    fn take(&self, caller: &ServiceName, now: u64) -> Result<(), Duration> {
        if self.settings.per == RateKey::Service || self.settings.source.is_some() {
            return self.shared.take(self.rate, now);
        }
        if let Some(cell) = self.callers.load().get(caller) {
            return cell.take(self.rate, now);
        }
        self.enter(caller).map_or_else(|| self.shared.take(self.rate, now), |cell| cell.take(self.rate, now))
    }

    /// The cell of a caller that is new; none if there are too many of them.
    fn enter(&self, caller: &ServiceName) -> Option<Arc<Cell>> {
        if self.callers.load().len() >= MAX_CALLERS {
            return None;
        }
        let cell = Arc::new(Cell::default());
        self.callers.rcu(|callers| {
            let mut callers = HashMap::clone(callers);
            if callers.len() < MAX_CALLERS {
                callers.entry(caller.clone()).or_insert_with(|| cell.clone());
            }
            callers
        });
        // Not always `cell`: another worker may have been first.
        self.callers.load().get(caller).cloned()
    }
}

impl Cell {
    fn take(&self, rate: Rate, now: u64) -> Result<(), Duration> {
        let add = |empty: u64| {
            let from = empty.max(now);
            (from - now <= rate.tolerance).then(|| from.saturating_add(rate.interval))
        };
        let refused = |empty: u64| Duration::from_nanos(empty - now - rate.tolerance);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map(|_| ()).map_err(refused)
    }
}

impl Rate {
    fn of(settings: &RateLimit) -> Self {
        let a_second = settings.requests_per_second.clamp(0.001, 1_000_000.0);
        let burst = settings.burst.unwrap_or(a_second as u32).clamp(1, 1_000_000);
        let interval = (1e9 / a_second).round() as u64;
        Self { interval, tolerance: interval * u64::from(burst - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;

    fn limit(requests_per_second: f64, burst: Option<u32>, per: RateKey) -> RateLimit {
        RateLimit { matches: None, source: None, per, requests_per_second, burst }
    }

    fn name(text: &str) -> ServiceName {
        text.parse().expect("a name")
    }

    fn ask(limits: &RateLimits, caller: &str, path: &str, now: Instant) -> Result<(), Limited> {
        let headers = HeaderMap::new();
        limits.check(&name(caller), &RequestHead { method: "GET", path, query: None, headers: &headers }, now)
    }

    proptest! {
        /// The naive model: a bucket of tokens that fills as time goes by.
        #[test]
        fn a_limit_lets_in_what_a_token_bucket_does(
            interval_ms in 1_u64..50,
            burst in 1_u32..10,
            gaps in prop::collection::vec(0_u64..120, 1..200),
        ) {
            let epoch = Instant::now();
            let limits = [limit(1_000.0 / interval_ms as f64, Some(burst), RateKey::Service)];
            let limits = RateLimits::compile(&limits, None, epoch).expect("limits");
            // In units of a nanosecond, so that nothing is lost: one request costs `interval`.
            let interval = (1e9 / (1_000.0 / interval_ms as f64)).round() as u64;
            let full = interval * u64::from(burst);
            let (mut tokens, mut now) = (full, epoch);
            for gap in gaps {
                now += Duration::from_millis(gap);
                tokens = full.min(tokens + gap * 1_000_000);
                match ask(&limits, "web", "/", now) {
                    Ok(()) => {
                        prop_assert!(tokens >= interval);
                        tokens -= interval;
                    }
                    Err(limited) => {
                        prop_assert!(tokens < interval);
                        prop_assert_eq!(limited.retry_after, Duration::from_nanos(interval - tokens));
                    }
                }
            }
        }
    }

    #[test]
    fn each_caller_has_a_share_of_its_own() {
        let now = Instant::now();
        let limits = RateLimits::compile(&[limit(1.0, Some(2), RateKey::Caller)], None, now).expect("limits");
        for caller in ["web", "shop"] {
            assert!(ask(&limits, caller, "/", now).is_ok());
            assert!(ask(&limits, caller, "/", now).is_ok());
            let limited = ask(&limits, caller, "/", now).unwrap_err();
            assert_eq!(limited, Limited { limit: 0, retry_after: Duration::from_secs(1) });
        }
    }

    #[test]
    fn callers_beyond_the_thousandth_share_one_limit() {
        let now = Instant::now();
        let limits = RateLimits::compile(&[limit(1.0, Some(1), RateKey::Caller)], None, now).expect("limits");
        for caller in 0..MAX_CALLERS {
            assert!(ask(&limits, &format!("caller-{caller}"), "/", now).is_ok());
        }
        assert!(ask(&limits, "one-more", "/", now).is_ok());
        assert!(ask(&limits, "and-another", "/", now).is_err());
        assert!(limits.limits[0].callers.load().len() <= MAX_CALLERS);
    }

    #[test]
    fn a_limit_counts_only_what_it_is_for() {
        let now = Instant::now();
        let mut for_web = limit(1.0, None, RateKey::Caller);
        for_web.source = Some(name("web"));
        let mut for_reports = limit(1.0, None, RateKey::Service);
        for_reports.matches = Some(serde_yaml::from_str("path_prefix: /reports").expect("a match"));
        let limits = RateLimits::compile(&[for_web, for_reports], None, now).expect("limits");
        assert!(ask(&limits, "shop", "/", now).is_ok());
        assert!(ask(&limits, "shop", "/", now).is_ok());
        assert!(ask(&limits, "web", "/", now).is_ok());
        assert_eq!(ask(&limits, "web", "/", now).unwrap_err().limit, 0);
        assert!(ask(&limits, "shop", "/reports/1", now).is_ok());
        assert_eq!(ask(&limits, "job", "/reports", now).unwrap_err().limit, 1);
    }

    #[test]
    fn a_limit_that_is_pushed_again_gives_no_new_burst() {
        let now = Instant::now();
        let (one, two) = (limit(1.0, Some(1), RateKey::Service), limit(5.0, Some(5), RateKey::Service));
        let before = RateLimits::compile(std::slice::from_ref(&one), None, now).expect("limits");
        assert!(ask(&before, "web", "/", now).is_ok());
        let after = RateLimits::compile(&[two, one], Some(&before), now).expect("limits");
        assert_eq!(ask(&after, "web", "/", now).unwrap_err().limit, 1);
    }

    #[test]
    fn workers_together_get_no_more_than_the_burst() {
        let now = Instant::now();
        let limits = RateLimits::compile(&[limit(1.0, Some(500), RateKey::Caller)], None, now).expect("limits");
        let let_in = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let asked = (0..500).filter(|_| ask(&limits, "web", "/", now).is_ok()).count();
                    let_in.fetch_add(asked as u64, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(let_in.into_inner(), 500);
    }
}
