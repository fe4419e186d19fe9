//! All open streams, and who cares about a change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use postern_api::http::{InForce, NotConnected};
use postern_api::key::ResourceKey;
use postern_api::v1::Lane;
use postern_ca::Serial;
use postern_edges::Filter;
use postern_intentions::{PairKey, Party};
use postern_names::{InstanceId, PortName, ServiceName};
use tokio::time::Instant;

use super::render::Encoded;
use super::sidecar::{Awaited, End, Identity, Sidecar, SidecarStatus, Told, Waited};
use super::stats::PushStats;
use crate::mirror::{Change, Mirror, Observer, View};
use crate::records::{InstanceRecord, RecordKey};
use crate::registry::EndpointSets;

/// Revisions whose arrival is remembered, so that `--wait` can tell how long they took.
const ARRIVALS: usize = 256;

type ByNumber = BTreeMap<u64, Arc<Sidecar>>;

#[derive(Debug, Default)]
struct Index {
    by_instance: HashMap<InstanceId, Arc<Sidecar>>,
    by_service: HashMap<ServiceName, ByNumber>,
    by_upstream: HashMap<ServiceName, ByNumber>,
    all: ByNumber,
}

/// Another stream of this instance id is open under another enrolment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance id {instance} is in use by another sidecar at {address}, under another key; give --id, or stop that one")]
pub struct IdInUse {
    /// The id.
    pub instance: InstanceId,
    /// Where the other one is.
    pub address: std::net::SocketAddr,
}

/// All open streams.
pub struct Sidecars {
    mirror: Arc<Mirror>,
    index: RwLock<Index>,
    next_number: AtomicU64,
    arrivals: Mutex<BTreeMap<u64, Instant>>,
    pub(super) sets: Arc<EndpointSets>,
    pub(super) encoded: Encoded,
    pub(super) stats: Arc<PushStats>,
}

/// Marks changes on the streams that they concern.
struct Marker(std::sync::Weak<Sidecars>);

impl Sidecars {
    /// No stream yet; from here on changes of the mirror are marked.
    pub fn new(mirror: Arc<Mirror>, sets: Arc<EndpointSets>, stats: Arc<PushStats>) -> Arc<Self> {
        let sidecars = Arc::new(Self {
            mirror: Arc::clone(&mirror),
            index: RwLock::default(),
            next_number: AtomicU64::new(1),
            arrivals: Mutex::default(),
            sets,
            encoded: Encoded::default(),
            stats,
        });
        mirror.observe(Arc::new(Marker(Arc::downgrade(&sidecars))));
        mirror.read(|view| sidecars.sets.refresh_all(view));
        sidecars
    }

    /// Every open stream.
    pub fn list(&self) -> Vec<SidecarStatus> {
        let index = self.index.read();
        let mut list: Vec<_> = index.all.values().filter(|sidecar| is_open(sidecar)).map(|sidecar| sidecar.status()).collect();
        list.sort_by(|a, b| a.instance.cmp(&b.instance));
        list
    }

    /// The stream of one instance.
    pub fn get(&self, instance: &InstanceId) -> Option<SidecarStatus> {
        let index = self.index.read();
        index.by_instance.get(instance).filter(|sidecar| is_open(sidecar)).map(|sidecar| sidecar.status())
    }

    /// How many streams are open.
    pub fn len(&self) -> usize {
        self.index.read().all.values().filter(|sidecar| is_open(sidecar)).count()
    }

    /// Whether no stream is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the stream of an instance; whether it had one.
    pub fn close_instance(&self, instance: &InstanceId) -> bool {
        let sidecar = self.index.read().by_instance.get(instance).cloned();
        if let Some(sidecar) = &sidecar {
            sidecar.close(End::refused("this instance was deregistered"));
        }
        sidecar.is_some()
    }

    /// Has every stream look for what it did not send yet.
    pub(super) fn wake_all(&self) {
        for sidecar in self.index.read().all.values() {
            sidecar.wake.notify_one();
        }
    }

    /// Has the sidecars that decide such calls tell all their decisions, for ten seconds from now on.
    pub fn follow(&self, filter: &Filter) {
        let now = Instant::now();
        let index = self.index.read();
        match &filter.destination {
            // It decides; its callers tell what did not reach it.
            Some(destination) => {
                index.of_service(destination).chain(index.callers_of(destination)).for_each(|sidecar| sidecar.follow(now));
            }
            // Whoever is called by a service need not be one of those that its sidecars name.
            None => index.all.values().for_each(|sidecar| sidecar.follow(now)),
        }
    }

    /// Ends every stream, for a shutdown.
    pub fn close_all(&self, because: &str) {
        for sidecar in self.index.read().all.values() {
            sidecar.close(End::Interrupted(because.to_owned()));
        }
    }

    /// Waits until `revision` is in force on every connected sidecar concerned: those whose service is one of
    /// `destinations`, or all where `*` is among them. Sidecars that the change does not concern are not woken.
    pub async fn wait_in_force(&self, revision: u64, destinations: &[Party], timeout: Duration) -> InForce {
        let is_meant = |sidecar: &Sidecar| destinations.iter().any(|party| party.includes(&sidecar.identity.service));
        let mut answer = self.wait_for(revision, is_meant, Awaited::Authority, timeout).await;
        answer.not_connected = self.not_connected(destinations);
        answer
    }

    /// Waits until a change of settings is in force: on the sidecars of these services, and on those of their callers.
    /// Which of those that are not connected call them is not known: only instances of the services are named.
    pub async fn wait_settings(&self, revision: u64, services: &BTreeSet<ServiceName>, timeout: Duration) -> InForce {
        let is_meant = |sidecar: &Sidecar| {
            services.contains(&sidecar.identity.service)
                || services.iter().any(|service| sidecar.watched.lock().contains(service))
        };
        let mut answer = self.wait_for(revision, is_meant, Awaited::Both, timeout).await;
        let own: Vec<Party> = services.iter().cloned().map(Party::Service).collect();
        answer.not_connected = self.not_connected(&own);
        answer
    }

    async fn wait_for(&self, revision: u64, is_meant: impl Fn(&Sidecar) -> bool, awaited: Awaited, timeout: Duration) -> InForce {
        let called_at = Instant::now();
        let deadline = called_at + timeout;
        if tokio::time::timeout_at(deadline, self.mirror.reached(revision)).await.is_err() {
            return InForce::default();
        }
        let began_at = self.arrivals.lock().get(&revision).copied().unwrap_or(called_at);
        let concerned = self.concerned(is_meant);
        let mut answer = InForce::default();
        let mut last = began_at;
        for sidecar in &concerned {
            match tokio::time::timeout_at(deadline, sidecar.in_force(revision, awaited)).await {
                Ok(Waited::InForce(at)) => {
                    answer.concerned += 1;
                    answer.acknowledged += 1;
                    // Only what it had to be told closed anything.
                    let cut = at.map(|_| sidecar.cut_by(revision)).unwrap_or_default();
                    answer.closed += cut.connections;
                    answer.ended_requests += cut.requests;
                    last = last.max(at.unwrap_or(began_at));
                }
                Ok(Waited::Gone) => {}
                Err(_) => {
                    answer.concerned += 1;
                    answer.waiting_for.push(sidecar.identity.instance.clone());
                }
            }
        }
        answer.took_ms = last.duration_since(began_at).as_secs_f64() * 1000.0;
        answer
    }

    fn concerned(&self, is_meant: impl Fn(&Sidecar) -> bool) -> Vec<Arc<Sidecar>> {
        let index = self.index.read();
        index.all.values().filter(|sidecar| is_open(sidecar) && is_meant(sidecar)).cloned().collect()
    }

    /// Instances that may go by older rules: those that are registered and have no stream, and those that fell silent and are
    /// in no list any more, until their SVID has ended.
    pub fn not_connected(&self, destinations: &[Party]) -> Vec<NotConnected> {
        self.mirror.read(|view| {
            let index = self.index.read();
            let is_concerned = |record: &InstanceRecord| {
                destinations.iter().any(|party| match party {
                    Party::Any => true,
                    Party::Service(service) => *service == record.service,
                })
            };
            let records = view.instances.values().map(|(record, _)| record);
            records
                .filter(|record| (!record.left || record.silent) && is_concerned(record))
                .filter(|record| !index.by_instance.get(&record.id).is_some_and(|sidecar| is_open(sidecar)))
                .map(|record| NotConnected { instance: record.id.clone(), since: rfc3339(record.state_since) })
                .collect()
        })
    }

    /// Takes the instance id for a new stream. An older stream of the same enrolment gives way.
    pub(super) fn claim(&self, identity: Identity, told: Told) -> Result<Arc<Sidecar>, IdInUse> {
        // What it watches is read off the view and indexed before the view can change.
        self.mirror.read(|view| {
            let mut index = self.index.write();
            if let Some(other) = index.by_instance.get(&identity.instance).cloned() {
                if other.identity.lineage != identity.lineage {
                    return Err(IdInUse { instance: identity.instance, address: other.identity.address });
                }
                other.close(End::refused("a newer stream of this instance replaced it"));
                index.remove(&other);
            }
            let number = self.next_number.fetch_add(1, Ordering::Relaxed);
            let sidecar = Arc::new(Sidecar::new(number, identity, told));
            sidecar.watch(view);
            index.insert(&sidecar);
            Ok(sidecar)
        })
    }

    /// The stream ended; whoever waits for it hears that.
    pub(super) fn release(&self, sidecar: &Arc<Sidecar>) {
        self.index.write().remove(sidecar);
        sidecar.is_gone();
    }

    fn mark_change(&self, view: &View, change: &Change) {
        let now = Instant::now();
        self.remember_arrival(change.revision, now);
        if change.everything || change.keys.iter().any(|key| matches!(key, RecordKey::Settings(_))) {
            self.follow_settings(view, change, now);
        }
        let index = self.index.read();
        if change.everything {
            self.sets.refresh_all(view);
            for sidecar in index.all.values() {
                sidecar.mark_everything(now);
                if view.is_revoked(&sidecar.identity.serial) {
                    sidecar.close(End::refused("its SVID was revoked"));
                }
            }
            return;
        }
        for key in &change.keys {
            self.mark_key(&index, view, key, now);
        }
        for (destination, provider) in &change.providers {
            let key = ResourceKey::Jwt(provider.clone());
            for sidecar in index.of_party(destination) {
                sidecar.mark(Lane::Authority, &key, now);
            }
        }
        for service in &change.services {
            self.mark_endpoints(&index, view, change, service, now);
        }
    }

    /// Settings lead callers to other services than before: they begin to watch those, and forget what nothing leads to.
    fn follow_settings(&self, view: &View, change: &Change, now: Instant) {
        let mut index = self.index.write();
        let concerned: ByNumber = if change.everything {
            index.all.clone()
        } else {
            let changed =
                change.keys.iter().filter_map(|key| if let RecordKey::Settings(name) = key { Some(name) } else { None });
            changed.flat_map(|name| index.callers_of(name)).map(|sidecar| (sidecar.number, Arc::clone(sidecar))).collect()
        };
        for sidecar in concerned.values() {
            let before = sidecar.watched.lock().clone();
            let after = sidecar.watch(view);
            for service in before.symmetric_difference(&after) {
                index.set_watching(service, sidecar, after.contains(service));
                let endpoints = self.sets.of(service).into_iter();
                let endpoints = endpoints.map(|instance| ResourceKey::Endpoint(service.clone(), instance));
                for key in endpoints.chain([ResourceKey::Service(service.clone()), ResourceKey::Config(service.clone())]) {
                    sidecar.mark(Lane::Reachability, &key, now);
                }
            }
        }
    }

    fn mark_settings(&self, index: &Index, view: &View, name: &ServiceName, now: Instant) {
        let key = ResourceKey::Config(name.clone());
        if !view.settings.services.contains_key(name) {
            self.encoded.forget(&key);
        }
        // The protocol may have changed, and with it the verdict.
        for key in [key, ResourceKey::Service(name.clone())] {
            for sidecar in index.of_service(name) {
                sidecar.mark(Lane::Authority, &key, now);
            }
            for sidecar in index.callers_of(name) {
                sidecar.mark(Lane::Reachability, &key, now);
            }
        }
    }

    fn mark_provider(&self, index: &Index, view: &View, name: &PortName, now: Instant) {
        let key = ResourceKey::Jwt(name.clone());
        if !view.settings.providers.contains_key(name) {
            self.encoded.forget(&key);
        }
        let concerned = index.by_service.iter().filter(|(service, _)| view.settings.is_named_for(service, name));
        for sidecar in concerned.flat_map(|(_, sidecars)| sidecars.values()) {
            sidecar.mark(Lane::Authority, &key, now);
        }
    }

    fn mark_key(&self, index: &Index, view: &View, key: &RecordKey, now: Instant) {
        match key {
            RecordKey::Intention(pair) => {
                if !view.intentions.contains_key(pair) {
                    self.encoded.forget(&ResourceKey::Intention(pair.clone()));
                }
                mark_intention(index, pair, now);
            }
            RecordKey::Default => {
                for sidecar in index.all.values() {
                    sidecar.mark(Lane::Authority, &ResourceKey::Default, now);
                    mark_verdicts(sidecar, now);
                }
            }
            RecordKey::Revoked(serial) => self.mark_revoked(index, view, serial, now),
            RecordKey::Lineage(id) => {
                if view.lineages.get(id).is_some_and(|lineage| lineage.revoked) {
                    close_where(index, |identity| identity.lineage == *id);
                }
            }
            RecordKey::Service(name) => {
                let key = ResourceKey::Service(name.clone());
                for sidecar in index.of_service(name) {
                    sidecar.mark(Lane::Authority, &key, now);
                }
                for sidecar in index.callers_of(name) {
                    sidecar.mark(Lane::Reachability, &key, now);
                }
            }
            RecordKey::Settings(name) => self.mark_settings(index, view, name, now),
            RecordKey::Provider(name) | RecordKey::Jwks(name) => self.mark_provider(index, view, name, now),
            RecordKey::Cluster => {
                for sidecar in index.all.values() {
                    sidecar.mark_everything(now);
                }
            }
            // Endpoints are marked by service, from the sets.
            RecordKey::AccessToken(_) | RecordKey::AccessPolicy(_) | RecordKey::AccessRole(_) => {}
            RecordKey::Instance(_)
            | RecordKey::Token(_)
            | RecordKey::Issuance(_)
            | RecordKey::Kv(_)
            | RecordKey::Session(_)
            | RecordKey::Node(_)
            | RecordKey::Registered(..)
            | RecordKey::Check(..)
            | RecordKey::Query(_) => {}
        }
    }

    fn mark_revoked(&self, index: &Index, view: &View, serial: &Serial, now: Instant) {
        let key = ResourceKey::Revoked(*serial);
        let is_revoked = view.revoked.contains_key(serial);
        if !is_revoked {
            self.encoded.forget(&key);
        }
        for sidecar in index.all.values() {
            sidecar.mark(Lane::Authority, &key, now);
        }
        if is_revoked {
            close_where(index, |identity| identity.serial == *serial);
        }
    }

    fn mark_endpoints(&self, index: &Index, view: &View, change: &Change, service: &ServiceName, now: Instant) {
        let mut instances: BTreeSet<InstanceId> = self.sets.refresh(view, service).into_iter().collect();
        instances.extend(change.keys.iter().filter_map(|key| match key {
            RecordKey::Instance(id) if self.sets.contains(service, id) => Some(id.clone()),
            _ => None,
        }));
        // A check may have changed what the instances of its node weigh.
        let nodes = change.keys.iter().filter_map(|key| if let RecordKey::Check(node, _) = key { Some(node) } else { None });
        let on_nodes = nodes.filter_map(|node| view.catalog.node(node)).flat_map(|node| &node.instances);
        instances.extend(on_nodes.filter(|id| self.sets.contains(service, id)).cloned());
        for instance in instances {
            let key = ResourceKey::Endpoint(service.clone(), instance.clone());
            if !self.sets.contains(service, &instance) {
                self.encoded.forget(&key);
            }
            for sidecar in index.callers_of(service) {
                sidecar.mark(Lane::Reachability, &key, now);
            }
        }
    }

    fn remember_arrival(&self, revision: u64, now: Instant) {
        let mut arrivals = self.arrivals.lock();
        arrivals.insert(revision, now);
        while arrivals.len() > ARRIVALS {
            arrivals.pop_first();
        }
    }
}

impl Observer for Marker {
    fn changed(&self, view: &View, change: &Change) {
        if let Some(sidecars) = self.0.upgrade() {
            sidecars.mark_change(view, change);
        }
    }
}

impl Index {
    fn insert(&mut self, sidecar: &Arc<Sidecar>) {
        let number = sidecar.number;
        self.by_instance.insert(sidecar.identity.instance.clone(), Arc::clone(sidecar));
        self.by_service.entry(sidecar.identity.service.clone()).or_default().insert(number, Arc::clone(sidecar));
        for upstream in sidecar.watched.lock().iter() {
            self.by_upstream.entry(upstream.clone()).or_default().insert(number, Arc::clone(sidecar));
        }
        self.all.insert(number, Arc::clone(sidecar));
    }

    fn remove(&mut self, sidecar: &Sidecar) {
        let number = sidecar.number;
        if self.by_instance.get(&sidecar.identity.instance).is_some_and(|current| current.number == number) {
            self.by_instance.remove(&sidecar.identity.instance);
        }
        remove_from(&mut self.by_service, &sidecar.identity.service, number);
        for upstream in sidecar.watched.lock().iter() {
            remove_from(&mut self.by_upstream, upstream, number);
        }
        self.all.remove(&number);
    }

    fn set_watching(&mut self, upstream: &ServiceName, sidecar: &Arc<Sidecar>, watches: bool) {
        if watches {
            self.by_upstream.entry(upstream.clone()).or_default().insert(sidecar.number, Arc::clone(sidecar));
        } else {
            remove_from(&mut self.by_upstream, upstream, sidecar.number);
        }
    }

    fn of_party<'i>(&'i self, party: &Party) -> impl Iterator<Item = &'i Arc<Sidecar>> {
        let sidecars = match party {
            Party::Any => Some(&self.all),
            Party::Service(service) => self.by_service.get(service),
        };
        sidecars.into_iter().flat_map(BTreeMap::values)
    }

    fn of_service(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Sidecar>> {
        self.by_service.get(service).into_iter().flat_map(BTreeMap::values)
    }

    fn callers_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Sidecar>> {
        self.by_upstream.get(service).into_iter().flat_map(BTreeMap::values)
    }
}

fn remove_from(index: &mut HashMap<ServiceName, ByNumber>, service: &ServiceName, number: u64) {
    if let Some(sidecars) = index.get_mut(service) {
        sidecars.remove(&number);
        if sidecars.is_empty() {
            index.remove(service);
        }
    }
}

fn is_open(sidecar: &Sidecar) -> bool {
    sidecar.is_open.load(Ordering::Acquire)
}

/// An intention concerns its destination, which enforces it, then its callers, who log its verdict.
fn mark_intention(index: &Index, pair: &PairKey, now: Instant) {
    let key = ResourceKey::Intention(pair.clone());
    let is_source = |sidecar: &Sidecar| match &pair.source {
        Party::Any => true,
        Party::Service(source) => *source == sidecar.identity.service,
    };
    match &pair.destination {
        Party::Service(destination) => {
            for sidecar in index.of_service(destination) {
                sidecar.mark(Lane::Authority, &key, now);
            }
            let verdict = ResourceKey::Service(destination.clone());
            for sidecar in index.callers_of(destination).filter(|sidecar| is_source(sidecar)) {
                sidecar.mark(Lane::Reachability, &verdict, now);
            }
        }
        Party::Any => {
            for sidecar in index.all.values() {
                sidecar.mark(Lane::Authority, &key, now);
                if is_source(sidecar) {
                    mark_verdicts(sidecar, now);
                }
            }
        }
    }
}

fn mark_verdicts(sidecar: &Sidecar, now: Instant) {
    for upstream in sidecar.watched.lock().iter() {
        sidecar.mark(Lane::Reachability, &ResourceKey::Service(upstream.clone()), now);
    }
}

fn close_where(index: &Index, is_meant: impl Fn(&Identity) -> bool) {
    for sidecar in index.all.values().filter(|sidecar| is_meant(&sidecar.identity)) {
        sidecar.close(End::refused("its SVID was revoked"));
    }
}

fn rfc3339(time: std::time::SystemTime) -> String {
    let time = time::OffsetDateTime::from(time);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
