//! Where a request goes, and which instance takes it: a route among a hundred, and one of a hundred instances.

use std::hint::black_box;
use std::time::Instant;

use criterion::Criterion;
use http::HeaderMap;
use postern_names::{InstanceId, PortName};
use postern_traffic::{Caller, Instance, Locality, Outcome, RequestHead, Routing, ServiceSettings, ServiceTargets, Wanted};
use rand::SeedableRng;
use rand::rngs::SmallRng;

const ROUTES: usize = 100;
const INSTANCES: usize = 100;

struct Server {
    id: InstanceId,
    ports: [PortName; 1],
}

impl Instance for Server {
    fn id(&self) -> &InstanceId {
        &self.id
    }

    fn meta(&self, key: &str) -> Option<&str> {
        (key == "version").then_some("1")
    }

    fn locality(&self) -> Option<Locality<'_>> {
        Locality::parse("eu/a")
    }

    fn ports(&self) -> impl Iterator<Item = &PortName> {
        self.ports.iter()
    }
}

fn settings(policy: &str) -> ServiceSettings {
    let routes: String = (0..ROUTES)
        .map(|n| format!("- {{match: {{path_prefix: /team-{n}/v1, methods: [GET]}}, to: {{subset: v1, rewrite: /}}}}\n"))
        .collect();
    let yaml = format!(
        "service: api\nbalancer: {{policy: {policy}}}\nresolver: {{subsets: {{v1: {{meta: {{version: '1'}}}}}}}}\nroutes:\n{routes}"
    );
    serde_yaml::from_str(&yaml).expect("settings")
}

fn servers() -> Vec<Server> {
    let id = |n| format!("api-{n}").parse().expect("an id");
    (0..INSTANCES).map(|n| Server { id: id(n), ports: [PortName::main()] }).collect()
}

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("traffic");
    let (web, main, headers) = ("web-1".parse().expect("an id"), PortName::main(), HeaderMap::new());
    let caller = Caller { instance: &web, locality: Locality::parse("eu/a"), seed: 7 };
    let mut rng = SmallRng::seed_from_u64(1);

    let routing = Routing::compile(&settings("least_request")).expect("valid settings");
    for (which, path) in [("first", "/team-0/v1/x"), ("last", "/team-99/v1/x"), ("none", "/other")] {
        group.bench_function(format!("route/{ROUTES} routes/{which}"), |bencher| {
            let request = RequestHead { method: "GET", path, query: Some("a=b"), headers: &headers };
            bencher.iter(|| routing.route(black_box(&request), |_| None, &mut rng).map(|to| to.subset.is_some()));
        });
    }
    for policy in ["least_request", "round_robin", "random", "ring_hash", "maglev"] {
        let settings = settings(policy);
        group.bench_function(format!("build/{INSTANCES} instances/{policy}"), |bencher| {
            bencher.iter(|| ServiceTargets::build(servers(), &settings, &caller, None, Instant::now()));
        });
        let targets = ServiceTargets::build(servers(), &settings, &caller, None, Instant::now());
        let now = Instant::now();
        for (nth, (_, _)) in targets.instances().enumerate() {
            let wanted = Wanted { subset: None, port: &main, hash: Some(nth as u64), tried: &[] };
            let picked = targets.pick(&wanted, |_| None, now, &mut rng).expect("an instance");
            picked.open(now).ended(Outcome::Status(200), now);
        }
        let mut hash = 1_u64;
        group.bench_function(format!("pick, open, end/{INSTANCES} instances/{policy}"), |bencher| {
            bencher.iter(|| {
                hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let wanted = Wanted { subset: Some("v1"), port: &main, hash: Some(hash), tried: &[] };
                let picked = targets.pick(black_box(&wanted), |_| None, now, &mut rng).expect("an instance");
                picked.open(now).ended(Outcome::Status(200), now)
            });
        });
    }
    group.finish();
}
