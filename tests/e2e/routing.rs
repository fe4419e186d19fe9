//! Where requests go, and what becomes of those that fail, as the settings of services say.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Mesh, Pair, Service, Sidecar, curl, eventually, http_get, run_script};

/// `curl` with the status behind the body.
#[track_caller]
fn ask(arguments: &[&str]) -> String {
    curl(&[&["-w", " %{http_code}"], arguments].concat())
}

/// Services by name, each behind a sidecar that is an instance of `service` with such labels.
struct Town {
    mesh: Mesh,
    services: BTreeMap<String, Service>,
    sidecars: BTreeMap<String, Sidecar>,
}

impl Town {
    fn new() -> Self {
        Self { mesh: Mesh::start(), services: BTreeMap::new(), sidecars: BTreeMap::new() }
    }

    fn settle(&mut self, name: &str, service: &str, flags: &[&str]) {
        let process = Service::start_named(&self.mesh, "http_service.py", name);
        let flags = [&["--local", process.address.as_str(), "--protocol", "http"], flags].concat();
        self.sidecars.insert(name.into(), self.mesh.sidecar(service, name, &flags));
        self.services.insert(name.into(), process);
    }

    fn seen(&self, name: &str) -> usize {
        self.services[name].requests().len()
    }

    /// Its process ends, and its sidecar with it.
    fn kill(&mut self, name: &str) {
        self.sidecars.remove(name).unwrap().kill_hard();
        self.services.remove(name);
    }
}

#[test]
fn a_split_of_90_to_10_is_one_within_a_point() {
    const REQUESTS: usize = 20_000;
    let mesh = Mesh::start();
    let locations = "location / { return 200 'ok'; }";
    let (one, two) = (Service::nginx_named(&mesh, "one", "", locations), Service::nginx_named(&mesh, "two", "", locations));
    let _one = mesh.sidecar("api", "one", &["--local", &one.address, "--protocol", "http", "--meta", "version=1"]);
    let _two = mesh.sidecar("api", "two", &["--local", &two.address, "--protocol", "http", "--meta", "version=2"]);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    mesh.set(
        "services:\n- service: api\n  protocol: http\n  split: [{weight: 90, subset: v1}, {weight: 10, subset: v2}]\n  \
         resolver: {subsets: {v1: {meta: {version: \"1\"}}, v2: {meta: {version: \"2\"}}}}\n",
    );
    let url = format!("http://{}/", web.upstream("api"));
    let before = (one.requests().len(), two.requests().len());
    let load = Command::new("h2load").args(["-c4", "-m8", &format!("-n{REQUESTS}"), "-N60", &url]).output().unwrap();
    let load = String::from_utf8_lossy(&load.stdout).into_owned();
    assert!(load.contains(&format!("{REQUESTS} succeeded, 0 failed")), "{load}");
    let (at_one, at_two) = eventually("all are logged", || {
        let (one, two) = (one.requests().len() - before.0, two.requests().len() - before.1);
        (one + two >= REQUESTS).then_some((one, two))
    });
    println!("{at_one} and {at_two}");
    assert_eq!(at_one + at_two, REQUESTS);
    let share = at_two as f64 * 100.0 / REQUESTS as f64;
    assert!((9.0..=11.0).contains(&share), "{share} percent");
}

/// `docs/routing.md` says what this file does.
#[test]
fn the_example_of_routing_does_what_it_says() {
    let mut town = Town::new();
    town.settle("v1", "api", &["--meta", "version=1"]);
    town.settle("v2", "api", &["--meta", "version=2"]);
    for name in ["reports", "invoices", "api-standby", "api-shadow"] {
        town.settle(name, name, &[]);
    }
    let web = town.mesh.call("web", &["api", "billing"]);
    town.mesh.allow("web", "*");
    town.mesh.set(include_str!("../../examples/traffic/routing.yaml"));
    let api = format!("http://{}", web.upstream("api"));
    eventually("requests arrive", || ask(&[&format!("{api}/x")]).ends_with(" 200").then_some(()));

    assert_eq!(ask(&[&format!("{api}/reports/2026/11")]), "reports 200");
    assert_eq!(town.services["reports"].requests().last().unwrap()["path"], "/2026/11");
    assert!(ask(&["-X", "POST", &format!("{api}/reports/2026")]).starts_with('v'), "the route is for GET alone");

    for _ in 0..20 {
        let canary = curl(&["-i", "-H", "x-canary: yes", &format!("{api}/y")]).to_lowercase();
        assert!(canary.contains("x-served-by: canary") && canary.ends_with("v2"), "{canary}");
    }
    assert_eq!(ask(&[&format!("http://{}/", web.upstream("billing"))]), "invoices 200");

    let shadowed = town.seen("api-shadow");
    let mut served = BTreeMap::<String, usize>::new();
    for _ in 0..400 {
        *served.entry(http_get(web.upstream("api"), "/mirrored").1).or_default() += 1;
    }
    println!("{served:?}, {} sent a second time", town.seen("api-shadow") - shadowed);
    assert!(served["v2"] > 10 && served["v2"] < 90 && served.len() == 2, "{served:?}");
    eventually("some are sent a second time", || (5..=45).contains(&(town.seen("api-shadow") - shadowed)).then_some(()));

    town.kill("v2");
    eventually("what v2 would get goes to v1", || {
        (0..10).all(|_| ask(&["-H", "x-canary: yes", &format!("{api}/z")]).starts_with("v1 200")).then_some(())
    });
    town.kill("v1");
    eventually("what v1 would get goes to the standby", || {
        (0..10).all(|_| ask(&[&format!("{api}/z")]) == "api-standby 200").then_some(())
    });
}

#[test]
fn an_intention_is_judged_where_a_request_arrives() {
    let mut town = Town::new();
    town.settle("api-1", "api", &[]);
    town.settle("reports-1", "reports", &[]);
    let web = town.mesh.call("web", &["api"]);
    town.mesh.allow("web", "api");
    town.mesh
        .set("services: [{service: api, protocol: http, routes: [{match: {path_prefix: /reports}, to: {service: reports}}]}]\n");
    let url = format!("http://{}/reports/x", web.upstream("api"));
    let denied = ask(&[&url]);
    assert!(denied.ends_with(" 403") && denied.contains("\"destination\":\"reports\""), "{denied}");
    assert_eq!(town.seen("reports-1"), 0);
    town.mesh.deny("web", "api");
    town.mesh.allow("web", "reports");
    assert_eq!(ask(&[&url]), "reports-1 200", "what is denied is the other one");
}

/// `api` behind the ASGI service, with these settings.
fn set(settings: &str) -> Pair {
    let pair = Pair::allowed("http");
    pair.mesh.set(&format!("services:\n- {{service: api, protocol: http, {settings}}}\n"));
    pair
}

#[test]
fn what_failed_is_tried_again_where_that_does_no_harm() {
    let pair = set("retries: {attempts: 2, on: [gateway-error], backoff: {base: 5ms, max: 20ms}}");
    let url = |name: &str, times: u32| format!("http://{}/flaky?name={name}&times={times}", pair.upstream());
    assert_eq!(ask(&[&url("two", 2)]), "3 200");
    assert_eq!(ask(&[&url("three", 3)]), "3 503", "two more tries are all there are");
    assert_eq!(ask(&["-X", "POST", &url("post", 1)]), "1 503", "what may do harm is not repeated");
    assert_eq!(ask(&["-X", "PUT", "-d", "body", &url("put", 1)]), "2 200");
    assert_eq!(ask(&["--http2-prior-knowledge", &url("h2", 2)]), "3 200");
}

#[test]
fn retries_are_a_fifth_of_what_is_active_at_most() {
    let pair = set(
        "retries: {attempts: 3, on: [gateway-error], budget: 20, backoff: {base: 1ms, max: 5ms}}, outlier_ejection: {consecutive_failures: 0}",
    );
    pair.service.tell("/mood?status=503&delay=0.02");
    let url = format!("http://{}/", pair.upstream());
    let load = Command::new("h2load").args(["-c4", "-m10", "-n2000", "-N60", &url]).output().unwrap();
    let load = String::from_utf8_lossy(&load.stdout).into_owned();
    let tries = pair.service.requests().iter().filter(|request| request["path"] == "/").count();
    println!("{tries} tries for 2000 requests");
    assert!(load.contains("2000 5xx"), "{load}");
    // 20 percent of 40 that are active, for every one of them: far from the three times as many without a budget.
    assert!((2_000..3_200).contains(&tries), "{tries} tries");
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_given_up() {
    let pair = set("timeouts: {request: 1s}");
    let begun = Instant::now();
    let told = ask(&[&format!("http://{}/sleep?seconds=60", pair.upstream())]);
    assert!(told.ends_with(" 504") && told.contains("\"error\":\"timed_out\""), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(ask(&[&format!("http://{}/sleep?seconds=0.2", pair.upstream())]).ends_with(" 200"));
    // A stream that has begun may last longer.
    let name = format!("http://{}/gate?name=long", pair.upstream());
    let waits = std::thread::spawn(move || curl(&[&name]));
    std::thread::park_timeout(Duration::from_secs(2));
    http_get(pair.upstream(), "/open?name=long");
    assert_eq!(waits.join().unwrap(), "first\nlast\n");
}

#[test]
fn a_grpc_call_that_takes_too_long_ends_with_its_deadline() {
    let pair = Pair::start("grpc", |mesh| Service::start(mesh, "grpc_service.py"));
    pair.mesh.allow("web", "api");
    pair.mesh.set("services: [{service: api, protocol: grpc, timeouts: {request: 1s}}]\n");
    let told = run_script("grpc_client.py", &["denied", pair.upstream(), "Wait"]);
    assert_eq!(told["code"], "DEADLINE_EXCEEDED", "{told}");
    eventually("the service is told", || pair.service.requests().iter().any(|line| line["event"] == "cancelled").then_some(()));
}

#[test]
fn over_a_rate_limit_callers_are_told_when_to_come_again() {
    let pair =
        set("rate_limits: [{match: {path_prefix: /export}, requests_per_second: 2, per: service}, {requests_per_second: 500}]");
    let export = format!("http://{}/export", pair.upstream());
    let codes: Vec<String> = (0..20).map(|_| curl(&["-o", "/dev/null", "-w", "%{http_code}", &export])).collect();
    let through = codes.iter().filter(|code| *code == "200").count();
    assert!(
        through >= 2 && codes.iter().all(|code| code == "200" || code == "429") && codes.contains(&"429".into()),
        "{codes:?}"
    );
    let reached = pair.service.count("/export");
    assert_eq!(reached, through, "what is over the limit reaches nobody");
    let over = eventually("it is over the limit", || {
        let told = curl(&["-i", &export]).to_lowercase();
        told.contains(" 429").then_some(told)
    });
    assert!(over.contains("retry-after: ") && over.contains("\"error\":\"rate_limited\""), "{over}");
    assert!(ask(&[&format!("http://{}/other", pair.upstream())]).ends_with(" 200"));
}

#[test]
fn faults_that_were_ordered_happen() {
    let pair = set("faults: {abort: {percent: 100, status: 418}}");
    let url = format!("http://{}/x", pair.upstream());
    assert!(ask(&[&url]).ends_with(" 418"));
    assert_eq!(pair.service.requests().len(), 0);
    pair.mesh.set("services:\n- {service: api, protocol: http, faults: {delay: {percent: 100, delay: 700ms}}}\n");
    let begun = Instant::now();
    assert!(ask(&[&url]).ends_with(" 200"));
    assert!(begun.elapsed() >= Duration::from_millis(700));
    pair.mesh.set("services:\n- {service: api, protocol: http, faults: {abort: {percent: 50, status: 503}}}\n");
    let failed = (0..100).filter(|_| http_get(pair.upstream(), "/half").0 == 503).count();
    assert!((20..=80).contains(&failed), "{failed} of 100");
}

#[test]
fn over_a_breaker_requests_are_turned_away_at_once() {
    let pair = set("circuit_breakers: {requests: 2}");
    let gate = format!("http://{}/gate?name=breaker", pair.upstream());
    let held: Vec<_> = (0..2)
        .map(|_| {
            let gate = gate.clone();
            std::thread::spawn(move || curl(&[&gate]))
        })
        .collect();
    eventually("both are in flight", || (pair.service.count("/gate") == 2).then_some(()));
    let told = curl(&["-i", &format!("http://{}/x", pair.upstream())]).to_lowercase();
    assert!(told.contains(" 503") && told.contains("x-postern-overloaded"), "{told}");
    pair.service.tell("/open?name=breaker");
    held.into_iter().for_each(|held| assert_eq!(held.join().unwrap(), "first\nlast\n"));
    eventually("there is room again", || ask(&[&format!("http://{}/x", pair.upstream())]).ends_with(" 200").then_some(()));
}

/// `docs/retries.md` says what this file does.
#[test]
fn the_example_of_retries_does_what_it_says() {
    let mut town = Town::new();
    town.settle("api-1", "api", &[]);
    town.settle("api-2", "api", &[]);
    for name in ["sessions-1", "sessions-2", "sessions-3"] {
        town.settle(name, "sessions", &[]);
    }
    let web = town.mesh.call("web", &["api", "sessions"]);
    town.mesh.allow("web", "*");
    town.mesh.set(include_str!("../../examples/traffic/retries.yaml"));
    let sessions = format!("http://{}/", web.upstream("sessions"));
    let whose = curl(&["-b", "session=abc", &sessions]);
    for _ in 0..20 {
        assert_eq!(curl(&["-b", "session=abc", &sessions]), whose);
    }
    let export = format!("http://{}/export", web.upstream("api"));
    let codes: Vec<String> = (0..30).map(|_| curl(&["-o", "/dev/null", "-w", "%{http_code}", &export])).collect();
    assert!(codes.contains(&"200".into()) && codes.contains(&"429".into()), "{codes:?}");
    // One instance fails: every request is answered by the other one.
    town.services["api-2"].tell("/mood?status=503");
    for _ in 0..50 {
        assert_eq!(http_get(web.upstream("api"), "/"), (200, "api-1".into()));
    }
}

#[test]
fn callers_prefer_instances_of_their_own_zone() {
    let mut town = Town::new();
    town.settle("here", "api", &["--locality", "eu/a"]);
    town.settle("there", "api", &["--locality", "eu/b"]);
    town.settle("far", "api", &["--locality", "us/a"]);
    let web = town.mesh.sidecar("web", "web-1", &["--upstream", "api=127.0.0.1:0", "--locality", "eu/a"]);
    town.mesh.allow("web", "api");
    let next = || http_get(web.upstream("api"), "/").1;
    eventually("it is reached", || (next() == "here").then_some(()));
    (0..30).for_each(|_| assert_eq!(next(), "here"));
    town.kill("here");
    eventually("the region is next", || (0..10).all(|_| next() == "there").then_some(()));
    town.kill("there");
    eventually("then all", || (0..10).all(|_| next() == "far").then_some(()));
}
