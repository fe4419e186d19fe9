//! Picks, held against the rules as the documentation of the module says them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::settings::Policy;
use crate::{Locality, Outcome};

#[derive(Debug, Clone)]
struct Server {
    id: InstanceId,
    version: Option<&'static str>,
    locality: &'static str,
    ports: Vec<PortName>,
}

impl Instance for Server {
    fn id(&self) -> &InstanceId {
        &self.id
    }

    fn meta(&self, key: &str) -> Option<&str> {
        self.version.filter(|_| key == "version")
    }

    fn locality(&self) -> Option<Locality<'_>> {
        Locality::parse(self.locality)
    }

    fn ports(&self) -> impl Iterator<Item = &PortName> {
        self.ports.iter()
    }
}

const LOCALITIES: [&str; 5] = ["eu/a", "eu/b", "eu", "us/a", ""];

fn port(text: &str) -> PortName {
    text.parse().expect("a port")
}

fn id(text: &str) -> InstanceId {
    text.parse().expect("an id")
}

fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

fn server(id_: &str, version: Option<&'static str>, locality: &'static str, ports: &[&str]) -> Server {
    Server { id: id(id_), version, locality, ports: ports.iter().map(|name| port(name)).collect() }
}

fn settings(yaml: &str) -> ServiceSettings {
    serde_yaml::from_str(yaml).expect("settings")
}

fn caller<'a>(instance: &'a InstanceId, locality: &'a str) -> Caller<'a> {
    Caller { instance, locality: Locality::parse(locality), seed: 0 }
}

/// Targets of which those with the given ids are ejected, whatever an ejector would say to that.
fn targets(
    servers: &[Server],
    settings: &ServiceSettings,
    locality: &str,
    ejected: &BTreeSet<InstanceId>,
) -> ServiceTargets<Server> {
    let web = id("web-1");
    let targets = ServiceTargets::build(servers.to_vec(), settings, &caller(&web, locality), None, Instant::now());
    for (server, stats) in targets.instances() {
        if ejected.contains(&server.id) {
            stats.eject();
        }
    }
    targets
}

const YAML: &str = "
service: api
balancer: {policy: POLICY, locality: LOCALITY}
resolver:
  subsets: {v1: {meta: {version: '1'}}, v2: {meta: {version: '2'}}, all: {meta: {}}}
  failover: [{subset: v2}, {service: spare}, {service: unknown}]
";

fn policies() -> impl Strategy<Value = (Policy, &'static str)> {
    prop::sample::select(vec![
        (Policy::LeastRequest, "least_request"),
        (Policy::RoundRobin, "round_robin"),
        (Policy::Random, "random"),
        (Policy::RingHash, "ring_hash"),
        (Policy::Maglev, "maglev"),
    ])
}

fn servers(prefix: &'static str) -> impl Strategy<Value = Vec<(Server, bool)>> {
    let one = (
        prop::sample::select(vec![None, Some("1"), Some("2")]),
        prop::sample::select(LOCALITIES.to_vec()),
        prop::sample::select(vec![vec!["main"], vec!["grpc"], vec!["main", "grpc"]]),
        any::<bool>(),
    );
    prop::collection::vec(one, 0..9).prop_map(move |all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(n, (version, place, ports, out))| (server(&format!("{prefix}-{n}"), version, place, &ports), out))
            .collect()
    })
}

/// Whom the rules mean, in the plainest way that they can be written.
fn meant<'s>(servers: &'s [(Server, bool)], subset: Option<&str>, wanted: &PortName) -> Vec<&'s (Server, bool)> {
    let version = match subset {
        None | Some("all") => None,
        Some(subset) => Some(&subset[1..]),
    };
    let meant = servers.iter().filter(|(server, _)| server.ports.contains(wanted));
    meant.filter(|(server, _)| version.is_none() || server.version == version).collect()
}

fn near<'s>(meant: &[&'s (Server, bool)], own: &str, is_ignored: bool) -> Vec<&'s Server> {
    let region = |text: &'static str| text.split('/').next().unwrap_or_default();
    let own_region = own.split('/').next().unwrap_or_default();
    let zone = |server: &Server| own.contains('/') && server.locality == own;
    let same_region = |server: &Server| !own_region.is_empty() && region(server.locality) == own_region;
    let usable = |all: Vec<&'s (Server, bool)>| -> (usize, Vec<&'s Server>) {
        (all.len(), all.into_iter().filter(|(_, is_out)| !is_out).map(|(server, _)| server).collect())
    };
    if !is_ignored {
        for level in [&zone as &dyn Fn(&Server) -> bool, &same_region] {
            let (all, usable) = usable(meant.iter().copied().filter(|(server, _)| level(server)).collect());
            if !usable.is_empty() && usable.len() * 2 >= all {
                return usable;
            }
        }
    }
    usable(meant.to_vec()).1
}

proptest! {
    #[test]
    fn every_instance_that_the_rules_mean_is_picked_and_no_other(
        api in servers("api"), spare in servers("spare"), policy in policies(), ignored: bool, own in prop::sample::select(LOCALITIES.to_vec()),
        subset in prop::sample::select(vec![None, Some("v1"), Some("v2"), Some("all")]), grpc: bool, seed: u64,
    ) {
        let locality = if ignored { "ignore" } else { "prefer" };
        let settings = settings(&YAML.replace("POLICY", policy.1).replace("LOCALITY", locality));
        let build = |all: &[(Server, bool)], settings: &ServiceSettings| {
            let list: Vec<Server> = all.iter().map(|(server, _)| server.clone()).collect();
            let ejected = all.iter().filter(|(_, is_out)| *is_out).map(|(server, _)| server.id.clone()).collect();
            targets(&list, settings, own, &ejected)
        };
        let (api_targets, spare_targets) = (build(&api, &settings), build(&spare, &ServiceSettings::of(name("spare"))));
        let wanted_port = port(if grpc { "grpc" } else { "main" });
        let (first, second, third) = (
            meant(&api, subset, &wanted_port), meant(&api, Some("v2"), &wanted_port), meant(&spare, None, &wanted_port)
        );
        let usable = [near(&first, own, ignored), near(&second, own, ignored), near(&third, own, false)];
        let any = [&first, &second, &third].map(|all| all.iter().map(|(server, _)| server).collect::<Vec<_>>());
        let expected = usable.into_iter().chain(any).find(|set| !set.is_empty()).unwrap_or_default();
        let expected: BTreeSet<&InstanceId> = expected.into_iter().map(|server| &server.id).collect();

        let rng = &mut StdRng::seed_from_u64(seed);
        let mut picked = BTreeSet::new();
        for n in 0_u64..300 {
            // Of two, least_request would always pick the cheaper: all cost the same here.
            let hash = Some(crate::balance::hash_for_tests(n));
            let wanted = Wanted { subset, port: &wanted_port, hash, tried: &[] };
            let others = |service: &ServiceName| (service.as_str() == "spare").then_some(&spare_targets);
            match api_targets.pick(&wanted, others, Instant::now(), rng) {
                Ok(one) => { picked.insert(&one.instance.id); }
                Err(_) => prop_assert!(expected.is_empty()),
            }
        }
        prop_assert_eq!(picked, expected);
    }

    #[test]
    fn what_was_tried_is_picked_again_only_if_there_is_no_other(
        api in servers("api"), policy in policies(), tried in prop::collection::btree_set(0_usize..9, 0..9), seed: u64,
    ) {
        let settings = settings(&format!("{{service: api, balancer: {{policy: {}, locality: prefer}}}}", policy.1));
        let list: Vec<Server> = api.iter().map(|(server, _)| server.clone()).collect();
        let ejected = api.iter().filter(|(_, is_out)| *is_out).map(|(server, _)| server.id.clone()).collect();
        let targets = targets(&list, &settings, "eu/a", &ejected);
        let tried: Vec<InstanceId> = tried.into_iter().map(|n| id(&format!("api-{n}"))).collect();
        let main = port("main");
        let usable: Vec<&Server> = meant(&api, None, &main).into_iter().filter(|(_, is_out)| !is_out).map(|(server, _)| server).collect();
        let has_untried = usable.iter().any(|server| !tried.contains(&server.id));
        let rng = &mut StdRng::seed_from_u64(seed);
        for n in 0_u64..20 {
            let wanted = Wanted { subset: None, port: &main, hash: Some(n << 58), tried: &tried };
            let picked = targets.pick(&wanted, |_| None, Instant::now(), rng);
            if let Ok(picked) = picked {
                prop_assert!(!has_untried || !tried.contains(&picked.instance.id));
                prop_assert_eq!(picked.is_ejected, usable.is_empty());
            }
        }
    }
}

fn pick<'t>(targets: &'t ServiceTargets<Server>, subset: Option<&str>, at: &str) -> Result<Picked<'t, Server>, NoInstance> {
    let wanted = Wanted { subset, port: &port(at), hash: None, tried: &[] };
    targets.pick(&wanted, |_| None, Instant::now(), &mut StdRng::seed_from_u64(1))
}

#[test]
fn the_reason_for_no_instance_is_named() {
    let settings = settings("{service: api, resolver: {subsets: {v9: {meta: {version: '9'}}}}}");
    let build = |servers: &[Server]| targets(servers, &settings, "", &BTreeSet::new());
    let why =
        |servers: &[Server], subset, at| pick(&build(servers), subset, at).map(|picked| picked.instance.id.clone()).unwrap_err();
    let one = [server("api-1", Some("1"), "", &["main"])];
    assert_eq!(why(&[], None, "main"), NoInstance::NoneKnown);
    assert_eq!(why(&[server("web-1", None, "", &["main"])], None, "main"), NoInstance::OnlyCaller);
    assert_eq!(why(&one, None, "grpc"), NoInstance::NoneWithPort { port: port("grpc") });
    assert_eq!(why(&one, Some("v2"), "main"), NoInstance::UnknownSubset { subset: "v2".to_owned() });
    assert_eq!(why(&one, Some("v9"), "main"), NoInstance::EmptySubset { subset: "v9".to_owned(), port: port("main") });
}

#[test]
fn the_default_subset_is_meant_where_none_is_named() {
    let settings = settings(
        "{service: api, resolver: {subsets: {v1: {meta: {version: '1'}}, v2: {meta: {version: '2'}}}, default_subset: v2}}",
    );
    let servers = [server("api-1", Some("1"), "", &["main"]), server("api-2", Some("2"), "", &["main"])];
    let targets = targets(&servers, &settings, "", &BTreeSet::new());
    assert_eq!(all_picked(&targets, None), BTreeSet::from([id("api-2")]));
    assert_eq!(all_picked(&targets, Some("v1")), BTreeSet::from([id("api-1")]));
}

/// Every instance that is picked in a hundred picks.
fn all_picked(targets: &ServiceTargets<Server>, subset: Option<&str>) -> BTreeSet<InstanceId> {
    let (main, rng) = (port("main"), &mut StdRng::seed_from_u64(1));
    let wanted = Wanted { subset, port: &main, hash: None, tried: &[] };
    let mut pick = || targets.pick(&wanted, |_| None, Instant::now(), rng).expect("an instance").instance.id.clone();
    (0..100).map(|_| pick()).collect()
}

#[test]
fn a_zone_is_left_while_fewer_than_half_of_it_can_take_requests() {
    let places = ["eu/a", "eu/a", "eu/a", "eu/a", "eu/b", "eu/b", "us/a"];
    let servers: Vec<Server> = (1..).zip(places).map(|(n, place)| server(&format!("api-{n}"), None, place, &["main"])).collect();
    let settings = settings("{service: api, outlier_ejection: {consecutive_failures: 1, base_time: 10s}}");
    let targets = targets(&servers, &settings, "eu/a", &BTreeSet::new());
    let now = Instant::now();
    let ids = |numbers: &[u32]| numbers.iter().map(|n| id(&format!("api-{n}"))).collect::<BTreeSet<_>>();
    let eject = |wanted: &str| {
        let stats = targets.instances().find(|(server, _)| server.id == id(wanted)).map(|(_, stats)| stats.clone());
        let stats = stats.expect("an instance");
        let in_a_row = stats.failed();
        assert!(targets.ejector.failed(&stats, in_a_row, now).is_some(), "{wanted} is ejected");
    };
    assert_eq!(all_picked(&targets, None), ids(&[1, 2, 3, 4]));
    eject("api-1");
    eject("api-2");
    assert_eq!(all_picked(&targets, None), ids(&[3, 4]), "half of the zone is enough");
    eject("api-3");
    assert_eq!(all_picked(&targets, None), ids(&[4, 5, 6]), "the region, its zone included");
    assert_eq!(targets.tick(now + std::time::Duration::from_secs(10)).len(), 3);
    assert_eq!(all_picked(&targets, None), ids(&[1, 2, 3, 4]), "they are back");
}

#[test]
fn what_is_known_of_an_instance_outlives_a_change_of_endpoints() {
    let settings = settings("{service: api, outlier_ejection: {consecutive_failures: 1}}");
    let web = id("web-1");
    let now = Instant::now();
    let servers = |numbers: &[u32]| numbers.iter().map(|n| server(&format!("api-{n}"), None, "", &["main"])).collect::<Vec<_>>();
    let first = ServiceTargets::build(servers(&[1, 2, 3]), &settings, &caller(&web, ""), None, now);
    let stats = |targets: &ServiceTargets<Server>, wanted: &str| {
        let mut all = targets.instances();
        all.find(|(server, _)| server.id == id(wanted)).map(|(_, stats)| stats.clone()).expect("an instance")
    };
    let mut request = OpenRequest::new(stats(&first, "api-1"), first.ejector.clone(), now);
    let second = ServiceTargets::build(servers(&[1, 2, 4]), &settings, &caller(&web, ""), Some(&first), now);
    assert!(matches!(request.ended(Outcome::Status(500), now), Some(Ejection::Ejected { .. })));
    assert_eq!(stats(&second, "api-1").open(), 1);
    assert!((0..50).all(|_| pick(&second, None, "main").is_ok_and(|picked| picked.instance.id != id("api-1"))));
    drop(request);
    assert_eq!(stats(&second, "api-1").open(), 0);
    // With only two left one may be ejected; alone, none.
    let third = ServiceTargets::build(servers(&[1]), &settings, &caller(&web, ""), Some(&second), now);
    assert!(!stats(&third, "api-1").is_ejected());
    assert_eq!(third.tick(now), [Ejection::Returned { instance: id("api-1") }]);
}

/// Requests come at an even pace; each instance answers after its own latency. Time is simulated.
struct Load<'t> {
    targets: &'t ServiceTargets<Server>,
    rng: StdRng,
    now: Instant,
    open: Vec<(Instant, OpenRequest)>,
}

impl Load<'_> {
    /// For so many milliseconds, one request each; how many each instance got.
    fn run(&mut self, millis: u32, latency_ms: impl Fn(&str) -> u64) -> HashMap<String, u32> {
        let mut got = HashMap::new();
        let main = port("main");
        for _ in 0..millis {
            self.now += std::time::Duration::from_millis(1);
            let now = self.now;
            self.open.retain_mut(|(due, request)| {
                if *due <= now {
                    request.ended(Outcome::Status(200), *due);
                }
                *due > now
            });
            let wanted = Wanted { subset: None, port: &main, hash: None, tried: &[] };
            let picked = self.targets.pick(&wanted, |_| None, now, &mut self.rng).expect("an instance");
            let id = picked.instance.id.as_str();
            *got.entry(id.to_owned()).or_default() += 1;
            self.open.push((now + std::time::Duration::from_millis(latency_ms(id)), picked.open(now)));
        }
        got
    }
}

#[test]
fn an_instance_that_becomes_slow_loses_its_requests_within_two_seconds() {
    let servers: Vec<Server> = (1..=3).map(|n| server(&format!("api-{n}"), None, "", &["main"])).collect();
    for seed in 0..20 {
        let targets = targets(&servers, &settings("{service: api}"), "", &BTreeSet::new());
        let mut load = Load { targets: &targets, rng: StdRng::seed_from_u64(seed), now: Instant::now(), open: Vec::new() };
        let even = load.run(3_000, |_| 2);
        assert!(even.values().all(|got| (700..1_300).contains(got)), "{even:?}");
        let slow = |id: &str| if id == "api-3" { 200 } else { 2 };
        load.run(2_000, slow);
        let after = load.run(1_000, slow);
        assert!(after.get("api-3").is_none_or(|got| *got <= 10), "{after:?}");
        let third = load.run(60_000, |_| 2);
        assert!(third.get("api-3").is_some_and(|got| *got > 2_000), "it is tried again when it is fast again: {third:?}");
    }
}

#[test]
fn an_instance_that_has_just_come_is_tried() {
    let web = id("web-1");
    let now = Instant::now();
    let settings = settings("{service: api}");
    let servers = |n: u32| (1..=n).map(|n| server(&format!("api-{n}"), None, "", &["main"])).collect::<Vec<_>>();
    let before = ServiceTargets::build(servers(2), &settings, &caller(&web, ""), None, now);
    let mut load = Load { targets: &before, rng: StdRng::seed_from_u64(1), now, open: Vec::new() };
    load.run(1_000, |_| 5);
    let now = load.now;
    let after = ServiceTargets::build(servers(3), &settings, &caller(&web, ""), Some(&before), now);
    let mut load = Load { targets: &after, rng: StdRng::seed_from_u64(1), now, open: Vec::new() };
    let got = load.run(1_000, |_| 5);
    assert!(got.get("api-3").is_some_and(|got| *got > 200), "{got:?}");
}

#[test]
fn workers_share_what_they_know() {
    let servers: Vec<Server> = (1..=4).map(|n| server(&format!("api-{n}"), None, "", &["main"])).collect();
    let settings = settings("{service: api, outlier_ejection: {consecutive_failures: 3}}");
    let targets = targets(&servers, &settings, "", &BTreeSet::new());
    let now = Instant::now();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let targets = &targets;
            scope.spawn(move || {
                let rng = &mut StdRng::seed_from_u64(seed);
                let main = port("main");
                for n in 0..3_000_u32 {
                    let wanted = Wanted { subset: None, port: &main, hash: None, tried: &[] };
                    let picked = targets.pick(&wanted, |_| None, now, rng).expect("an instance");
                    let fails = picked.instance.id.as_str() < "api-4" && n % 2 == 0;
                    picked.open(now).ended(Outcome::Status(if fails { 500 } else { 200 }), now);
                    let ejected = targets.instances().filter(|(_, stats)| stats.is_ejected()).count();
                    assert!(ejected <= 2, "{ejected} of 4 are ejected");
                }
            });
        }
    });
    assert!(targets.instances().all(|(_, stats)| stats.open() == 0));
}
