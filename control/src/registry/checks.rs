//! The checks that the control plane runs: those of instances that registered with it as with an agent.
//!
//! One task holds them all, follows the view, and starts and ends a task for each. What a check finds, or is told, is written
//! only when the status changes; output alone at most every five minutes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postern_checks::{Damper, Definition, Kind, Status, run};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Registry;
use super::catalog::Leaving;
use crate::audit::AuditEntry;
use crate::mirror::{Change, View};
use crate::records::{CheckRecord, RecordKey};

/// Output that changes while the status does not is written this often.
pub(super) const OUTPUT_PERIOD: Duration = Duration::from_secs(300);
/// How often is looked for instances that were critical for too long.
pub(super) const REAP: Duration = Duration::from_secs(10);
/// Probes under way at the same time; the others wait for a place.
const PROBES_AT_ONCE: usize = 512;
/// The first probe of a check that was there at a start comes within its interval, of a new one within this.
const NEW_WITHIN: Duration = Duration::from_millis(500);

type CheckName = (String, String);

/// The checks that run.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    keeper: Mutex<Option<JoinHandle<()>>>,
    told: Mutex<HashMap<CheckName, Told>>,
}

/// What is known of a TTL check beside its record.
#[derive(Debug, Default)]
struct Told {
    /// Rung when somebody tells.
    bell: Arc<Notify>,
    /// When something that was told was last written.
    written_at: Option<Instant>,
    /// The newest output, where it is not written yet.
    output: Option<String>,
}

impl Checks {
    pub(super) fn start(&self, registry: &Arc<Registry>) {
        *self.keeper.lock() = Some(tokio::spawn(keep(Arc::downgrade(registry))));
    }

    fn bell(&self, check: &CheckName) -> Arc<Notify> {
        Arc::clone(&self.told.lock().entry(check.clone()).or_default().bell)
    }

    /// Output that is due to be written later; gives whether it is so.
    fn put_off(&self, check: &CheckName, output: &str, now: Instant) -> bool {
        let mut told = self.told.lock();
        let told = told.entry(check.clone()).or_default();
        let is_early = told.written_at.is_some_and(|at| now.duration_since(at) < OUTPUT_PERIOD);
        if is_early {
            told.output = Some(output.to_owned());
        }
        is_early
    }

    /// What is told is written now, or stands written already: nothing waits any more. Gives what waited.
    fn written(&self, check: &CheckName, now: Option<Instant>) -> Option<String> {
        let mut told = self.told.lock();
        let told = told.get_mut(check)?;
        told.written_at = now.or(told.written_at);
        told.output.take()
    }

    /// When output that waits is to be written.
    fn write_at(&self, check: &CheckName) -> Option<Instant> {
        let told = self.told.lock();
        let told = told.get(check).filter(|told| told.output.is_some())?;
        told.written_at.map(|at| at + OUTPUT_PERIOD)
    }

    fn waiting_output(&self, check: &CheckName) -> Option<String> {
        self.told.lock().get(check)?.output.clone()
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
    }
}

impl Registry {
    /// Somebody tells what a TTL check says: its time begins anew. Gives whether there is such a check.
    ///
    /// # Errors
    /// [`RegisterError`](super::RegisterError).
    pub async fn tell_check(&self, node: &str, id: &str, status: Status, output: &str) -> Result<bool, super::RegisterError> {
        let name = (node.to_owned(), id.to_owned());
        let output = postern_checks::shortened(output.as_bytes());
        let said = self.mirror.read(|view| {
            let (record, _) = view.catalog.node(node)?.checks.get(id)?;
            Some((record.status, record.output == output))
        });
        let Some((before, is_same)) = said else { return Ok(false) };
        self.checks.bell(&name).notify_one();
        let now = Instant::now();
        if before == status && is_same {
            self.checks.written(&name, None);
            return Ok(true);
        }
        if before == status && self.checks.put_off(&name, &output, now) {
            return Ok(true);
        }
        self.checks.written(&name, Some(now));
        self.update_check(node, id, Some(status), &output).await
    }

    /// The newest output of a check that was told, where its record does not have it yet.
    pub fn newest_output(&self, node: &str, id: &str) -> Option<String> {
        self.checks.waiting_output(&(node.to_owned(), id.to_owned()))
    }
}

struct Running {
    definition: Definition,
    task: AbortHandle,
}

struct Keeper {
    registry: Weak<Registry>,
    running: HashMap<CheckName, Running>,
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
    critical: Critical,
}

/// How long checks are critical, by the clock that nobody sets. What was critical before this process looked counts from the
/// end of its first moments: no probe could say otherwise before.
#[derive(Debug)]
pub(super) struct Critical {
    /// This process began to look, or was away until then.
    start: Instant,
    looked_at: Instant,
    /// Since when a check is critical as its record says, and since when as was seen here.
    since: HashMap<CheckName, (SystemTime, Instant)>,
}

impl Critical {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, looked_at: now, since: HashMap::new() }
    }

    /// The instances without a sidecar that have a check which was critical for as long as it says: node and id.
    pub(super) fn due(&mut self, view: &View, settle: Duration, now: Instant) -> Vec<(String, String)> {
        if now.duration_since(self.looked_at) > REAP * 3 {
            self.start = now;
        }
        self.looked_at = now;
        let (mut since, mut due) = (HashMap::new(), Vec::new());
        for (name, node) in view.catalog.nodes() {
            let of_registered = node.checks.values().map(|(record, _)| record);
            let of_registered = of_registered.filter(|record| node.registered.contains_key(&record.service_id));
            for record in of_registered.filter(|record| record.status == Status::Critical) {
                let Some(definition) = &record.definition else { continue };
                let Some(after) = definition.deregister_after else { continue };
                let check = (name.clone(), record.id.clone());
                let seen = self.since.get(&check).filter(|(since, _)| *since == record.status_since);
                let seen = seen.map_or(now, |(_, seen)| *seen);
                since.insert(check, (record.status_since, seen));
                // The first probe after a start comes within its interval.
                let first = match &definition.kind {
                    Kind::Probe(_, schedule) => schedule.interval.max(settle),
                    Kind::Ttl(_) | Kind::Alias { .. } => settle,
                };
                if now.saturating_duration_since(seen.max(self.start + first)) >= after {
                    due.push((name.clone(), record.service_id.clone()));
                }
            }
        }
        self.since = since;
        due
    }
}

/// Ends with the registry.
async fn keep(registry: Weak<Registry>) {
    let Some(mut changes) = registry.upgrade().map(|registry| registry.mirror.subscribe()) else { return };
    let places = Arc::new(Semaphore::new(PROBES_AT_ONCE));
    let critical = Critical::new(Instant::now());
    let mut keeper = Keeper { registry, running: HashMap::new(), tasks: JoinSet::new(), places, critical };
    keeper.follow_all(true).await;
    let mut reap = interval(REAP);
    reap.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Ok(change) if !change.everything => keeper.follow(&change).await,
                Ok(_) | Err(RecvError::Lagged(_)) => keeper.follow_all(false).await,
                Err(RecvError::Closed) => return,
            },
            _ = reap.tick() => {
                keeper.reap().await;
                keeper.clear_orphans().await;
            }
        }
        while keeper.tasks.try_join_next().is_some() {}
        if keeper.registry.strong_count() == 0 {
            return;
        }
    }
}

impl Keeper {
    async fn follow_all(&mut self, is_start: bool) {
        let Some(registry) = self.registry.upgrade() else { return };
        let records: Vec<CheckRecord> = registry.mirror.read(|view| {
            let checks = view.catalog.nodes().flat_map(|(_, node)| node.checks.values());
            checks.map(|(record, _)| record).filter(|record| record.definition.is_some()).cloned().collect()
        });
        let names: std::collections::HashSet<CheckName> =
            records.iter().map(|record| (record.node.clone(), record.id.clone())).collect();
        let gone: Vec<CheckName> = self.running.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.end(&name);
        }
        for record in records {
            self.ensure(&registry, record, is_start);
        }
        self.follow_aliases(&registry).await;
    }

    async fn follow(&mut self, change: &Change) {
        let Some(registry) = self.registry.upgrade() else { return };
        for key in &change.keys {
            let RecordKey::Check(node, id) = key else { continue };
            let name = (node.clone(), id.clone());
            let record = registry.mirror.read(|view| view.catalog.node(node)?.checks.get(id).map(|(record, _)| record.clone()));
            match record.filter(|record| record.definition.is_some()) {
                Some(record) => self.ensure(&registry, record, false),
                None => self.end(&name),
            }
        }
        if change.touches_catalog() {
            self.follow_aliases(&registry).await;
        }
    }

    fn end(&mut self, name: &CheckName) {
        if let Some(running) = self.running.remove(name) {
            running.task.abort();
        }
        if let Some(registry) = self.registry.upgrade() {
            registry.checks.told.lock().remove(name);
        }
    }

    fn ensure(&mut self, registry: &Arc<Registry>, record: CheckRecord, is_start: bool) {
        let name = (record.node.clone(), record.id.clone());
        let Some(definition) = record.definition.clone() else { return };
        if self.running.get(&name).is_some_and(|running| running.definition == definition) {
            return;
        }
        self.end(&name);
        let registry = Arc::downgrade(registry);
        let places = Arc::clone(&self.places);
        let task = match definition.kind.clone() {
            // Nothing is run for it: what it is an alias of is looked at whenever something changes.
            Kind::Alias { .. } => self.tasks.spawn(std::future::ready(())),
            Kind::Ttl(ttl) => self.tasks.spawn(wait_to_be_told(registry, name.clone(), ttl)),
            Kind::Probe(probe, schedule) => {
                let spread = if is_start { schedule.interval } else { schedule.interval.min(NEW_WITHIN) };
                self.tasks.spawn(probe_on(registry, name.clone(), record, probe, schedule, spread, places))
            }
        };
        self.running.insert(name, Running { definition, task });
    }

    async fn follow_aliases(&self, registry: &Arc<Registry>) {
        let aliases = self.running.iter().filter_map(|(name, running)| match &running.definition.kind {
            Kind::Alias { node, service } => Some((name, node.as_ref().unwrap_or(&name.0), service.as_deref())),
            _ => None,
        });
        for ((node, id), of_node, of_service) in aliases {
            let (status, output) = registry.mirror.read(|view| alias(registry, view, of_node, of_service));
            report(registry, node, id, status, &output).await;
        }
    }

    /// Deregisters instances with a check that was critical for as long as it says.
    async fn reap(&mut self) {
        let Some(registry) = self.registry.upgrade() else { return };
        let settle = registry.settings.settle;
        let critical = &mut self.critical;
        let due = registry.mirror.read(|view| critical.due(view, settle, Instant::now()));
        for (node, service) in due {
            let entry = AuditEntry {
                at: SystemTime::now(),
                who: "control-plane".into(),
                from: "health checks".into(),
                what: "service.deregister".into(),
                details: serde_json::json!({ "node": node, "id": service }),
                reason: Some("critical for too long".into()),
            };
            tracing::info!(node, service, "deregistered: critical for as long as its check allows");
            let leaving = Leaving::Service(&service);
            if let Err(error) = registry.deregister_without_sidecar(&node, leaving, &[entry.op()]).await {
                tracing::error!(%error, node, service, "it was not deregistered; trying again");
            }
        }
    }

    /// Takes out checks of instances that are not there, which nobody would find or end.
    async fn clear_orphans(&self) {
        let Some(registry) = self.registry.upgrade() else { return };
        if let Err(error) = registry.remove_orphans().await {
            tracing::error!(%error, "checks of instances that are gone were not taken out; trying again");
        }
    }
}

/// What the checks of another instance or of a node say; those that are aliases themselves do not count.
fn alias(registry: &Registry, view: &View, node: &str, service: Option<&str>) -> (Status, String) {
    let catalog = super::catalog::Catalog::new(view, registry.home());
    let checks = match service {
        None => catalog.node(node).map(|_| catalog.checks_of_node(node)),
        Some(id) => catalog.entry(node, id).map(|entry| catalog.checks_of(&entry)),
    };
    let Some(checks) = checks else {
        return (Status::Critical, format!("{} is not registered on node {node}", service.unwrap_or("the node")));
    };
    let counted: Vec<_> = checks.into_iter().filter(|check| check.kind != "alias").collect();
    match counted.iter().max_by_key(|check| check.status) {
        None => (Status::Passing, "No checks found.".into()),
        Some(worst) if worst.status == Status::Passing => (Status::Passing, "All checks passing.".into()),
        Some(worst) => (worst.status, format!("Aliased check {:?} is {}: {}", worst.id, worst.status, worst.output)),
    }
}

async fn report(registry: &Registry, node: &str, id: &str, status: Status, output: &str) {
    if let Err(error) = registry.update_check(node, id, Some(status), output).await {
        tracing::error!(%error, node, check = id, "what a check found was not written; the next result is");
    }
}

/// Silence for `ttl` is critical. Writes what waited long enough.
async fn wait_to_be_told(registry: Weak<Registry>, name: CheckName, ttl: Duration) {
    let Some(bell) = registry.upgrade().map(|registry| registry.checks.bell(&name)) else { return };
    let mut silent_at = Some(Instant::now() + ttl);
    loop {
        let Some(write_at) = registry.upgrade().map(|registry| registry.checks.write_at(&name)) else { return };
        tokio::select! {
            () = bell.notified() => silent_at = Some(Instant::now() + ttl),
            () = at(write_at) => {
                let Some(registry) = registry.upgrade() else { return };
                write_output(&registry, &name).await;
            }
            () = at(silent_at) => {
                let Some(registry) = registry.upgrade() else { return };
                expire(&registry, &name).await;
                silent_at = None;
            }
        }
    }
}

/// Ends at this time; without one never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn write_output(registry: &Registry, name: &CheckName) {
    let (node, id) = name;
    let Some(output) = registry.checks.written(name, Some(Instant::now())) else { return };
    if let Err(error) = registry.update_check(node, id, None, &output).await {
        tracing::error!(%error, node, check = id, "what a check was told was not written; the next is");
    }
}

async fn expire(registry: &Registry, name: &CheckName) {
    let (node, id) = name;
    let said = registry.mirror.read(|view| {
        let (record, _) = view.catalog.node(node)?.checks.get(id)?;
        (record.status != Status::Critical).then(|| record.output.clone())
    });
    let Some(said) = said else { return };
    let said = registry.checks.written(name, Some(Instant::now())).unwrap_or(said);
    tracing::info!(node, check = id, "critical: nothing was told in time");
    let output = format!("TTL expired (last output before timeout follows): {said}");
    report(registry, node, id, Status::Critical, &output).await;
}

async fn probe_on(
    registry: Weak<Registry>,
    (node, id): CheckName,
    record: CheckRecord,
    probe: postern_checks::Probe,
    schedule: postern_checks::Schedule,
    spread: Duration,
    places: Arc<Semaphore>,
) {
    let Some(thresholds) = record.definition.map(|definition| definition.thresholds) else { return };
    let mut damper = Damper::new(thresholds, record.status);
    // What is found while the last finding is being written takes the place of what was found before.
    let (found, mut finding) = watch::channel((record.status, record.output));
    let writing = async {
        let (mut status, mut written_at) = (record.status, None::<Instant>);
        while finding.changed().await.is_ok() {
            let (after, output) = finding.borrow_and_update().clone();
            if after == status && written_at.is_some_and(|at| at.elapsed() < OUTPUT_PERIOD) {
                continue;
            }
            let Some(registry) = registry.upgrade() else { return };
            if after != status {
                tracing::info!(node, check = id, "{after}");
            }
            report(&registry, &node, &id, after, &output).await;
            (status, written_at) = (after, Some(Instant::now()));
        }
    };
    let probing = run::poll(&probe, schedule, spread, &places, |answer| {
        found.send_replace((damper.take(answer.status), answer.output));
    });
    tokio::select! {
        () = writing => {}
        () = probing => {}
    }
}
