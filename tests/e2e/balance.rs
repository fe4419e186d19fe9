//! Who gets the requests: instances that die, become slow, fail or leave, while calls go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Mesh, Service, Sidecar, curl, eventually, http_get};

/// Callers at once.
const CALLERS: usize = 12;

/// Instances of `api`, each with a service that answers with its name, and `web`, which may call them.
struct Fleet {
    mesh: Mesh,
    services: BTreeMap<String, Service>,
    sidecars: BTreeMap<String, Sidecar>,
    web: Sidecar,
}

impl Fleet {
    fn start(names: &[&str]) -> Self {
        let mesh = Mesh::start();
        let (mut services, mut sidecars) = (BTreeMap::new(), BTreeMap::new());
        for name in names {
            let service = Service::start_named(&mesh, "http_service.py", name);
            let sidecar = mesh.sidecar("api", name, &["--local", &service.address, "--protocol", "http"]);
            services.insert((*name).to_owned(), service);
            sidecars.insert((*name).to_owned(), sidecar);
        }
        let web = mesh.call("web", &["api"]);
        mesh.allow("web", "api");
        let fleet = Self { mesh, services, sidecars, web };
        eventually("every instance has answered", || {
            let answered = fleet.answers(40);
            names.iter().all(|name| answered.contains_key(&(200, (*name).to_owned()))).then_some(())
        });
        fleet
    }

    /// What so many calls were answered with, one after the other.
    fn answers(&self, calls: usize) -> BTreeMap<(u16, String), usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..calls {
            *answers.entry(http_get(self.web.upstream("api"), "/")).or_default() += 1;
        }
        answers
    }
}

/// One call: when it began and what it was answered with.
type Call = (Instant, u16, String);

/// Calls from many callers at once, while `meanwhile` runs; those of each caller.
fn load(upstream: &str, meanwhile: impl FnOnce()) -> Vec<Vec<Call>> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut calls = Vec::new();
                    while !is_over.load(Ordering::SeqCst) {
                        let begun = Instant::now();
                        let (status, body) = http_get(upstream, "/");
                        calls.push((begun, status, body));
                    }
                    calls
                })
            })
            .collect();
        meanwhile();
        is_over.store(true, Ordering::SeqCst);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Calls that are held by the services, beside the load.
const HELD: usize = 24;

#[test]
fn an_instance_that_is_killed_under_load_costs_what_was_in_flight_on_it_and_no_more() {
    let mut fleet = Fleet::start(&["one", "two", "three"]);
    // Long enough that some requests are in flight on it.
    fleet.services.values().for_each(|service| service.tell("/mood?delay=0.02"));
    let (mut service, mut sidecar) = (fleet.services.remove("three").unwrap(), fleet.sidecars.remove("three").unwrap());
    let upstream = fleet.web.upstream("api").to_owned();
    let at_others = || fleet.services.values().map(|service| service.count("/gate")).sum::<usize>();
    let (mut in_flight, mut held) = (0, Vec::new());
    let calls = load(&upstream, || {
        pause(Duration::from_secs(1));
        held = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..HELD).map(|_| scope.spawn(|| http_get(&upstream, "/gate?name=held"))).collect();
            in_flight = eventually("each service holds its share", || {
                let at_it = service.count("/gate");
                (at_it + at_others() == HELD && at_it > 0).then_some(at_it)
            });
            sidecar.kill_hard();
            service.process().kill_hard();
            fleet.services.values().for_each(|service| service.tell("/open?name=held"));
            callers.into_iter().map(|caller| caller.join().unwrap().1).collect()
        });
        pause(Duration::from_secs(2));
    });
    // Counted where it was in flight: at the service.
    let broken_off = held.iter().filter(|answer: &&String| !answer.contains("last")).count();
    assert_eq!(broken_off, in_flight, "{held:?}");

    // Each caller of the load had one in flight at most, and what failed had gone to the instance that was killed.
    let failed: Vec<usize> = calls.iter().map(|calls| calls.iter().filter(|(_, status, _)| *status != 200).count()).collect();
    let log = fleet.web.log();
    let of_failed: Vec<_> = log.lines().filter(|line| line.contains(r#" path="/" "#) && !line.contains(" status=200 ")).collect();
    println!("{} calls, failed: {failed:?}; held: {in_flight} of {HELD}", calls.iter().map(Vec::len).sum::<usize>());
    assert!(failed.iter().all(|failed| *failed <= 1), "{failed:?}");
    assert_eq!(of_failed.len(), failed.iter().sum::<usize>(), "{of_failed:?}");
    assert!(of_failed.iter().all(|line| line.contains(r#" instance="three" "#)), "{of_failed:?}");
    let answered = calls.iter().flatten().filter(|(_, status, name)| *status == 200 && name == "three").count();
    assert!(answered > 0, "it took part before");
}

#[test]
fn an_instance_that_becomes_slow_loses_its_traffic_within_two_seconds() {
    let fleet = Fleet::start(&["one", "two", "three"]);
    let upstream = fleet.web.upstream("api").to_owned();
    let (slow, mut since) = (&fleet.services["three"], Instant::now());
    let address = slow.address.clone();
    let calls = load(&upstream, || {
        pause(Duration::from_secs(2));
        assert_eq!(http_get(&address, "/mood?delay=0.2").0, 200);
        since = Instant::now();
        pause(Duration::from_secs(6));
    });
    let share = |from: Duration, to: Duration| {
        let within = calls.iter().flatten().filter(|(begun, ..)| *begun >= since + from && *begun < since + to);
        let (three, all) = within.fold((0, 0), |(three, all), (.., name)| (three + usize::from(name == "three"), all + 1));
        (three, all)
    };
    let before = calls.iter().flatten().filter(|(begun, ..)| *begun < since);
    let (before, of) = before.fold((0, 0), |(three, all), (.., name)| (three + usize::from(name == "three"), all + 1));
    let (three, all) = share(Duration::from_secs(2), Duration::from_secs(6));
    println!("{before} of {of} before it was slow, {three} of {all} two seconds later");
    assert!(before * 5 > of, "it had its share before: {before} of {of}");
    assert!(three * 20 < all, "it still has {three} of {all}");
    assert!(calls.iter().flatten().all(|(_, status, _)| *status == 200));
}

#[test]
fn an_instance_that_fails_is_ejected_and_returns_and_both_are_logged() {
    let fleet = Fleet::start(&["one", "two", "three"]);
    fleet.mesh.set("services: [{service: api, protocol: http, outlier_ejection: {consecutive_failures: 3, base_time: 3s}}]\n");
    let three = &fleet.services["three"];
    three.tell("/mood?status=503");
    eventually("it is ejected", || {
        fleet.answers(20);
        fleet.web.log().contains("is ejected").then_some(())
    });
    let log = fleet.web.log();
    let line = log.lines().find(|line| line.contains("is ejected")).unwrap();
    assert!(line.contains("three"), "{line}");
    three.tell("/mood?status=200");
    eventually("it returns", || {
        let answers = fleet.answers(20);
        (fleet.web.log().contains("has returned") && answers.contains_key(&(200, "three".into()))).then_some(())
    });
    let log = fleet.web.log();
    let line = log.lines().find(|line| line.contains("has returned")).unwrap();
    assert!(line.contains("three"), "{line}");
}

#[test]
fn no_more_than_half_are_ejected_however_many_fail() {
    let fleet = Fleet::start(&["one", "two", "three", "four"]);
    fleet.mesh.set("services: [{service: api, protocol: http, outlier_ejection: {consecutive_failures: 2, base_time: 60s}}]\n");
    fleet.services.values().for_each(|service| service.tell("/mood?status=500"));
    eventually("two are ejected", || {
        fleet.answers(40);
        (fleet.web.log().matches("is ejected").count() >= 2).then_some(())
    });
    let after = fleet.answers(100);
    assert_eq!(fleet.web.log().matches("is ejected").count(), 2, "{}", fleet.web.log());
    assert_eq!(after.iter().filter(|((status, _), _)| *status == 500).map(|(_, count)| count).sum::<usize>(), 100, "{after:?}");
}

#[test]
fn a_key_stays_on_the_ring_and_only_those_of_an_instance_that_leaves_move() {
    let (others_moved, share) = keys_of_one_that_leaves("ring_hash");
    assert_eq!(others_moved, 0);
    assert!(share.iter().all(|share| (0.1..0.5).contains(share)), "{share:?}");
}

#[test]
fn a_key_stays_in_the_table_of_maglev_and_few_move_beside_those_of_an_instance_that_leaves() {
    let (others_moved, share) = keys_of_one_that_leaves("maglev");
    // The table is filled anew: of the keys of the others a few move too.
    assert!(others_moved * 20 <= KEYS, "{others_moved} of {KEYS}");
    assert!(share.iter().all(|share| (0.15..0.35).contains(share)), "{share:?}");
}

/// Keys that are asked for.
const KEYS: usize = 400;

/// One of four instances leaves: how many keys of the others moved, and which share each had before.
fn keys_of_one_that_leaves(policy: &str) -> (usize, [f64; 4]) {
    let names = ["one", "two", "three", "four"];
    let mut fleet = Fleet::start(&names);
    fleet.mesh.set(&format!(
        "services: [{{service: api, protocol: http, balancer: {{policy: {policy}, hash_on: [{{header: x-key}}, {{cookie: session}}, {{query: key}}]}}}}]\n",
    ));
    let url = format!("http://{}/", fleet.web.upstream("api"));
    let whereto = |flag: &[&str], url: &str| curl(&[flag, &[url]].concat());
    let placed = || -> Vec<String> {
        // One process for all keys: each with a header of its own.
        let mut arguments = Vec::new();
        for key in 0..KEYS {
            arguments.extend(["-H".into(), format!("x-key: {key}"), "-w".into(), "\n".into(), url.clone(), "--next".into()]);
        }
        arguments.pop();
        let output = std::process::Command::new("curl").arg("-sS").args(&arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(Into::into).collect()
    };
    let before = placed();
    assert_eq!(before.len(), KEYS);
    assert_eq!(placed(), before, "a key stays");
    let share = names.map(|name| before.iter().filter(|place| *place == name).count() as f64 / KEYS as f64);
    let by_cookie = whereto(&["-b", "session=s"], &url);
    let by_query = whereto(&[], &format!("{url}?key=q"));
    for _ in 0..10 {
        assert_eq!(whereto(&["-b", "session=s"], &url), by_cookie);
        assert_eq!(whereto(&[], &format!("{url}?key=q")), by_query);
    }
    let mut gone = fleet.sidecars.remove("four").unwrap();
    gone.process().signal(nix::sys::signal::Signal::SIGTERM);
    assert!(gone.process().exit().success());
    let after = eventually("it has left", || {
        let after = placed();
        (!after.contains(&"four".to_owned()) && after.len() == KEYS).then_some(after)
    });
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    println!("{moved} of {KEYS} keys moved");
    assert!(moved as f64 <= 1.5 * KEYS as f64 / names.len() as f64, "{moved} of {KEYS} moved");
    let others_moved = before.iter().zip(&after).filter(|(before, after)| before != after && *before != "four").count();
    (others_moved, share)
}

#[test]
fn round_robin_gives_each_the_same() {
    let fleet = Fleet::start(&["one", "two", "three"]);
    fleet.mesh.set("services: [{service: api, protocol: http, balancer: {policy: round_robin}}]\n");
    let answers = fleet.answers(90);
    assert!(answers.len() == 3 && answers.values().all(|count| (28..=32).contains(count)), "{answers:?}");
}
