//! Who is where: registrations, health, and the set of endpoints that callers get for each service.
//!
//! A beat is never a durable write; a change of state is. The set of a service is its healthy instances; health and time
//! never empty it: if all are critical, the last set stays. A goodbye or `deregister` may empty it, at once.

pub mod catalog;
mod checks;
mod endpoints;
mod liveness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postern_api::v1;
use postern_intentions::Protocol;
use postern_names::{InstanceId, NameError, PortName, ServiceName};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use self::endpoints::EndpointSets;
use self::liveness::Liveness;
use crate::mirror::Mirror;
use crate::records::{self, InstanceCheck, InstanceRecord, ServiceRecord, Weights};
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// How often a write is tried again after another one came between.
const TRIES: usize = 8;

/// The most that an instance can weigh.
pub const MAX_WEIGHT: u32 = 65_535;

/// Periods of the registry, and the node that the control plane is.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// The node of the control plane: what registers with it as with an agent is there.
    pub home: Home,
    /// Whether checks may run programs on this machine.
    pub script_checks: bool,
    /// An instance that was silent for so long is critical.
    pub liveness: Duration,
    /// A critical instance that is in no endpoint set, and one that left, is in no list any more after so long. A silent one
    /// is remembered until its SVID has ended: its sidecar may still hold rules.
    pub removal: Duration,
    /// After a start, instances that were not heard of yet keep their recorded state for so long.
    pub settle: Duration,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            home: Home { node: "localhost".into(), address: "127.0.0.1".into() },
            script_checks: false,
            liveness: Duration::from_secs(15),
            removal: Duration::from_secs(300),
            settle: Duration::from_secs(60),
        }
    }
}

/// The node of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its host name.
    pub node: String,
    /// The IP address that others reach it at.
    pub address: String,
}

/// Why a registration was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A name in it is not valid.
    #[error("registration refused: {0}")]
    Name(#[from] NameError),
    /// Something else in it is not valid.
    #[error("registration refused: {0}")]
    Invalid(String),
    /// Another protocol was declared first.
    #[error(
        "{service} is declared as {stored}; this instance says {declared}: give --protocol {stored}, or change the service with `meshctl service config apply`"
    )]
    ProtocolDiffers {
        /// The service.
        service: ServiceName,
        /// What is stored.
        stored: Protocol,
        /// What this instance declares.
        declared: Protocol,
    },
    /// The id belongs to an instance of another service.
    #[error("instance id {id} is registered for service {service}; give --id, or deregister that one")]
    OtherService {
        /// The id.
        id: InstanceId,
        /// Its service.
        service: ServiceName,
    },
    /// A sidecar registers it, and it alone.
    #[error(
        "Service {id:?} on node {node:?} has a sidecar, which registers it: it leaves with its sidecar, or by `meshctl service deregister {id}`"
    )]
    HasSidecar {
        /// Its node.
        node: String,
        /// The id.
        id: String,
    },
    /// Other writes came between too often.
    #[error("the record of {0} changes too fast; try again")]
    Contended(InstanceId),
    /// Other writes came between too often.
    #[error("{0} changes too fast; try again")]
    Busy(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record cannot be written as JSON.
    #[error("the record cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// A registration whose parts are valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Its id.
    pub id: InstanceId,
    /// HOST:PORT that others dial.
    pub address: Option<String>,
    /// As declared.
    pub protocol: Option<Protocol>,
    /// Ports that it serves.
    pub ports: Vec<PortName>,
    /// Transports that it accepts.
    pub transports: Vec<String>,
    /// `--meta`.
    pub meta: BTreeMap<String, String>,
    /// REGION[/ZONE].
    pub locality: String,
    /// Host name.
    pub node: String,
    /// HOST:PORT for Prometheus.
    pub metrics: String,
    /// Whether the local service answers.
    pub healthy: bool,
    /// Findings for `doctor`.
    pub warnings: Vec<String>,
    /// `--tag`
    pub tags: Vec<String>,
    /// `--weight`
    pub weights: Weights,
    /// The checks that its sidecar runs.
    pub checks: Vec<InstanceCheck>,
}

impl Registration {
    /// Checks what a sidecar sent.
    ///
    /// # Errors
    /// [`RegisterError::Name`] and [`RegisterError::Invalid`] name the part that is not valid.
    pub fn from_wire(wire: &v1::Registration) -> Result<Self, RegisterError> {
        let protocol = match wire.protocol.as_str() {
            "" => None,
            text => {
                let known = text.parse();
                Some(known.map_err(|_| RegisterError::Invalid(format!("protocol {text:?} is none of tcp, http, http2, grpc")))?)
            }
        };
        let ports = wire.ports.iter().map(|port| port.parse()).collect::<Result<Vec<PortName>, _>>()?;
        limit("ports", ports.len(), 64)?;
        limit("meta labels", wire.meta.len(), 64)?;
        limit("transports", wire.transports.len(), 8)?;
        limit("warnings", wire.warnings.len(), 32)?;
        let texts = wire.meta.iter().flat_map(|label| [&label.key, &label.value]);
        for text in texts.chain(&wire.transports).chain([&wire.locality, &wire.node, &wire.metrics]) {
            text_is_short(text, 256)?;
        }
        for text in &wire.warnings {
            text_is_short(text, 1024)?;
        }
        limit("tags", wire.tags.len(), 64)?;
        for text in &wire.tags {
            text_is_short(text, 256)?;
        }
        limit("checks", wire.checks.len(), 32)?;
        if !wire.metrics.is_empty() {
            check_address("metrics", &wire.metrics)?;
        }
        Ok(Self {
            id: wire.instance_id.parse()?,
            address: match wire.advertise.as_str() {
                "" => None,
                text => Some(check_address("advertise", text)?),
            },
            protocol,
            ports,
            transports: wire.transports.clone(),
            meta: wire.meta.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
            locality: wire.locality.clone(),
            node: wire.node.clone(),
            metrics: wire.metrics.clone(),
            healthy: wire.healthy,
            warnings: wire.warnings.clone(),
            tags: wire.tags.clone(),
            weights: match &wire.weights {
                None => Weights::default(),
                Some(weights) => Weights { passing: weights.passing.min(MAX_WEIGHT), warning: weights.warning.min(MAX_WEIGHT) },
            },
            checks: wire.checks.iter().map(check_from_wire).collect::<Result<_, _>>()?,
        })
    }

    fn record(&self, service: &ServiceName, lineage: &str, before: Option<&InstanceRecord>, now: SystemTime) -> InstanceRecord {
        let state_since = match before {
            Some(before) if before.healthy == self.healthy && !before.left => before.state_since,
            _ => now,
        };
        InstanceRecord {
            id: self.id.clone(),
            service: service.clone(),
            address: self.address.clone(),
            ports: self.ports.clone(),
            transports: self.transports.clone(),
            meta: self.meta.clone(),
            locality: self.locality.clone(),
            node: self.node.clone(),
            metrics: self.metrics.clone(),
            lineage: lineage.to_owned(),
            healthy: self.healthy,
            state_since,
            left: false,
            silent: false,
            tags: self.tags.clone(),
            weights: self.weights,
            checks: self.checks.clone(),
        }
    }
}

fn check_from_wire(wire: &v1::Check) -> Result<InstanceCheck, RegisterError> {
    for text in [&wire.id, &wire.name, &wire.kind, &wire.notes] {
        text_is_short(text, 256)?;
    }
    Ok(InstanceCheck {
        id: wire.id.clone(),
        name: wire.name.clone(),
        kind: wire.kind.clone(),
        notes: wire.notes.clone(),
        status: wire.status.parse().map_err(|error| RegisterError::Invalid(format!("check {:?}: {error}", wire.id)))?,
        output: postern_checks::shortened(wire.output.as_bytes()),
    })
}

fn limit(what: &str, count: usize, max: usize) -> Result<(), RegisterError> {
    if count <= max { Ok(()) } else { Err(RegisterError::Invalid(format!("{count} {what}, at most {max} are allowed"))) }
}

fn text_is_short(text: &str, max: usize) -> Result<(), RegisterError> {
    if text.len() <= max && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let shown: String = text.chars().take(40).collect();
    Err(RegisterError::Invalid(format!("{shown:?}… is longer than {max} bytes or holds control characters")))
}

/// HOST:PORT or `[v6]:PORT` that can be dialled.
fn check_address(what: &str, text: &str) -> Result<String, RegisterError> {
    let refuse = |why: &str| {
        let shown: String = text.chars().take(80).collect();
        Err(RegisterError::Invalid(format!("{what} address {shown:?} {why}")))
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 || address.ip().is_unspecified() {
            return refuse("cannot be dialled; give --advertise HOST:PORT");
        }
        return Ok(text.to_owned());
    }
    let Some((host, port)) = text.rsplit_once(':') else { return refuse("has no port") };
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return refuse("has no valid port");
    }
    let host_is_valid = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if host_is_valid { Ok(text.to_owned()) } else { refuse("has no valid host name") }
}

/// The registry of one control plane.
pub struct Registry {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    settings: RegistrySettings,
    sets: Arc<EndpointSets>,
    liveness: Mutex<Liveness>,
    look_now: Notify,
    sweeper: Mutex<Option<JoinHandle<()>>>,
    pub(crate) checks: checks::Checks,
}

impl Registry {
    /// Starts the registry and its sweep. `sets` must be kept current by whoever observes the mirror.
    pub fn start(store: Arc<dyn Store>, mirror: Arc<Mirror>, sets: Arc<EndpointSets>, settings: RegistrySettings) -> Arc<Self> {
        let registry = Arc::new(Self {
            store,
            mirror,
            sets,
            liveness: Mutex::new(Liveness::new(tokio::time::Instant::now())),
            settings,
            look_now: Notify::new(),
            sweeper: Mutex::new(None),
            checks: checks::Checks::default(),
        });
        registry.checks.start(&registry);
        *registry.sweeper.lock() = Some(tokio::spawn(liveness::sweep(Arc::downgrade(&registry))));
        registry
    }

    /// Takes a registration in. Nothing is written when the store says so already.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(&self, service: &ServiceName, lineage: &str, registration: &Registration) -> Result<(), RegisterError> {
        self.liveness.lock().seen(&registration.id, registration.healthy, tokio::time::Instant::now());
        for _ in 0..TRIES {
            let Some(txn) = self.registration_txn(service, lineage, registration)? else { return Ok(()) };
            let result = self.store.txn(txn).await?;
            self.mirror.reached(result.revision).await;
            if result.succeeded {
                return Ok(());
            }
        }
        Err(RegisterError::Contended(registration.id.clone()))
    }

    fn registration_txn(
        &self,
        service: &ServiceName,
        lineage: &str,
        registration: &Registration,
    ) -> Result<Option<Txn>, RegisterError> {
        let (before, stored_protocol, is_set) = self.mirror.read(|view| {
            let protocol = view.services.get(service).map(|record| record.protocol);
            // What an operator set holds for all, whatever they declare.
            let is_set = view.settings.protocol(service).is_some();
            (view.instances.get(&registration.id).cloned(), protocol, is_set)
        });
        let mut txn = Txn::new();
        match (registration.protocol, stored_protocol) {
            (Some(declared), Some(stored)) if declared != stored && !is_set => {
                return Err(RegisterError::ProtocolDiffers { service: service.clone(), stored, declared });
            }
            (Some(protocol), None) => {
                let key = records::service_key(service);
                txn = txn.when(Compare::absent(key.clone())).then(Op::put(key, records::encode(&ServiceRecord { protocol })?));
            }
            _ => {}
        }
        if let Some((before, _)) = &before
            && before.service != *service
            && !before.left
        {
            return Err(RegisterError::OtherService { id: before.id.clone(), service: before.service.clone() });
        }
        let record = registration.record(service, lineage, before.as_ref().map(|(record, _)| record), SystemTime::now());
        if before.as_ref().is_none_or(|(before, _)| *before != record) {
            let key = records::instance_key(&registration.id);
            let revision = before.map_or(0, |(_, revision)| revision);
            txn = txn.when(Compare::unchanged(key.clone(), revision)).then(Op::put(key, records::encode(&record)?));
        }
        Ok((!txn.then.is_empty()).then_some(txn))
    }

    /// A sign of life. Wakes the sweep where it changes the instance's health.
    pub fn beat(&self, id: &InstanceId, healthy: bool) {
        self.liveness.lock().seen(id, healthy, tokio::time::Instant::now());
        let recorded = self.mirror.read(|view| view.instances.get(id).map(|(record, _)| record.healthy));
        if recorded.is_some_and(|recorded| recorded != healthy) {
            self.look_now.notify_one();
        }
    }

    /// The instance said goodbye, or was deregistered: no endpoint from now on. Gives the revision of the change, or
    /// `None` where there is no such instance. `also` becomes part of the transaction.
    ///
    /// # Errors
    /// [`RegisterError`]: the store failed.
    pub async fn leave(&self, id: &InstanceId, also: Vec<Op>) -> Result<Option<u64>, RegisterError> {
        self.liveness.lock().forget(id);
        for _ in 0..TRIES {
            let Some((mut record, revision)) = self.mirror.read(|view| view.instances.get(id).cloned()) else { return Ok(None) };
            if record.left && !record.silent && also.is_empty() {
                return Ok(Some(revision));
            }
            if !record.left {
                record.state_since = SystemTime::now();
            }
            record.left = true;
            record.silent = false;
            record.healthy = false;
            let key = records::instance_key(id);
            let mut txn =
                Txn::new().when(Compare::unchanged(key.clone(), revision)).then(Op::put(key, records::encode(&record)?));
            txn.then.extend(also.iter().cloned());
            let result = self.store.txn(txn).await?;
            self.mirror.reached(result.revision).await;
            if result.succeeded {
                return Ok(Some(result.revision));
            }
        }
        Err(RegisterError::Contended(id.clone()))
    }

    /// Writes a change of health, unless the record changed since `revision`: then the next sweep looks again.
    async fn write_health(&self, mut record: InstanceRecord, revision: u64, healthy: bool) -> Result<(), RegisterError> {
        record.healthy = healthy;
        record.state_since = SystemTime::now();
        let key = records::instance_key(&record.id);
        let txn = Txn::new().when(Compare::unchanged(key.clone(), revision)).then(Op::put(key, records::encode(&record)?));
        let result = self.store.txn(txn).await?;
        self.mirror.reached(result.revision).await;
        Ok(())
    }

    /// Takes a silent instance out of every list, unless its record changed since `revision`.
    async fn set_aside(&self, mut record: InstanceRecord, revision: u64) -> Result<(), RegisterError> {
        record.left = true;
        record.silent = true;
        let key = records::instance_key(&record.id);
        let txn = Txn::new().when(Compare::unchanged(key.clone(), revision)).then(Op::put(key, records::encode(&record)?));
        let result = self.store.txn(txn).await?;
        self.mirror.reached(result.revision).await;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.lock().take() {
            sweeper.abort();
        }
    }
}

#[cfg(test)]
mod tests;
