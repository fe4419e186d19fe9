//! Who is at the other end: the verifier, on a chain that it has seen and on one that it has not; proofs of renewal.

use std::hint::black_box;
use std::time::SystemTime;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion};
use postern_ca::{CertificateDer, Expected, Peer, Svid, SvidVerifier};
use postern_proxy::transport::bare::{Bound, End, ReadProof, prove};

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
    proofs(&mut group, &mesh, &verifier);
    group.finish();
}

/// The proof of a renewed identity over a tunnel: a signature, and the verification of a chain that was seen.
fn proofs(group: &mut BenchmarkGroup<'_, WallTime>, mesh: &Mesh, verifier: &SvidVerifier) {
    let (client_leaf, server_leaf) = (CertificateDer::from(vec![1; 600]), CertificateDer::from(vec![2; 600]));
    let bound = Bound { signer: End::Dialler, challenge: &[7; 32], client_leaf: &client_leaf, server_leaf: &server_leaf };
    let svid = mesh.svid("web");
    group.bench_function("make a proof", |bencher| bencher.iter(|| prove(&svid, &bound).expect("a proof")));
    let proof = prove(&svid, &bound).expect("a proof");
    let (leaf, intermediates) = svid.chain().split_first().expect("a chain");
    let now = SystemTime::now();
    let mut current = verifier.verify(leaf, intermediates, now).expect("a good certificate");
    current.not_after = now;
    group.bench_function("check a proof", |bencher| {
        bencher.iter(|| ReadProof::parse(&proof).expect("a proof").check(&bound, verifier, &current, now).expect("a good proof"));
    });
}
