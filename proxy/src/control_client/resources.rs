//! What was pushed to this sidecar: the resources of both lanes, decoded once, and the snapshot that they make.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use postern_api::convert::{self, NotUnderstood, decode_exact};
use postern_api::key::ResourceKey;
use postern_api::settings::{provider_from_bytes, settings_from_bytes};
use postern_api::v1;
use postern_ca::{Serial, Trust, TrustBundle};
use postern_intentions::{DefaultPolicy, Entry, EntryContent, Intention, PairKey, Protocol, RuleSet};
use postern_names::{InstanceId, ServiceName};
use postern_traffic::ServiceSettings;

use crate::snapshot::{Endpoint, PairVerdict, Position, Positions, ResolvedProvider, Upstream};
use crate::state::{StoredLane, StoredSnapshot};

/// A message in chunks may not grow past this: more means that the sender is broken.
const GATHERED_LIMIT: usize = 256 << 20;

/// Which lane of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Intentions, the default, revocations, bundles.
    Authority,
    /// Endpoints and settings of the upstreams.
    Reachability,
}

impl Lane {
    /// The lane on the wire.
    pub fn to_wire(self) -> v1::Lane {
        match self {
            Self::Authority => v1::Lane::Authority,
            Self::Reachability => v1::Lane::Reachability,
        }
    }
}

/// What became of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// More chunks are to come.
    Gathering,
    /// The lane now stands at `Position`.
    Whole(Lane, Position),
}

/// Why a delta was not applied. What was held before still is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaRefused {
    /// It goes back.
    #[error("the control plane offered position {offered} on a lane that stands at {held}: older, refused")]
    Older {
        /// What the lane holds.
        held: Position,
        /// What was offered.
        offered: Position,
    },
    /// It breaks the rules of the stream.
    #[error("the control plane sent a message that is not valid: {0}")]
    NotValid(&'static str),
}

/// All that was pushed, with where each lane stands.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    cluster_id: String,
    authority: LaneState,
    reachability: LaneState,
}

#[derive(Debug, Clone, Default)]
struct LaneState {
    position: Position,
    held: BTreeMap<String, Held>,
    gathered: Option<Gathered>,
}

#[derive(Debug, Clone)]
struct Gathered {
    to: Position,
    complete: bool,
    upserts: Vec<v1::Resource>,
    deletes: Vec<String>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Held {
    wire: v1::Resource,
    meaning: Meaning,
}

/// A resource, decoded.
#[derive(Debug, Clone)]
enum Meaning {
    Intention(Arc<Intention>),
    Default(DefaultPolicy),
    Revoked(Serial),
    Bundle(Arc<TrustBundle>),
    Service(ServiceName, Protocol, PairVerdict),
    Endpoint(ServiceName, Endpoint),
    Config(Arc<ServiceSettings>),
    Jwt(Arc<ResolvedProvider>),
    /// Denies the pair, where it has one.
    NotUnderstood(Option<PairKey>, Arc<str>),
}

impl Resources {
    /// Nothing yet, of this cluster.
    pub fn new(cluster_id: impl Into<String>) -> Self {
        Self { cluster_id: cluster_id.into(), ..Self::default() }
    }

    /// What was kept on disk, decoded with what this version understands.
    pub fn from_stored(stored: StoredSnapshot) -> Self {
        let lane = |lane: Option<StoredLane>| {
            let lane = lane.unwrap_or_default();
            let mut state = LaneState { position: lane.position.unwrap_or_default().into(), ..LaneState::default() };
            for resource in lane.resources {
                state.hold(resource);
            }
            state
        };
        Self { cluster_id: stored.cluster_id, authority: lane(stored.authority), reachability: lane(stored.reachability) }
    }

    /// What is to be kept on disk.
    pub fn to_stored(&self, server_time_ms: u64) -> StoredSnapshot {
        let lane = |lane: &LaneState| {
            Some(StoredLane {
                position: Some(lane.position.into()),
                resources: lane.held.values().map(|held| held.wire.clone()).collect(),
            })
        };
        StoredSnapshot {
            cluster_id: self.cluster_id.clone(),
            authority: lane(&self.authority),
            reachability: lane(&self.reachability),
            server_time_ms,
        }
    }

    /// The cluster that these came from.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Where both lanes stand.
    pub fn positions(&self) -> Positions {
        Positions { authority: self.authority.position, reachability: self.reachability.position }
    }

    /// Takes one message of the stream; it counts when its last chunk has come.
    ///
    /// # Errors
    /// [`DeltaRefused`]: nothing has changed then.
    pub fn apply(&mut self, delta: v1::Delta) -> Result<Applied, DeltaRefused> {
        let lane = match v1::Lane::try_from(delta.lane) {
            Ok(v1::Lane::Authority) => Lane::Authority,
            Ok(v1::Lane::Reachability) => Lane::Reachability,
            _ => return Err(DeltaRefused::NotValid("it names no lane")),
        };
        let state = self.lane_mut(lane);
        let to = Position::from(delta.to.ok_or(DeltaRefused::NotValid("it has no position"))?);
        if to < state.position {
            state.gathered = None;
            return Err(DeltaRefused::Older { held: state.position, offered: to });
        }
        let last = delta.last;
        state.gather(to, delta)?;
        if !last {
            return Ok(Applied::Gathering);
        }
        state.take_over();
        Ok(Applied::Whole(lane, to))
    }

    /// Forgets chunks whose message will not be finished, since the stream has ended.
    pub fn forget_unfinished(&mut self) {
        self.authority.gathered = None;
        self.reachability.gathered = None;
    }

    /// What of a lane was not understood.
    pub fn not_understood(&self, lane: Lane) -> Vec<v1::Nack> {
        let state = match lane {
            Lane::Authority => &self.authority,
            Lane::Reachability => &self.reachability,
        };
        let why = |held: &Held| match &held.meaning {
            Meaning::NotUnderstood(_, why) => Some(why.to_string()),
            _ => None,
        };
        state.held.iter().filter_map(|(key, held)| Some(v1::Nack { key: key.clone(), why: why(held)? })).collect()
    }

    /// The compiled intentions. Without a default that is understood, the default is deny.
    pub fn rules(&self) -> RuleSet {
        self.rules_after(&RuleSet::deny_all())
    }

    /// As [`Resources::rules`]; what was compiled for `before` and is held still is not compiled again.
    pub fn rules_after(&self, before: &RuleSet) -> RuleSet {
        let mut default = DefaultPolicy::Deny;
        let mut entries: BTreeMap<PairKey, Entry> = BTreeMap::new();
        for held in self.authority.held.values() {
            let revision = held.wire.revision;
            match &held.meaning {
                Meaning::Default(policy) => default = *policy,
                Meaning::Intention(intention) => {
                    let content = EntryContent::Understood(intention.clone());
                    // One that was not understood for the same pair stays: it denies.
                    entries.entry(intention.key()).or_insert(Entry { revision, content });
                }
                Meaning::NotUnderstood(Some(key), why) => {
                    let content = EntryContent::NotUnderstood { key: key.clone(), why: why.clone() };
                    entries.insert(key.clone(), Entry { revision, content });
                }
                _ => {}
            }
        }
        RuleSet::compile_after(before, default, entries.into_values())
    }

    /// Who is trusted: the pushed bundle where it is newer than the one in `trust`, and the revoked serials.
    pub fn trust(&self, trust: &Trust) -> Trust {
        let mut bundle = &trust.bundle;
        let mut revoked = HashSet::new();
        for held in self.authority.held.values() {
            match &held.meaning {
                Meaning::Revoked(serial) => {
                    revoked.insert(*serial);
                }
                Meaning::Bundle(pushed) if pushed.trust_domain == bundle.trust_domain && pushed.sequence >= bundle.sequence => {
                    bundle = pushed;
                }
                _ => {}
            }
        }
        Trust { bundle: bundle.clone(), datacenter: trust.datacenter.clone(), revoked }
    }

    /// The upstreams with their endpoints and settings. What did not change since `before` is taken from there.
    pub fn upstreams(&self, before: &HashMap<ServiceName, Upstream>) -> HashMap<ServiceName, Upstream> {
        let mut endpoints: HashMap<&ServiceName, Vec<Endpoint>> = HashMap::new();
        let mut told: HashMap<&ServiceName, (Protocol, &PairVerdict)> = HashMap::new();
        for held in self.reachability.held.values() {
            match &held.meaning {
                Meaning::Service(name, protocol, verdict) => {
                    told.insert(name, (*protocol, verdict));
                    endpoints.entry(name).or_default();
                }
                Meaning::Endpoint(service, endpoint) => endpoints.entry(service).or_default().push(endpoint.clone()),
                _ => {}
            }
        }
        let upstream = |(name, endpoints): (&ServiceName, Vec<Endpoint>)| {
            let before = before.get(name);
            let settings = self.settings_on(&self.reachability, name, before.map(|before| &before.settings));
            let (protocol, verdict) = told.get(name).map_or_else(
                || (Protocol::default(), PairVerdict::unknown()),
                |(protocol, verdict)| (*protocol, (*verdict).clone()),
            );
            let endpoints = match before {
                Some(before) if *before.endpoints == *endpoints => before.endpoints.clone(),
                _ => endpoints.into(),
            };
            let protocol = settings.protocol.unwrap_or(protocol);
            (name.clone(), Upstream { protocol, verdict, endpoints, settings })
        };
        endpoints.into_iter().map(upstream).collect()
    }

    /// The settings of this sidecar's own service; the defaults where none were given or understood.
    pub fn own_settings(&self, service: &ServiceName, before: Option<&Arc<ServiceSettings>>) -> Arc<ServiceSettings> {
        self.settings_on(&self.authority, service, before)
    }

    fn settings_on(
        &self,
        lane: &LaneState,
        service: &ServiceName,
        before: Option<&Arc<ServiceSettings>>,
    ) -> Arc<ServiceSettings> {
        if let Some(Meaning::Config(settings)) = lane.meaning(&ResourceKey::Config(service.clone())) {
            return settings.clone();
        }
        let defaults = ServiceSettings::of(service.clone());
        match before {
            Some(before) if **before == defaults => before.clone(),
            _ => Arc::new(defaults),
        }
    }

    /// The JWT providers with their keys, by name. `before` is given back where nothing changed.
    pub fn jwt(&self, before: Option<&Arc<[ResolvedProvider]>>) -> Arc<[ResolvedProvider]> {
        let provider = |held: &Held| match &held.meaning {
            Meaning::Jwt(provider) => Some(ResolvedProvider::clone(provider)),
            _ => None,
        };
        let providers: Vec<ResolvedProvider> = self.authority.held.values().filter_map(provider).collect();
        match before {
            Some(before) if **before == *providers => before.clone(),
            _ => providers.into(),
        }
    }

    /// The protocol that the mesh knows for a service, where it was told.
    pub fn protocol_of(&self, service: &ServiceName) -> Option<Protocol> {
        [&self.reachability, &self.authority].into_iter().flat_map(|lane| lane.held.values()).find_map(|held| {
            match &held.meaning {
                Meaning::Service(name, protocol, _) if name == service => Some(*protocol),
                _ => None,
            }
        })
    }

    /// The intentions held, for people.
    pub fn intentions(&self) -> Vec<(u64, Arc<Intention>)> {
        let intention = |held: &Held| match &held.meaning {
            Meaning::Intention(intention) => Some((held.wire.revision, intention.clone())),
            _ => None,
        };
        self.authority.held.values().filter_map(intention).collect()
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        match lane {
            Lane::Authority => &mut self.authority,
            Lane::Reachability => &mut self.reachability,
        }
    }
}

impl LaneState {
    fn gather(&mut self, to: Position, delta: v1::Delta) -> Result<(), DeltaRefused> {
        let fresh = Gathered { to, complete: delta.complete, upserts: Vec::new(), deletes: Vec::new(), bytes: 0 };
        let gathered = self.gathered.get_or_insert(fresh);
        gathered.bytes += delta.upserts.iter().map(|resource| resource.key.len() + resource.body.len()).sum::<usize>();
        if gathered.to != to || gathered.bytes > GATHERED_LIMIT {
            self.gathered = None;
            return Err(DeltaRefused::NotValid("its chunks do not make one message"));
        }
        gathered.complete |= delta.complete;
        gathered.upserts.extend(delta.upserts);
        gathered.deletes.extend(delta.deletes);
        Ok(())
    }

    fn take_over(&mut self) {
        let Some(gathered) = self.gathered.take() else { return };
        let mut before = if gathered.complete { std::mem::take(&mut self.held) } else { BTreeMap::new() };
        for key in gathered.deletes {
            self.held.remove(&key);
        }
        for resource in gathered.upserts {
            if let Some(held) = before.remove(&resource.key) {
                self.held.insert(resource.key.clone(), held);
            }
            self.hold(resource);
        }
        self.position = gathered.to;
    }

    /// What was told again keeps its meaning, and with it what others hold of it.
    fn hold(&mut self, wire: v1::Resource) {
        match self.held.get_mut(&wire.key) {
            Some(held) if held.wire.body == wire.body => held.wire = wire,
            _ => {
                let meaning = meaning_of(&wire);
                self.held.insert(wire.key.clone(), Held { wire, meaning });
            }
        }
    }

    fn meaning(&self, key: &ResourceKey) -> Option<&Meaning> {
        self.held.get(&key.to_string()).map(|held| &held.meaning)
    }
}

fn meaning_of(resource: &v1::Resource) -> Meaning {
    let key = match resource.key.parse::<ResourceKey>() {
        Ok(key) => key,
        Err(unknown) => return Meaning::NotUnderstood(pair_in(&resource.key), unknown.to_string().into()),
    };
    match decode(&key, &resource.body) {
        Ok(meaning) => meaning,
        Err(NotUnderstood(why)) => {
            let pair = if let ResourceKey::Intention(pair) = key { Some(pair) } else { None };
            Meaning::NotUnderstood(pair, why.into())
        }
    }
}

/// The pair that an unknown kind of intention is about: it must deny that pair, whatever it says.
fn pair_in(key: &str) -> Option<PairKey> {
    let mut parts = key.strip_prefix("intention/")?.split('/');
    let source = parts.next()?.parse().ok()?;
    let destination = parts.next()?.parse().ok()?;
    Some(PairKey { source, destination, temporary: false })
}

fn decode(key: &ResourceKey, body: &[u8]) -> Result<Meaning, NotUnderstood> {
    match key {
        ResourceKey::Intention(pair) => {
            let intention = convert::intention_from_bytes(body)?;
            if intention.key() != *pair {
                return Err(NotUnderstood(format!("the key is of {pair}, the body of {}", intention.key())));
            }
            Ok(Meaning::Intention(Arc::new(intention)))
        }
        ResourceKey::Default => Ok(Meaning::Default(convert::default_from_bytes(body)?)),
        // The serial is in the key: whatever else a later version says of it, it is revoked.
        ResourceKey::Revoked(serial) => Ok(Meaning::Revoked(*serial)),
        ResourceKey::Bundle => Ok(Meaning::Bundle(Arc::new(convert::bundle_from_wire(&decode_exact(body)?)?))),
        ResourceKey::Service(name) => service(name, &decode_exact(body)?),
        ResourceKey::Endpoint(service, instance) => endpoint(service, instance, decode_exact(body)?),
        ResourceKey::Config(service) => match settings_from_bytes(body)? {
            settings if settings.service == *service => Ok(Meaning::Config(Arc::new(settings))),
            settings => Err(NotUnderstood(format!("the key is of {service}, the body of {}", settings.service))),
        },
        ResourceKey::Jwt(name) => match provider_from_bytes(body)? {
            (provider, jwks) if provider.name == *name => Ok(Meaning::Jwt(Arc::new(ResolvedProvider { provider, jwks }))),
            (provider, _) => Err(NotUnderstood(format!("the key is of {name}, the body of {}", provider.name))),
        },
    }
}

fn service(name: &ServiceName, body: &v1::ServiceBody) -> Result<Meaning, NotUnderstood> {
    let protocol = match body.protocol.as_str() {
        "" => Protocol::default(),
        text => text.parse().map_err(|_| NotUnderstood(format!("protocol {text:?} is not known")))?,
    };
    let verdict = PairVerdict {
        allowed: body.allowed,
        would_deny: body.would_deny,
        because: body.because.clone(),
        until: (body.verdict_until_ms != 0).then(|| convert::time(body.verdict_until_ms)),
    };
    Ok(Meaning::Service(name.clone(), protocol, verdict))
}

fn endpoint(service: &ServiceName, instance: &InstanceId, body: v1::EndpointBody) -> Result<Meaning, NotUnderstood> {
    let ports = body.ports.iter().map(|port| port.parse()).collect::<Result<_, _>>();
    let endpoint = Endpoint {
        instance: instance.clone(),
        address: body.address,
        ports: ports.map_err(|error| NotUnderstood(format!("{error}")))?,
        transports: body.transports,
        locality: body.locality,
        meta: Arc::new(body.meta.into_iter().map(|label| (label.key, label.value)).collect()),
        weight: body.weight.unwrap_or(1),
    };
    Ok(Meaning::Endpoint(service.clone(), endpoint))
}
