//! All mirrored records at one revision.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use postern_ca::Serial;
use postern_intentions::{DefaultPolicy, Entry, EntryContent, Intention, PairKey, Party, Protocol, RuleSet};
use postern_names::{InstanceId, PortName, ServiceName};
use serde::de::DeserializeOwned;

use super::access::AccessView;
use super::catalog::CatalogView;
use super::change_sets::ChangeSets;
use super::settings::SettingsView;
use super::{Change, MirrorError};
use crate::kv::{KV_PREFIX, KvView};
use crate::queries::QueriesView;
use crate::records::change_set::{ChangeSetKey, POINTER};
use crate::records::{
    self, ClusterRecord, DefaultRecord, InstanceRecord, IntentionRecord, IssuanceRecord, LineageRecord, RecordKey, RevokedRecord,
    ServiceRecord, TokenRecord,
};
use crate::sessions::SessionsView;
use crate::store::{Batch, Event, Kv};

/// All mirrored records at one revision. Where a record comes with a number, that is the revision that last changed it.
#[derive(Debug)]
pub struct View {
    /// The revision that this view is of.
    pub revision: u64,
    /// Which mesh.
    pub cluster: ClusterRecord,
    /// The verdict where no intention matches: deny until one was stored.
    pub default: (DefaultPolicy, u64),
    /// The revision of the last change of an intention or of the default.
    pub policy_revision: u64,
    /// Intentions, permanent and temporary.
    pub intentions: BTreeMap<PairKey, (IntentionRecord, u64)>,
    /// Intentions that this version cannot read, and why: they deny their pair.
    pub not_understood: BTreeMap<PairKey, (String, u64)>,
    /// Enrolment tokens by the hash of their secret.
    pub tokens: BTreeMap<String, TokenRecord>,
    /// SVIDs that were issued.
    pub issuances: BTreeMap<Serial, IssuanceRecord>,
    /// Enrolments by id.
    pub lineages: BTreeMap<String, LineageRecord>,
    /// Serials that no longer count.
    pub revoked: BTreeMap<Serial, (RevokedRecord, u64)>,
    /// Instances by id.
    pub instances: BTreeMap<InstanceId, (InstanceRecord, u64)>,
    /// What instances declared of services.
    pub services: BTreeMap<ServiceName, ServiceRecord>,
    /// What operators set for services and providers of tokens.
    pub settings: SettingsView,
    /// Tokens, policies and roles of access control.
    pub access: AccessView,
    /// Changes that are larger than a transaction.
    pub change_sets: ChangeSets,
    /// The key-value store.
    pub kv: KvView,
    /// Sessions, which hold its locks.
    pub sessions: SessionsView,
    /// Prepared queries.
    pub queries: QueriesView,
    /// Nodes, instances without a sidecar, and checks.
    pub catalog: CatalogView,
    by_destination: HashMap<Party, BTreeSet<PairKey>>,
    /// The revision of the last change of an intention of a destination, deletions included where they were seen.
    destination_revisions: HashMap<Party, u64>,
    by_service: HashMap<ServiceName, BTreeSet<InstanceId>>,
    service_revisions: HashMap<ServiceName, u64>,
    rules: Mutex<Option<Arc<RuleSet>>>,
}

impl View {
    /// A view of a store that holds nothing but its cluster record.
    pub fn empty(cluster: ClusterRecord) -> Self {
        Self {
            revision: 0,
            cluster,
            default: (DefaultPolicy::Deny, 0),
            policy_revision: 0,
            intentions: BTreeMap::new(),
            not_understood: BTreeMap::new(),
            tokens: BTreeMap::new(),
            issuances: BTreeMap::new(),
            lineages: BTreeMap::new(),
            revoked: BTreeMap::new(),
            instances: BTreeMap::new(),
            services: BTreeMap::new(),
            settings: SettingsView::default(),
            access: AccessView::default(),
            change_sets: ChangeSets::default(),
            kv: KvView::default(),
            sessions: SessionsView::default(),
            queries: QueriesView::default(),
            catalog: CatalogView::default(),
            by_destination: HashMap::new(),
            destination_revisions: HashMap::new(),
            by_service: HashMap::new(),
            service_revisions: HashMap::new(),
            rules: Mutex::new(None),
        }
    }

    /// The compiled rule set, made at the first call after a change of intentions or default.
    pub fn rules(&self) -> Arc<RuleSet> {
        let mut rules = self.rules.lock();
        Arc::clone(rules.get_or_insert_with(|| Arc::new(RuleSet::compile(self.default.0, self.entries()))))
    }

    /// The rule set as it would be: without `removed`, with these in their places, and this default.
    pub fn rules_with(
        &self,
        default: DefaultPolicy,
        removed: &BTreeSet<PairKey>,
        set: &BTreeMap<PairKey, &Intention>,
    ) -> RuleSet {
        let stays = |key: &PairKey| !removed.contains(key) && !set.contains_key(key);
        let understood = self.intentions.iter().filter(|(key, _)| stays(key)).map(|(_, (record, revision))| Entry {
            revision: *revision,
            content: EntryContent::Understood(Arc::new(record.intention.clone())),
        });
        let others = self.not_understood.iter().filter(|(key, _)| stays(key));
        let others = others.map(|(key, (why, revision))| not_understood_entry(key, why, *revision));
        let new = set.values().map(|intention| Entry {
            revision: self.revision + 1,
            content: EntryContent::Understood(Arc::new(Intention::clone(intention))),
        });
        RuleSet::compile(default, understood.chain(others).chain(new))
    }

    /// A rule set of only what can match `source → destination`: it decides that pair exactly as [`View::rules`] does,
    /// and costs nothing when the mesh has a hundred thousand intentions.
    pub fn rules_of_pair(&self, source: &ServiceName, destination: &ServiceName) -> RuleSet {
        let entries = pairs_that_match(source, destination).filter_map(|pair| self.entry(&pair));
        RuleSet::compile(self.default.0, entries)
    }

    /// The newest revision among what can match `source → destination`.
    pub fn revision_of_pair(&self, source: &ServiceName, destination: &ServiceName) -> u64 {
        let newest = pairs_that_match(source, destination).filter_map(|pair| self.entry(&pair)).map(|entry| entry.revision).max();
        newest.unwrap_or(0).max(self.default.1)
    }

    /// The pairs with an intention, understood or not, whose destination is exactly this party.
    pub fn pairs_to(&self, destination: &Party) -> impl Iterator<Item = &PairKey> {
        self.by_destination.get(destination).into_iter().flatten()
    }

    /// The revision of the last change of an intention of this destination; 0 where there never was one.
    pub fn destination_revision(&self, destination: &Party) -> u64 {
        self.destination_revisions.get(destination).copied().unwrap_or(0)
    }

    /// The registered instances of a service, those that left included.
    pub fn instances_of(&self, service: &ServiceName) -> impl Iterator<Item = &(InstanceRecord, u64)> {
        self.by_service.get(service).into_iter().flatten().filter_map(|id| self.instances.get(id))
    }

    /// Every service that has an instance, with a sidecar or without, a declaration or settings.
    pub fn service_names(&self) -> BTreeSet<ServiceName> {
        let with_sidecars = self.by_service.keys().chain(self.services.keys()).chain(self.settings.services.keys());
        with_sidecars.chain(self.catalog.services()).cloned().collect()
    }

    /// The revision that last changed the protocol of a service; 0 where it has none.
    pub fn service_revision(&self, service: &ServiceName) -> u64 {
        let declared = self.service_revisions.get(service).copied().unwrap_or(0);
        declared.max(self.settings.revision_of(service))
    }

    /// The protocol of a service, `tcp` where none was declared.
    pub fn protocol(&self, service: &ServiceName) -> Protocol {
        self.known_protocol(service).unwrap_or_default()
    }

    /// The protocol of a service, where its settings say one or an instance declared one.
    pub fn known_protocol(&self, service: &ServiceName) -> Option<Protocol> {
        self.settings.protocol(service).or_else(|| self.services.get(service).map(|record| record.protocol))
    }

    /// The lineage of an SVID.
    pub fn lineage_of(&self, serial: &Serial) -> Option<&LineageRecord> {
        self.lineages.get(&self.issuances.get(serial)?.lineage)
    }

    /// Whether an SVID was revoked, itself or by its lineage.
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.revoked.contains_key(serial) || self.lineage_of(serial).is_some_and(|lineage| lineage.revoked)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let understood = self.intentions.values().map(|(record, revision)| Entry {
            revision: *revision,
            content: EntryContent::Understood(Arc::new(record.intention.clone())),
        });
        let others = self.not_understood.iter().map(|(key, (why, revision))| not_understood_entry(key, why, *revision));
        understood.chain(others)
    }

    fn entry(&self, pair: &PairKey) -> Option<Entry> {
        if let Some((why, revision)) = self.not_understood.get(pair) {
            return Some(not_understood_entry(pair, why, *revision));
        }
        let (record, revision) = self.intentions.get(pair)?;
        Some(Entry { revision: *revision, content: EntryContent::Understood(Arc::new(record.intention.clone())) })
    }

    /// The view of everything that a store holds.
    pub(super) fn load(revision: u64, records: &[Kv]) -> Result<Self, MirrorError> {
        let cluster = cluster_among(records)?;
        let mut view = Self::empty(cluster);
        view.kv.loaded_at(revision);
        view.sessions.loaded_at(revision);
        let mut change = Change::default();
        for kv in records {
            match kv.key.strip_prefix(KV_PREFIX) {
                Some(name) => {
                    view.kv.put(kv.key.slice_ref(name), Some(&kv.value), kv.mod_revision, kv.create_revision);
                }
                None => view.put(&kv.key, Some(&kv.value), kv.mod_revision, &mut change),
            }
        }
        // Last: the set is read when it is named, and says what is true where it was not moved yet.
        for kv in records.iter().filter(|kv| kv.key == POINTER) {
            view.point(Some(&kv.value), kv.mod_revision, &mut change);
        }
        view.revision = revision;
        view.catalog.loaded_at(revision);
        view.settings.loaded_at(revision);
        view.queries.loaded_at(revision);
        // What was deleted before is not known by name.
        view.policy_revision = revision;
        Ok(view)
    }

    /// Takes in one revision and says what it changed.
    pub(super) fn apply(&mut self, batch: &Batch) -> Change {
        let mut change = Change { revision: batch.revision, ..Change::default() };
        for event in &batch.events {
            match event.key.strip_prefix(KV_PREFIX) {
                Some(name) => self.put_kv(event.key.slice_ref(name), event, &mut change),
                None => self.put(&event.key, event.value.as_deref(), event.mod_revision, &mut change),
            }
        }
        for event in batch.events.iter().filter(|event| event.key == POINTER) {
            self.point(event.value.as_deref(), event.mod_revision, &mut change);
        }
        self.revision = batch.revision;
        if change.touches_catalog() {
            self.catalog.touched(&change.services, batch.revision);
        }
        change
    }

    fn put_kv(&mut self, key: Bytes, event: &Event, change: &mut Change) {
        self.kv.put(key.clone(), event.value.as_ref(), event.mod_revision, event.create_revision);
        change.keys.push(RecordKey::Kv(key));
    }

    /// The pointer names a change set: all that it says is true in this one revision.
    fn point(&mut self, value: Option<&[u8]>, revision: u64, change: &mut Change) {
        let Some(record) = readable(POINTER, value) else { return self.change_sets.point_at_nothing() };
        for staged in self.change_sets.point_at(record, revision) {
            self.put(&staged.key, staged.value.as_deref(), revision, change);
        }
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>, revision: u64, change: &mut Change) {
        if let Some(key) = ChangeSetKey::parse(key) {
            return self.change_sets.put(key, value, revision);
        }
        let Ok(parsed) = RecordKey::try_from(key) else { return };
        match &parsed {
            RecordKey::Cluster => {
                if let Some(cluster) = readable(key, value) {
                    self.cluster = cluster;
                }
            }
            RecordKey::Default => {
                // An unreadable default denies.
                let policy = readable(key, value).map_or(DefaultPolicy::Deny, |record: DefaultRecord| record.policy);
                self.default = (policy, revision);
                self.policy_revision = revision;
                *self.rules.get_mut() = None;
            }
            RecordKey::Intention(pair) => {
                if !self.put_intention(pair, key, value, revision, change) {
                    return;
                }
                self.policy_revision = revision;
            }
            RecordKey::Token(hash) => set(&mut self.tokens, hash, readable(key, value)),
            RecordKey::Issuance(serial) => set(&mut self.issuances, serial, readable(key, value)),
            RecordKey::Lineage(id) => set(&mut self.lineages, id, readable(key, value)),
            RecordKey::Revoked(serial) => set(&mut self.revoked, serial, readable(key, value).map(|record| (record, revision))),
            RecordKey::Instance(id) => self.put_instance(id, key, value, revision, change),
            RecordKey::Service(name) => {
                set(&mut self.services, name, readable(key, value));
                self.service_revisions.insert(name.clone(), revision);
            }
            RecordKey::Settings(name) => self.settings.put(name, key, value, revision),
            RecordKey::Provider(name) => {
                set(&mut self.settings.providers, name, readable(key, value).map(|record| (record, revision)));
            }
            RecordKey::AccessToken(hash) => self.access.put_token(hash, readable(key, value), revision),
            RecordKey::AccessPolicy(id) => self.access.put_policy(id, read_or_why(key, value), revision),
            RecordKey::AccessRole(id) => self.access.put_role(id, read_or_why(key, value), revision),
            RecordKey::Jwks(name) => set(&mut self.settings.jwks, name, readable(key, value).map(|record| (record, revision))),
            RecordKey::Session(id) => self.sessions.put(id, readable(key, value), revision),
            RecordKey::Query(id) => self.queries.put(id, readable(key, value), revision),
            // They need more than this is given.
            RecordKey::Kv(_) => return,
            RecordKey::Node(name) => {
                let mut touched = self.catalog.put_node(name, readable(key, value).map(|record| (record, revision)));
                touched.extend(self.services_with_sidecars_on(name));
                change.touch(touched);
            }
            RecordKey::Registered(node, id) => {
                let record = readable(key, value).map(|record| (record, revision));
                change.touch(self.catalog.put_registered(node, id, record));
            }
            RecordKey::Check(node, id) => {
                let record = readable(key, value).map(|record| (record, revision));
                let instances = self.catalog.put_check(node, id, record);
                change.touch(self.services_of(node, &instances));
            }
        }
        change.keys.push(parsed);
    }

    fn put_instance(&mut self, id: &InstanceId, key: &[u8], value: Option<&[u8]>, revision: u64, change: &mut Change) {
        let place = |view: &Self| {
            view.instances.get(id).map(|(record, _)| (record.service.clone(), record.node_name().to_owned())).unzip()
        };
        let (before, node_before) = place(self);
        set(&mut self.instances, id, readable(key, value).map(|record| (record, revision)));
        let (after, node_after) = place(self);
        self.catalog.put_instance(node_before.as_deref(), node_after.as_deref(), id);
        if let Some(service) = &before {
            take_from_index(&mut self.by_service, service, id);
        }
        if let Some(service) = &after {
            self.by_service.entry(service.clone()).or_default().insert(id.clone());
        }
        change.touch(before.into_iter().chain(after));
    }

    fn services_with_sidecars_on(&self, node: &str) -> BTreeSet<ServiceName> {
        let ids = self.catalog.node(node).into_iter().flat_map(|node| &node.instances);
        ids.filter_map(|id| self.instances.get(id)).map(|(record, _)| record.service.clone()).collect()
    }

    /// The services of these instances of a node; the empty id stands for all of them.
    fn services_of(&self, node_name: &str, instances: &BTreeSet<String>) -> BTreeSet<ServiceName> {
        let Some(node) = self.catalog.node(node_name) else { return BTreeSet::new() };
        if instances.contains("") {
            let registered = node.registered.values().map(|(record, _)| record.service.clone());
            return registered.chain(self.services_with_sidecars_on(node_name)).collect();
        }
        let registered = instances.iter().filter_map(|id| node.registered.get(id)).map(|(record, _)| record.service.clone());
        let with_sidecar = instances.iter().filter_map(|id| self.instances.get(&id.parse::<InstanceId>().ok()?));
        registered.chain(with_sidecar.map(|(record, _)| record.service.clone())).collect()
    }

    /// Whether it says something else than before: moving a record out of a change set does not.
    fn put_intention(&mut self, pair: &PairKey, key: &[u8], value: Option<&[u8]>, revision: u64, change: &mut Change) -> bool {
        let last = self.destination_revisions.entry(pair.destination.clone()).or_insert(0);
        *last = revision.max(*last);
        let before = (self.intentions.remove(pair), self.not_understood.remove(pair));
        let named_before = named_in(before.0.as_ref());
        let Some(value) = value else {
            take_from_index(&mut self.by_destination, &pair.destination, pair);
            *self.rules.get_mut() = None;
            change.providers.extend(self.settings.name(&pair.destination, named_before, BTreeSet::new()));
            return before != (None, None);
        };
        self.by_destination.entry(pair.destination.clone()).or_default().insert(pair.clone());
        let after = match records::decode::<IntentionRecord>(key, value) {
            Ok(mut record) if record.intention.key() == *pair => {
                let changed_in = record.changed_in.take().unwrap_or(revision).min(revision);
                (Some((record, changed_in)), None)
            }
            Ok(_) => (None, Some(("its record is of another pair".to_owned(), revision))),
            Err(error) => {
                tracing::error!(%error, "the intention denies its pair until it can be read");
                (None, Some((error.why, revision)))
            }
        };
        let is_changed = before != after;
        change.providers.extend(self.settings.name(&pair.destination, named_before, named_in(after.0.as_ref())));
        if let Some(entry) = after.0 {
            self.intentions.insert(pair.clone(), entry);
        }
        if let Some(entry) = after.1 {
            self.not_understood.insert(pair.clone(), entry);
        }
        if is_changed {
            *self.rules.get_mut() = None;
        }
        is_changed
    }
}

fn named_in(entry: Option<&(IntentionRecord, u64)>) -> BTreeSet<PortName> {
    entry.map(|(record, _)| super::settings::providers_in(&record.intention)).unwrap_or_default()
}

fn cluster_among(records: &[Kv]) -> Result<ClusterRecord, MirrorError> {
    let cluster_key = records::cluster_key();
    let kv = records.iter().find(|kv| kv.key == cluster_key).ok_or(MirrorError::NoCluster)?;
    Ok(records::decode(&kv.key, &kv.value)?)
}

/// The four pairs of parties that match a call, each permanent and temporary.
fn pairs_that_match(source: &ServiceName, destination: &ServiceName) -> impl Iterator<Item = PairKey> {
    let sources = [Party::Service(source.clone()), Party::Any];
    let destinations = [Party::Service(destination.clone()), Party::Any];
    sources.into_iter().flat_map(move |source| {
        let destinations = destinations.clone();
        destinations.into_iter().flat_map(move |destination| {
            let source = source.clone();
            [false, true].into_iter().map(move |temporary| PairKey {
                source: source.clone(),
                destination: destination.clone(),
                temporary,
            })
        })
    })
}

fn not_understood_entry(key: &PairKey, why: &str, revision: u64) -> Entry {
    Entry { revision, content: EntryContent::NotUnderstood { key: key.clone(), why: why.into() } }
}

fn take_from_index<K: Eq + Hash, V: Ord>(index: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

fn set<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    };
}

/// The record, or nothing where it was deleted or cannot be read (which is logged: such a record does not count).
fn readable<T: DeserializeOwned>(key: &[u8], value: Option<&[u8]>) -> Option<T> {
    match records::decode(key, value?) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(%error, "ignoring a record");
            None
        }
    }
}

/// The record, or why it cannot be read; nothing where it was deleted.
fn read_or_why<T: DeserializeOwned>(key: &[u8], value: Option<&[u8]>) -> Option<Result<T, String>> {
    Some(records::decode(key, value?).map_err(|error| error.to_string()))
}
