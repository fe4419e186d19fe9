//! What a sidecar is to know, read off one view: the resources of a lane, serialised once and shared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use postern_api::convert::{self, millis};
use postern_api::key::ResourceKey;
use postern_api::settings::{provider_to_body, settings_to_body};
use postern_api::v1;
use postern_ca::TrustBundle;
use postern_checks::Status;
use postern_intentions::{Call, PairKey, Party, decide};
use postern_names::{InstanceId, PortName, ServiceName};
use prost::Message;

use super::lanes::{Content, Pending};
use crate::mirror::View;
use crate::records::InstanceRecord;
use crate::registry::EndpointSets;

/// Encoded bodies that many sidecars share, by key and the revision that last changed them.
#[derive(Debug, Default)]
pub struct Encoded {
    bodies: Mutex<HashMap<ResourceKey, (u64, Bytes)>>,
}

impl Encoded {
    fn body(&self, key: &ResourceKey, revision: u64, encode: impl FnOnce() -> Vec<u8>) -> Bytes {
        let mut bodies = self.bodies.lock();
        if let Some((at, body)) = bodies.get(key)
            && *at == revision
        {
            return body.clone();
        }
        let body = Bytes::from(encode());
        bodies.insert(key.clone(), (revision, body.clone()));
        body
    }

    /// Nothing is behind `key` any more.
    pub fn forget(&self, key: &ResourceKey) {
        self.bodies.lock().remove(key);
    }
}

/// All that a lane is made of.
pub struct Source<'a> {
    /// The records.
    pub view: &'a View,
    /// The endpoints of every service.
    pub sets: &'a EndpointSets,
    /// Shared bodies.
    pub encoded: &'a Encoded,
    /// The roots that sidecars trust.
    pub bundle: &'a TrustBundle,
    /// Now.
    pub now: SystemTime,
}

/// Whom a lane is for.
pub struct Receiver<'a> {
    /// Its service.
    pub service: &'a ServiceName,
    /// The services that it calls, and those that their settings lead to.
    pub watched: &'a BTreeSet<ServiceName>,
    /// Whether it knows settings and providers; one that does not gets none.
    pub settings: TakesSettings,
    /// Whether it knows that endpoints weigh something.
    pub weights: TakesWeights,
}

/// Whether a sidecar knows the weight of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesWeights {
    /// It does.
    Yes,
    /// It is older than they are: every endpoint weighs the same to it.
    No,
}

/// Whether a sidecar knows the resources `config/SERVICE` and `jwt/NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesSettings {
    /// It does.
    Yes,
    /// It is older than they are.
    No,
}

impl Source<'_> {
    /// The authority lane of a service.
    pub fn authority(&self, receiver: &Receiver<'_>, pending: &Pending) -> Content {
        match pending {
            Pending::Everything => {
                self.collect(&self.authority_keys(receiver), true, |key| self.authority_resource(receiver, key))
            }
            Pending::Keys(keys) => self.collect(keys, false, |key| self.authority_resource(receiver, key)),
        }
    }

    /// The reachability lane of a caller. `verdicts` takes in until when each upstream's verdict holds.
    pub fn reachability(
        &self,
        receiver: &Receiver<'_>,
        pending: &Pending,
        verdicts: &mut BTreeMap<ServiceName, SystemTime>,
    ) -> Content {
        let all;
        let (keys, complete) = match pending {
            Pending::Everything => {
                verdicts.clear();
                all = self.reachability_keys(receiver);
                (&all, true)
            }
            Pending::Keys(keys) => (keys, false),
        };
        let watches = |upstream: &ServiceName| receiver.watched.contains(upstream);
        self.collect(keys, complete, |key| match key {
            ResourceKey::Service(upstream) if watches(upstream) => Some(self.upstream(receiver.service, upstream, verdicts)),
            ResourceKey::Service(upstream) => {
                verdicts.remove(upstream);
                None
            }
            ResourceKey::Endpoint(upstream, instance) if watches(upstream) => self.endpoint(receiver, upstream, instance),
            ResourceKey::Config(upstream) if watches(upstream) => self.config(receiver, key, upstream),
            _ => None,
        })
    }

    fn collect(
        &self,
        keys: &BTreeSet<ResourceKey>,
        complete: bool,
        mut resource: impl FnMut(&ResourceKey) -> Option<v1::Resource>,
    ) -> Content {
        let mut content = Content { complete, ..Content::default() };
        for key in keys {
            match resource(key) {
                Some(resource) => content.upserts.push(resource),
                None if complete => {}
                None => content.deletes.push(key.to_string()),
            }
        }
        content
    }

    fn authority_keys(&self, receiver: &Receiver<'_>) -> BTreeSet<ResourceKey> {
        let service = receiver.service;
        let own = Party::Service(service.clone());
        let pairs = self.view.pairs_to(&own).chain(self.view.pairs_to(&Party::Any));
        let intentions = pairs.cloned().map(ResourceKey::Intention);
        let revoked = self.view.revoked.keys().cloned().map(ResourceKey::Revoked);
        let providers = self.view.settings.named_by(service).cloned().map(ResourceKey::Jwt);
        let of_service = [ResourceKey::Service(service.clone()), ResourceKey::Config(service.clone())];
        let single = [ResourceKey::Default, ResourceKey::Bundle].into_iter().chain(of_service);
        intentions.chain(revoked).chain(providers).chain(single).collect()
    }

    fn reachability_keys(&self, receiver: &Receiver<'_>) -> BTreeSet<ResourceKey> {
        let services = receiver.watched.iter().cloned().map(ResourceKey::Service);
        let settings = receiver.watched.iter().cloned().map(ResourceKey::Config);
        let endpoints = receiver.watched.iter().flat_map(|upstream| {
            let set = self.sets.of(upstream);
            set.into_iter().map(|instance| ResourceKey::Endpoint(upstream.clone(), instance))
        });
        services.chain(settings).chain(endpoints).collect()
    }

    fn authority_resource(&self, receiver: &Receiver<'_>, key: &ResourceKey) -> Option<v1::Resource> {
        match key {
            ResourceKey::Intention(pair) => self.intention(key, pair),
            ResourceKey::Default => {
                let (policy, revision) = self.view.default;
                Some(resource(key, revision, convert::default_to_body(policy).encode_to_vec().into()))
            }
            ResourceKey::Revoked(serial) => {
                let (record, revision) = self.view.revoked.get(serial).filter(|(record, _)| record.not_after > self.now)?;
                let body = self.encoded.body(key, *revision, || {
                    v1::RevokedBody { lineage: record.lineage.clone(), not_after_ms: millis(record.not_after) }.encode_to_vec()
                });
                Some(resource(key, *revision, body))
            }
            ResourceKey::Bundle => {
                let sequence = self.bundle.sequence;
                let body = self.encoded.body(key, sequence, || convert::bundle_to_wire(self.bundle).encode_to_vec());
                Some(resource(key, sequence, body))
            }
            ResourceKey::Service(name) if name == receiver.service => {
                let protocol = self.view.protocol(name).to_string();
                let body = v1::ServiceBody { protocol, ..v1::ServiceBody::default() };
                Some(resource(key, self.view.service_revision(name), body.encode_to_vec().into()))
            }
            ResourceKey::Config(name) if name == receiver.service => self.config(receiver, key, name),
            ResourceKey::Jwt(name) => self.provider(receiver, key, name),
            ResourceKey::Service(_) | ResourceKey::Endpoint(..) | ResourceKey::Config(_) => None,
        }
    }

    fn config(&self, receiver: &Receiver<'_>, key: &ResourceKey, service: &ServiceName) -> Option<v1::Resource> {
        if receiver.settings == TakesSettings::No {
            return None;
        }
        let settings = &self.view.settings;
        if let Some((_, revision)) = settings.unreadable.get(service) {
            // An empty body is understood by nobody: the receiver takes the defaults, and says so.
            return Some(resource(key, *revision, Bytes::new()));
        }
        let (record, revision) = settings.services.get(service)?;
        let body = self.encoded.body(key, *revision, || encoded_or_empty(settings_to_body(&record.settings)));
        Some(resource(key, *revision, body))
    }

    fn provider(&self, receiver: &Receiver<'_>, key: &ResourceKey, name: &PortName) -> Option<v1::Resource> {
        let settings = &self.view.settings;
        if receiver.settings == TakesSettings::No || !settings.is_named_for(receiver.service, name) {
            return None;
        }
        let (record, _) = settings.providers.get(name)?;
        let keys = settings.keys_of(name).unwrap_or_default();
        let revision = settings.provider_revision(name);
        let body = self.encoded.body(key, revision, || encoded_or_empty(provider_to_body(&record.provider, keys)));
        Some(resource(key, revision, body))
    }

    fn intention(&self, key: &ResourceKey, pair: &PairKey) -> Option<v1::Resource> {
        if let Some((_, revision)) = self.view.not_understood.get(pair) {
            // An empty body is understood by nobody: the pair denies at its destination too.
            return Some(resource(key, *revision, Bytes::new()));
        }
        let (record, revision) = self.view.intentions.get(pair)?;
        let body = self.encoded.body(key, *revision, || convert::intention_to_body(&record.intention).encode_to_vec());
        Some(resource(key, *revision, body))
    }

    /// The settings of an upstream with the verdict of this pair, for the caller's log and metric only.
    fn upstream(
        &self,
        service: &ServiceName,
        upstream: &ServiceName,
        verdicts: &mut BTreeMap<ServiceName, SystemTime>,
    ) -> v1::Resource {
        let protocol = self.view.protocol(upstream);
        let rules = self.view.rules_of_pair(service, upstream);
        let call = Call { source: service, destination: upstream, port: &PortName::main(), protocol, request: None };
        let decision = decide(&rules, &call, self.now);
        let until = rules.next_expiry(self.now);
        match until {
            Some(until) => verdicts.insert(upstream.clone(), until),
            None => verdicts.remove(upstream),
        };
        let body = v1::ServiceBody {
            protocol: protocol.to_string(),
            allowed: decision.allowed(),
            would_deny: decision.would_deny,
            because: decision.because.to_string(),
            verdict_until_ms: until.map_or(0, millis),
        };
        let revision = self.view.revision_of_pair(service, upstream).max(self.view.service_revision(upstream));
        resource(&ResourceKey::Service(upstream.clone()), revision, body.encode_to_vec().into())
    }

    fn endpoint(&self, receiver: &Receiver<'_>, upstream: &ServiceName, instance: &InstanceId) -> Option<v1::Resource> {
        if !self.sets.contains(upstream, instance) {
            return None;
        }
        let (record, revision) = self.view.instances.get(instance).filter(|(record, _)| record.service == *upstream)?;
        let key = ResourceKey::Endpoint(upstream.clone(), instance.clone());
        // A check that was registered for it changes what it weighs, and is a record of its own.
        let revision = self.view.catalog.revision_of(upstream).max(*revision);
        let body = match receiver.weights {
            TakesWeights::Yes => {
                let weight = weight(self.view, record);
                self.encoded.body(&key, revision, || endpoint_body(record, Some(weight)).encode_to_vec())
            }
            TakesWeights::No => endpoint_body(record, None).encode_to_vec().into(),
        };
        Some(resource(&key, revision, body))
    }
}

fn resource(key: &ResourceKey, revision: u64, body: Bytes) -> v1::Resource {
    v1::Resource { key: key.to_string(), revision, body }
}

/// What cannot be written is understood by nobody; what was validated can.
fn encoded_or_empty<M: Message>(body: Result<M, serde_json::Error>) -> Vec<u8> {
    body.map(|body| body.encode_to_vec()).unwrap_or_else(|error| {
        tracing::error!(%error, "settings cannot be sent");
        Vec::new()
    })
}

/// What an instance gets as it is now.
fn weight(view: &View, record: &InstanceRecord) -> u32 {
    let told = record.checks.iter().map(|check| check.status).max();
    let registered = view.catalog.status(record.node_name(), record.id.as_str());
    match told.max(Some(registered)) {
        Some(Status::Warning) => record.weights.warning,
        _ => record.weights.passing,
    }
}

/// A weight of 1 is not written: it is what one that says nothing has.
fn endpoint_body(record: &InstanceRecord, weight: Option<u32>) -> v1::EndpointBody {
    v1::EndpointBody {
        address: record.address.clone().unwrap_or_default(),
        ports: record.ports.iter().map(ToString::to_string).collect(),
        transports: record.transports.clone(),
        meta: record.meta.iter().map(|(key, value)| v1::Label { key: key.clone(), value: value.clone() }).collect(),
        locality: record.locality.clone(),
        weight: weight.filter(|weight| *weight != 1),
    }
}
