//! Where a request goes, and which instance takes it.

use std::hint::black_box;
use std::time::Instant;

use http::HeaderMap;
use postern_names::{InstanceId, PortName};
use postern_traffic::settings::{Balancer, Policy, RequestMatch, Route, RouteAction};
use postern_traffic::{Caller, Instance, Locality, Outcome, RequestHead, Routing, ServiceSettings, ServiceTargets, Wanted};
use rand::SeedableRng;
use rand::rngs::SmallRng;

struct Server {
    id: InstanceId,
    ports: [PortName; 1],
}

impl Instance for Server {
    fn id(&self) -> &InstanceId {
        &self.id
    }

    fn meta(&self, _: &str) -> Option<&str> {
        None
    }

    fn locality(&self) -> Option<Locality<'_>> {
        None
    }

    fn ports(&self) -> impl Iterator<Item = &PortName> {
        self.ports.iter()
    }
}

fn settings() -> ServiceSettings {
    ServiceSettings::of("api".parse().expect("a service name"))
}

/// The last of so many routes, without a rewrite.
pub fn route(routes: usize, times: u32) {
    let route = |n: usize| Route {
        matches: RequestMatch { path_prefix: Some(format!("/team-{n}/v1")), ..RequestMatch::default() },
        to: RouteAction { subset: Some("v1".to_owned()), ..RouteAction::default() },
    };
    let settings = ServiceSettings { routes: (0..routes).map(route).collect(), ..settings() };
    let routing = Routing::compile(&settings).expect("valid settings");
    let (path, headers) = (format!("/team-{}/v1/x", routes - 1), HeaderMap::new());
    let request = RequestHead { method: "GET", path: &path, query: None, headers: &headers };
    let mut rng = SmallRng::seed_from_u64(1);
    for _ in 0..times {
        let _ = black_box(routing.route(black_box(&request), |_| None, &mut rng)).expect("a destination");
    }
}

/// A pick among so many instances, and what is learned of the one that was picked.
pub fn pick(policy: Policy, instances: usize, times: u32) {
    let server = |n| Server { id: format!("api-{n}").parse().expect("an id"), ports: [PortName::main()] };
    let settings = ServiceSettings { balancer: Balancer { policy, ..Balancer::default() }, ..settings() };
    let (web, main, now) = ("web-1".parse().expect("an id"), PortName::main(), Instant::now());
    let caller = Caller { instance: &web, locality: None, seed: 7 };
    let targets = ServiceTargets::build((0..instances).map(server).collect(), &settings, &caller, None, now);
    let mut rng = SmallRng::seed_from_u64(1);
    for n in 0..times {
        let hash = Some(u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let wanted = Wanted { subset: None, port: &main, hash, tried: &[] };
        let picked = targets.pick(black_box(&wanted), |_| None, now, &mut rng).expect("an instance");
        black_box(picked.open(now).ended(Outcome::Status(200), now));
    }
}
