//! What an apply would change, and what to know about it.

use std::collections::{BTreeMap, BTreeSet};

use postern_api::http::{AppliedServiceConfig, ApplyServiceConfigRequest, Difference, Written};
use postern_api::understanding::takes_settings;
use postern_intentions::Party;
use postern_names::{PortName, ServiceName};
use postern_traffic::route::check_hops;
use postern_traffic::{JwtProvider, RoutingError, ServiceSettings};

use super::{Concerned, ConfigError};
use crate::mirror::{View, providers_in};
use crate::push::SidecarStatus;

/// What an apply would change.
pub(super) struct Plan {
    pub(super) services: Difference<ServiceSettings>,
    pub(super) providers: Difference<JwtProvider>,
    /// Settings that this version cannot read, and that are taken out or replaced.
    pub(super) unreadable: Vec<ServiceName>,
    /// Those of them that are taken out.
    pub(super) unreadable_removed: Vec<ServiceName>,
    /// A provider that would go although intentions name it.
    pub(super) named: Option<Named>,
    /// Services that would send requests round in circles.
    pub(super) circle: Option<RoutingError>,
    base_revision: u64,
    not_understood_by: Vec<String>,
    notes: Vec<String>,
}

/// A provider, and the destinations of intentions that name it.
#[derive(Debug, Clone)]
pub(super) struct Named {
    name: PortName,
    destinations: Vec<String>,
}

impl From<Named> for ConfigError {
    fn from(Named { name, destinations }: Named) -> Self {
        Self::Named { name, destinations }
    }
}

/// A way on which requests would be sent on for ever, by the settings as they would be.
fn circle(
    current: &BTreeMap<ServiceName, &ServiceSettings>,
    wanted: &BTreeMap<ServiceName, &ServiceSettings>,
    replace: bool,
) -> Option<RoutingError> {
    let after = |service: &ServiceName| match wanted.get(service) {
        Some(settings) => Some(*settings),
        None if replace => None,
        None => current.get(service).copied(),
    };
    current.keys().chain(wanted.keys()).find_map(|service| check_hops(service, after).err())
}

impl Plan {
    /// The difference between what is stored and what the request wants.
    pub(super) fn of(view: &View, request: &ApplyServiceConfigRequest, sidecars: &[SidecarStatus]) -> Self {
        let stored = &view.settings;
        let current = stored.services.iter().map(|(name, (record, _))| (name.clone(), &record.settings)).collect();
        let wanted = request.file.services.iter().map(|settings| (settings.service.clone(), settings)).collect();
        let services = difference(&current, &wanted, request.replace);
        let circle = circle(&current, &wanted, request.replace);
        let current = stored.providers.iter().map(|(name, (record, _))| (name.clone(), &record.provider)).collect();
        let wanted_providers = request.file.jwt_providers.iter().map(|provider| (provider.name.clone(), provider)).collect();
        let providers = difference(&current, &wanted_providers, request.replace);
        let (replaced, kept): (Vec<_>, Vec<_>) = stored.unreadable.keys().cloned().partition(|name| wanted.contains_key(name));
        let unreadable_removed = if request.replace { kept } else { Vec::new() };
        let named = providers.removed.iter().find_map(|provider| destinations_naming(view, &provider.name));
        let mut plan = Self {
            services,
            providers,
            unreadable: replaced.into_iter().chain(unreadable_removed.iter().cloned()).collect(),
            unreadable_removed,
            named,
            circle,
            base_revision: view.revision,
            not_understood_by: Vec::new(),
            notes: Vec::new(),
        };
        plan.not_understood_by = plan.missing_on(view, sidecars);
        plan.notes = notes(view, request, &plan.services);
        plan
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.providers.is_empty() && self.unreadable.is_empty()
    }

    pub(super) fn concerned(&self) -> Concerned {
        let services = names(&self.services, |settings| settings.service.clone());
        Concerned {
            services: services.chain(self.unreadable.iter().cloned()).collect(),
            providers: names(&self.providers, |provider| provider.name.clone()).collect(),
        }
    }

    pub(super) fn applied(self, written: Option<Written>) -> AppliedServiceConfig {
        let Self { services, providers, unreadable, base_revision, not_understood_by, notes, .. } = self;
        AppliedServiceConfig { services, jwt_providers: providers, unreadable, base_revision, not_understood_by, notes, written }
    }

    /// Connected sidecars concerned that take no settings at all.
    fn missing_on(&self, view: &View, sidecars: &[SidecarStatus]) -> Vec<String> {
        let Concerned { services, providers } = self.concerned();
        let is_concerned = |sidecar: &&SidecarStatus| {
            services.contains(&sidecar.service)
                || sidecar.upstreams.iter().any(|upstream| services.contains(upstream))
                || view.settings.named_by(&sidecar.service).any(|name| providers.contains(name))
        };
        let older = sidecars.iter().filter(|sidecar| !takes_settings(&sidecar.understands)).filter(is_concerned);
        older.map(|sidecar| format!("{} (version {}) takes no settings", sidecar.instance, sidecar.version)).collect()
    }
}

/// # Errors
/// [`ConfigError::Named`] where an intention names the provider.
pub(super) fn named(view: &View, provider: &PortName) -> Result<(), ConfigError> {
    destinations_naming(view, provider).map_or(Ok(()), |named| Err(named.into()))
}

fn destinations_naming(view: &View, provider: &PortName) -> Option<Named> {
    let naming = view.intentions.values().filter(|(record, _)| providers_in(&record.intention).contains(provider));
    let destinations: BTreeSet<&Party> = naming.map(|(record, _)| &record.intention.destination).collect();
    let destinations: Vec<String> = destinations.into_iter().map(ToString::to_string).collect();
    (!destinations.is_empty()).then(|| Named { name: provider.clone(), destinations })
}

fn difference<K: Ord, T: Clone + PartialEq>(current: &BTreeMap<K, &T>, wanted: &BTreeMap<K, &T>, replace: bool) -> Difference<T> {
    let mut difference = Difference::default();
    for (name, after) in wanted {
        match current.get(name) {
            None => difference.added.push((*after).clone()),
            Some(before) if before != after => difference.changed.push(((*before).clone(), (*after).clone())),
            Some(_) => {}
        }
    }
    if replace {
        let gone = current.iter().filter(|(name, _)| !wanted.contains_key(*name));
        difference.removed = gone.map(|(_, before)| (*before).clone()).collect();
    }
    difference
}

fn names<'d, T, N>(difference: &'d Difference<T>, name: impl Fn(&'d T) -> N + 'd) -> impl Iterator<Item = N> + 'd {
    let changed = difference.changed.iter().map(|(_, after)| after);
    difference.added.iter().chain(changed).chain(&difference.removed).map(name)
}

/// What somebody should know who sets these: slips of the pen that are no faults, since the other side may come later.
fn notes(view: &View, request: &ApplyServiceConfigRequest, services: &Difference<ServiceSettings>) -> Vec<String> {
    let set: Vec<&ServiceSettings> = services.added.iter().chain(services.changed.iter().map(|(_, after)| after)).collect();
    let wanted: BTreeMap<&ServiceName, &ServiceSettings> =
        request.file.services.iter().map(|settings| (&settings.service, settings)).collect();
    let stored = |service: &ServiceName| view.settings.of(service).filter(|_| !request.replace);
    let settings_of = |service: &ServiceName| wanted.get(service).copied().or_else(|| stored(service));
    let known = view.service_names();
    let mut notes = BTreeSet::new();
    for settings in set {
        if !known.contains(&settings.service) {
            notes.insert(format!("no service {} has enrolled yet", settings.service));
        }
        for other in settings.other_services().filter(|other| !known.contains(*other)) {
            notes.insert(format!("{} leads to {other}, and no such service has enrolled yet", settings.service));
        }
        for (other, subset) in foreign_subsets(settings) {
            if !settings_of(other).is_some_and(|settings| settings.resolver.subsets.contains_key(subset)) {
                notes.insert(format!("{} leads to subset {subset:?} of {other}, which has none of that name", settings.service));
            }
        }
    }
    notes.into_iter().collect()
}

/// Subsets of other services that settings name.
fn foreign_subsets(settings: &ServiceSettings) -> Vec<(&ServiceName, &str)> {
    let mut named: Vec<(Option<&ServiceName>, Option<&String>)> = Vec::new();
    for route in &settings.routes {
        named.push((route.to.service.as_ref(), route.to.subset.as_ref()));
        named.extend(route.to.mirror.iter().map(|mirror| (Some(&mirror.service), mirror.subset.as_ref())));
    }
    named.extend(settings.split.iter().map(|share| (share.service.as_ref(), share.subset.as_ref())));
    named.extend(settings.resolver.redirect.iter().map(|redirect| (redirect.service.as_ref(), redirect.subset.as_ref())));
    named.extend(settings.resolver.failover.iter().map(|target| (target.service.as_ref(), target.subset.as_ref())));
    named.extend(settings.mirror.iter().map(|mirror| (Some(&mirror.service), mirror.subset.as_ref())));
    let given = named.into_iter().filter_map(|(service, subset)| Some((service?, subset?.as_str())));
    given.filter(|(service, _)| **service != settings.service).collect()
}
