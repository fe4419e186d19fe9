//! Limits, ejection, balancing and faults.

use super::super::balancer::{Balancer, HashOn, Policy};
use super::super::{CircuitBreakers, Faults, OutlierEjection, RateLimit};
use super::faults::Checker;
use super::headers::{check_cookie, check_name, check_parameter};
use crate::Period;

/// Requests a second, and at once.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;
const BURSTS: std::ops::RangeInclusive<u32> = 1..=1_000_000;
/// What a request may be made to wait.
const LONGEST_DELAY: Period = Period::seconds(3_600);
const HOUR: Period = Period::seconds(3_600);

impl RateLimit {
    pub(super) fn check(&self, checker: &mut Checker) {
        if let Some(matches) = &self.matches {
            checker.within("match", |checker| matches.check(checker));
        }
        let rate = self.requests_per_second;
        // A number that is written in a few digits is read as the same one everywhere; not every one with seventeen is.
        let is_valid = RATES.contains(&rate) && rate == (rate * 1_000.0).round() / 1_000.0;
        let cure = "use 0.001 to 1000000, with at most three decimals";
        checker.holds("requests_per_second", is_valid, "requests_per_second is out of range", cure);
        let burst = self.burst.is_none_or(|burst| BURSTS.contains(&burst));
        checker.holds("burst", burst, "burst is out of range", "use 1 to 1000000");
    }
}

impl CircuitBreakers {
    pub(super) fn check(&self, checker: &mut Checker) {
        checker.holds("connections", self.connections > 0, "connections is 0: nothing could be called", "use at least 1");
        checker.holds("requests", self.requests > 0, "requests is 0: nothing could be called", "use at least 1");
    }
}

impl OutlierEjection {
    pub(super) fn check(&self, checker: &mut Checker) {
        let tenth = Period::millis(100);
        let interval = (tenth..=HOUR).contains(&self.interval);
        checker.holds("interval", interval, "interval is out of range", "use 100ms to 1h");
        checker.holds("base_time", self.base_time >= tenth, "base_time is too short", "use at least 100ms");
        checker.holds(
            "max_time",
            self.max_time >= self.base_time,
            "max_time is shorter than base_time",
            "make it at least as long",
        );
        checker.holds(
            "success_rate_requests",
            self.success_rate_requests > 0,
            "success_rate_requests is 0",
            "use at least 1; success_rate: 0 switches the rate off",
        );
    }
}

impl Balancer {
    pub(super) fn check(&self, checker: &mut Checker) {
        let hashes = matches!(self.policy, Policy::RingHash | Policy::Maglev);
        checker.holds(
            "hash_on",
            hashes || self.hash_on.is_empty(),
            "hash_on is given, and the policy does not hash",
            "set policy to ring_hash or maglev, or leave hash_on out",
        );
        checker.holds(
            "policy",
            !hashes || !self.hash_on.is_empty(),
            "the policy hashes, and nothing says what",
            "give hash_on, such as [{header: x-user}]",
        );
        checker.within("hash_on", |checker| {
            checker.at_most("things to hash on", self.hash_on.len());
            checker.each(&self.hash_on, |checker, on| match on {
                HashOn::Header(name) => checker.within("header", |checker| check_name(checker, name)),
                HashOn::Cookie(name) => checker.within("cookie", |checker| check_cookie(checker, name)),
                HashOn::Query(name) => checker.within("query", |checker| check_parameter(checker, name)),
                HashOn::Source(_) => {}
            });
        });
    }
}

impl Faults {
    pub(super) fn check(&self, checker: &mut Checker) {
        if let Some(fault) = &self.delay {
            let delay = !fault.delay.is_zero() && fault.delay <= LONGEST_DELAY;
            checker.within("delay", |checker| checker.holds("delay", delay, "delay is out of range", "use 1ms to 1h"));
        }
        if let Some(fault) = &self.abort {
            let status = (200..=599).contains(&fault.status);
            checker.within("abort", |checker| checker.holds("status", status, "status is out of range", "use 200 to 599"));
        }
    }
}
