//! What a push costs the sidecar that it reaches: from the message to the published snapshot.

use criterion::{BatchSize, Criterion};
use postern_api::convert::{default_to_body, intention_to_body};
use postern_api::key::ResourceKey;
use postern_api::v1;
use postern_ca::Trust;
use postern_intentions::{DefaultPolicy, Entry, EntryContent};
use postern_proxy::control_client::{Publisher, Resources};
use prost::Message;

use crate::authority::Mesh;
use crate::rules::{Shape, entries};

pub fn bench(criterion: &mut Criterion) {
    let trust = Trust::clone(&Mesh::new().trust.load());
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(20);
    for count in [10, 1_000, 100_000] {
        let entries = entries(&Shape::Sidecar.pairs(count));
        let whole = delta(1, true, entries.iter().map(resource).chain([default()]).collect());
        let publisher =
            || Publisher::new("api-service-0".parse().expect("a service name"), None, Resources::new("c"), trust.clone());
        group.bench_function(format!("all of {count} intentions"), |bencher| {
            bencher.iter_batched(
                || (publisher(), whole.clone()),
                |(mut publisher, whole)| {
                    publisher.apply(whole).expect("a good message");
                    publisher
                },
                BatchSize::LargeInput,
            );
        });
        let mut holder = publisher();
        holder.apply(whole.clone()).expect("a good message");
        let mut revision = 1;
        group.bench_function(format!("one change beside {count} intentions"), |bencher| {
            bencher.iter_batched(
                || {
                    revision += 1;
                    delta(revision, false, vec![resource(&entries[revision as usize % entries.len()])])
                },
                |one| holder.apply(one).expect("a good message"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn delta(revision: u64, complete: bool, upserts: Vec<v1::Resource>) -> v1::Delta {
    let to = Some(v1::Position { epoch: 1, revision });
    v1::Delta { lane: v1::Lane::Authority.into(), to, complete, upserts, deletes: Vec::new(), last: true, watch: 0 }
}

fn resource(entry: &Entry) -> v1::Resource {
    let EntryContent::Understood(intention) = &entry.content else { unreachable!("every entry is understood") };
    let key = ResourceKey::Intention(intention.key()).to_string();
    v1::Resource { key, revision: entry.revision, body: intention_to_body(intention).encode_to_vec().into() }
}

fn default() -> v1::Resource {
    let body = default_to_body(DefaultPolicy::Deny).encode_to_vec().into();
    v1::Resource { key: ResourceKey::Default.to_string(), revision: 1, body }
}
