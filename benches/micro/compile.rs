//! A rule set from 100,000 entries.

use criterion::{BatchSize, Criterion};
use postern_intentions::{DefaultPolicy, RuleSet};

use crate::rules::{Shape, entries};

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(20);
    for shape in [Shape::Mesh, Shape::Sidecar] {
        let entries = entries(&shape.pairs(100_000));
        group.bench_function(format!("{}/100000", shape.name()), |bencher| {
            bencher.iter_batched(
                || entries.clone(),
                |entries| RuleSet::compile(DefaultPolicy::Deny, entries),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}
