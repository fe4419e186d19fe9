use std::time::Duration;

use postern_intentions::Protocol;
use postern_names::PortName;
use proptest::prelude::*;

use super::*;
use crate::{Method, Verdict};

const HOUR: Duration = Duration::from_secs(3600);

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// An hour that begins a day.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 / 86_400 * 86_400)
}

fn edge(source: &str, destination: &str, verdict: Verdict, path: Option<&str>) -> Edge {
    Edge {
        source: name(source),
        destination: name(destination),
        port: PortName::main(),
        protocol: if path.is_some() { Protocol::Http } else { Protocol::Tcp },
        verdict,
        because: "default".into(),
        http: path.map(|path| HttpPart { method: Method::Get, shape: Shape::of(path) }),
    }
}

fn tally(count: u64, at: SystemTime) -> Tally {
    let mut tally = Tally { count, ..Tally::new(at) };
    tally.latency.add(3, count);
    tally
}

fn instance(number: usize) -> InstanceId {
    format!("i-{number}").parse().unwrap()
}

fn tell(ledger: &mut Ledger, edge: Edge, count: u64, now: SystemTime) -> bool {
    let teller = edge.destination.clone();
    ledger.record(&teller, &instance(1), edge, &tally(count, now), now)
}

fn all(ledger: &Ledger, by: By, now: SystemTime) -> Vec<Seen> {
    ledger.select(&Filter::default(), SystemTime::UNIX_EPOCH, by, now).edges
}

/// One thing that is told: who, whom, verdict, path, how many, which instance, and how many minutes later than the last.
type Told = (u8, u8, bool, Option<u8>, u64, u8, u16);

fn told() -> impl Strategy<Value = Vec<Told>> {
    let one = (0u8..4, 0u8..3, any::<bool>(), prop::option::of(0u8..6), 1u64..100, 0u8..5, 0u16..600);
    prop::collection::vec(one, 0..80)
}

fn edge_of(told: &Told) -> Edge {
    let (source, destination, allowed, path, ..) = told;
    let path = path.map(|path| format!("/p{path}x"));
    let verdict = if *allowed { Verdict::Allow } else { Verdict::Deny };
    edge(&format!("s{source}"), &format!("d{destination}"), verdict, path.as_deref())
}

/// What was told, one by one, and when.
fn play(ledger: &mut Ledger, all: &[Told]) -> (Vec<(Edge, u64, SystemTime, u8)>, SystemTime) {
    let mut now = noon();
    let mut seen = Vec::new();
    for told in all {
        now += Duration::from_secs(60 * u64::from(told.6));
        let edge = edge_of(told);
        let teller = edge.destination.clone();
        ledger.record(&teller, &instance(told.5.into()), edge.clone(), &tally(told.4, now), now);
        ledger.roll(now);
        seen.push((edge, told.4, now, told.5));
    }
    (seen, now)
}

fn small() -> Bounds {
    Bounds {
        edges: 6,
        edges_of_service: 4,
        rests: 3,
        rests_of_service: 2,
        shapes: 3,
        bytes: 18 * MOST_EDGE_BYTES,
        hours: 3,
        days: 2,
        instances: 2,
    }
}

proptest! {
    #[test]
    fn what_is_within_the_bounds_is_counted_as_a_list_of_all_calls_would(
        calls in told(), by_pair in any::<bool>(), ago_h in 0u64..48, service in prop::option::of(0u8..3), verdict in prop::option::of(any::<bool>())
    ) {
        let mut ledger = Ledger::new(Bounds { hours: 2000, days: 2000, ..Bounds::default() });
        let (seen, now) = play(&mut ledger, &calls);
        let by = if by_pair { By::Pair } else { By::Edge };
        let filter = Filter {
            service: service.map(|service| name(&format!("d{service}"))),
            verdicts: verdict.map(|allowed| if allowed { Verdict::Allow } else { Verdict::Deny }).into_iter().collect(),
            ..Filter::default()
        };
        // At full hours nothing is counted in part.
        let since = Period::hour_of(now - HOUR * u32::try_from(ago_h).unwrap()).start();
        let mut model: BTreeMap<Edge, (u64, u64, SystemTime, BTreeSet<u8>)> = BTreeMap::new();
        let wanted = seen.iter().filter(|(edge, _, at, _)| {
            *at >= since
                && filter.service.as_ref().is_none_or(|wanted| edge.destination == *wanted || edge.source == *wanted)
                && (filter.verdicts.is_empty() || filter.verdicts.contains(&edge.verdict))
        });
        for (edge, count, at, _) in wanted {
            let row = if by_pair { Edge { http: None, ..edge.clone() } } else { edge.clone() };
            let of = model.entry(row).or_insert((0, 0, *at, BTreeSet::new()));
            of.0 += count;
            of.2 = (*at).max(of.2);
        }
        for (edge, count, at, instance) in &seen {
            let row = if by_pair { Edge { http: None, ..edge.clone() } } else { edge.clone() };
            let Some(of) = model.get_mut(&row) else { continue };
            of.3.insert(*instance);
            let window = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 5;
            if window(*at) + 6 > window(now) {
                of.1 += count;
            }
        }
        let selection = ledger.select(&filter, since, by, now);
        let got: BTreeMap<Edge, (u64, u64, SystemTime, usize)> = selection
            .edges
            .iter()
            .map(|seen| (seen.sighting.edge.clone(), (seen.sighting.tally.count, seen.recent.count, seen.sighting.tally.last_seen, seen.sighting.instances)))
            .collect();
        prop_assert_eq!(got.len(), selection.edges.len(), "no edge twice");
        let counted_instances = |(edge, of): (Edge, (u64, u64, SystemTime, BTreeSet<u8>))| (edge, (of.0, of.1, of.2, of.3.len()));
        if by_pair {
            // Instances of a folded row are those of the edges that were seen in the time.
            let counts = |rows: BTreeMap<Edge, (u64, u64, SystemTime, usize)>| {
                rows.into_iter().map(|(edge, (count, recent, last, _))| (edge, (count, recent, last))).collect::<BTreeMap<_, _>>()
            };
            prop_assert_eq!(counts(got), counts(model.into_iter().map(counted_instances).collect()));
        } else {
            prop_assert_eq!(got, model.into_iter().map(counted_instances).collect());
        }
        prop_assert_eq!(ledger.left_out(), 0);
    }

    #[test]
    fn the_bounds_hold_and_every_call_is_counted_once_while_nothing_is_too_old(calls in told()) {
        let bounds = small();
        let mut ledger = Ledger::new(Bounds { days: 2000, bytes: usize::MAX, ..bounds.clone() });
        let (seen, now) = play(&mut ledger, &calls);
        let kept: u64 = all(&ledger, By::Edge, now).iter().map(|seen| seen.sighting.tally.count).sum();
        // A call that is moved to its day and finds no room there is left out then.
        prop_assert_eq!(kept + ledger.left_out(), seen.iter().map(|(_, count, ..)| count).sum::<u64>());
        for (period, page) in &ledger.pages {
            prop_assert!(page.room.edges <= bounds.edges && page.room.rests <= bounds.rests, "{period}");
            let of = |teller: &Room| teller.edges <= bounds.edges_of_service && teller.rests <= bounds.rests_of_service;
            prop_assert!(page.tellers.values().all(of));
            prop_assert_eq!(page.tellers.values().map(|of| of.edges + of.rests).sum::<usize>(), page.tallies.len());
            prop_assert_eq!(page.room.edges + page.room.rests, page.tallies.len());
            prop_assert!(page.shapes.values().all(|shapes| shapes.len() < bounds.shapes));
        }
        for by in [By::Edge, By::Pair] {
            let rows = all(&ledger, by, now);
            prop_assert!(rows.iter().all(|seen| seen.sighting.instances <= bounds.instances && seen.sighting.instances > 0));
            let mut shapes: BTreeMap<ServiceName, BTreeSet<Shape>> = BTreeMap::new();
            for http in rows.iter().filter_map(|seen| seen.sighting.edge.http.as_ref().map(|http| (seen.sighting.edge.destination.clone(), http))) {
                shapes.entry(http.0).or_default().insert(http.1.shape.clone());
            }
            prop_assert!(shapes.values().all(|shapes| shapes.len() <= bounds.shapes));
        }
    }

    #[test]
    fn it_takes_no_more_bytes_than_it_may_and_the_oldest_goes_first(calls in told()) {
        let mut ledger = Ledger::new(small());
        let (_, now) = play(&mut ledger, &calls);
        prop_assert!(ledger.bytes() <= small().bytes);
        let pages: usize = ledger.pages.values().map(|page| page.bytes).sum();
        let known: usize = ledger.known.values().map(|known| known.instances.len() * INSTANCE_BYTES).sum();
        prop_assert_eq!(ledger.bytes(), pages + known);
        for (edge, known) in &ledger.known {
            prop_assert_eq!(known.periods, ledger.pages.values().filter(|page| page.tallies.contains_key(edge)).count());
        }
        let oldest = Period::hour_of(now).day().before(small().days);
        prop_assert!(ledger.pages.keys().all(|period| period.start() >= oldest.start()));
    }

    #[test]
    fn what_is_kept_elsewhere_is_the_same_when_it_is_read_again(calls in told()) {
        let mut ledger = Ledger::new(small());
        let mut elsewhere: BTreeMap<(Period, ServiceName, ServiceName), Vec<Sighting>> = BTreeMap::new();
        let mut now = noon();
        for (at, told) in calls.iter().enumerate() {
            now += Duration::from_secs(60 * u64::from(told.6));
            tell(&mut ledger, edge_of(told), told.4, now);
            ledger.roll(now);
            if at % 5 == 0 || at + 1 == calls.len() {
                // One was taken, was not kept, and is taken again.
                let lost = ledger.take_changed(1);
                ledger.put_back(lost);
                for changed in ledger.take_changed(usize::MAX) {
                    match changed {
                        Changed::Gone(period) => elsewhere.retain(|(of, ..), _| *of != period),
                        Changed::Pair { period, source, destination } => {
                            let kept = ledger.pair(period, &source, &destination);
                            elsewhere.insert((period, source, destination), kept);
                        }
                    }
                }
            }
        }
        let mut again = Ledger::new(small());
        for ((period, ..), kept) in elsewhere {
            for kept in kept {
                prop_assert!(again.restore(period, kept));
            }
        }
        let without_recent = |ledger: &Ledger| -> Vec<Seen> {
            let rows = all(ledger, By::Edge, now).into_iter();
            rows.map(|seen| Seen { recent: Window::default(), ..seen }).collect()
        };
        prop_assert_eq!(without_recent(&again), without_recent(&ledger));
        prop_assert!(again.take_changed(usize::MAX).is_empty());
    }
}

#[test]
fn hours_become_days_and_days_end() {
    let mut ledger = Ledger::new(Bounds::default());
    let call = || edge("web", "api", Verdict::Allow, Some("/a"));
    for hour in 0..100u32 {
        tell(&mut ledger, call(), 1, noon() + HOUR * hour);
        ledger.roll(noon() + HOUR * hour);
    }
    let now = noon() + HOUR * 99;
    assert_eq!(all(&ledger, By::Edge, now)[0].sighting.tally.count, 100);
    let (hours, days) = ledger.pages.keys().copied().partition::<Vec<Period>, _>(|period| period.is_hour());
    assert_eq!((hours.len(), days.len()), (49, 3));
    let last_day = ledger.select(&Filter::default(), now - HOUR * 23, By::Edge, now);
    assert_eq!((last_day.edges[0].sighting.tally.count, last_day.since), (24, now - HOUR * 23));
    let later = now + HOUR * 24 * 31;
    ledger.roll(later);
    assert!(ledger.is_empty() && ledger.bytes() == 0, "{ledger:?}");
}

#[test]
fn a_scanner_hides_no_new_path_for_longer_than_an_hour() {
    let mut ledger = Ledger::new(Bounds::default());
    for path in 0..500 {
        tell(&mut ledger, edge("web", "api", Verdict::Allow, Some(&format!("/scan{path}x"))), 1, noon());
    }
    let fresh = || edge("web", "api", Verdict::Allow, Some("/fresh"));
    tell(&mut ledger, fresh(), 7, noon());
    let shown = |ledger: &Ledger, now| all(ledger, By::Edge, now).into_iter().map(|seen| seen.sighting.edge).collect::<Vec<_>>();
    assert_eq!(shown(&ledger, noon()).len(), 200);
    assert!(!shown(&ledger, noon()).contains(&fresh()));
    let later = noon() + HOUR;
    tell(&mut ledger, fresh(), 7, later);
    assert!(shown(&ledger, later).contains(&fresh()), "what is called most is shown");
    assert_eq!(shown(&ledger, later).len(), 200);
}

#[test]
fn one_service_leaves_room_for_the_others() {
    let mut ledger = Ledger::new(Bounds::default());
    let liar = name("liar");
    for source in 0..3000 {
        let edge = edge(&format!("s{source}"), "liar", Verdict::Deny, None);
        ledger.record(&liar, &instance(1), edge, &tally(1, noon()), noon());
    }
    assert_eq!((ledger.len(), ledger.left_out()), (2200, 800));
    assert!(tell(&mut ledger, edge("web", "api", Verdict::Allow, None), 1, noon()));
}

#[test]
fn a_caller_with_many_paths_leaves_no_other_caller_out() {
    let mut ledger = Ledger::new(Bounds::default());
    for caller in 0..11 {
        for path in 0..199 {
            tell(&mut ledger, edge(&format!("c{caller:02}"), "api", Verdict::Audit, Some(&format!("/p{path}x"))), 1, noon());
        }
    }
    assert_eq!(ledger.left_out(), 0);
    let calls = |rows: &[Seen]| rows.iter().map(|seen| seen.sighting.tally.count).collect::<Vec<_>>();
    assert_eq!(calls(&all(&ledger, By::Pair, noon())), [199; 11]);
    let rows = all(&ledger, By::Edge, noon());
    let rests: Vec<&Seen> = rows.iter().filter(|seen| seen.sighting.edge.is_rest()).collect();
    assert_eq!((rests.len(), rests[0].sighting.edge.source.as_str(), rests[0].sighting.tally.count), (1, "c10", 189));
    // What is known goes on to be counted by itself.
    tell(&mut ledger, edge("c10", "api", Verdict::Audit, Some("/p0x")), 1, noon());
    assert_eq!(all(&ledger, By::Edge, noon()).iter().filter(|seen| seen.sighting.tally.count == 2).count(), 1);
    // The hours that become a day leave nothing out either.
    ledger.roll(noon() + HOUR * 60);
    assert_eq!(calls(&all(&ledger, By::Pair, noon() + HOUR * 60)), [199, 199, 199, 199, 199, 199, 199, 199, 199, 199, 200]);
}

#[test]
fn the_largest_that_may_come_fits() {
    let bounds = Bounds::default();
    assert!(2 * (bounds.edges + bounds.rests) * MOST_EDGE_BYTES <= bounds.bytes);
    assert_eq!(bounds.instances * INSTANCE_BYTES, 400);
}

#[test]
fn open_calls_count_to_the_edge_that_was_seen_last_and_end_with_their_teller() {
    let mut ledger = Ledger::new(Bounds::default());
    let tcp = |because: &str| Edge { because: because.into(), ..edge("web", "db", Verdict::Allow, None) };
    tell(&mut ledger, tcp("old"), 1, noon());
    tell(&mut ledger, tcp("new"), 1, noon() + Duration::from_secs(1));
    tell(&mut ledger, edge("web", "db", Verdict::Deny, None), 1, noon() + Duration::from_secs(2));
    ledger.set_open(1, vec![(OpenKey::of(&tcp("")), 3)]);
    ledger.set_open(2, vec![(OpenKey::of(&tcp("")), 4)]);
    let open = |ledger: &Ledger, by| -> Vec<(String, u64)> {
        let rows = all(ledger, by, noon()).into_iter();
        rows.filter(|seen| seen.open > 0).map(|seen| (seen.sighting.edge.because.to_string(), seen.open)).collect()
    };
    assert_eq!(open(&ledger, By::Edge), [("new".to_owned(), 7)]);
    assert_eq!(open(&ledger, By::Pair), [("new".to_owned(), 7)]);
    ledger.set_open(1, Vec::new());
    ledger.forget_open(2);
    assert!(open(&ledger, By::Edge).is_empty() && ledger.open_calls().is_empty());
}

#[test]
fn open_calls_are_bounded() {
    let mut ledger = Ledger::new(Bounds::default());
    let key = OpenKey::of(&edge("web", "db", Verdict::Allow, None));
    ledger.set_open(1, vec![(key.clone(), 1); MOST_OPEN_KINDS]);
    ledger.set_open(2, vec![(key.clone(), 1); 10]);
    assert_eq!((ledger.open_calls()[&key], ledger.left_out()), (MOST_OPEN_KINDS as u64, 10));
    ledger.forget_open(1);
    ledger.set_open(2, vec![(key.clone(), 1); 10]);
    assert_eq!(ledger.open_calls()[&key], 10);
}

#[test]
fn what_was_held_up_is_not_recent_and_counts_to_an_hour_that_is_open() {
    let mut ledger = Ledger::new(Bounds::default());
    let edge = edge("web", "api", Verdict::Allow, None);
    let now = noon() + HOUR * 10;
    ledger.record(&name("api"), &instance(1), edge, &tally(5, noon()), now);
    let seen = &all(&ledger, By::Edge, now)[0];
    assert_eq!((seen.sighting.tally.count, seen.recent.count, seen.sighting.tally.last_seen), (5, 0, noon()));
    assert_eq!(ledger.pages.keys().collect::<Vec<_>>(), [&Period::hour_of(now).before(1)]);
}

#[test]
fn the_last_half_minute_is_counted_apart() {
    let mut ledger = Ledger::new(Bounds::default());
    for second in 0..60u64 {
        tell(&mut ledger, edge("web", "api", Verdict::Allow, None), 10, noon() + Duration::from_secs(second));
    }
    let now = noon() + Duration::from_secs(59);
    let seen = &all(&ledger, By::Edge, now)[0];
    assert_eq!((seen.sighting.tally.count, seen.recent.count), (600, 300));
    assert!((seen.recent.rate() - 10.0).abs() < 1e-9);
    assert_eq!(ledger.lively().len(), 1);
    ledger.roll(now + Duration::from_secs(60));
    assert!(ledger.lively().is_empty());
}
