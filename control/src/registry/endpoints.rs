//! The set of endpoints that callers of each service get.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use postern_checks::Status;
use postern_names::{InstanceId, ServiceName};

use crate::mirror::View;
use crate::records::InstanceRecord;

/// The endpoints of every service, as one rule decides them. Changed only by an observer of the mirror, under the view's
/// lock, so that it always fits the view that a reader sees.
#[derive(Debug, Default)]
pub struct EndpointSets {
    sets: Mutex<Sets>,
}

#[derive(Debug, Default)]
struct Sets {
    by_service: HashMap<ServiceName, BTreeSet<InstanceId>>,
    /// The recorded instances were taken in: from here on a service without a set had none.
    loaded: bool,
}

impl EndpointSets {
    /// Decides every set anew.
    pub fn refresh_all(&self, view: &View) {
        let mut services = view.service_names();
        services.extend(self.sets.lock().by_service.keys().cloned());
        for service in &services {
            self.refresh(view, service);
        }
        self.sets.lock().loaded = true;
    }

    /// Decides the set of one service anew, and gives the instances that came or went.
    pub fn refresh(&self, view: &View, service: &ServiceName) -> Vec<InstanceId> {
        let mut sets = self.sets.lock();
        let none = BTreeSet::new();
        let last = sets.by_service.get(service).or(sets.loaded.then_some(&none));
        let after = decide_set(view, service, last);
        let changed = last.unwrap_or(&none).symmetric_difference(&after).cloned().collect();
        sets.by_service.insert(service.clone(), after);
        changed
    }

    /// Whether callers get this instance.
    pub fn contains(&self, service: &ServiceName, instance: &InstanceId) -> bool {
        self.sets.lock().by_service.get(service).is_some_and(|set| set.contains(instance))
    }

    /// The endpoints of a service.
    pub fn of(&self, service: &ServiceName) -> BTreeSet<InstanceId> {
        self.sets.lock().by_service.get(service).cloned().unwrap_or_default()
    }
}

/// The healthy instances; without any, what is left of the last set. A control plane that has just started knows no last
/// set and keeps all that are recorded. What is in maintenance is in no set, even if that empties it.
fn decide_set(view: &View, service: &ServiceName, last: Option<&BTreeSet<InstanceId>>) -> BTreeSet<InstanceId> {
    let callable = || view.instances_of(service).map(|(record, _)| record).filter(|record| can_be_called(view, record));
    let healthy: BTreeSet<_> = callable().filter(|record| is_healthy(view, record)).map(|record| record.id.clone()).collect();
    if !healthy.is_empty() {
        return healthy;
    }
    callable().map(|record| record.id.clone()).filter(|id| last.is_none_or(|last| last.contains(id))).collect()
}

fn can_be_called(view: &View, record: &InstanceRecord) -> bool {
    record.address.is_some() && !record.left && !view.catalog.is_in_maintenance(record.node_name(), record.id.as_str())
}

/// Its sidecar says so, and no check that was registered for it or for its node says otherwise.
fn is_healthy(view: &View, record: &InstanceRecord) -> bool {
    record.healthy && view.catalog.status(record.node_name(), record.id.as_str()) != Status::Critical
}
