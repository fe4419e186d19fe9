//! Ejection, held against a model that writes down all that happened.

use proptest::prelude::*;

use super::*;
use crate::Period;

const SECOND: Duration = Duration::from_secs(1);

fn stats(n: usize, now: Instant) -> Arc<InstanceStats> {
    Arc::new(InstanceStats::new(format!("api-{n}").parse().expect("an id"), 8, now))
}

fn settings(yaml: &str) -> OutlierEjection {
    serde_yaml::from_str(yaml).expect("settings")
}

fn watched(settings: &OutlierEjection, n: usize, now: Instant) -> (Ejector, Vec<Arc<InstanceStats>>) {
    let all: Vec<_> = (0..n).map(|n| stats(n, now)).collect();
    let ejector = Ejector::new(settings, now);
    ejector.watch(all.iter(), settings);
    (ejector, all)
}

fn fail(ejector: &Ejector, stats: &Arc<InstanceStats>, now: Instant) -> Option<Ejection> {
    let in_a_row = stats.failed();
    ejector.failed(stats, in_a_row, now)
}

#[derive(Debug, Clone)]
enum Step {
    Succeed(usize),
    Fail(usize),
    Wait(u64),
    Leave(usize),
    Come,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..8).prop_map(Step::Succeed),
        12 => (0_usize..8).prop_map(Step::Fail),
        4 => (0_u64..9).prop_map(Step::Wait),
        1 => (0_usize..8).prop_map(Step::Leave),
        1 => Just(Step::Come),
    ]
}

/// One instance as the model has it: all numbers in seconds.
#[derive(Debug, Clone, Default)]
struct Model {
    id: usize,
    in_a_row: u32,
    seen: Vec<bool>,
    until: Option<u64>,
    times: u64,
}

struct World {
    now: u64,
    judged: u64,
    all: Vec<Model>,
    settings: OutlierEjection,
    returned: Vec<usize>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Out(usize, u64),
    Back(usize),
}

impl World {
    fn may_eject(&self) -> bool {
        let out = self.all.iter().filter(|one| one.until.is_some()).count();
        let share = usize::from(self.settings.max_ejected.hundredths());
        let allowed = if share == 0 { 0 } else { (self.all.len() * share / 10_000).max(1) };
        out < allowed.min(self.all.len() / 2)
    }

    fn eject(&mut self, at: usize) -> Option<Event> {
        if !self.may_eject() || self.all[at].until.is_some() {
            return None;
        }
        let one = &mut self.all[at];
        one.times += 1;
        let base = self.settings.base_time.duration().as_secs();
        let lasts = (base * one.times).min(self.settings.max_time.duration().as_secs().max(base));
        one.until = Some(self.now + lasts);
        Some(Event::Out(one.id, lasts))
    }

    fn fail(&mut self, at: usize) -> Option<Event> {
        let limit = self.settings.consecutive_failures;
        let one = &mut self.all[at];
        one.seen.push(false);
        one.in_a_row += 1;
        if limit > 0 && one.in_a_row.is_multiple_of(limit) { self.eject(at) } else { None }
    }

    fn tick(&mut self) -> Vec<Event> {
        let now = self.now;
        let mut events: Vec<Event> = std::mem::take(&mut self.returned).into_iter().map(Event::Back).collect();
        for one in &mut self.all {
            if one.until.is_some_and(|until| until <= now) {
                (one.until, one.in_a_row) = (None, 0);
                events.push(Event::Back(one.id));
            }
        }
        if now - self.judged >= self.settings.interval.duration().as_secs() {
            self.judged = now;
            let least = f64::from(self.settings.success_rate.hundredths()) / 10_000.0;
            let mut bad = Vec::new();
            for at in 0..self.all.len() {
                let seen = std::mem::take(&mut self.all[at].seen);
                let rate = seen.iter().filter(|good| **good).count() as f64 / seen.len().max(1) as f64;
                let is_judged = seen.len() >= self.settings.success_rate_requests.max(1) as usize;
                if self.all[at].until.is_some() {
                } else if is_judged && rate < least {
                    bad.push((rate, at));
                } else {
                    self.all[at].times = self.all[at].times.saturating_sub(1);
                }
            }
            bad.sort_by(|one, other| one.partial_cmp(other).expect("no NaN"));
            events.extend(bad.into_iter().filter_map(|(_, at)| self.eject(at)).collect::<Vec<_>>());
        }
        events
    }

    fn endpoints_changed(&mut self) {
        while self.all.iter().filter(|one| one.until.is_some()).count() > {
            let share = usize::from(self.settings.max_ejected.hundredths());
            let allowed = if share == 0 { 0 } else { (self.all.len() * share / 10_000).max(1) };
            allowed.min(self.all.len() / 2)
        } {
            let out = self.all.iter_mut().filter(|one| one.until.is_some());
            let first = out.min_by_key(|one| one.until).expect("there are too many");
            (first.until, first.in_a_row) = (None, 0);
            self.returned.push(first.id);
        }
    }
}

fn event(ejection: Ejection) -> Event {
    let number = |id: &InstanceId| id.as_str()[4..].parse().expect("a number");
    match ejection {
        Ejection::Ejected { instance, lasts, .. } => Event::Out(number(&instance), lasts.as_secs()),
        Ejection::Returned { instance } => Event::Back(number(&instance)),
    }
}

proptest! {
    #[test]
    fn ejection_does_what_its_settings_say(
        number in 1_usize..8, failures in 0_u32..4, percent in prop::sample::select(vec![0_u16, 10, 50, 100]),
        rate in prop::sample::select(vec![0_u16, 50, 90]), requests in 0_u32..5, steps in prop::collection::vec(step(), 0..200),
    ) {
        let settings = OutlierEjection {
            consecutive_failures: failures,
            interval: Period::seconds(10),
            success_rate: Percent::of(rate),
            success_rate_requests: requests,
            base_time: Period::seconds(7),
            max_time: Period::seconds(20),
            max_ejected: Percent::of(percent),
        };
        let start = Instant::now();
        let (ejector, mut all) = watched(&settings, number, start);
        let models = (0..number).map(|id| Model { id, ..Model::default() }).collect();
        let mut world = World { now: 0, judged: 0, all: models, settings: settings.clone(), returned: Vec::new() };
        let mut next_id = number;
        for step in steps {
            let now = start + SECOND * world.now as u32;
            match step {
                Step::Succeed(at) if at < all.len() => {
                    all[at].succeeded();
                    world.all[at].in_a_row = 0;
                    world.all[at].seen.push(true);
                }
                Step::Fail(at) if at < all.len() => {
                    prop_assert_eq!(fail(&ejector, &all[at], now).map(event), world.fail(at));
                }
                Step::Wait(seconds) => {
                    world.now += seconds;
                    let now = start + SECOND * world.now as u32;
                    prop_assert_eq!(ejector.tick(now).into_iter().map(event).collect::<Vec<_>>(), world.tick());
                }
                Step::Leave(at) if at < all.len() => {
                    all.remove(at);
                    world.all.remove(at);
                    ejector.watch(all.iter(), &settings);
                    world.endpoints_changed();
                }
                Step::Come => {
                    all.push(stats(next_id, now));
                    world.all.push(Model { id: next_id, ..Model::default() });
                    next_id += 1;
                    ejector.watch(all.iter(), &settings);
                }
                Step::Succeed(_) | Step::Fail(_) | Step::Leave(_) => {}
            }
            let out: Vec<bool> = all.iter().map(|stats| stats.is_ejected()).collect();
            prop_assert_eq!(&out, &world.all.iter().map(|one| one.until.is_some()).collect::<Vec<_>>());
            prop_assert!(out.iter().filter(|is_out| **is_out).count() * 2 <= out.len(), "more than half are ejected");
        }
    }
}

#[test]
fn each_ejection_in_a_row_lasts_longer_up_to_the_cap() {
    let settings = settings("{consecutive_failures: 1, base_time: 30s, max_time: 80s, interval: 1h}");
    let mut now = Instant::now();
    let (ejector, all) = watched(&settings, 2, now);
    for expected in [30, 60, 80, 80] {
        let until = match fail(&ejector, &all[0], now) {
            Some(Ejection::Ejected { lasts, until, why: EjectionReason::ConsecutiveFailures(1), .. }) => {
                assert_eq!(lasts, SECOND * expected);
                until
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(ejector.tick(until - Duration::from_millis(1)), []);
        assert_eq!(ejector.tick(until).len(), 1);
        assert!(!all[0].is_ejected());
        now = until;
    }
}

#[test]
fn the_worst_success_rate_is_ejected_first() {
    let settings = settings("{consecutive_failures: 0, success_rate: 90, success_rate_requests: 10, max_ejected: 25}");
    let now = Instant::now();
    let (ejector, all) = watched(&settings, 4, now);
    for (stats, failures) in all.iter().zip([0, 3, 5, 9]) {
        (0..10 - failures).for_each(|_| stats.succeeded());
        (0..failures).for_each(|_| assert_eq!(fail(&ejector, stats, now), None));
    }
    let events = ejector.tick(now + SECOND * 10);
    let [Ejection::Ejected { instance, why, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((instance.as_str(), *why), ("api-3", EjectionReason::SuccessRate { successes: 1, requests: 10 }));
}

#[test]
fn an_instance_that_has_left_is_not_ejected() {
    let settings = settings("{consecutive_failures: 1}");
    let now = Instant::now();
    let (ejector, all) = watched(&settings, 4, now);
    ejector.watch(all[1..].iter(), &settings);
    assert_eq!(fail(&ejector, &all[0], now), None);
}
