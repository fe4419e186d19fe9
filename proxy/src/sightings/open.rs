//! What is open now.

use std::collections::HashMap;

use postern_api::seen::MOST_OPEN;
use postern_api::v1;
use postern_edges::{MOST_SHAPE_BYTES, Method, REST, write_shape};
use postern_names::{PortName, ServiceName};
use tokio::time::Instant;

use super::counter::Sightings;
use crate::connections::{Judgeable, What};
use crate::metrics::Direction;

/// Entries of the table that are looked at in one go: it is locked meanwhile.
const AT_ONCE: usize = 256;

type Kind = (ServiceName, PortName, Option<(Method, String)>);

impl Sightings {
    /// What is open now, at most [`MOST_OPEN`] kinds: connections by peer and port, requests also by method and shape. What
    /// has no room counts as method `other` and shape `…` of its peer and port, or is left out.
    pub(super) fn open(&self) -> Vec<v1::OpenCalls> {
        if !self.common.is_counting {
            return Vec::new();
        }
        let mut kinds: HashMap<Kind, u32> = HashMap::new();
        let mut shape = String::with_capacity(MOST_SHAPE_BYTES);
        let mut from = 0;
        while let Some(some) = self.connections.some_open(from, AT_ONCE) {
            from += AT_ONCE;
            for judgeable in some {
                let Some(mut kind) = self.kind_of(judgeable, &mut shape) else { continue };
                if kinds.len() >= MOST_OPEN && !kinds.contains_key(&kind) {
                    kind.2 = Some((Method::Other, REST.to_owned()));
                }
                // Rests are few: one for each peer and port.
                if kinds.len() < 2 * MOST_OPEN || kinds.contains_key(&kind) {
                    *kinds.entry(kind).or_default() += 1;
                }
            }
        }
        let mut open: Vec<_> = kinds.into_iter().map(told).collect();
        if open.len() > MOST_OPEN {
            open.sort_unstable_by_key(|calls| std::cmp::Reverse(calls.count));
            open.truncate(MOST_OPEN);
        }
        open
    }

    fn kind_of(&self, judgeable: Judgeable, shape: &mut String) -> Option<Kind> {
        if judgeable.direction == Direction::Outbound {
            return None;
        }
        let http = match &judgeable.what {
            What::Connection => None,
            What::HttpConnection => return None,
            What::Request(request) => {
                shape.clear();
                write_shape(request.target(), shape);
                let admitted = self.common.shapes.lock().admit(shape, true, Instant::now());
                Some((Method::of(request.method()), admitted.map_or(REST.to_owned(), |shape| shape.to_string())))
            }
        };
        Some((judgeable.service, judgeable.port, http))
    }
}

fn told(((peer, port, http), count): (Kind, u32)) -> v1::OpenCalls {
    let (method, shape) = http.map(|(method, shape)| (method.as_str().to_owned(), shape)).unwrap_or_default();
    v1::OpenCalls { peer: peer.to_string(), port: port.to_string(), method, shape, count }
}
