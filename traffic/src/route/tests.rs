//! Routing, held against the rules as the documentation of the module says them.

use std::collections::BTreeMap;

use http::HeaderMap;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::settings::{Percent, Split};

fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

/// Compiled settings of several services, by name.
struct Mesh(BTreeMap<ServiceName, (ServiceSettings, Routing)>);

impl Mesh {
    fn new(services: Vec<ServiceSettings>) -> Self {
        let compiled = services.into_iter().map(|settings| {
            let routing = Routing::compile(&settings).expect("valid settings");
            (settings.service.clone(), (settings, routing))
        });
        Self(compiled.collect())
    }

    fn of(yaml: &str) -> Self {
        Self::new(serde_yaml::from_str(yaml).expect("settings"))
    }

    fn routing(&self, service: &ServiceName) -> Option<&Routing> {
        self.0.get(service).map(|(_, routing)| routing)
    }

    fn check(&self, service: &str) -> Result<(), RoutingError> {
        check_hops(&name(service), |service| self.0.get(service).map(|(settings, _)| settings))
    }

    fn route(&self, service: &str, target: &str, headers: &HeaderMap, rng: &mut StdRng) -> Result<Destination<'_>, RoutingError> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let request = RequestHead { method: "GET", path, query, headers };
        let routing = self.routing(&name(service)).expect("settings");
        routing.route(&request, |service| self.routing(service), rng)
    }

    /// `service/subset:port` of where a GET goes.
    fn goes(&self, service: &str, target: &str) -> String {
        let headers = HeaderMap::new();
        let to = self.route(service, target, &headers, &mut StdRng::seed_from_u64(1)).expect("a destination");
        let part = |before: &str, text: Option<&str>| text.map(|text| format!("{before}{text}")).unwrap_or_default();
        let service = to.service.map_or("-", ServiceName::as_str);
        format!("{service}{}{}", part("/", to.subset), part(":", to.port.map(|port| port.as_str())))
    }
}

#[test]
fn the_first_route_that_matches_decides() {
    let mesh = Mesh::of(
        "
- service: api
  routes:
  - {match: {path_exact: /v1/health}, to: {subset: canary}}
  - {match: {path_prefix: /v1, headers: [{name: x-beta, present: true}]}, to: {service: beta}}
  - {match: {path_prefix: /v1}, to: {service: old, subset: v1}}
  - {match: {path_regex: '/item/[0-9]+', methods: [GET]}, to: {service: items}}
  - {match: {query: [{name: debug, exact: '1'}]}, to: {service: debug}}
  - {match: {methods: [POST]}, to: {service: writer}}
",
    );
    assert_eq!(mesh.goes("api", "/v1/health"), "-/canary");
    assert_eq!(mesh.goes("api", "/v1/healthy"), "old/v1");
    assert_eq!(mesh.goes("api", "/v1"), "old/v1");
    assert_eq!(mesh.goes("api", "/v1x"), "-");
    assert_eq!(mesh.goes("api", "/item/17"), "items");
    assert_eq!(mesh.goes("api", "/item/17/x"), "-");
    assert_eq!(mesh.goes("api", "/?x=2&debug=1"), "debug");
    assert_eq!(mesh.goes("api", "/?debug=1&debug=2"), "-", "every value must match");
    let mut headers = HeaderMap::new();
    headers.insert("x-beta", "1".parse().expect("a value"));
    let to = mesh.route("api", "/v1/x", &headers, &mut StdRng::seed_from_u64(1)).expect("a destination");
    assert_eq!(to.service, Some(&name("beta")));
}

#[test]
fn the_split_and_the_redirect_of_the_service_that_is_reached_count() {
    let mesh = Mesh::of(
        "
- service: api
  routes:
  - {match: {path_prefix: /named}, to: {service: two, subset: blue}}
  - {match: {path_prefix: /open}, to: {service: two}}
  - {match: {path_prefix: /moved}, to: {service: moved, subset: blue}}
  split: [{weight: 100, service: two}]
- service: two
  routes: [{to: {service: nowhere}}]
  split: [{weight: 100, subset: green}]
- service: moved
  split: [{weight: 100, service: nowhere}]
  resolver: {redirect: {service: again, port: grpc}}
- service: again
  split: [{weight: 100, service: nowhere}]
  resolver: {redirect: {subset: last}}
",
    );
    assert_eq!(mesh.goes("api", "/named"), "two/blue");
    assert_eq!(mesh.goes("api", "/open"), "two/green");
    assert_eq!(mesh.goes("api", "/"), "two/green");
    assert_eq!(mesh.goes("api", "/moved"), "again/last:grpc");
}

#[test]
fn a_connection_goes_by_split_and_redirect() {
    let mesh = Mesh::of(
        "
- service: db
  routes: [{to: {service: nowhere}}]
  split: [{weight: 100, service: db2}]
- service: db2
  resolver: {redirect: {service: db3}}
- service: db3
  timeouts: {connect: 7s}
",
    );
    let db = mesh.routing(&name("db")).expect("settings");
    let rng = &mut StdRng::seed_from_u64(1);
    let to = db.route_connection(|service| mesh.routing(service), rng).expect("a destination");
    assert_eq!(to.service, Some(&name("db3")));
    assert_eq!(to.timeouts.connect, Period::seconds(7));
}

#[test]
fn what_a_route_does_not_say_is_that_of_the_service_that_is_reached() {
    let mesh = Mesh::of(
        "
- service: api
  timeouts: {request: 1s, connect: 11s}
  routes:
  - match: {path_prefix: /slow}
    to: {service: two, timeout: 60s, retries: {attempts: 7}, mirror: {service: shadow}}
  - {match: {path_prefix: /two}, to: {service: two}}
  - {match: {path_prefix: /bare}, to: {service: bare}}
- service: two
  timeouts: {request: 2s, connect: 22s}
  retries: {attempts: 2}
  mirror: {service: copies, subset: one, percent: 100}
",
    );
    let headers = HeaderMap::new();
    let rng = &mut StdRng::seed_from_u64(1);
    let mut ask = |path| {
        let to = mesh.route("api", path, &headers, rng).expect("a destination");
        let mirror = to.mirror.map(|mirror| mirror.service.to_string());
        (to.timeouts.request, to.timeouts.connect, to.retries.attempts(), mirror)
    };
    let seconds = Period::seconds;
    assert_eq!(ask("/slow"), (seconds(60), seconds(22), 7, Some("shadow".to_owned())));
    assert_eq!(ask("/two"), (seconds(2), seconds(22), 2, Some("copies".to_owned())));
    assert_eq!(ask("/"), (seconds(1), seconds(11), 1, None));
    assert_eq!(ask("/bare"), (seconds(15), seconds(2), 1, None));
}

#[test]
fn a_mirror_gets_its_share() {
    let mesh = Mesh::of("[{service: api, mirror: {service: copies, percent: 25}}]");
    let headers = HeaderMap::new();
    let rng = &mut StdRng::seed_from_u64(1);
    let copies = (0..20_000).filter(|_| mesh.route("api", "/", &headers, rng).is_ok_and(|to| to.mirror.is_some())).count();
    assert!((4_800..5_200).contains(&copies), "{copies}");
}

#[test]
fn a_rewrite_keeps_the_query_and_edits_are_those_of_the_route() {
    let mesh = Mesh::of(
        "
- service: api
  routes:
  - {match: {path_prefix: /old}, to: {rewrite: /, request_headers: {set: {x-old: '1'}}}}
  - {match: {path_exact: /ping}, to: {rewrite: /health/live}}
",
    );
    let headers = HeaderMap::new();
    let rng = &mut StdRng::seed_from_u64(1);
    let old = mesh.route("api", "/old/a%2Fb//c?x=/old&y=%20", &headers, rng).expect("a destination");
    assert_eq!(old.rewrite.map(|target| target.to_string()).as_deref(), Some("/a%2Fb//c?x=/old&y=%20"));
    assert!(!old.request_headers.is_empty() && old.response_headers.is_empty());
    let ping = mesh.route("api", "/ping", &headers, rng).expect("a destination");
    assert_eq!(ping.rewrite.map(|target| target.to_string()).as_deref(), Some("/health/live"));
    let other = mesh.route("api", "/other", &headers, rng).expect("a destination");
    assert!(other.rewrite.is_none() && other.request_headers.is_empty());
}

#[test]
fn what_cannot_work_is_refused_when_it_is_compiled() {
    for (yaml, expected) in [
        ("{service: a, routes: [{match: {path_regex: '('}}]}", "regular expression"),
        ("{service: a, routes: [{match: {path_exact: /a, path_prefix: /a}}]}", "more than one"),
        ("{service: a, routes: [{match: {path_prefix: a}}]}", "no request has the path"),
        ("{service: a, routes: [{match: {path_regex: /a}, to: {rewrite: /b}}]}", "needs path_prefix"),
        ("{service: a, routes: [{to: {rewrite: /b}}]}", "needs path_prefix"),
        ("{service: a, routes: [{match: {path_prefix: /a}, to: {rewrite: b}}]}", "is no path"),
        ("{service: a, routes: [{to: {request_headers: {remove: [host]}}}]}", "cannot be edited"),
        ("{service: a, split: [{weight: 99.99}]}", "add up to 99.99"),
    ] {
        let error = Routing::compile(&serde_yaml::from_str(yaml).expect("settings")).unwrap_err().to_string();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}

#[test]
fn services_that_send_each_other_round_in_circles_are_found() {
    let mesh = Mesh::of(
        "
- {service: a, split: [{weight: 50}, {weight: 50, service: b}]}
- {service: b, split: [{weight: 50}, {weight: 50, service: a}]}
- {service: c, resolver: {redirect: {service: d}}}
- {service: d, resolver: {redirect: {service: c}}}
- {service: e, routes: [{match: {path_exact: /}, to: {service: c}}]}
- {service: f, split: [{weight: 100, service: a, subset: v1}]}
- {service: h, split: [{weight: 100, service: f, subset: v1}], resolver: {redirect: {service: c}}}
- {service: g, routes: [{to: {service: a, subset: v1}}], split: [{weight: 100, service: g}]}
",
    );
    assert_eq!(
        mesh.check("c").unwrap_err().to_string(),
        "requests for c are sent on to another service more than 8 times: c -> d -> c -> d -> c -> d -> c -> d -> c -> d; \
         splits and redirects may lead through at most 8 services"
    );
    for service in ["a", "b", "d", "e"] {
        assert!(mesh.check(service).is_err(), "{service}");
    }
    for service in ["f", "g", "h", "unknown"] {
        assert_eq!(mesh.check(service), Ok(()), "{service}");
    }
    let headers = HeaderMap::new();
    let lost = mesh.route("c", "/", &headers, &mut StdRng::seed_from_u64(1));
    assert!(matches!(lost, Err(RoutingError::TooManyHops { .. })));
}

const SERVICES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn place() -> impl Strategy<Value = (Option<ServiceName>, Option<String>)> {
    let service = prop::option::of(prop::sample::select(SERVICES.to_vec()).prop_map(name));
    (service, prop::option::weighted(0.3, prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned)))
}

fn service_settings(service: &'static str) -> impl Strategy<Value = ServiceSettings> {
    let routes = prop::collection::vec((prop::sample::select(vec!["/p", "/q"]), place()), 0..2);
    (routes, prop::collection::vec(place(), 0..3), prop::option::weighted(0.3, place())).prop_map(
        move |(routes, split, redirect)| {
            let mut settings = ServiceSettings::of(name(service));
            settings.routes = routes
                .into_iter()
                .map(|(path, (service, subset))| {
                    let mut route =
                        Route { matches: Default::default(), to: RouteAction { service, subset, ..Default::default() } };
                    route.matches.path_exact = Some(path.to_owned());
                    route
                })
                .collect();
            // 100; or 50 and 50.
            let weight = Percent::of(100 / split.len().max(1) as u16);
            settings.split = split.into_iter().map(|(service, subset)| Split { weight, service, subset }).collect();
            settings.resolver.redirect = redirect.map(|(service, subset)| Redirect { service, subset, port: None });
            settings
        },
    )
}

/// Every place that a request may end at, in the plainest way that it can be found; none where it may go round in circles.
fn ends(
    mesh: &Mesh,
    at: ServiceName,
    subset: Option<String>,
    may_split: bool,
    hops: usize,
) -> Option<Vec<(ServiceName, Option<String>)>> {
    if hops > MAX_HOPS {
        return None;
    }
    let settings = &mesh.0[&at].0;
    if may_split && subset.is_none() && !settings.split.is_empty() {
        let mut all = Vec::new();
        for share in &settings.split {
            all.extend(match share.service.clone().filter(|service| *service != at) {
                Some(other) => ends(mesh, other, share.subset.clone(), true, hops + 1)?,
                None => ends(mesh, at.clone(), share.subset.clone(), false, hops)?,
            });
        }
        return Some(all);
    }
    match &settings.resolver.redirect {
        None => Some(vec![(at, subset)]),
        Some(redirect) => match redirect.service.clone().filter(|service| *service != at) {
            Some(other) => ends(mesh, other, redirect.subset.clone(), false, hops + 1),
            None => Some(vec![(at, redirect.subset.clone().or(subset))]),
        },
    }
}

proptest! {
    #[test]
    fn requests_end_where_the_rules_say(
        services in (SERVICES.map(service_settings)).prop_map(Vec::from), path in prop::sample::select(vec!["/p", "/q", "/r"]), seed: u64,
    ) {
        let mesh = Mesh::new(services);
        let called = &mesh.0[&name("a")].0;
        let route = called.routes.iter().find(|route| route.matches.path_exact.as_deref() == Some(path));
        let start = route.and_then(|route| route.to.service.clone()).unwrap_or_else(|| name("a"));
        let expected = ends(&mesh, start, route.and_then(|route| route.to.subset.clone()), true, 0);
        if mesh.check("a").is_ok() {
            prop_assert!(expected.is_some(), "check_hops lets something pass");
        }
        let rng = &mut StdRng::seed_from_u64(seed);
        let headers = HeaderMap::new();
        for _ in 0..50 {
            match (mesh.route("a", path, &headers, rng), &expected) {
                (Ok(to), Some(expected)) => {
                    let end = (to.service.cloned().unwrap_or_else(|| name("a")), to.subset.map(str::to_owned));
                    prop_assert!(expected.contains(&end), "{:?} is not among {:?}", end, expected);
                }
                (Err(error), Some(_)) => prop_assert!(false, "{}", error),
                (Ok(_) | Err(_), None) => {}
            }
        }
    }

    #[test]
    fn check_hops_refuses_nothing_that_ends(services in (SERVICES.map(service_settings)).prop_map(Vec::from)) {
        let mesh = Mesh::new(services);
        let routes = mesh.0[&name("a")].0.routes.iter();
        let starts = routes.map(|route| (route.to.service.clone().unwrap_or_else(|| name("a")), route.to.subset.clone()));
        let all_end = starts.chain([(name("a"), None)]).all(|(service, subset)| ends(&mesh, service, subset, true, 0).is_some());
        prop_assert_eq!(mesh.check("a").is_ok(), all_end);
    }
}
