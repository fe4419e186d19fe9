//! Sightings and rules that tests write in a line.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_intentions::{Entry, EntryContent, Protocol, RuleSet, file};
use postern_names::PortName;

use crate::{Called, Edge, HttpPart, Method, Shape, Sighting, Tally, Verdict};

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn called(protocol: &str) -> Called {
    Called { protocol: protocol.parse().unwrap(), ..Called::default() }
}

pub(crate) fn rules(text: &str) -> RuleSet {
    let read = file::parse(text, "test.yaml").unwrap();
    let entry = |intention| Entry { revision: 1, content: EntryContent::Understood(Arc::new(intention)) };
    RuleSet::compile(read.default.unwrap_or_default(), read.intentions.into_iter().map(entry))
}

pub(crate) fn connection(source: &str, destination: &str, count: u64) -> Sighting {
    let edge = Edge {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        port: PortName::main(),
        protocol: Protocol::Tcp,
        verdict: Verdict::Audit,
        because: "default (audit)".into(),
        http: None,
    };
    Sighting { edge, tally: Tally { count, ..Tally::new(now()) }, instances: 1 }
}

pub(crate) fn request(source: &str, destination: &str, method: &str, path: &str, count: u64) -> Sighting {
    let mut seen = connection(source, destination, count);
    seen.edge.protocol = Protocol::Http;
    seen.edge.http = Some(HttpPart { method: Method::of(method), shape: Shape::of(path) });
    seen.tally.sample = Some(path.into());
    seen
}
