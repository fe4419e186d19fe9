//! Makes snapshots of what was pushed and publishes them.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use postern_api::v1;
use postern_ca::{Trust, TrustSource};
use postern_intentions::{Intention, Protocol};
use postern_names::ServiceName;
use tokio::sync::watch;

use super::resources::{Applied, DeltaRefused, Lane, Resources};
use crate::snapshot::{Position, Snapshot, SnapshotSource};
use crate::state::StoredSnapshot;

/// Holds the resources, and publishes the snapshot that they make whenever they change.
#[derive(Debug)]
pub struct Publisher {
    service: ServiceName,
    declared: Option<Protocol>,
    resources: Resources,
    trust: TrustSource,
    snapshots: watch::Sender<Arc<Snapshot>>,
    known: watch::Sender<Arc<Known>>,
}

/// What a snapshot was made of, for people.
#[derive(Debug)]
pub struct Known {
    /// The cluster that it came from.
    pub cluster_id: String,
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The intentions with their revisions.
    pub intentions: Vec<(u64, Arc<Intention>)>,
    /// Keys of what was not understood, and why.
    pub not_understood: Vec<(String, String)>,
}

/// A snapshot went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Which lane changed.
    pub lane: Lane,
    /// Where it stands now.
    pub position: Position,
    /// The number of the snapshot.
    pub sequence: u64,
}

impl Publisher {
    /// Publishes the first snapshot, number 1, of what is known: the newest of `resources` and `trust`.
    pub fn new(service: ServiceName, declared: Option<Protocol>, resources: Resources, trust: Trust) -> Self {
        let trust: TrustSource = Arc::new(ArcSwap::from_pointee(resources.trust(&trust)));
        let own_settings = resources.own_settings(&service, None);
        let snapshot = Arc::new(Snapshot {
            sequence: 1,
            position: resources.positions(),
            trust: trust.load_full(),
            rules: Arc::new(resources.rules()),
            protocol: own_settings.protocol.or(resources.protocol_of(&service)).or(declared).unwrap_or_default(),
            own_settings,
            jwt: resources.jwt(None),
            upstreams: resources.upstreams(&HashMap::new()),
        });
        let known = watch::channel(Arc::new(known(&resources, snapshot.clone()))).0;
        Self { service, declared, resources, trust, snapshots: watch::channel(snapshot).0, known }
    }

    /// Where snapshots appear.
    pub fn snapshots(&self) -> SnapshotSource {
        self.snapshots.subscribe()
    }

    /// Where their explanation appears.
    pub fn known(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// What handshakes trust; changes with the authority lane, before the snapshot appears.
    pub fn trust(&self) -> TrustSource {
        self.trust.clone()
    }

    /// What is held.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Forgets an unfinished message.
    pub fn forget_unfinished(&mut self) {
        self.resources.forget_unfinished();
    }

    /// What is to be kept on disk.
    pub fn to_stored(&self, server_time_ms: u64) -> StoredSnapshot {
        self.resources.to_stored(server_time_ms)
    }

    /// Takes a message of the stream, and publishes when it is whole.
    ///
    /// # Errors
    /// [`DeltaRefused`]: the snapshot stays.
    pub fn apply(&mut self, delta: v1::Delta) -> Result<Option<Published>, DeltaRefused> {
        match self.resources.apply(delta)? {
            Applied::Gathering => Ok(None),
            Applied::Whole(lane, position) => Ok(Some(Published { lane, position, sequence: self.publish(lane) })),
        }
    }

    fn publish(&self, changed: Lane) -> u64 {
        let before = self.snapshots.borrow().clone();
        let (trust, rules) = match changed {
            Lane::Authority => {
                self.trust.rcu(|trust| Arc::new(self.resources.trust(trust)));
                (self.trust.load_full(), Arc::new(self.resources.rules_after(&before.rules)))
            }
            Lane::Reachability => (before.trust.clone(), before.rules.clone()),
        };
        let upstreams = match changed {
            Lane::Authority => before.upstreams.clone(),
            Lane::Reachability => self.resources.upstreams(&before.upstreams),
        };
        let own_settings = self.resources.own_settings(&self.service, Some(&before.own_settings));
        let told = self.resources.protocol_of(&self.service).or(self.declared);
        let snapshot = Arc::new(Snapshot {
            sequence: before.sequence + 1,
            position: self.resources.positions(),
            trust,
            rules,
            protocol: own_settings.protocol.or(told).unwrap_or_default(),
            own_settings,
            jwt: self.resources.jwt(Some(&before.jwt)),
            upstreams,
        });
        let sequence = snapshot.sequence;
        self.known.send_replace(Arc::new(known(&self.resources, snapshot.clone())));
        self.snapshots.send_replace(snapshot);
        sequence
    }
}

fn known(resources: &Resources, snapshot: Arc<Snapshot>) -> Known {
    let nacks = [Lane::Authority, Lane::Reachability].into_iter().flat_map(|lane| resources.not_understood(lane));
    Known {
        cluster_id: resources.cluster_id().to_owned(),
        snapshot,
        intentions: resources.intentions(),
        not_understood: nacks.map(|nack| (nack.key, nack.why)).collect(),
    }
}
