//! The parts that every connection pays for, each alone: `cargo bench --bench micro`, or `cargo bench --bench micro -- decide`
//! for one of them.

mod authority;
mod compile;
mod decide;
mod frames;
mod framing;
mod handshake;
mod metrics;
mod path;
mod records;
mod requests;
mod rules;
mod snapshot;
mod tokens;
mod traffic;
mod verification;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    micro,
    decide::bench,
    path::bench,
    requests::bench,
    compile::bench,
    handshake::bench,
    verification::bench,
    frames::bench,
    framing::bench,
    tokens::bench,
    records::bench,
    snapshot::bench,
    metrics::bench,
    traffic::bench
);
criterion_main!(micro);
