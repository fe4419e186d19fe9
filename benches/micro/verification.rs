//! Who is at the other end: the verifier, on a chain that it has seen and on one that it has not.

use std::hint::black_box;
use std::time::SystemTime;

use criterion::{BatchSize, Criterion};
use postern_ca::{Expected, Peer, Svid, SvidVerifier};

use crate::authority::Mesh;

pub fn bench(criterion: &mut Criterion) {
    let mesh = Mesh::new();
    let verifier = SvidVerifier::new(mesh.trust.clone(), Expected::AnyService);
    let verify = |svid: &Svid| {
        let (leaf, intermediates) = svid.chain().split_first().expect("a chain");
        verifier.verify(leaf, intermediates, SystemTime::now()).expect("a good certificate")
    };
    let mut group = criterion.benchmark_group("verification");
    let known = mesh.svid("web");
    group.bench_function("known chain", |bencher| bencher.iter(|| verify(black_box(&known))));
    group.bench_function("new chain", |bencher| {
        bencher.iter_batched(|| mesh.svid("web"), |svid| (verify(&svid), svid), BatchSize::SmallInput);
    });
    let trust = mesh.trust.load_full();
    group.bench_function("peer of a finished handshake", |bencher| {
        bencher.iter(|| Peer::of(black_box(known.chain()), &trust).expect("a good certificate"));
    });
    let peer = verify(&known);
    group.bench_function("still trusted", |bencher| {
        bencher.iter(|| black_box(&peer).still_trusted(&trust, SystemTime::UNIX_EPOCH).expect("it is"));
    });
    group.finish();
}
