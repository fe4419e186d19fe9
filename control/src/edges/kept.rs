//! Edges as they are kept in the store: a pair of services in a period, in parts of at most 200 edges.
//!
//! `edges/PERIOD/DESTINATION/SOURCE/PART`. The edges of a pair in a period are only ever added to, so a part keeps its
//! place. These records are not mirrored.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use postern_edges::{Edge, Histogram, HttpPart, Period, Sighting, Tally, Verdict};
use postern_intentions::Protocol;
use postern_names::{PortName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::records::{self, UnreadableRecord, as_millis};
use crate::store::{Kv, Op};

/// What all keys begin with.
pub(super) const PREFIX: &[u8] = b"edges/";
/// Edges of a part: at their largest they take half of what a transaction may have.
const OF_PART: usize = 200;

/// One edge with its counts. Names are short since there are many.
#[derive(Debug, Serialize, Deserialize)]
struct KeptEdge {
    port: PortName,
    protocol: Protocol,
    verdict: Verdict,
    because: Arc<str>,
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    http: Option<HttpPart>,
    count: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    errors: u64,
    #[serde(default, skip_serializing_if = "is_zero", rename = "in")]
    bytes_in: u64,
    #[serde(default, skip_serializing_if = "is_zero", rename = "out")]
    bytes_out: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    took: Vec<(u8, u64)>,
    #[serde(with = "as_millis")]
    first: SystemTime,
    #[serde(with = "as_millis")]
    last: SystemTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample: Option<Arc<str>>,
    instances: usize,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Puts the edges of a pair in a period.
///
/// # Errors
/// Where a record cannot be written as JSON; none can that holds real times.
pub(super) fn put(
    period: Period,
    source: &ServiceName,
    destination: &ServiceName,
    edges: &[Sighting],
) -> Result<Vec<Op>, serde_json::Error> {
    let part = |(number, edges): (usize, &[Sighting])| {
        let key = format!("edges/{period}/{destination}/{source}/{number:02}");
        let edges: Vec<KeptEdge> = edges.iter().map(KeptEdge::of).collect();
        Ok(Op::put(key.into_bytes(), records::encode(&edges)?))
    };
    edges.chunks(OF_PART).enumerate().map(part).collect()
}

/// Deletes all of a period.
pub(super) fn delete(period: Period) -> Op {
    Op::DeletePrefix(Bytes::from(format!("edges/{period}/").into_bytes()))
}

/// What a record holds.
///
/// # Errors
/// [`UnreadableRecord`], such as one that a later version wrote.
pub(super) fn read(kv: &Kv) -> Result<(Period, Vec<Sighting>), UnreadableRecord> {
    let unreadable = |why: &str| UnreadableRecord { key: String::from_utf8_lossy(&kv.key).into_owned(), why: why.to_owned() };
    let key = std::str::from_utf8(&kv.key).map_err(|_| unreadable("its key is no text"))?;
    let parts: Vec<&str> = key.split('/').collect();
    let ["edges", period, destination, source, _] = parts.as_slice() else {
        return Err(unreadable("its key is none of an edge"));
    };
    let name = |text: &str| text.parse::<ServiceName>().map_err(|error| unreadable(&error.to_string()));
    let period = period.parse::<Period>().map_err(|error| unreadable(&error.to_string()))?;
    let (source, destination) = (name(source)?, name(destination)?);
    let edges: Vec<KeptEdge> = records::decode(&kv.key, &kv.value)?;
    Ok((period, edges.into_iter().map(|edge| edge.sighting(&source, &destination)).collect()))
}

impl KeptEdge {
    fn of(kept: &Sighting) -> Self {
        let Sighting { edge, tally, instances } = kept.clone();
        Self {
            port: edge.port,
            protocol: edge.protocol,
            verdict: edge.verdict,
            because: edge.because,
            http: edge.http,
            count: tally.count,
            errors: tally.errors,
            bytes_in: tally.bytes_in,
            bytes_out: tally.bytes_out,
            took: tally.latency.iter().collect(),
            first: tally.first_seen,
            last: tally.last_seen,
            sample: tally.sample,
            instances,
        }
    }

    fn sighting(self, source: &ServiceName, destination: &ServiceName) -> Sighting {
        let mut latency = Histogram::default();
        self.took.iter().for_each(|(bucket, count)| latency.add(*bucket, *count));
        Sighting {
            edge: Edge {
                source: source.clone(),
                destination: destination.clone(),
                port: self.port,
                protocol: self.protocol,
                verdict: self.verdict,
                because: self.because,
                http: self.http,
            },
            tally: Tally {
                count: self.count,
                errors: self.errors,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                latency,
                first_seen: self.first,
                last_seen: self.last,
                sample: self.sample,
            },
            instances: self.instances,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postern_edges::{MOST_BECAUSE_BYTES, Method, Shape};

    use super::*;
    use crate::store::MAX_TXN_BYTES;

    fn sighting(number: usize) -> Sighting {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        let mut tally = Tally { count: u64::MAX, errors: u64::MAX, bytes_in: u64::MAX, bytes_out: u64::MAX, ..Tally::new(at) };
        (0..42).for_each(|bucket| tally.latency.add(bucket, u64::MAX / 50));
        tally.sample = Some("\"".repeat(200).into());
        let http = HttpPart { method: Method::Options, shape: Shape::of(&format!("/{}/x{number}", "a".repeat(100))) };
        let edge = Edge {
            source: "web".parse().unwrap(),
            destination: "api".parse().unwrap(),
            port: PortName::main(),
            protocol: Protocol::Http,
            verdict: Verdict::Audit,
            because: "\"".repeat(MOST_BECAUSE_BYTES).into(),
            http: Some(http),
        };
        Sighting { edge, tally, instances: 100 }
    }

    #[test]
    fn a_part_is_read_as_it_was_written_and_fits_into_a_transaction_at_its_largest() {
        let period = Period::hour_of(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let edges: Vec<Sighting> =
            (0..450).map(sighting).chain([Sighting { edge: Edge { http: None, ..sighting(0).edge }, ..sighting(0) }]).collect();
        let ops = put(period, &"web".parse().unwrap(), &"api".parse().unwrap(), &edges).unwrap();
        assert_eq!(ops.len(), 3);
        let mut read_again = Vec::new();
        for op in ops {
            let Op::Put { key, value, .. } = op else { panic!("{op:?}") };
            assert!(key.len() + value.len() < MAX_TXN_BYTES, "{}", value.len());
            let kv = Kv { key, value, create_revision: 1, mod_revision: 1, version: 1, lease: None };
            let (of, edges) = read(&kv).unwrap();
            assert_eq!(of, period);
            read_again.extend(edges);
        }
        assert_eq!(read_again, edges);
    }

    #[test]
    fn what_is_no_record_of_ours_is_named() {
        for (key, value) in [
            ("edges/h0000000001/api", "[]"),
            ("edges/x0000000001/api/web/00", "[]"),
            ("edges/h0000000001/Api/web/00", "[]"),
            ("edges/h0000000001/api/web/00", "{}"),
        ] {
            let kv = Kv { key: key.into(), value: value.into(), create_revision: 1, mod_revision: 1, version: 1, lease: None };
            assert!(read(&kv).unwrap_err().to_string().contains(key));
        }
    }
}
