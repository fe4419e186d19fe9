//! All that a sidecar knows, at one position: immutable, published whole, read without a lock.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::transport::dial::Target;
use postern_api::v1;
use postern_ca::Trust;
use postern_intentions::{Protocol, RuleSet};
use postern_names::{InstanceId, PortName, ServiceName};
use postern_traffic::Locality;
use postern_traffic::{JwtProvider, ServiceSettings};

/// Where the newest snapshot is published.
pub type SnapshotSource = tokio::sync::watch::Receiver<Arc<Snapshot>>;

/// What the sidecar knows at one moment.
pub struct Snapshot {
    /// Counts the snapshots of this process, from 1: what the data plane says it enforces.
    pub sequence: u64,
    /// Where both lanes stand.
    pub position: Positions,
    /// Who is trusted: the bundle and the revoked serials.
    pub trust: Arc<Trust>,
    /// Who may call this service.
    pub rules: Arc<RuleSet>,
    /// The protocol of this sidecar's own service; what its settings say counts.
    pub protocol: Protocol,
    /// The settings of this sidecar's own service. What was told again unchanged stays the same `Arc`, here and below: what
    /// was made of it can be kept by that.
    pub own_settings: Arc<ServiceSettings>,
    /// The JWT providers that intentions for this service name.
    pub jwt: Arc<[ResolvedProvider]>,
    /// The services that it calls, and those that their settings lead to, as far as the control plane has told of them.
    pub upstreams: HashMap<ServiceName, Upstream>,
}

/// A JWT provider with its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedProvider {
    /// As the operator wrote it.
    pub provider: JwtProvider,
    /// Its public keys (RFC 7517 §5), as JSON; empty: the control plane has none yet, and no token of it is good.
    pub jwks: String,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("sequence", &self.sequence)
            .field("position", &self.position)
            .field("rules", &self.rules.len())
            .field("upstreams", &self.upstreams.len())
            .finish_non_exhaustive()
    }
}

/// The position of each lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Positions {
    /// Intentions, the default, revocations, bundles.
    pub authority: Position,
    /// Endpoints and settings of the upstreams.
    pub reachability: Position,
}

impl Positions {
    /// The newest revision of both lanes.
    pub fn newest(self) -> u64 {
        self.authority.revision.max(self.reachability.revision)
    }

    /// Whether traffic can be judged and sent by what was received.
    pub fn serve(self, calls_nobody: bool) -> bool {
        !self.authority.is_start() && (calls_nobody || !self.reachability.is_start())
    }
}

/// A place in the history of one cluster: a restore raises the epoch, every transaction the revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Position {
    /// Raised when the control plane is restored from a snapshot.
    pub epoch: u64,
    /// The store revision; 0 before anything was received.
    pub revision: u64,
}

impl Position {
    /// Whether nothing was received yet.
    pub fn is_start(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.revision)
    }
}

impl From<v1::Position> for Position {
    fn from(wire: v1::Position) -> Self {
        Self { epoch: wire.epoch, revision: wire.revision }
    }
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch, revision: position.revision }
    }
}

/// A service that this instance calls, or that the settings of one lead to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Upstream {
    /// What it speaks; what its settings say counts.
    pub protocol: Protocol,
    /// What the destination will decide, for this side's log and metric only.
    pub verdict: PairVerdict,
    /// Its instances that can be dialled. The same `Arc` as before where none of them changed.
    pub endpoints: Arc<[Endpoint]>,
    /// Its settings; the defaults where none were given or understood. The same `Arc` as before where they did not change.
    pub settings: Arc<ServiceSettings>,
}

/// The verdict of the pair (this service, the upstream), as the control plane computed it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PairVerdict {
    /// Whether the destination lets this service in.
    pub allowed: bool,
    /// Whether it would be denied, were it not for audit.
    pub would_deny: bool,
    /// Which intention or default decides.
    pub because: String,
    /// Until when this holds; `None`: until the next change.
    pub until: Option<SystemTime>,
}

impl PairVerdict {
    /// The verdict before the control plane has told one.
    pub fn unknown() -> Self {
        Self { allowed: false, would_deny: false, because: "not told by the control plane yet".into(), until: None }
    }
}

/// One instance of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Endpoint {
    /// Which instance.
    pub instance: InstanceId,
    /// HOST:PORT of its sidecar.
    pub address: String,
    /// The named ports that it serves.
    pub ports: Vec<PortName>,
    /// The transports that its sidecar accepts, such as `direct`.
    pub transports: Vec<String>,
    /// REGION or REGION/ZONE; empty: not told.
    pub locality: String,
    /// Its labels (`--meta`), by which subsets are chosen. The same `Arc` as before where the endpoint did not change.
    pub meta: Arc<BTreeMap<String, String>>,
    /// What it gets beside the others.
    pub weight: u32,
}

impl Endpoint {
    /// Where it is dialled.
    pub(crate) fn target(&self) -> Target {
        Target {
            instance: self.instance.clone(),
            address: self.address.clone(),
            speaks_tunnel: self.transports.iter().any(|transport| transport == "tunnel"),
        }
    }

    /// Every sidecar accepts direct connections; one that lists its transports without `direct` says that it does not.
    pub(crate) fn speaks_direct(&self) -> bool {
        self.transports.is_empty() || self.transports.iter().any(|transport| transport == "direct")
    }
}

impl postern_traffic::Instance for Endpoint {
    fn id(&self) -> &InstanceId {
        &self.instance
    }

    fn meta(&self, key: &str) -> Option<&str> {
        self.meta.get(key).map(String::as_str)
    }

    fn locality(&self) -> Option<Locality<'_>> {
        Locality::parse(&self.locality)
    }

    fn ports(&self) -> impl Iterator<Item = &PortName> {
        self.ports.iter()
    }

    fn weight(&self) -> u32 {
        self.weight
    }
}
