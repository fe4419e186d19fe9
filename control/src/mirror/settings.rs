//! What operators set for services, and the providers of tokens, as the view holds them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postern_intentions::{Intention, Party, Protocol, Rule};
use postern_names::{PortName, ServiceName};
use postern_traffic::ServiceSettings;
use postern_traffic::settings::JwksSource;

use crate::records::{self, JwksRecord, ProviderRecord, SettingsRecord};

/// How many services a route, split or failover can lead through one after the other.
const DEPTH: usize = 8;

/// Settings, providers and their keys. A number is the revision that last changed the record.
#[derive(Debug, Default)]
pub struct SettingsView {
    /// Settings by service.
    pub services: BTreeMap<ServiceName, (SettingsRecord, u64)>,
    /// Settings that this version cannot read, and why: sidecars take the defaults, and say so.
    pub unreadable: BTreeMap<ServiceName, (String, u64)>,
    /// Providers by name.
    pub providers: BTreeMap<PortName, (ProviderRecord, u64)>,
    /// The last good keys of providers that have them from elsewhere.
    pub jwks: BTreeMap<PortName, (JwksRecord, u64)>,
    /// How many intentions of a destination name a provider.
    named: HashMap<Party, BTreeMap<PortName, usize>>,
    /// The revision of the last change of settings of a service, deletions included.
    revisions: HashMap<ServiceName, u64>,
    /// The revision of the last change of settings of any service.
    last: u64,
    /// The revision that the store was loaded at: what was deleted before is not known by name.
    floor: u64,
}

impl SettingsView {
    /// The settings of a service, where some are stored and can be read.
    pub fn of(&self, service: &ServiceName) -> Option<&ServiceSettings> {
        self.services.get(service).map(|(record, _)| &record.settings)
    }

    /// The revision that last changed the settings of a service; 0 where there never were any.
    pub fn revision_of(&self, service: &ServiceName) -> u64 {
        self.revisions.get(service).copied().unwrap_or(0)
    }

    /// The revision of the last change of settings of any service, deletions included.
    pub fn last_change(&self) -> u64 {
        self.last.max(self.floor)
    }

    /// The revision of the last change of the settings of a service, deletions included; above 0.
    pub fn last_change_of(&self, service: &ServiceName) -> u64 {
        self.revisions.get(service).copied().unwrap_or(self.floor).max(1)
    }

    pub(super) fn loaded_at(&mut self, revision: u64) {
        self.floor = revision;
    }

    /// The protocol that the settings of a service say.
    pub fn protocol(&self, service: &ServiceName) -> Option<Protocol> {
        self.of(service)?.protocol
    }

    /// The services, and all that their settings lead to, at most eight one after the other.
    pub fn closure(&self, from: &BTreeSet<ServiceName>) -> BTreeSet<ServiceName> {
        let mut reached = from.clone();
        let mut newest: Vec<ServiceName> = from.iter().cloned().collect();
        for _ in 0..DEPTH {
            let settings = newest.iter().filter_map(|service| self.of(service));
            let next: Vec<ServiceName> = settings.flat_map(ServiceSettings::other_services).cloned().collect();
            newest = next.into_iter().filter(|service| reached.insert(service.clone())).collect();
            if newest.is_empty() {
                break;
            }
        }
        reached
    }

    /// The keys of a provider as they are known; none where its file or URL gave none yet.
    pub fn keys_of(&self, name: &PortName) -> Option<&str> {
        let (record, _) = self.providers.get(name)?;
        match &record.provider.jwks {
            JwksSource::Inline(keys) => Some(keys),
            source => self.jwks.get(name).filter(|(keys, _)| keys.source == *source).map(|(keys, _)| keys.jwks.as_str()),
        }
    }

    /// The revision that last changed a provider or its keys.
    pub fn provider_revision(&self, name: &PortName) -> u64 {
        let provider = self.providers.get(name).map_or(0, |(_, revision)| *revision);
        provider.max(self.jwks.get(name).map_or(0, |(_, revision)| *revision))
    }

    /// Whether an intention for the service or for `*` names the provider.
    pub fn is_named_for(&self, service: &ServiceName, provider: &PortName) -> bool {
        self.named_by(service).any(|name| name == provider)
    }

    /// The providers that intentions for the service or for `*` name, perhaps with repetitions.
    pub fn named_by(&self, service: &ServiceName) -> impl Iterator<Item = &PortName> {
        let destinations = [Party::Service(service.clone()), Party::Any];
        destinations.into_iter().filter_map(|party| self.named.get(&party)).flat_map(BTreeMap::keys)
    }

    /// Takes settings in.
    pub(super) fn put(&mut self, service: &ServiceName, key: &[u8], value: Option<&[u8]>, revision: u64) {
        self.services.remove(service);
        self.unreadable.remove(service);
        self.revisions.insert(service.clone(), revision);
        self.last = self.last.max(revision);
        let Some(value) = value else { return };
        match records::decode::<SettingsRecord>(key, value) {
            Ok(record) if record.settings.service == *service => {
                self.services.insert(service.clone(), (record, revision));
            }
            Ok(_) => {
                self.unreadable.insert(service.clone(), ("its record is of another service".to_owned(), revision));
            }
            Err(error) => {
                tracing::error!(%error, "sidecars take the default settings of this service until its record can be read");
                self.unreadable.insert(service.clone(), (error.why, revision));
            }
        }
    }

    /// An intention of this destination named providers and now names others. Gives what the destination began or ceased
    /// to name.
    pub(super) fn name(
        &mut self,
        destination: &Party,
        before: BTreeSet<PortName>,
        after: BTreeSet<PortName>,
    ) -> Vec<(Party, PortName)> {
        let mut changed = Vec::new();
        if before == after {
            return changed;
        }
        let counts = self.named.entry(destination.clone()).or_default();
        for name in after.difference(&before) {
            let count = counts.entry(name.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                changed.push((destination.clone(), name.clone()));
            }
        }
        for name in before.difference(&after) {
            let Some(count) = counts.get_mut(name) else { continue };
            *count -= 1;
            if *count == 0 {
                counts.remove(name);
                changed.push((destination.clone(), name.clone()));
            }
        }
        if counts.is_empty() {
            self.named.remove(destination);
        }
        changed
    }
}

/// The providers that an intention names.
pub fn providers_in(intention: &Intention) -> BTreeSet<PortName> {
    let Rule::Permissions { permissions, .. } = &intention.rule else { return BTreeSet::new() };
    let named = permissions.iter().flat_map(|permission| &permission.jwt);
    named.filter_map(|criterion| criterion.provider.parse().ok()).collect()
}
