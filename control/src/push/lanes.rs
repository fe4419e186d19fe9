//! One lane of a stream: what changed and was not sent yet, and the one message that is in flight. No I/O.

use std::collections::BTreeSet;

use postern_api::key::ResourceKey;
use postern_api::v1;
use tokio::time::Instant;

/// A chunk of a delta holds at most so many bytes of resources, unless one resource alone is longer.
pub const MAX_CHUNK: usize = 256 << 10;
/// What a resource costs on the wire beside its key and body.
const RESOURCE_OVERHEAD: usize = 32;

/// What has to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// All of the lane.
    Everything,
    /// What these keys hold now.
    Keys(BTreeSet<ResourceKey>),
}

/// A message that was not acknowledged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InFlight {
    revision: u64,
    changed_at: Instant,
}

/// The state of one lane. What changes while a message is in flight merges by key, so its size follows what the sidecar
/// watches, never how long it is slow.
#[derive(Debug)]
pub struct Lane {
    pending: Option<Pending>,
    changed_at: Option<Instant>,
    in_flight: Option<InFlight>,
    acknowledged: u64,
}

impl Lane {
    /// A lane that has to send all.
    pub fn new(now: Instant) -> Self {
        Self { pending: Some(Pending::Everything), changed_at: Some(now), in_flight: None, acknowledged: 0 }
    }

    /// A lane that has nothing to send until it is marked.
    pub fn idle() -> Self {
        Self { pending: None, changed_at: None, in_flight: None, acknowledged: 0 }
    }

    /// `key` changed.
    pub fn mark(&mut self, key: &ResourceKey, now: Instant) {
        self.changed_at.get_or_insert(now);
        match &mut self.pending {
            Some(Pending::Everything) => {}
            Some(Pending::Keys(keys)) => {
                keys.insert(key.clone());
            }
            None => self.pending = Some(Pending::Keys(BTreeSet::from([key.clone()]))),
        }
    }

    /// Anything may have changed.
    pub fn mark_everything(&mut self, now: Instant) {
        self.changed_at.get_or_insert(now);
        self.pending = Some(Pending::Everything);
    }

    /// What to send next, as of `revision`: nothing while a message is in flight.
    pub fn take(&mut self, revision: u64, now: Instant) -> Option<Pending> {
        if self.in_flight.is_some() {
            return None;
        }
        let pending = self.pending.take()?;
        let changed_at = self.changed_at.take().unwrap_or(now);
        self.in_flight = Some(InFlight { revision, changed_at });
        Some(pending)
    }

    /// The message in flight was acknowledged. Gives when the oldest change in it was made, or `None` where no message of
    /// that revision is in flight.
    pub fn acknowledge(&mut self, revision: u64) -> Option<Instant> {
        let in_flight = self.in_flight.take_if(|in_flight| in_flight.revision == revision)?;
        self.acknowledged = self.acknowledged.max(revision);
        Some(in_flight.changed_at)
    }

    /// The revision of the last acknowledged message; 0 before the first.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether a message was not acknowledged yet.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// What was marked turned out to be no change.
    pub fn forget_pending(&mut self) {
        self.pending = None;
        self.changed_at = None;
    }

    /// Whether the sidecar holds all there is: nothing waits, nothing is in flight.
    pub fn is_settled(&self) -> bool {
        self.pending.is_none() && self.in_flight.is_none()
    }

    /// Whether the sidecar holds everything up to `revision`.
    pub fn covers(&self, revision: u64) -> bool {
        self.is_settled() || self.acknowledged >= revision
    }

    /// The keys that wait to be sent.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        match &self.pending {
            Some(Pending::Keys(keys)) => keys.len(),
            Some(Pending::Everything) => usize::MAX,
            None => 0,
        }
    }
}

/// What a delta holds, before it is cut into chunks.
#[derive(Debug, Default, Clone)]
pub struct Content {
    /// The receiver forgets all it had on the lane first.
    pub complete: bool,
    /// Resources as they are now.
    pub upserts: Vec<v1::Resource>,
    /// Keys that hold nothing any more.
    pub deletes: Vec<String>,
}

/// Cuts a delta into chunks of at most [`MAX_CHUNK`] bytes. There is always one; the last one says so.
pub fn into_chunks(lane: v1::Lane, to: v1::Position, content: Content) -> Vec<v1::Delta> {
    let empty = || v1::Delta { lane: lane.into(), to: Some(to), complete: content.complete, ..v1::Delta::default() };
    let mut chunks = Vec::new();
    let mut chunk = empty();
    let mut size = 0;
    for resource in content.upserts {
        let bytes = resource.key.len() + resource.body.len() + RESOURCE_OVERHEAD;
        if size > 0 && size + bytes > MAX_CHUNK {
            chunks.push(std::mem::replace(&mut chunk, empty()));
            size = 0;
        }
        size += bytes;
        chunk.upserts.push(resource);
    }
    for key in content.deletes {
        let bytes = key.len() + RESOURCE_OVERHEAD;
        if size > 0 && size + bytes > MAX_CHUNK {
            chunks.push(std::mem::replace(&mut chunk, empty()));
            size = 0;
        }
        size += bytes;
        chunk.deletes.push(key);
    }
    chunk.last = true;
    chunks.push(chunk);
    chunks
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    fn key(n: usize) -> ResourceKey {
        ResourceKey::Service(format!("s{n}").parse().unwrap())
    }

    fn resource(n: usize, bytes: usize) -> v1::Resource {
        v1::Resource { key: key(n).to_string(), revision: 1, body: Bytes::from(vec![7; bytes]) }
    }

    #[test]
    fn changes_merge_by_key_while_a_message_is_not_acknowledged() {
        let now = Instant::now();
        let mut lane = Lane::new(now);
        assert_eq!(lane.take(5, now), Some(Pending::Everything));
        for round in 0..1000 {
            lane.mark(&key(round % 3), now);
        }
        assert_eq!(lane.waiting(), 3);
        assert_eq!(lane.take(900, now), None, "one message in flight");
        assert!(lane.acknowledge(5).is_some());
        assert_eq!(lane.take(1005, now), Some(Pending::Keys((0..3).map(key).collect())));
    }

    #[test]
    fn only_the_message_in_flight_can_be_acknowledged() {
        let now = Instant::now();
        let mut lane = Lane::new(now);
        lane.take(5, now);
        assert!(lane.acknowledge(4).is_none());
        assert!(lane.acknowledge(6).is_none());
        assert_eq!(lane.acknowledged(), 0);
        assert!(lane.acknowledge(5).is_some());
        assert!(lane.acknowledge(5).is_none(), "once only");
        assert_eq!(lane.acknowledged(), 5);
    }

    #[test]
    fn a_lane_that_nothing_concerned_covers_every_revision() {
        let now = Instant::now();
        let mut lane = Lane::new(now);
        assert!(!lane.covers(5));
        lane.take(5, now);
        assert!(!lane.covers(5));
        lane.acknowledge(5);
        assert!(lane.covers(5));
        assert!(lane.covers(500), "nothing was marked since");
        lane.mark(&key(1), now);
        assert!(lane.covers(5));
        assert!(!lane.covers(6));
    }

    #[test]
    fn everything_swallows_single_keys() {
        let now = Instant::now();
        let mut lane = Lane::new(now);
        lane.take(1, now);
        lane.acknowledge(1);
        lane.mark(&key(1), now);
        lane.mark_everything(now);
        lane.mark(&key(2), now);
        assert_eq!(lane.take(2, now), Some(Pending::Everything));
    }

    #[test]
    fn a_long_delta_is_cut_and_only_the_last_chunk_says_so() {
        let content =
            Content { complete: true, upserts: (0..100).map(|n| resource(n, 10_000)).collect(), deletes: vec!["x".into()] };
        let chunks = into_chunks(v1::Lane::Authority, v1::Position { epoch: 1, revision: 9 }, content);
        assert!(chunks.len() > 3);
        assert!(chunks.iter().all(|chunk| chunk.encoded_len() <= MAX_CHUNK && chunk.complete && chunk.to.unwrap().revision == 9));
        assert_eq!(chunks.iter().filter(|chunk| chunk.last).count(), 1);
        assert!(chunks.last().unwrap().last);
        assert_eq!(chunks.iter().map(|chunk| chunk.upserts.len()).sum::<usize>(), 100);
    }

    #[test]
    fn an_empty_delta_is_one_chunk() {
        let chunks = into_chunks(v1::Lane::Reachability, v1::Position::default(), Content::default());
        assert_eq!(chunks.len(), 1);
        assert!(chunks[0].last);
    }

    #[test]
    fn a_resource_longer_than_a_chunk_travels_alone() {
        let upserts = vec![resource(0, 10), resource(1, MAX_CHUNK + 1), resource(2, 10)];
        let chunks = into_chunks(v1::Lane::Authority, v1::Position::default(), Content { upserts, ..Content::default() });
        assert_eq!(chunks.iter().map(|chunk| chunk.upserts.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
