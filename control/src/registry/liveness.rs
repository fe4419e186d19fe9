//! Which instances were heard of lately, and the sweep that turns silence into a change of health.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use postern_names::InstanceId;
use tokio::time::Instant;

use super::{Registry, RegistrySettings};
use crate::mirror::View;
use crate::records::InstanceRecord;

/// Writes of one sweep that are under way at the same time; the store commits them as groups.
const WRITES_AT_ONCE: usize = 64;

/// Signs of life since this control plane started.
#[derive(Debug)]
pub(super) struct Liveness {
    since: Instant,
    seen: HashMap<InstanceId, Sign>,
}

#[derive(Debug, Clone, Copy)]
struct Sign {
    at: Instant,
    healthy: bool,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, seen: HashMap::new() }
    }

    pub(super) fn seen(&mut self, id: &InstanceId, healthy: bool, now: Instant) {
        self.seen.insert(id.clone(), Sign { at: now, healthy });
    }

    pub(super) fn forget(&mut self, id: &InstanceId) {
        self.seen.remove(id);
    }

    /// This process itself was away (a suspended machine): nobody else's silence counts from before.
    fn forgive(&mut self, now: Instant) {
        self.since = now;
        for sign in self.seen.values_mut() {
            sign.at = now;
        }
    }

    /// The health that the record should say. What was not heard of since the start keeps its state until it settled.
    fn health(&self, record: &InstanceRecord, settings: &RegistrySettings, now: Instant) -> bool {
        match self.seen.get(&record.id) {
            Some(sign) => sign.healthy && now.duration_since(sign.at) < settings.liveness,
            None => record.healthy && now.duration_since(self.since) < settings.settle.max(settings.liveness),
        }
    }

    fn is_silent(&self, id: &InstanceId, settings: &RegistrySettings, now: Instant) -> bool {
        match self.seen.get(id) {
            Some(sign) => now.duration_since(sign.at) >= settings.liveness,
            None => now.duration_since(self.since) >= settings.settle,
        }
    }
}

enum Step {
    Health(Box<InstanceRecord>, u64, bool),
    SetAside(Box<InstanceRecord>, u64),
    Remove(InstanceId, u64),
}

/// Looks at every instance now and then, and at once when a beat reports another health. Ends with the registry.
pub(super) async fn sweep(registry: Weak<Registry>) {
    let Some(period) = registry.upgrade().map(|registry| period(&registry.settings)) else { return };
    let mut last = Instant::now();
    loop {
        {
            let Some(registry) = registry.upgrade() else { return };
            // Holding the registry while waiting would keep it alive, so the wait is bounded by one period.
            tokio::select! {
                () = registry.look_now.notified() => {}
                () = tokio::time::sleep(period) => {}
            }
            let now = Instant::now();
            if now.duration_since(last) > period + registry.settings.liveness {
                tracing::warn!("this control plane did not run for a while; nobody's silence is counted for it");
                registry.liveness.lock().forgive(now);
            }
            last = now;
            look(&registry, now).await;
        }
        tokio::task::yield_now().await;
    }
}

fn period(settings: &RegistrySettings) -> Duration {
    (settings.liveness / 15).clamp(Duration::from_millis(50), Duration::from_secs(1))
}

async fn look(registry: &Registry, now: Instant) {
    let steps = due(registry, now, SystemTime::now());
    let mut writes =
        futures_util::stream::iter(steps.into_iter().map(|step| take(registry, step))).buffer_unordered(WRITES_AT_ONCE);
    while writes.next().await.is_some() {}
}

fn due(registry: &Registry, now: Instant, wall: SystemTime) -> Vec<Step> {
    let settings = &registry.settings;
    registry.mirror.read(|view| {
        let liveness = registry.liveness.lock();
        let mut steps = Vec::new();
        for (record, revision) in view.instances.values() {
            let health = if record.left { false } else { liveness.health(record, settings, now) };
            if health != record.healthy && !record.left {
                steps.push(Step::Health(Box::new(record.clone()), *revision, health));
                continue;
            }
            let gone_for = wall.duration_since(record.state_since).unwrap_or_default();
            let can_go = record.left || liveness.is_silent(&record.id, settings, now);
            let is_due = gone_for >= settings.removal && !registry.sets.contains(&record.service, &record.id);
            if record.healthy || !can_go || !is_due {
                continue;
            }
            let may_hold_rules = svid_end(view, record).is_some_and(|end| end > wall);
            match (record.left, may_hold_rules) {
                (false, true) => steps.push(Step::SetAside(Box::new(record.clone()), *revision)),
                (true, true) if record.silent => {}
                _ => steps.push(Step::Remove(record.id.clone(), *revision)),
            }
        }
        steps
    })
}

/// When the newest SVID of an instance ends; `None`: there is none that is still known.
fn svid_end(view: &View, record: &InstanceRecord) -> Option<SystemTime> {
    let lineage = view.lineages.get(&record.lineage)?;
    view.issuances.get(&lineage.newest).map(|issuance| issuance.not_after)
}

async fn take(registry: &Registry, step: Step) {
    let result = match step {
        Step::Health(record, revision, healthy) => {
            let word = if healthy { "healthy" } else { "critical" };
            tracing::info!(instance = %record.id, service = %record.service, "{word}");
            registry.write_health(*record, revision, healthy).await
        }
        Step::SetAside(record, revision) => {
            tracing::info!(instance = %record.id, service = %record.service, "taken out of every list; its sidecar may still run");
            registry.set_aside(*record, revision).await
        }
        Step::Remove(id, revision) => {
            tracing::info!(instance = %id, "forgotten");
            registry.remove(&id, revision).await
        }
    };
    if let Err(error) = result {
        tracing::error!(%error, "a change of an instance was not written; the next sweep tries again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(healthy: bool) -> InstanceRecord {
        InstanceRecord {
            id: "web-1".parse().unwrap(),
            service: "web".parse().unwrap(),
            address: Some("10.0.0.1:21000".into()),
            ports: Vec::new(),
            transports: Vec::new(),
            meta: Default::default(),
            locality: String::new(),
            node: String::new(),
            metrics: String::new(),
            lineage: "l".into(),
            healthy,
            state_since: SystemTime::UNIX_EPOCH,
            left: false,
            silent: false,
            tags: Vec::new(),
            weights: Default::default(),
            checks: Vec::new(),
        }
    }

    #[test]
    fn after_a_start_a_recorded_instance_keeps_its_state_until_it_settled() {
        let settings = RegistrySettings::default();
        let start = Instant::now();
        let liveness = Liveness::new(start);
        assert!(liveness.health(&record(true), &settings, start + Duration::from_secs(59)));
        assert!(!liveness.health(&record(true), &settings, start + Duration::from_secs(60)));
        assert!(!liveness.health(&record(false), &settings, start));
    }

    #[test]
    fn silence_makes_an_instance_critical() {
        let settings = RegistrySettings::default();
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        liveness.seen(&record(true).id, true, start);
        assert!(liveness.health(&record(true), &settings, start + Duration::from_secs(14)));
        assert!(!liveness.health(&record(true), &settings, start + Duration::from_secs(15)));
    }

    #[test]
    fn a_pause_of_this_process_is_nobody_elses_silence() {
        let settings = RegistrySettings::default();
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        liveness.seen(&record(true).id, true, start);
        let later = start + Duration::from_secs(3600);
        liveness.forgive(later);
        assert!(liveness.health(&record(true), &settings, later));
    }
}
