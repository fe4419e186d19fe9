//! Which instances of a service are meant, and which of them takes a request.
//!
//! 1. The subset that the route, the split or the redirect named, else the default subset, else all instances; of these the
//!    ones that serve the port. The caller itself is never meant.
//! 2. With `locality: prefer`, those in the caller's zone; those in its region, its zone included, if fewer than half of the
//!    zone's are usable, or there are none; all of them if that is so of the region too. Usable is what is not ejected.
//! 3. Where none at all is usable, the first entry of `failover` that has a usable instance, by its own subset, balancer and
//!    locality, on the port of the same name. The failover and the redirect of a service that is failed over to do not count.
//! 4. Where that has none either, ejection is ignored: requests that may fail are better than requests that must.

mod group;
mod instance;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use postern_names::{InstanceId, PortName, ServiceName};
use rand::Rng;

use crate::balance::{InstanceStats, OpenRequest};
use crate::eject::{Ejection, Ejector};
use crate::locality::{Nearness, nearness};
use crate::settings::{LocalityPreference, ServiceSettings, Subset, SubsetRef};
use group::{Group, Rule, Ways};
pub use instance::{Caller, Instance};

/// The instances of a service as one set of endpoints has them, ready to pick from. Built anew when endpoints or settings
/// change; what is known of the instances that stay goes on.
#[derive(Debug)]
pub struct ServiceTargets<I> {
    targets: Box<[Target<I>]>,
    all: Ports,
    subsets: Box<[(String, Ports)]>,
    default_subset: Option<String>,
    failover: Box<[SubsetRef]>,
    ejector: Arc<Ejector>,
    knows_only_caller: bool,
}

/// An instance with what is known of it.
#[derive(Debug)]
struct Target<I> {
    instance: I,
    stats: Arc<InstanceStats>,
}

/// A group for each port that any of the instances serves.
type Ports = Box<[(PortName, Group)]>;

/// What an instance is picked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The subset; absent: the default one.
    pub subset: Option<&'a str>,
    /// The port.
    pub port: &'a PortName,
    /// Of [`HashKeys::hash`](crate::HashKeys::hash), for `ring_hash` and `maglev`.
    pub hash: Option<u64>,
    /// Instances that were tried for this request; picked again only if there is no other.
    pub tried: &'a [InstanceId],
}

/// The instance that takes a request.
#[derive(Debug)]
pub struct Picked<'t, I> {
    /// The instance.
    pub instance: &'t I,
    /// What is known of it.
    pub stats: &'t Arc<InstanceStats>,
    /// The entry of `failover` by which it was found.
    pub failover: Option<&'t SubsetRef>,
    /// Whether it is ejected and was picked because all are.
    pub is_ejected: bool,
    ejector: &'t Arc<Ejector>,
}

/// Why there is no instance for a request. The answer is 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoInstance {
    /// The service has none.
    #[error("no healthy instance is known")]
    NoneKnown,
    /// The only instance is the caller.
    #[error("the only healthy instance is the caller itself")]
    OnlyCaller,
    /// None of them has the port.
    #[error("no healthy instance has the port {port}")]
    NoneWithPort {
        /// The port.
        port: PortName,
    },
    /// The settings of the service have no such subset.
    #[error("the service has no subset {subset:?}; add it under resolver.subsets")]
    UnknownSubset {
        /// The subset.
        subset: String,
    },
    /// No instance has the labels of the subset.
    #[error("no healthy instance is in the subset {subset:?}, or none of them has the port {port}")]
    EmptySubset {
        /// The subset.
        subset: String,
        /// The port.
        port: PortName,
    },
}

impl<I: Instance> ServiceTargets<I> {
    /// Of the instances that can take requests: healthy ones, reachable by a transport that the caller speaks. `previous` is
    /// what this replaces.
    pub fn build(
        instances: Vec<I>,
        settings: &ServiceSettings,
        caller: &Caller<'_>,
        previous: Option<&Self>,
        now: Instant,
    ) -> Self {
        let known: HashMap<&InstanceId, &Arc<InstanceStats>> =
            previous.iter().flat_map(|previous| &previous.targets).map(|target| (target.instance.id(), &target.stats)).collect();
        let connections = settings.circuit_breakers.connections;
        let stats_of = |instance: &I| match known.get(instance.id()) {
            Some(stats) => {
                stats.connections().set_ceiling(connections);
                Arc::clone(stats)
            }
            None => Arc::new(InstanceStats::new(instance.id().clone(), connections, now)),
        };
        let knows_any = !instances.is_empty();
        let others = instances.into_iter().filter(|instance| instance.id() != caller.instance);
        let targets: Box<[Target<I>]> = others.map(|instance| Target { stats: stats_of(&instance), instance }).collect();
        let ejector =
            previous.map_or_else(|| Arc::new(Ejector::new(&settings.outlier_ejection, now)), |previous| previous.ejector.clone());
        ejector.watch(targets.iter().map(|target| &target.stats), &settings.outlier_ejection);
        let grouping = Grouping { targets: &targets, settings, caller };
        let subset = |(name, subset): (&String, &Subset)| (name.clone(), grouping.ports(|instance| has_labels(instance, subset)));
        Self {
            all: grouping.ports(|_| true),
            subsets: settings.resolver.subsets.iter().map(subset).collect(),
            default_subset: settings.resolver.default_subset.clone(),
            failover: settings.resolver.failover.as_slice().into(),
            ejector,
            knows_only_caller: knows_any && targets.is_empty(),
            targets,
        }
    }

    /// Picks the instance for a request. `others` has the other services that failover may lead to.
    ///
    /// # Errors
    /// [`NoInstance`], with what is wrong with the service itself, not with those that it fails over to.
    pub fn pick<'t, R: Rng + ?Sized>(
        &'t self,
        wanted: &Wanted<'_>,
        others: impl Fn(&ServiceName) -> Option<&'t Self>,
        now: Instant,
        rng: &mut R,
    ) -> Result<Picked<'t, I>, NoInstance> {
        let first = self.group(wanted.subset, wanted.port)?;
        if let Some(picked) = first.and_then(|group| self.pick_usable(group, wanted, now, rng)) {
            return Ok(picked);
        }
        let places = || {
            self.failover.iter().filter_map(|failover| {
                let targets = failover.service.as_ref().map_or(Some(self), &others)?;
                let group = targets.group(failover.subset.as_deref(), wanted.port).ok().flatten()?;
                Some((failover, targets, group))
            })
        };
        for (failover, targets, group) in places() {
            if let Some(picked) = targets.pick_usable(group, wanted, now, rng) {
                return Ok(Picked { failover: Some(failover), ..picked });
            }
        }
        if let Some(picked) = first.and_then(|group| self.pick_any(group, wanted, now, rng)) {
            return Ok(picked);
        }
        for (failover, targets, group) in places() {
            if let Some(picked) = targets.pick_any(group, wanted, now, rng) {
                return Ok(Picked { failover: Some(failover), ..picked });
            }
        }
        Err(self.why_none(wanted))
    }

    /// The instances, with what is known of each.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = (&I, &Arc<InstanceStats>)> {
        self.targets.iter().map(|target| (&target.instance, &target.stats))
    }

    /// Whether an instance is meant that is not ejected; without failover.
    pub fn has_usable(&self, subset: Option<&str>, port: &PortName) -> bool {
        let generation = self.ejector.generation();
        let group = self.group(subset, port).ok().flatten();
        group.is_some_and(|group| group.has_usable(generation, |index| self.is_usable(index)))
    }

    /// Ends ejections whose time is over and judges success rates; to be called about once a second for each service.
    pub fn tick(&self, now: Instant) -> Vec<Ejection> {
        self.ejector.tick(now)
    }

    /// None: nothing of the subset has the port.
    fn group(&self, subset: Option<&str>, port: &PortName) -> Result<Option<&Group>, NoInstance> {
        let ports = match subset.or(self.default_subset.as_deref()) {
            None => &self.all,
            Some(wanted) => {
                let subset = self.subsets.iter().find(|(name, _)| name == wanted);
                &subset.ok_or_else(|| NoInstance::UnknownSubset { subset: wanted.to_owned() })?.1
            }
        };
        Ok(ports.iter().find(|(name, _)| name == port).map(|(_, group)| group))
    }

    fn pick_usable<'t, R: Rng + ?Sized>(
        &'t self,
        group: &Group,
        wanted: &Wanted<'_>,
        now: Instant,
        rng: &mut R,
    ) -> Option<Picked<'t, I>> {
        // Read before the flags of the instances are: what is found may be newer than it says, never older.
        let generation = self.ejector.generation();
        let ways = self.ways(wanted, now);
        group.pick(generation, wanted.hash, &ways, rng).map(|index| self.picked(index))
    }

    fn pick_any<'t, R: Rng + ?Sized>(
        &'t self,
        group: &Group,
        wanted: &Wanted<'_>,
        now: Instant,
        rng: &mut R,
    ) -> Option<Picked<'t, I>> {
        group.pick_any(wanted.hash, &self.ways(wanted, now), rng).map(|index| self.picked(index))
    }

    fn ways(&self, wanted: &Wanted<'_>, now: Instant) -> Ways<impl Fn(u32) -> bool, impl Fn(u32) -> bool, impl Fn(u32) -> f64> {
        Ways {
            usable: |index| self.is_usable(index),
            tried: |index| wanted.tried.contains(self.target(index).instance.id()),
            cost: move |index| self.target(index).stats.cost(now),
        }
    }

    fn is_usable(&self, index: u32) -> bool {
        !self.target(index).stats.is_ejected()
    }

    /// Groups are built with this list: every index in them is an index in it.
    fn target(&self, index: u32) -> &Target<I> {
        &self.targets[index as usize]
    }

    fn picked(&self, index: u32) -> Picked<'_, I> {
        let Target { instance, stats } = self.target(index);
        Picked { instance, stats, failover: None, is_ejected: stats.is_ejected(), ejector: &self.ejector }
    }

    fn why_none(&self, wanted: &Wanted<'_>) -> NoInstance {
        let port = wanted.port.clone();
        match wanted.subset.or(self.default_subset.as_deref()) {
            _ if self.knows_only_caller => NoInstance::OnlyCaller,
            _ if self.targets.is_empty() => NoInstance::NoneKnown,
            Some(subset) => NoInstance::EmptySubset { subset: subset.to_owned(), port },
            None => NoInstance::NoneWithPort { port },
        }
    }
}

impl<I> Picked<'_, I> {
    /// The request is sent: it counts as open on the instance until what this returns is dropped.
    pub fn open(&self, now: Instant) -> OpenRequest {
        OpenRequest::new(self.stats.clone(), self.ejector.clone(), now)
    }
}

/// Makes groups of a list of instances.
struct Grouping<'a, I> {
    targets: &'a [Target<I>],
    settings: &'a ServiceSettings,
    caller: &'a Caller<'a>,
}

impl<I: Instance> Grouping<'_, I> {
    fn ports(&self, is_meant: impl Fn(&I) -> bool) -> Ports {
        let mut ports: Vec<(&PortName, Vec<u32>)> = Vec::new();
        for (index, target) in (0_u32..).zip(self.targets).filter(|(_, target)| is_meant(&target.instance)) {
            for port in target.instance.ports() {
                match ports.iter_mut().find(|(name, _)| *name == port) {
                    Some((_, members)) if members.last() == Some(&index) => {}
                    Some((_, members)) => members.push(index),
                    None => ports.push((port, vec![index])),
                }
            }
        }
        ports.into_iter().map(|(port, members)| (port.clone(), self.group(members))).collect()
    }

    fn group(&self, mut members: Vec<u32>) -> Group {
        let id = |index: u32| self.targets[index as usize].instance.id().as_str();
        let near = |index: u32| self.nearness(&self.targets[index as usize].instance);
        members.sort_by(|one, other| (near(*one), id(*one)).cmp(&(near(*other), id(*other))));
        let within = |nearness: Nearness| members.partition_point(|index| near(*index) <= nearness);
        let ends = [within(Nearness::Zone), within(Nearness::Region), members.len()];
        let rule = Rule { policy: self.settings.balancer.policy, start: self.caller.seed };
        let weight = |index: u32| self.targets[index as usize].instance.weight();
        Group::new(members, &ends, rule, id, weight)
    }

    /// All are alike where locality does not count.
    fn nearness(&self, instance: &I) -> Nearness {
        match self.settings.balancer.locality {
            LocalityPreference::Prefer => nearness(self.caller.locality, instance.locality()),
            LocalityPreference::Ignore => Nearness::Elsewhere,
        }
    }
}

fn has_labels(instance: &impl Instance, subset: &Subset) -> bool {
    subset.meta.iter().all(|(key, value)| instance.meta(key) == Some(value.as_str()))
}
