//! What is counted: for each connection, for each piece of data, and for each scrape.

use criterion::Criterion;
use postern_names::ServiceName;
use postern_proxy::metrics::{Direction, Judged, Metrics};

/// As many as have series of their own.
const PEERS: usize = 1_000;

pub fn bench(criterion: &mut Criterion) {
    let metrics = Metrics::new().expect("metrics");
    let peers: Vec<ServiceName> = (0..PEERS).map(|n| format!("web-service-{n}").parse().expect("a service name")).collect();
    let connect = |peer: &ServiceName| {
        let mut connection = metrics.connection(Direction::Inbound, peer);
        connection.judged(Judged::Allow, "web -> api");
        connection.opened();
        (connection.bytes(), connection)
    };
    peers.iter().for_each(|peer| drop(connect(peer)));
    let mut group = criterion.benchmark_group("metrics");
    let mut next = peers.iter().cycle();
    group.bench_function("a connection, 1000 peers in turn", |bencher| {
        bencher.iter(|| connect(next.next().expect("an endless iterator")));
    });
    let ((received, _), connection) = connect(&peers[0]);
    group.bench_function("a piece of data", |bencher| bencher.iter(|| received.inc_by(1_460)));
    drop(connection);
    group.bench_function("a scrape, 1000 peers", |bencher| bencher.iter(|| metrics.encode().expect("a text")));
    group.finish();
}
