//! From results to a status: thresholds, so that one slip changes nothing.

use serde::{Deserialize, Serialize};

use crate::Status;

/// How many results in a row it takes. 0 and 1 both mean the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Good results (passing or warning) before the status is theirs.
    pub success_before_passing: u32,
    /// Failures before the status is a warning.
    pub failures_before_warning: u32,
    /// Failures before it is critical.
    pub failures_before_critical: u32,
}

/// The status of one check over time.
///
/// A result is good (passing or warning) or a failure. The status changes only with a run of results of one sort that is
/// as long as its threshold says; until then it stays what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damper {
    thresholds: Thresholds,
    status: Status,
    successes: u32,
    failures: u32,
}

impl Damper {
    /// A check that has not run yet.
    pub fn new(thresholds: Thresholds, initial: Status) -> Self {
        Self { thresholds, status: initial, successes: 0, failures: 0 }
    }

    /// The status now.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Takes in a result, and gives the status after it.
    pub fn take(&mut self, result: Status) -> Status {
        match result {
            Status::Passing | Status::Warning => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                if self.successes >= self.thresholds.success_before_passing {
                    self.status = result;
                }
            }
            Status::Critical => {
                self.successes = 0;
                self.failures = self.failures.saturating_add(1);
                if self.failures >= self.thresholds.failures_before_critical {
                    self.status = Status::Critical;
                } else if self.failures >= self.thresholds.failures_before_warning {
                    self.status = Status::Warning;
                }
            }
        }
        self.status
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, told from the whole history at each step.
    fn naive(thresholds: Thresholds, initial: Status, results: &[Status]) -> Status {
        let mut status = initial;
        for end in 1..=results.len() {
            let so_far = &results[..end];
            let last = so_far[end - 1];
            let is_failure = |status: &Status| *status == Status::Critical;
            let run = so_far.iter().rev().take_while(|result| is_failure(result) == is_failure(&last)).count() as u32;
            let reached = |threshold: u32| run >= threshold.max(1);
            status = match last {
                Status::Critical if reached(thresholds.failures_before_critical) => Status::Critical,
                Status::Critical if reached(thresholds.failures_before_warning) => Status::Warning,
                Status::Critical => status,
                good if reached(thresholds.success_before_passing) => good,
                _ => status,
            };
        }
        status
    }

    fn status() -> impl Strategy<Value = Status> {
        prop_oneof![Just(Status::Passing), Just(Status::Warning), Just(Status::Critical)]
    }

    fn thresholds() -> impl Strategy<Value = Thresholds> {
        (0..5_u32, 0..5_u32, 0..5_u32).prop_map(|(success, warning, critical)| Thresholds {
            success_before_passing: success,
            failures_before_warning: warning,
            failures_before_critical: critical,
        })
    }

    proptest! {
        #[test]
        fn the_status_is_what_the_whole_history_says(
            thresholds in thresholds(), initial in status(), results in proptest::collection::vec(status(), 0..40)
        ) {
            let mut damper = Damper::new(thresholds, initial);
            for result in &results {
                damper.take(*result);
            }
            prop_assert_eq!(damper.status(), naive(thresholds, initial, &results));
        }

        #[test]
        fn flapping_below_the_threshold_changes_nothing(rounds in 0..50_usize, threshold in 2..5_u32) {
            let thresholds =
                Thresholds { success_before_passing: threshold, failures_before_warning: threshold, failures_before_critical: threshold };
            for initial in [Status::Passing, Status::Critical] {
                let mut damper = Damper::new(thresholds, initial);
                for _ in 0..rounds {
                    for result in [Status::Critical, Status::Passing] {
                        prop_assert_eq!(damper.take(result), initial);
                    }
                }
            }
        }
    }

    #[test]
    fn without_thresholds_the_first_result_counts() {
        let mut damper = Damper::new(Thresholds::default(), Status::Critical);
        assert_eq!(damper.take(Status::Passing), Status::Passing);
        assert_eq!(damper.take(Status::Warning), Status::Warning);
        assert_eq!(damper.take(Status::Critical), Status::Critical);
    }
}
