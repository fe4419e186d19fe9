//! Outlier ejection: an instance that fails gets no requests for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postern_names::InstanceId;

use crate::balance::InstanceStats;
use crate::settings::{OutlierEjection, Percent};

#[cfg(test)]
mod tests;

/// Ejects instances of one service. There is one for each service that this sidecar calls, as long as it calls it; the
/// instances that it watches follow the endpoints.
///
/// The lock is taken when an instance is ejected, on [`Self::tick`] and when endpoints change, never by a request that goes
/// well nor by a pick.
#[derive(Debug)]
pub struct Ejector {
    /// 0: never.
    failures_in_a_row: AtomicU32,
    /// Counts changes of who is ejected, so that what was counted before is known to be stale.
    generation: AtomicU32,
    watch: Mutex<Watch>,
}

/// An instance was ejected or is back, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ejection {
    /// It gets no requests.
    Ejected {
        /// Which instance.
        instance: InstanceId,
        /// What it did.
        why: EjectionReason,
        /// Until when, unless it leaves.
        until: Instant,
        /// The same as a length of time.
        lasts: Duration,
    },
    /// It gets requests again.
    Returned {
        /// Which instance.
        instance: InstanceId,
    },
}

/// What an instance was ejected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionReason {
    /// So many failures in a row.
    ConsecutiveFailures(u32),
    /// Too few of the requests of an interval succeeded.
    SuccessRate {
        /// Requests that succeeded.
        successes: u32,
        /// All that ended.
        requests: u32,
    },
}

#[derive(Debug)]
struct Watch {
    settings: OutlierEjection,
    members: Vec<Member>,
    judged_at: Instant,
    /// Returned since the last tick because too many were ejected when others left.
    returned: Vec<InstanceId>,
}

#[derive(Debug)]
struct Member {
    stats: Arc<InstanceStats>,
    /// While it is ejected.
    until: Option<Instant>,
    /// How long the next ejection is, in base times, less one.
    times: u32,
}

impl Ejector {
    /// Watches no instances yet.
    pub fn new(settings: &OutlierEjection, now: Instant) -> Self {
        Self {
            failures_in_a_row: AtomicU32::new(settings.consecutive_failures),
            generation: AtomicU32::new(0),
            watch: Mutex::new(Watch { settings: settings.clone(), members: Vec::new(), judged_at: now, returned: Vec::new() }),
        }
    }

    /// Watches these instances from now on. One that was watched before keeps its state. Where more than may be are ejected
    /// now, because others left, those whose time ends first return.
    pub(crate) fn watch<'s>(&self, instances: impl Iterator<Item = &'s Arc<InstanceStats>>, settings: &OutlierEjection) {
        let mut watch = self.watch.lock();
        let mut before = std::mem::take(&mut watch.members);
        watch.members = instances
            .map(|stats| match before.iter().position(|member| Arc::ptr_eq(&member.stats, stats)) {
                Some(at) => before.swap_remove(at),
                None => Member { stats: stats.clone(), until: None, times: 0 },
            })
            .collect();
        watch.settings = settings.clone();
        self.failures_in_a_row.store(settings.consecutive_failures, Ordering::Relaxed);
        watch.return_excess();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Returns instances whose time is over and, once an interval, ejects those with too low a success rate, the worst first.
    /// To be called about once a second: an ejection lasts until the first call after its end.
    pub fn tick(&self, now: Instant) -> Vec<Ejection> {
        let mut watch = self.watch.lock();
        let mut events: Vec<Ejection> = watch.returned.drain(..).map(|instance| Ejection::Returned { instance }).collect();
        watch.return_due(now, &mut events);
        if now.saturating_duration_since(watch.judged_at) >= watch.settings.interval.duration() {
            watch.judged_at = now;
            watch.judge_rates(now, &mut events);
        }
        if !events.is_empty() {
            self.generation.fetch_add(1, Ordering::Release);
        }
        events
    }

    /// An instance failed, with this one so many times in a row.
    pub(crate) fn failed(&self, stats: &Arc<InstanceStats>, in_a_row: u32, now: Instant) -> Option<Ejection> {
        let limit = self.failures_in_a_row.load(Ordering::Relaxed);
        // Where it may not be ejected now, it is tried again after as many further failures.
        if limit == 0 || in_a_row < limit || !in_a_row.is_multiple_of(limit) || stats.is_ejected() {
            return None;
        }
        let mut watch = self.watch.lock();
        let at = watch.members.iter().position(|member| Arc::ptr_eq(&member.stats, stats))?;
        let ejection = watch.eject(at, EjectionReason::ConsecutiveFailures(in_a_row), now)?;
        self.generation.fetch_add(1, Ordering::Release);
        Some(ejection)
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }
}

impl Watch {
    fn eject(&mut self, at: usize, why: EjectionReason, now: Instant) -> Option<Ejection> {
        let ejected = self.members.iter().filter(|member| member.until.is_some()).count();
        if ejected >= may_be_ejected(self.members.len(), self.settings.max_ejected) {
            return None;
        }
        let member = self.members.get_mut(at).filter(|member| member.until.is_none())?;
        member.times = member.times.saturating_add(1);
        let longest = self.settings.max_time.duration().max(self.settings.base_time.duration());
        let lasts = self.settings.base_time.duration().saturating_mul(member.times).min(longest);
        let until = now + lasts;
        member.until = Some(until);
        member.stats.eject();
        Some(Ejection::Ejected { instance: member.stats.instance().clone(), why, until, lasts })
    }

    fn return_due(&mut self, now: Instant, events: &mut Vec<Ejection>) {
        for member in &mut self.members {
            if member.until.is_some_and(|until| until <= now) {
                events.push(Ejection::Returned { instance: member.readmit() });
            }
        }
    }

    fn return_excess(&mut self) {
        let most = may_be_ejected(self.members.len(), self.settings.max_ejected);
        let mut ejected: Vec<&mut Member> = self.members.iter_mut().filter(|member| member.until.is_some()).collect();
        ejected.sort_by_key(|member| member.until);
        let excess = ejected.len().saturating_sub(most);
        self.returned.extend(ejected.into_iter().take(excess).map(Member::readmit));
    }

    fn judge_rates(&mut self, now: Instant, events: &mut Vec<Ejection>) {
        let least = self.settings.success_rate.fraction();
        let mut failing: Vec<(f64, usize, EjectionReason)> = Vec::new();
        for (at, member) in self.members.iter_mut().enumerate() {
            let (successes, failures) = member.stats.take_counts();
            if member.until.is_some() {
                continue;
            }
            let requests = successes.saturating_add(failures);
            let rate = f64::from(successes) / f64::from(requests.max(1));
            if requests >= self.settings.success_rate_requests.max(1) && rate < least {
                failing.push((rate, at, EjectionReason::SuccessRate { successes, requests }));
            } else {
                // An interval that went well shortens the next ejection again.
                member.times = member.times.saturating_sub(1);
            }
        }
        failing.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
        events.extend(failing.into_iter().filter_map(|(_, at, why)| self.eject(at, why, now)));
    }
}

impl Member {
    fn readmit(&mut self) -> InstanceId {
        self.until = None;
        self.stats.readmit();
        self.stats.instance().clone()
    }
}

/// How many of so many: the share that is allowed, but at least one where any is allowed, and never more than half.
fn may_be_ejected(instances: usize, share: Percent) -> usize {
    let allowed = instances * usize::from(share.hundredths()) / usize::from(Percent::ALL.hundredths());
    let at_least = usize::from(share > Percent::default());
    allowed.max(at_least).min(instances / 2)
}
