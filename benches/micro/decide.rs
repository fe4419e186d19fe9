//! A decision on a connection, by rule sets of several sizes.

use std::hint::black_box;
use std::time::SystemTime;

use criterion::Criterion;
use postern_intentions::{Call, DefaultPolicy, Protocol, RuleSet, decide};
use postern_names::PortName;

use crate::rules::{Shape, calls, entries};

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for shape in [Shape::Mesh, Shape::Sidecar] {
        for count in [10, 1_000, 100_000] {
            let pairs = shape.pairs(count);
            let rules = RuleSet::compile(DefaultPolicy::Deny, entries(&pairs));
            for (heat, hot) in [("one hot pair", 1), ("100 pairs", 100), ("random pairs", count)] {
                let calls = calls(&pairs, hot);
                let (port, now) = (PortName::main(), SystemTime::now());
                let mut next = calls.iter().cycle();
                group.bench_function(format!("{}/{count}/{heat}", shape.name()), |bencher| {
                    bencher.iter(|| {
                        let (source, destination) = next.next().expect("an endless iterator");
                        let call = Call { source, destination, port: &port, protocol: Protocol::Tcp, request: None };
                        decide(black_box(&rules), &call, now)
                    });
                });
            }
        }
    }
    group.finish();
}
