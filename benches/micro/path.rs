//! The path of a request into what is judged and forwarded.

use std::hint::black_box;

use criterion::Criterion;
use postern_intentions::{JudgedPath, PathSettings, RequestTarget};

const TARGETS: [(&str, &str); 4] = [
    ("plain", "/v1/invoices/2026/0001/lines?page=2"),
    ("escapes that stay", "/v1/invoices/r%C3%A9sum%C3%A9%20of%202026/lines"),
    ("escapes that go", "/v1/%69nvoices/../invoices/r%c3%a9sum%c3%a9/lines"),
    ("parameters", "/v1/invoices;a=b/..;/2026/0001/lines"),
];

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    for (name, target) in TARGETS {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let target = RequestTarget::read("GET", black_box(target), None).expect("a target");
                JudgedPath::read(&target, PathSettings::default()).expect("a path").forwarded().len()
            });
        });
    }
    group.finish();
}
