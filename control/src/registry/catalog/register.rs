//! What registers without a sidecar, and what becomes of it: written to the store, and seen by everyone from there.

use std::time::SystemTime;

use postern_checks::Status;
use postern_names::InstanceId;

use super::super::{RegisterError, Registry, TRIES, text_is_short};
use crate::mirror::View;
use crate::records::{
    self, CheckRecord, InstanceRecord, NODE_MAINTENANCE, NodeRecord, RecordKey, RegisteredRecord, service_maintenance,
};
use crate::store::{Compare, MAX_OPS, Op, Txn};

/// Operations of one transaction, with room for what is added to it.
const OPS_AT_ONCE: usize = MAX_OPS - 8;
/// Bytes of a node's name, and of an id.
const NAME_LIMIT: usize = 255;
/// Checks of one registration.
const CHECK_LIMIT: usize = 64;

/// A node, an instance and checks, registered together.
#[derive(Debug, Clone, Default)]
pub struct Registering {
    /// The node as it is from now on; `None`: as it is.
    pub node: Option<NodeRecord>,
    /// The instance.
    pub service: Option<RegisteringService>,
    /// Checks of the node or of instances on it.
    pub checks: Vec<CheckRecord>,
}

/// An instance that is registered.
#[derive(Debug, Clone)]
pub struct RegisteringService {
    /// What it is.
    pub record: RegisteredRecord,
    /// Whether checks that it had before and that are not registered with it now go.
    pub replaces_checks: bool,
}

/// What is deregistered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving<'a> {
    /// A node with all that is on it.
    Node,
    /// An instance with its checks.
    Service(&'a str),
    /// A check.
    Check(&'a str),
}

/// A transaction in the making.
struct Changes<'a> {
    view: &'a View,
    txn: Txn,
}

impl Changes<'_> {
    fn put_node(&mut self, mut record: NodeRecord) -> Result<(), RegisterError> {
        let before = self.view.catalog.node(&record.node).and_then(|node| node.record.as_ref());
        if let Some((before, _)) = before {
            record.created_in = before.created_in;
            if *before == record {
                return Ok(());
            }
        }
        record.created_in = before.map(|(before, revision)| before.created_in.unwrap_or(*revision));
        self.put(RecordKey::Node(record.node.clone()), before.map_or(0, |(_, revision)| *revision), &record)
    }

    fn put_service(&mut self, mut record: RegisteredRecord) -> Result<(), RegisterError> {
        let node = self.view.catalog.node(&record.node);
        let before = node.and_then(|node| node.registered.get(&record.id));
        if let Some((before, _)) = before {
            record.created_in = before.created_in;
            if *before == record {
                return Ok(());
            }
        }
        record.created_in = before.map(|(before, revision)| before.created_in.unwrap_or(*revision));
        self.put(
            RecordKey::Registered(record.node.clone(), record.id.clone()),
            before.map_or(0, |(_, revision)| *revision),
            &record,
        )
    }

    fn put_check(&mut self, mut record: CheckRecord) -> Result<(), RegisterError> {
        let before = self.view.catalog.node(&record.node).and_then(|node| node.checks.get(&record.id));
        if let Some((before, _)) = before {
            // A check that is run here keeps what it found, however often it is registered.
            if record.definition.is_some() && record.service_id == before.service_id {
                record.status = before.status;
                record.output.clone_from(&before.output);
            }
            if record.status == before.status {
                record.status_since = before.status_since;
            }
            record.created_in = before.created_in;
            if *before == record {
                return Ok(());
            }
        }
        record.created_in = before.map(|(before, revision)| before.created_in.unwrap_or(*revision));
        self.put(RecordKey::Check(record.node.clone(), record.id.clone()), before.map_or(0, |(_, revision)| *revision), &record)
    }

    fn put(&mut self, key: RecordKey, before: u64, record: &impl serde::Serialize) -> Result<(), RegisterError> {
        let key = key.to_bytes();
        let txn = std::mem::take(&mut self.txn).when(Compare::unchanged(key.clone(), before));
        self.txn = txn.then(Op::put(key, records::encode(record)?));
        Ok(())
    }
}

impl Registry {
    /// The node of the control plane.
    pub fn home(&self) -> &super::super::Home {
        &self.settings.home
    }

    /// Whether checks may run programs on this machine.
    pub fn allows_script_checks(&self) -> bool {
        self.settings.script_checks
    }

    /// Takes in what somebody without a sidecar registers. Nothing is written when the store says so already. `also`
    /// becomes part of the transaction. Gives the revision that holds it.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register_without_sidecar(&self, registering: &Registering, also: &[Op]) -> Result<u64, RegisterError> {
        validate(registering)?;
        let what = registering.service.as_ref().map_or_else(|| "a node".to_owned(), |service| service.record.id.clone());
        self.transact(&what, also, |changes| {
            if let Some(node) = &registering.node {
                changes.put_node(node.clone())?;
            }
            if let Some(service) = &registering.service {
                refuse_sidecar(changes.view, &service.record)?;
                changes.put_service(service.record.clone())?;
                if service.replaces_checks {
                    let kept: Vec<&str> = registering.checks.iter().map(|check| check.id.as_str()).collect();
                    let node = changes.view.catalog.node(&service.record.node);
                    let before = node.into_iter().flat_map(|node| node.checks_of(&service.record.id));
                    let gone = before.filter(|(check, _)| !check.is_maintenance() && !kept.contains(&check.id.as_str()));
                    for (check, _) in gone {
                        let key = RecordKey::Check(check.node.clone(), check.id.clone()).to_bytes();
                        changes.txn.then.push(Op::delete(key));
                    }
                }
            }
            registering.checks.iter().try_for_each(|check| {
                refuse_deregistering(changes.view, check)?;
                changes.put_check(check.clone())
            })
        })
        .await
    }

    /// Takes out what was registered without a sidecar. Gives whether there was something. An instance that has a sidecar
    /// keeps its checks, and the maintenance of its node: they may be all that keeps callers away from it.
    ///
    /// # Errors
    /// [`RegisterError`]; [`RegisterError::HasSidecar`] where it is an instance that a sidecar registers.
    pub async fn deregister_without_sidecar(&self, node: &str, leaving: Leaving<'_>, also: &[Op]) -> Result<bool, RegisterError> {
        let keys = self.mirror.read(|view| keys_of(view, node, leaving))?;
        let mut also = also;
        for keys in keys.chunks(OPS_AT_ONCE) {
            let mut txn = Txn::new();
            txn.then = keys.iter().map(|key| Op::delete(key.to_bytes())).chain(also.iter().cloned()).collect();
            also = &[];
            let result = self.store.txn(txn).await?;
            self.mirror.reached(result.revision).await;
        }
        Ok(!keys.is_empty())
    }

    /// What a check says from now on; without a status, that which it has. Gives whether there is such a check.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn update_check(&self, node: &str, id: &str, status: Option<Status>, output: &str) -> Result<bool, RegisterError> {
        let output = postern_checks::shortened(output.as_bytes());
        let mut is_there = false;
        self.transact(id, &[], |changes| {
            let before = changes.view.catalog.node(node).and_then(|node| node.checks.get(id));
            is_there = before.is_some();
            let Some((before, revision)) = before else { return Ok(()) };
            let status = status.unwrap_or(before.status);
            if before.status == status && before.output == output {
                return Ok(());
            }
            let mut record = before.clone();
            if before.status != status {
                record.status_since = SystemTime::now();
            }
            record.status = status;
            record.output.clone_from(&output);
            record.created_in = Some(before.created_in.unwrap_or(*revision));
            changes.put(RecordKey::Check(node.to_owned(), id.to_owned()), *revision, &record)
        })
        .await?;
        Ok(is_there)
    }

    /// Takes an instance, or a whole node, out of every set at once, for this reason; without one it comes back.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn set_maintenance(
        &self,
        node: &str,
        service: Option<&str>,
        reason: Option<&str>,
        also: &[Op],
    ) -> Result<u64, RegisterError> {
        let id = service.map_or_else(|| NODE_MAINTENANCE.to_owned(), service_maintenance);
        let what = service.unwrap_or(node);
        let Some(reason) = reason else {
            self.deregister_without_sidecar(node, Leaving::Check(&id), also).await?;
            return Ok(self.mirror.revision());
        };
        text_is_short(reason, 1024)?;
        let kind = if service.is_some() { "Service" } else { "Node" };
        let notes = match reason {
            "" => format!("Maintenance mode is enabled for this {}, but no reason was provided.", kind.to_ascii_lowercase()),
            reason => reason.to_owned(),
        };
        let record = CheckRecord {
            node: node.to_owned(),
            id,
            name: format!("{kind} Maintenance Mode"),
            notes,
            status: Status::Critical,
            output: String::new(),
            service_id: service.unwrap_or_default().to_owned(),
            kind: "maintenance".into(),
            definition: None,
            status_since: SystemTime::now(),
            created_in: None,
        };
        self.transact(what, also, |changes| changes.put_check(record.clone())).await
    }

    /// Takes out the record of an instance with a sidecar, unless it changed since `revision`, with the checks that were
    /// registered for it: no callers get it any more, and nobody could find them.
    pub(in super::super) async fn remove(&self, id: &InstanceId, revision: u64) -> Result<(), RegisterError> {
        let key = records::instance_key(id);
        let checks = self.mirror.read(|view| {
            let Some((record, _)) = view.instances.get(id) else { return Vec::new() };
            let Some(node) = view.catalog.node(record.node_name()) else { return Vec::new() };
            // What registered without a sidecar since has them.
            if node.registered.contains_key(id.as_str()) {
                return Vec::new();
            }
            let checks = node.checks_of(id.as_str()).map(|(check, _)| check);
            checks.map(|check| RecordKey::Check(check.node.clone(), check.id.clone()).to_bytes()).collect()
        });
        // The record last: what is left of it by a failure in between is taken out the next time.
        let ops: Vec<Op> = checks.into_iter().chain([key.clone()]).map(Op::delete).collect();
        for ops in ops.chunks(MAX_OPS) {
            let mut txn = Txn::new().when(Compare::unchanged(key.clone(), revision));
            txn.then = ops.to_vec();
            let result = self.store.txn(txn).await?;
            self.mirror.reached(result.revision).await;
            if !result.succeeded {
                break;
            }
        }
        Ok(())
    }

    /// Takes out the checks of instances that are not there, such as of one that moved to another node.
    pub(in super::super) async fn remove_orphans(&self) -> Result<(), RegisterError> {
        for txn in self.mirror.read(orphans) {
            // Where something came between, the next time is soon enough.
            let result = self.store.txn(txn).await?;
            self.mirror.reached(result.revision).await;
        }
        Ok(())
    }

    async fn transact(
        &self,
        what: &str,
        also: &[Op],
        mut change: impl FnMut(&mut Changes<'_>) -> Result<(), RegisterError>,
    ) -> Result<u64, RegisterError> {
        for _ in 0..TRIES {
            let (txn, revision) = self.mirror.read(|view| {
                let mut changes = Changes { view, txn: Txn::new() };
                change(&mut changes).map(|()| (changes.txn, view.revision))
            })?;
            if txn.then.is_empty() {
                return Ok(revision);
            }
            let mut txn = txn;
            txn.then.extend(also.iter().cloned());
            let result = self.store.txn(txn).await?;
            self.mirror.reached(result.revision).await;
            if result.succeeded {
                return Ok(result.revision);
            }
        }
        Err(RegisterError::Busy(what.chars().take(80).collect()))
    }
}

fn keys_of(view: &View, name: &str, leaving: Leaving<'_>) -> Result<Vec<RecordKey>, RegisterError> {
    let Some(node) = view.catalog.node(name) else { return Ok(Vec::new()) };
    let check = |id: &String| RecordKey::Check(name.to_owned(), id.clone());
    let registered = |id: &String| RecordKey::Registered(name.to_owned(), id.clone());
    Ok(match leaving {
        Leaving::Check(id) => node.checks.keys().filter(|key| *key == id).map(check).collect(),
        Leaving::Service(id) => {
            refuse_without_record(view, name, id)?;
            let service = node.registered.keys().filter(|key| *key == id).map(registered);
            let checks = node.checks_of(id).map(|(record, _)| record).filter(|check| !stays_for_sidecar(view, check));
            service.chain(checks.map(|record| check(&record.id))).collect()
        }
        Leaving::Node => {
            let services = node.registered.keys().map(registered);
            let record = node.record.iter().map(|_| RecordKey::Node(name.to_owned()));
            let checks = node.checks.values().map(|(record, _)| record).filter(|check| !stays_for_sidecar(view, check));
            services.chain(checks.map(|record| check(&record.id))).chain(record).collect()
        }
    })
}

/// Transactions that take out the checks of instances which are not there, unless these come in between.
fn orphans(view: &View) -> Vec<Txn> {
    let mut txns = Vec::new();
    for (name, node) in view.catalog.nodes() {
        let is_orphan = |check: &CheckRecord| {
            let of = &check.service_id;
            !of.is_empty() && !node.registered.contains_key(of) && sidecar_of(view, name, of).is_none()
        };
        for (check, revision) in node.checks.values().filter(|(check, _)| is_orphan(check)) {
            let key = RecordKey::Check(name.clone(), check.id.clone()).to_bytes();
            let registered = RecordKey::Registered(name.clone(), check.service_id.clone()).to_bytes();
            let mut txn = Txn::new().when(Compare::unchanged(key.clone(), *revision)).when(Compare::absent(registered));
            if let Ok(id) = check.service_id.parse::<InstanceId>() {
                let elsewhere = view.instances.get(&id).map_or(0, |(_, revision)| *revision);
                txn = txn.when(Compare::unchanged(records::instance_key(&id), elsewhere));
            }
            txns.push(txn.then(Op::delete(key)));
        }
    }
    txns
}

/// The instance of this id and node that a sidecar registered, also when it left and is remembered.
pub(in super::super) fn sidecar_of<'a>(view: &'a View, node: &str, id: &str) -> Option<&'a InstanceRecord> {
    let (instance, _) = view.instances.get(&id.parse::<InstanceId>().ok()?)?;
    (instance.node_name() == node).then_some(instance)
}

/// Whether a check outlives the deregistration of what it is of: it is of a sidecar's instance, or it is the maintenance of
/// a node on which there is one. What registered without a sidecar after one left has the checks to itself.
pub(super) fn stays_for_sidecar(view: &View, check: &CheckRecord) -> bool {
    let Some(node) = view.catalog.node(&check.node) else { return false };
    if check.service_id.is_empty() {
        return check.is_maintenance() && !node.instances.is_empty();
    }
    let sidecar = sidecar_of(view, &check.node, &check.service_id);
    sidecar.is_some_and(|instance| !instance.left || !node.registered.contains_key(&check.service_id))
}

/// An instance that a sidecar registers, and nobody else, is deregistered with its sidecar.
pub(super) fn refuse_without_record(view: &View, node: &str, id: &str) -> Result<(), RegisterError> {
    let is_registered = view.catalog.node(node).is_some_and(|node| node.registered.contains_key(id));
    match sidecar_of(view, node, id) {
        Some(instance) if !is_registered && !instance.left => {
            Err(RegisterError::HasSidecar { node: node.to_owned(), id: id.to_owned() })
        }
        _ => Ok(()),
    }
}

/// An instance with a sidecar leaves the mesh with it, not by a check.
fn refuse_deregistering(view: &View, check: &CheckRecord) -> Result<(), RegisterError> {
    let deregisters = check.definition.as_ref().is_some_and(|definition| definition.deregister_after.is_some());
    if !deregisters || sidecar_of(view, &check.node, &check.service_id).is_none_or(|instance| instance.left) {
        return Ok(());
    }
    Err(RegisterError::Invalid(format!(
        "check {}: DeregisterCriticalServiceAfter is for instances without a sidecar; {} leaves the mesh with its sidecar",
        check.id, check.service_id
    )))
}

/// What a sidecar registers is told by nobody else.
pub(super) fn refuse_sidecar(view: &View, record: &RegisteredRecord) -> Result<(), RegisterError> {
    match sidecar_of(view, &record.node, &record.id) {
        Some(instance) if !instance.left => Err(RegisterError::Invalid(format!(
            "{} on node {} has a sidecar, which registers it; give another id",
            record.id, record.node
        ))),
        _ => Ok(()),
    }
}

pub(super) fn validate(registering: &Registering) -> Result<(), RegisterError> {
    if let Some(NodeRecord { node, address, meta, tagged_addresses, id, .. }) = &registering.node {
        name("node", node)?;
        name("address of the node", address)?;
        text_is_short(id, NAME_LIMIT)?;
        labels(meta.iter().chain(tagged_addresses))?;
    }
    if let Some(RegisteringService { record, .. }) = &registering.service {
        name("node", &record.node)?;
        name("service id", &record.id)?;
        for text in record.tags.iter().chain([&record.address, &record.locality]) {
            text_is_short(text, NAME_LIMIT)?;
        }
        if record.tags.len() > 64 {
            return Err(RegisterError::Invalid(format!("{} tags, at most 64 are allowed", record.tags.len())));
        }
        labels(&record.meta)?;
        for (tag, address) in &record.tagged_addresses {
            text_is_short(tag, NAME_LIMIT)?;
            text_is_short(&address.address, NAME_LIMIT)?;
        }
    }
    if registering.checks.len() > CHECK_LIMIT {
        let count = registering.checks.len();
        return Err(RegisterError::Invalid(format!("{count} checks at once, at most {CHECK_LIMIT} are allowed")));
    }
    for check in &registering.checks {
        name("node", &check.node)?;
        name("check id", &check.id)?;
        if check.name.len() > NAME_LIMIT || check.notes.len() > 4096 {
            return Err(RegisterError::Invalid(format!("the name or the notes of check {} are too long", check.id)));
        }
    }
    Ok(())
}

fn name(what: &str, text: &str) -> Result<(), RegisterError> {
    if text.is_empty() {
        return Err(RegisterError::Invalid(format!("the {what} is missing")));
    }
    text_is_short(text, NAME_LIMIT)
}

/// As many, and as long, as Consul allows.
fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<(), RegisterError> {
    for (at, (key, value)) in labels.into_iter().enumerate() {
        if at >= 64 {
            return Err(RegisterError::Invalid("more than 64 labels".into()));
        }
        text_is_short(key, 128)?;
        text_is_short(value, 512)?;
    }
    Ok(())
}
