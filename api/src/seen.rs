//! Between `Seen` on the wire and the types of `edges`.
//!
//! What a sidecar tells of calls grants nothing, so a field that is not known is left out. What cannot be is refused, edge
//! by edge: a sidecar cannot say anything of a service that is not its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_edges::{Edge, Histogram, HttpPart, MOST_BECAUSE_BYTES, Method, Shape, Tally, Verdict};
use postern_intentions::Protocol;
use postern_names::{PortName, ServiceName};

use crate::v1;

/// The longest path of a single call, and of a sample, in bytes.
pub const MOST_PATH_BYTES: usize = 200;
/// Edges of one message; a sidecar that has more tells them in several.
pub const MOST_EDGES: usize = 1_000;
/// Decisions of one message.
pub const MOST_DECISIONS: usize = 100;
/// Kinds of open calls of one message.
pub const MOST_OPEN: usize = 1_000;

/// Why something that a sidecar tells is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct NotTaken {
    what: &'static str,
    why: String,
}

impl NotTaken {
    fn new(what: &'static str, why: impl ToString) -> Self {
        Self { what, why: why.to_string() }
    }
}

/// An edge as a sidecar tells it; `peer` is its other end.
pub fn edge_to_wire(edge: &Edge, is_outbound: bool, tally: &Tally, now: SystemTime) -> v1::SeenEdge {
    let peer = if is_outbound { &edge.destination } else { &edge.source };
    let (method, shape) =
        edge.http.as_ref().map(|http| (http.method.as_str().to_owned(), http.shape.to_string())).unwrap_or_default();
    v1::SeenEdge {
        peer: peer.to_string(),
        outbound: is_outbound,
        port: edge.port.to_string(),
        protocol: edge.protocol.as_str().to_owned(),
        verdict: edge.verdict.as_str().to_owned(),
        because: edge.because.to_string(),
        method,
        shape,
        sample: tally.sample.as_deref().unwrap_or_default().to_owned(),
        count: tally.count,
        errors: tally.errors,
        bytes_in: tally.bytes_in,
        bytes_out: tally.bytes_out,
        latency: tally.latency.iter().flat_map(|(bucket, count)| [u64::from(bucket), count]).collect(),
        first_ago_ms: ago(tally.first_seen, now),
        last_ago_ms: ago(tally.last_seen, now),
    }
}

/// What the sidecar of a service `own` tells of an edge, at `now`.
///
/// # Errors
/// [`NotTaken`] for names, words and shapes that are none.
pub fn edge_from_wire(own: &ServiceName, wire: &v1::SeenEdge, now: SystemTime) -> Result<(Edge, Tally), NotTaken> {
    let (source, destination) = ends(own, &wire.peer, wire.outbound)?;
    let http = http_part(&wire.method, &wire.shape)?;
    let edge = Edge {
        source,
        destination,
        port: port(&wire.port)?,
        protocol: protocol(&wire.protocol)?,
        verdict: verdict(&wire.verdict, wire.outbound)?,
        because: printable(&wire.because, MOST_BECAUSE_BYTES).into(),
        http,
    };
    let mut latency = Histogram::default();
    for pair in wire.latency.chunks_exact(2).take(usize::from(postern_edges::BUCKETS)) {
        latency.add(u8::try_from(pair[0]).unwrap_or(u8::MAX), pair[1]);
    }
    let last_seen = before(now, wire.last_ago_ms);
    let tally = Tally {
        count: wire.count,
        errors: wire.errors,
        bytes_in: wire.bytes_in,
        bytes_out: wire.bytes_out,
        latency,
        first_seen: before(now, wire.first_ago_ms).min(last_seen),
        last_seen,
        sample: sample(&wire.sample),
    };
    Ok((edge, tally))
}

/// Source and destination of what the sidecar of `own` tells.
///
/// # Errors
/// [`NotTaken`] when the peer is no service.
pub fn ends(own: &ServiceName, peer: &str, is_outbound: bool) -> Result<(ServiceName, ServiceName), NotTaken> {
    let peer = peer.parse::<ServiceName>().map_err(|error| NotTaken::new("peer", error))?;
    Ok(if is_outbound { (own.clone(), peer) } else { (peer, own.clone()) })
}

/// The HTTP half of an edge; none where both are empty.
///
/// # Errors
/// [`NotTaken`] when the shape is none.
pub fn http_part(method: &str, shape: &str) -> Result<Option<HttpPart>, NotTaken> {
    if method.is_empty() && shape.is_empty() {
        return Ok(None);
    }
    let shape = shape.parse::<Shape>().map_err(|error| NotTaken::new("shape", error))?;
    Ok(Some(HttpPart { method: Method::of(method), shape }))
}

/// A protocol by its word.
///
/// # Errors
/// [`NotTaken`] when it is none.
pub fn protocol(word: &str) -> Result<Protocol, NotTaken> {
    word.parse().map_err(|error| NotTaken::new("protocol", error))
}

/// A port by its name.
///
/// # Errors
/// [`NotTaken`] when it is none.
pub fn port(name: &str) -> Result<PortName, NotTaken> {
    name.parse().map_err(|error| NotTaken::new("port", error))
}

/// A verdict by its word. The caller's side judges nothing: of an outbound call it says that it failed.
///
/// # Errors
/// [`NotTaken`] when it is none.
pub fn verdict(word: &str, is_outbound: bool) -> Result<Verdict, NotTaken> {
    let verdict = word.parse().map_err(|error| NotTaken::new("verdict", error))?;
    if is_outbound && verdict != Verdict::Failed {
        return Err(NotTaken::new("verdict", format!("{verdict} of an outbound call; only its destination judges it")));
    }
    Ok(verdict)
}

/// At most `most` bytes of a text, as a terminal may be shown it.
pub fn printable(text: &str, most: usize) -> String {
    cut(text, most).chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// A path as it may be kept: without its query, short, and printable.
pub fn path_to_keep(target: &str) -> String {
    let path = &target[..target.find(['?', '#']).unwrap_or(target.len())];
    printable(path, MOST_PATH_BYTES)
}

fn sample(path: &str) -> Option<Arc<str>> {
    (!path.is_empty()).then(|| path_to_keep(path).into())
}

/// At most `most` bytes of a text, cut between characters.
pub fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// How long ago a time is, in milliseconds; 0 for one that is yet to come.
pub fn ago(time: SystemTime, now: SystemTime) -> u32 {
    now.duration_since(time).map_or(0, |ago| u32::try_from(ago.as_millis()).unwrap_or(u32::MAX))
}

/// The time that was so long before `now`.
pub fn before(now: SystemTime, ago_ms: u32) -> SystemTime {
    now.checked_sub(Duration::from_millis(ago_ms.into())).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn edge(http: Option<HttpPart>) -> Edge {
        Edge {
            source: name("web"),
            destination: name("api"),
            port: PortName::main(),
            protocol: Protocol::Http,
            verdict: Verdict::Audit,
            because: "default (audit)".into(),
            http,
        }
    }

    proptest! {
        #[test]
        fn an_edge_arrives_as_it_was_sent(
            counts in any::<[u32; 4]>(), took in prop::collection::vec(0u64..1 << 40, 0..40), ago_s in 0u64..60, path in prop::option::of("/[a-z0-9/]{0,40}")
        ) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            let mut tally = Tally::new(now - Duration::from_secs(ago_s));
            tally.last_seen = now;
            [tally.count, tally.errors, tally.bytes_in, tally.bytes_out] = counts.map(u64::from);
            took.iter().for_each(|us| tally.latency.observe(*us));
            tally.sample = path.as_deref().map(Into::into);
            let edge = edge(path.as_deref().map(|path| HttpPart { method: Method::Get, shape: Shape::of(path) }));
            let wire = edge_to_wire(&edge, false, &tally, now);
            prop_assert_eq!(edge_from_wire(&name("api"), &wire, now), Ok((edge, tally)));
        }
    }

    #[test]
    fn a_sidecar_speaks_of_its_own_service_alone() {
        let now = SystemTime::now();
        let wire = edge_to_wire(&edge(None), false, &Tally::new(now), now);
        let (inbound, _) = edge_from_wire(&name("db"), &wire, now).unwrap();
        assert_eq!((inbound.source.as_str(), inbound.destination.as_str()), ("web", "db"));
        let (outbound, _) =
            edge_from_wire(&name("db"), &v1::SeenEdge { outbound: true, verdict: "failed".into(), ..wire }, now).unwrap();
        assert_eq!((outbound.source.as_str(), outbound.destination.as_str()), ("db", "web"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let now = SystemTime::now();
        let good = edge_to_wire(&edge(None), false, &Tally::new(now), now);
        for (wire, what) in [
            (v1::SeenEdge { peer: "*".into(), ..good.clone() }, "peer"),
            (v1::SeenEdge { port: "A".into(), ..good.clone() }, "port"),
            (v1::SeenEdge { verdict: "maybe".into(), ..good.clone() }, "verdict"),
            (v1::SeenEdge { outbound: true, verdict: "allow".into(), ..good.clone() }, "verdict"),
            (v1::SeenEdge { protocol: "udp".into(), ..good.clone() }, "protocol"),
            (v1::SeenEdge { method: "GET".into(), shape: "x".into(), ..good.clone() }, "shape"),
        ] {
            let error = edge_from_wire(&name("api"), &wire, now).unwrap_err();
            assert!(error.to_string().starts_with(what), "{error}");
        }
    }
}
