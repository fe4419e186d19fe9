use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postern_api::seen::{MOST_DECISIONS, MOST_EDGES as MOST_EDGES_OF_MESSAGE};
use postern_api::v1;
use postern_edges::{MOST_SHAPES, Method, REST, Verdict};
use postern_intentions::Protocol;
use postern_names::{PortName, ServiceName};
use proptest::prelude::*;
use prost::Message;
use tokio::time::Instant;

use super::*;
use crate::connections::Connections;
use crate::metrics::{Direction, Metrics};

struct Sidecar {
    reports: Reports,
    workers: Vec<Arc<Counter>>,
    metrics: Arc<Metrics>,
}

impl Sidecar {
    fn of_workers(workers: usize) -> Self {
        let own: ServiceName = "invoices".parse().unwrap();
        let sightings = Sightings::new(own.clone(), Connections::new(own, 100, 100), true);
        let workers = (0..workers).map(|_| sightings.counter()).collect();
        let metrics = Metrics::new().unwrap();
        let mut reports = Reports::new(sightings, metrics.clone());
        reports.begin_stream();
        Self { reports, workers, metrics }
    }

    /// All that there is to tell, in as many reports as it takes.
    fn told(&mut self) -> Vec<v1::Seen> {
        let reports = std::iter::from_fn(|| Some(self.reports.messages(100)).filter(|messages| !messages.is_empty()));
        reports.flatten().collect()
    }

    fn left_out(&self) -> u64 {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with("postern_edges_left_out_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// A call with everything owned.
#[derive(Debug, Clone)]
struct Seen {
    peer: ServiceName,
    port: PortName,
    verdict: Verdict,
    because: String,
    http: Option<(Method, String, u16)>,
    amounts: Amounts,
}

impl Seen {
    fn request(peer: &str, method: Method, path: &str) -> Self {
        Self {
            peer: peer.parse().unwrap(),
            port: PortName::main(),
            verdict: Verdict::Allow,
            because: format!("intention {peer} -> invoices (allow)"),
            http: Some((method, path.to_owned(), 200)),
            amounts: Amounts { took: Some(Duration::from_millis(3)), bytes_in: 512, bytes_out: 20_480, ..Amounts::ONE_CALL },
        }
    }

    fn connection(peer: &str, verdict: Verdict) -> Self {
        let http = None;
        Self { verdict, http, amounts: Amounts::ONE_CALL, ..Self::request(peer, Method::Get, "/") }
    }

    fn by(&self, counter: &Counter) {
        let http = self.http.as_ref().map(|(method, path, status)| HttpCall { method: *method, path, status: *status });
        counter.count(&Sighting {
            direction: Direction::Inbound,
            peer: &self.peer,
            port: &self.port,
            protocol: Protocol::Http,
            verdict: self.verdict,
            because: Why::Words(&self.because),
            http,
            amounts: self.amounts,
            at: Instant::now(),
        });
    }
}

type Counts = [u64; 5];

/// What the messages tell, by peer, verdict, reason, method and shape.
fn sums(messages: &[v1::Seen], sums: &mut BTreeMap<[String; 5], Counts>) {
    for edge in messages.iter().flat_map(|seen| &seen.edges) {
        let key = [&edge.peer, &edge.verdict, &edge.because, &edge.method, &edge.shape].map(String::clone);
        let calls: u64 = edge.latency.chunks(2).map(|pair| pair[1]).sum();
        let told = [edge.count, edge.errors, edge.bytes_in, edge.bytes_out, calls];
        let sum = sums.entry(key).or_default();
        sum.iter_mut().zip(told).for_each(|(sum, told)| *sum += told);
    }
}

fn seen() -> impl Strategy<Value = Seen> {
    let peer = prop::sample::select(vec!["web", "cron", "shop"]);
    let verdict = prop::sample::select(Verdict::ALL.to_vec());
    let path = prop::sample::select(vec!["/", "/v1/invoices/7", "/v1/invoices/8", "/v1/export?x=1"]);
    let http = prop::option::of((prop::sample::select(vec![Method::Get, Method::Post]), path));
    (peer, verdict, http, 0u64..2, 0u64..1_000, 0u64..1_000).prop_map(|(peer, verdict, http, errors, bytes_in, bytes_out)| {
        let mut seen = Seen::connection(peer, verdict);
        seen.amounts = Amounts { errors, bytes_in, bytes_out, ..Amounts::ONE_CALL };
        if let Some((method, path)) = http {
            seen.http = Some((method, path.to_owned(), 200));
            seen.amounts.took = Some(Duration::from_micros(bytes_in * 100));
        }
        seen
    })
}

#[derive(Debug, Clone)]
enum Step {
    Count(Seen, usize),
    /// Tells as much as this many messages hold.
    Report(usize),
    NewStream,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (seen(), 0usize..2).prop_map(|(seen, worker)| Step::Count(seen, worker)),
        1 => (0usize..3).prop_map(Step::Report),
        1 => Just(Step::NewStream),
    ]
}

proptest! {
    #[test]
    fn all_reports_together_tell_each_call_once(steps in prop::collection::vec(step(), 0..200)) {
        let mut sidecar = Sidecar::of_workers(2);
        let (mut told, mut model) = (BTreeMap::new(), BTreeMap::<_, Counts>::new());
        for step in steps {
            match step {
                Step::NewStream => sidecar.reports.begin_stream(),
                Step::Report(most) => sums(&sidecar.reports.messages(most), &mut told),
                Step::Count(seen, worker) => {
                    seen.by(&sidecar.workers[worker]);
                    let (method, shape) = seen.http.as_ref().map_or(Default::default(), |(method, path, _)| {
                        (method.to_string(), postern_edges::Shape::of(path).to_string())
                    });
                    let key = [seen.peer.to_string(), seen.verdict.to_string(), seen.because.clone(), method, shape];
                    let Amounts { calls, errors, bytes_in, bytes_out, took } = seen.amounts;
                    let sum = model.entry(key).or_default();
                    let counted = [calls, errors, bytes_in, bytes_out, u64::from(took.is_some())];
                    sum.iter_mut().zip(counted).for_each(|(sum, counted)| *sum += counted);
                }
            }
        }
        sums(&sidecar.told(), &mut told);
        prop_assert_eq!(told, model);
        prop_assert_eq!(sidecar.told(), vec![], "nothing is told twice");
    }
}

#[test]
fn hostile_paths_methods_and_peers_are_all_counted_and_take_bounded_room() {
    let mut sidecar = Sidecar::of_workers(2);
    let mut calls = 0;
    for peer in 0..1_000 {
        for n in 0..40 {
            let method = Method::ALL[n % Method::ALL.len()];
            let mut seen = Seen::request(&format!("peer-{peer}"), method, &format!("/x{peer}/y{n}"));
            seen.verdict = [Verdict::Allow, Verdict::Deny][n % 2];
            seen.by(&sidecar.workers[n % 2]);
            calls += 1;
        }
    }
    for worker in &sidecar.workers {
        assert!(worker.table.lock().len() <= MOST_EDGES + MOST_RESTS);
    }
    assert_eq!(sidecar.reports.sightings().common.shapes.lock().len(), MOST_SHAPES);

    let messages = sidecar.told();

    assert!(messages.iter().all(|seen| seen.edges.len() <= MOST_EDGES_OF_MESSAGE && seen.decisions.len() <= MOST_DECISIONS));
    assert!(messages.iter().all(|seen| seen.encoded_len() < 512 * 1_024));
    let edges: Vec<_> = messages.iter().flat_map(|seen| &seen.edges).collect();
    assert!(edges.iter().any(|edge| edge.method == "other" && edge.shape == REST));
    let told: u64 = edges.iter().map(|edge| edge.count).sum();
    assert_eq!(told + sidecar.left_out(), calls);
    let decisions: u64 = messages.iter().flat_map(|seen| &seen.decisions).map(|decision| u64::from(decision.count)).sum();
    let left_out: u64 = messages.iter().map(|seen| seen.decisions_left_out).sum();
    assert_eq!(decisions + left_out, calls / 2, "each denial is told or counted");
}

#[test]
fn one_peer_cannot_take_the_room_of_the_others() {
    let mut sidecar = Sidecar::of_workers(1);
    for n in 0..5_000u64 {
        let mut seen = Seen::request("scanner", Method::ALL[n as usize % 9], &format!("/a{}", n / 9 % 150));
        seen.because = format!("intention scanner -> invoices (allow, permission {n})");
        seen.by(&sidecar.workers[0]);
    }
    Seen::request("web", Method::Get, "/v1/invoices").by(&sidecar.workers[0]);

    let messages = sidecar.told();
    let edges: Vec<_> = messages.iter().flat_map(|seen| &seen.edges).collect();
    let told: u64 = edges.iter().map(|edge| edge.count).sum();

    assert_eq!(told + sidecar.left_out(), 5_001);
    assert!(edges.iter().any(|edge| edge.peer == "web" && edge.shape == "/v1/invoices"));
    assert_eq!(edges.iter().filter(|edge| edge.shape != REST).count(), MOST_EDGES_OF_PEER + 1);
}

#[test]
fn refused_calls_leave_half_of_the_shapes_to_those_that_go_through() {
    let mut sidecar = Sidecar::of_workers(1);
    for n in 0..500 {
        Seen { verdict: Verdict::Deny, ..Seen::request("scanner", Method::Get, &format!("/a{n}x")) }.by(&sidecar.workers[0]);
    }
    Seen::request("web", Method::Get, "/v1/invoices").by(&sidecar.workers[0]);

    let messages = sidecar.told();
    let shapes = messages.iter().flat_map(|seen| &seen.edges).filter(|edge| edge.shape != REST).count();

    assert_eq!(shapes, MOST_SHAPES / 2 + 1);
}

#[test]
fn a_typical_edge_takes_at_most_200_bytes_of_a_report() {
    let mut sidecar = Sidecar::of_workers(1);
    let calls = [
        ("checkout", Method::Get, "/v1/invoices/8812"),
        ("checkout", Method::Post, "/v1/invoices"),
        ("customer-portal", Method::Get, "/v1/customers/9b2d1c4e-0f6a-4d7b-8c3e-5a1f2b3c4d5e/invoices"),
        ("reporting", Method::Get, "/v1/export"),
        ("payments", Method::Put, "/v1/invoices/8812/state"),
        ("frontend", Method::Post, "/shop.Invoices/List"),
    ];
    // 1,000 requests a second for five seconds.
    let count = |sidecar: &Sidecar| {
        for n in 0..5_000u64 {
            let (peer, method, path) = calls[n as usize % calls.len()];
            let mut seen = Seen::request(peer, method, path);
            seen.amounts.took = Some(Duration::from_micros(400 + n * n % 30_000));
            seen.by(&sidecar.workers[0]);
        }
    };
    count(&sidecar);
    let first: usize = sidecar.told().iter().map(Message::encoded_len).sum();
    count(&sidecar);
    let report: usize = sidecar.told().iter().map(Message::encoded_len).sum();

    println!("bytes an edge: {} in the first report of a stream, {} afterwards", first / calls.len(), report / calls.len());
    assert!(first / calls.len() <= 200 && report / calls.len() <= 200);
}

#[test]
fn a_sample_is_told_once_on_each_stream() {
    let mut sidecar = Sidecar::of_workers(1);
    let mut samples = || {
        Seen::request("web", Method::Get, "/v1/invoices/17?secret=1").by(&sidecar.workers[0]);
        sidecar.told()[0].edges[0].sample.clone()
    };
    assert_eq!([samples(), samples()], ["/v1/invoices/17", ""]);
    sidecar.reports.begin_stream();
    let mut samples = || {
        Seen::request("web", Method::Get, "/v1/invoices/18").by(&sidecar.workers[0]);
        sidecar.told()[0].edges[0].sample.clone()
    };
    assert_eq!([samples(), samples()], ["/v1/invoices/17", ""]);
}

#[test]
fn denials_that_are_alike_are_told_together() {
    let mut sidecar = Sidecar::of_workers(1);
    for path in ["/a/1", "/a/1", "/a/2"] {
        Seen { verdict: Verdict::Deny, ..Seen::request("web", Method::Get, path) }.by(&sidecar.workers[0]);
    }
    Seen::request("web", Method::Get, "/a/3").by(&sidecar.workers[0]);

    let told = sidecar.reports.decisions().unwrap();

    let decisions: Vec<_> = told.decisions.iter().map(|one| (one.path.as_str(), one.verdict.as_str(), one.count)).collect();
    assert_eq!(decisions, [("/a/1", "deny", 2), ("/a/2", "deny", 1)]);
    assert_eq!(told.decisions_left_out, 0);
    assert_eq!(sidecar.reports.decisions(), None, "nothing is told twice");
}

#[test]
fn the_newest_decisions_are_kept_and_the_others_counted() {
    let mut sidecar = Sidecar::of_workers(1);
    for n in 0..250 {
        Seen { verdict: Verdict::Deny, ..Seen::request("web", Method::Get, &format!("/a/{n}")) }.by(&sidecar.workers[0]);
    }
    let told = sidecar.reports.decisions().unwrap();

    let paths: Vec<_> = told.decisions.iter().map(|one| one.path.clone()).collect();
    assert_eq!(paths, (150..250).map(|n| format!("/a/{n}")).collect::<Vec<_>>());
    assert_eq!(told.decisions_left_out, 150);
}

#[tokio::test(start_paused = true)]
async fn all_calls_are_told_one_by_one_while_somebody_follows() {
    let mut sidecar = Sidecar::of_workers(1);
    let call = Seen::request("web", Method::Get, "/a");
    call.by(&sidecar.workers[0]);
    assert_eq!(sidecar.reports.decisions(), None);

    sidecar.reports.sightings().follow(Duration::from_secs(2));
    call.by(&sidecar.workers[0]);
    assert_eq!(sidecar.reports.decisions().unwrap().decisions[0].verdict, "allow");

    tokio::time::advance(Duration::from_secs(3)).await;
    call.by(&sidecar.workers[0]);
    assert_eq!(sidecar.reports.decisions(), None, "it ends by itself");
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_no_more_makes_room() {
    let mut sidecar = Sidecar::of_workers(1);
    for n in 0..MOST_SHAPES {
        Seen::request("scanner", Method::Get, &format!("/a{n}x")).by(&sidecar.workers[0]);
    }
    sidecar.told();
    let call = Seen::request("web", Method::Get, "/v1/invoices");
    call.by(&sidecar.workers[0]);
    assert_eq!(sidecar.told()[0].edges[0].shape, REST);

    tokio::time::advance(Duration::from_secs(700)).await;
    sidecar.told();
    call.by(&sidecar.workers[0]);

    assert_eq!(sidecar.told()[0].edges[0].shape, "/v1/invoices");
    assert_eq!(sidecar.workers[0].table.lock().len(), 1);
}

#[test]
fn a_report_that_is_long_is_told_in_several_messages() {
    let mut sidecar = Sidecar::of_workers(1);
    for n in 0..2_500 {
        Seen::connection(&format!("peer-{n}"), Verdict::Allow).by(&sidecar.workers[0]);
    }
    let edges = |messages: &[v1::Seen]| messages.iter().map(|seen| seen.edges.len()).collect::<Vec<_>>();
    assert_eq!(edges(&sidecar.reports.messages(1)), [MOST_EDGES_OF_MESSAGE]);
    // Those that waited come before those that are new.
    Seen::connection("late", Verdict::Allow).by(&sidecar.workers[0]);
    let messages = sidecar.reports.messages(100);
    assert_eq!(edges(&messages), [MOST_EDGES_OF_MESSAGE, 501]);
    assert_eq!(messages[1].edges.last().unwrap().peer, "late");
}
