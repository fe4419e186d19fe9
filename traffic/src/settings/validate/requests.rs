//! Time-outs, retries, and what matches a request.

use postern_intentions::checks::{check_method, check_path, check_regex};
use postern_intentions::{HeaderCriterion, QueryCriterion};

use super::super::{RequestMatch, Retries, RetryOn, Timeouts};
use super::faults::Checker;

/// Tries after the first one.
const ATTEMPTS: u32 = 10;

impl Timeouts {
    pub(super) fn check(&self, checker: &mut Checker) {
        let fits = self.per_try.is_zero() || self.request.is_zero() || self.per_try <= self.request;
        checker.holds("per_try", fits, "per_try is longer than request", "make it shorter, or 0s for none of its own");
    }
}

impl Retries {
    /// `timeouts` are those that hold for the same requests.
    pub(super) fn check(&self, checker: &mut Checker, timeouts: &Timeouts) {
        checker.holds("attempts", self.attempts <= ATTEMPTS, "attempts is out of range", "use 0 to 10");
        let needs_per_try = self.on.contains(&RetryOn::PerTryTimeout) && timeouts.per_try.is_zero();
        checker.holds("on", !needs_per_try, "per-try-timeout is given, and timeouts.per_try is none", "set timeouts.per_try");
        checker.within("statuses", |checker| {
            checker.at_most("statuses", self.statuses.len());
            checker.each(&self.statuses, |checker, status| {
                if !(400..=599).contains(status) {
                    checker.note(format!("status {status} is out of range"), "use 400 to 599");
                }
            });
        });
        check_methods(checker, &self.methods);
        checker.within("backoff", |checker| {
            let fits = self.backoff.base <= self.backoff.max;
            checker.holds("base", fits, "base is longer than max", "make it at most as long");
        });
    }
}

impl RequestMatch {
    pub(super) fn check(&self, checker: &mut Checker) {
        check_methods(checker, &self.methods);
        let paths = [("path_exact", &self.path_exact), ("path_prefix", &self.path_prefix), ("path_regex", &self.path_regex)];
        let given: Vec<(&str, &String)> = paths.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?))).collect();
        for (key, path) in &given {
            checker.check(key, if *key == "path_regex" { check_regex(path) } else { check_path(path) });
        }
        if let [_, (second, _), ..] = given.as_slice() {
            checker.note_at(
                second,
                "more than one path is given",
                "use one of path_exact, path_prefix and path_regex, or several routes",
            );
        }
        checker.within("headers", |checker| {
            checker.at_most("headers", self.headers.len());
            checker.each(&self.headers, |checker, header| check(checker, HeaderCriterion::validate(header)));
        });
        checker.within("query", |checker| {
            checker.at_most("query criteria", self.query.len());
            checker.each(&self.query, |checker, query| check(checker, QueryCriterion::validate(query)));
        });
    }
}

fn check<E: std::fmt::Display>(checker: &mut Checker, result: Result<(), E>) {
    if let Err(error) = result {
        checker.error(error);
    }
}

fn check_methods(checker: &mut Checker, methods: &[String]) {
    checker.within("methods", |checker| {
        checker.at_most("methods", methods.len());
        checker.each(methods, |checker, method| check(checker, check_method(method)));
    });
}
