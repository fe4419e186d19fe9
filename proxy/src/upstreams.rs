//! The services that this one calls, ready to be called: routes, instances with what is known of them, breakers and budgets.
//!
//! All workers share one of these. What a snapshot did not change is taken over from before, statistics included.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postern_intentions::Protocol;
use postern_names::{InstanceId, PortName, ServiceName};
use postern_traffic::{
    Breakers, Caller, Destination, Ejection, EjectionReason, HashKeys, Locality, NoInstance, OpenRequest, RequestHead,
    RetryBudget, Routing, RoutingError, ServiceSettings, ServiceTargets, Wanted,
};
use rand::Rng;
use tokio::sync::Notify;

use crate::snapshot::{Endpoint, PairVerdict, Snapshot, Upstream};

/// How often ejections end and success rates are judged, while there are any calls.
const TICK: Duration = Duration::from_secs(1);
/// Ticks without a call after which nobody looks any more: longer than an ejection can last.
const QUIET_TICKS: u32 = 600;

/// The upstreams of one sidecar.
#[derive(Debug)]
pub(crate) struct Upstreams {
    instance: InstanceId,
    locality: String,
    seed: u64,
    current: ArcSwap<Compiled>,
    compiling: Mutex<()>,
    called: AtomicBool,
    was_called: Notify,
}

/// What was made of one snapshot.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    sequence: u64,
    services: HashMap<ServiceName, Called>,
}

/// A service that can be called.
#[derive(Debug)]
pub(crate) struct Called {
    /// What the destination will decide, as far as the control plane knows.
    pub(crate) verdict: PairVerdict,
    /// The same, shared by log lines.
    pub(crate) because: Arc<str>,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    pub(crate) service: Arc<Service>,
}

/// What settings and endpoints of a service say, ready to ask.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) settings: Arc<ServiceSettings>,
    endpoints: Arc<[Endpoint]>,
    routing: Routing,
    hash_keys: HashKeys,
    targets: ServiceTargets<Endpoint>,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) budget: Arc<RetryBudget>,
}

/// An instance that was picked for a call.
pub(crate) struct PickedInstance<'c> {
    pub(crate) endpoint: &'c Endpoint,
    /// The service that it is an instance of: another one than was asked for where that has failed over.
    pub(crate) service: &'c ServiceName,
    pub(crate) open: OpenRequest,
}

impl Upstreams {
    /// Those of the sidecar of `instance`, which runs in `locality` (REGION[/ZONE], or empty).
    pub(crate) fn new(instance: InstanceId, locality: String) -> Arc<Self> {
        Arc::new(Self {
            instance,
            locality,
            seed: rand::rng().random(),
            current: ArcSwap::default(),
            compiling: Mutex::default(),
            called: AtomicBool::new(false),
            was_called: Notify::new(),
        })
    }

    /// What was made of this snapshot, or of one that was there a moment before while another worker makes it.
    pub(crate) fn of(&self, snapshot: &Snapshot) -> Arc<Compiled> {
        let current = self.current.load_full();
        if current.sequence >= snapshot.sequence {
            return current;
        }
        let Some(_compiling) = self.compiling.try_lock() else { return current };
        let compiled = Arc::new(self.compile(snapshot, &self.current.load()));
        self.current.store(compiled.clone());
        compiled
    }

    fn compile(&self, snapshot: &Snapshot, before: &Compiled) -> Compiled {
        let services = snapshot.upstreams.iter().map(|(name, upstream)| {
            let service = self.service(name, upstream, before.services.get(name).map(|called| &*called.service));
            let called = Called {
                because: upstream.verdict.because.as_str().into(),
                verdict: upstream.verdict.clone(),
                protocol: upstream.protocol,
                service: match service {
                    Some(new) => Arc::new(new),
                    None => before.services[name].service.clone(),
                },
            };
            (name.clone(), called)
        });
        Compiled { sequence: snapshot.sequence, services: services.collect() }
    }

    /// `None` where nothing has changed since `before`.
    fn service(&self, name: &ServiceName, upstream: &Upstream, before: Option<&Service>) -> Option<Service> {
        let same = |before: &Service| {
            Arc::ptr_eq(&before.settings, &upstream.settings) && Arc::ptr_eq(&before.endpoints, &upstream.endpoints)
        };
        if before.is_some_and(same) {
            return None;
        }
        let now = Instant::now();
        let settings = &upstream.settings;
        // The control plane has compiled them before it stored them; an older one may know less than this sidecar.
        let routing = Routing::compile(settings).unwrap_or_else(|error| {
            tracing::warn!(service = %name, %error, "the routes of a service are not understood; its requests go to it unrouted");
            Routing::unrouted(name.clone())
        });
        let hash_keys = HashKeys::compile(&settings.balancer.hash_on).unwrap_or_default();
        let caller = Caller { instance: &self.instance, locality: Locality::parse(&self.locality), seed: self.seed };
        let reachable = upstream.endpoints.iter().filter(|endpoint| endpoint.speaks_direct()).cloned().collect();
        let targets = ServiceTargets::build(reachable, settings, &caller, before.map(|before| &before.targets), now);
        let breakers =
            before.map_or_else(|| Arc::new(Breakers::new(&settings.circuit_breakers)), |before| before.breakers.clone());
        breakers.set(&settings.circuit_breakers);
        let budget = before.map_or_else(|| Arc::new(RetryBudget::new(settings.retries.budget)), |before| before.budget.clone());
        budget.set_share(settings.retries.budget);
        let (settings, endpoints) = (settings.clone(), upstream.endpoints.clone());
        Some(Service { settings, endpoints, routing, hash_keys, targets, breakers, budget })
    }

    /// A call was made: there may be something to tick for.
    pub(crate) fn was_called(&self) {
        if !self.called.load(Ordering::Relaxed) && !self.called.swap(true, Ordering::Relaxed) {
            self.was_called.notify_one();
        }
    }

    /// Ends ejections and judges success rates for as long as there are calls. Runs until it is dropped.
    pub(crate) async fn keep_judging(&self) {
        loop {
            self.was_called.notified().await;
            let mut quiet = 0;
            while quiet < QUIET_TICKS {
                tokio::time::sleep(TICK).await;
                quiet = if self.called.swap(false, Ordering::Relaxed) { 0 } else { quiet + 1 };
                let compiled = self.current.load_full();
                let is_quiet = compiled.services.values().all(|called| called.service.is_quiet());
                for (name, called) in &compiled.services {
                    for ejection in called.service.targets.tick(Instant::now()) {
                        tell(name, &ejection);
                    }
                }
                if quiet > 0 && is_quiet {
                    break;
                }
            }
        }
    }
}

impl Compiled {
    /// A service, as far as the control plane has told of it.
    pub(crate) fn get(&self, service: &ServiceName) -> Option<&Called> {
        self.services.get(service)
    }

    /// Where a request for `called` goes.
    pub(crate) fn route<'c>(&'c self, called: &'c Called, head: &RequestHead<'_>) -> Result<Destination<'c>, RoutingError> {
        called.service.routing.route(head, |service| Some(&self.services.get(service)?.service.routing), &mut rand::rng())
    }

    /// Where a connection to `called` goes.
    pub(crate) fn route_connection<'c>(&'c self, called: &'c Called) -> Result<Destination<'c>, RoutingError> {
        called.service.routing.route_connection(|service| Some(&self.services.get(service)?.service.routing), &mut rand::rng())
    }

    /// The instance that takes a call to `service`.
    pub(crate) fn pick<'c>(
        &'c self,
        name: &'c ServiceName,
        service: &'c Service,
        subset: Option<&str>,
        port: &PortName,
        hash: Option<u64>,
        tried: &[InstanceId],
    ) -> Result<PickedInstance<'c>, NoInstance> {
        let wanted = Wanted { subset, port, hash, tried };
        let others = |service: &ServiceName| Some(&self.services.get(service)?.service.targets);
        let now = Instant::now();
        let picked = service.targets.pick(&wanted, others, now, &mut rand::rng())?;
        let failover = picked.failover.and_then(|failover| failover.service.as_ref());
        Ok(PickedInstance { endpoint: picked.instance, service: failover.unwrap_or(name), open: picked.open(now) })
    }
}

impl Service {
    /// What consistent hashing goes by.
    pub(crate) fn hash(&self, head: &RequestHead<'_>, source: IpAddr) -> Option<u64> {
        self.hash_keys.hash(head, source)
    }

    /// How many instances there are to try.
    pub(crate) fn instances(&self) -> usize {
        self.targets.instances().len()
    }

    fn is_quiet(&self) -> bool {
        self.targets.instances().all(|(_, stats)| !stats.is_ejected() && stats.open() == 0)
    }
}

/// Writes an ejection to the log.
pub(crate) fn tell(service: &ServiceName, ejection: &Ejection) {
    match ejection {
        Ejection::Ejected { instance, why, lasts, .. } => {
            let why = match why {
                EjectionReason::ConsecutiveFailures(failures) => format!("{failures} failures in a row"),
                EjectionReason::SuccessRate { successes, requests } => format!("{successes} of {requests} requests succeeded"),
            };
            tracing::warn!(%service, %instance, why, seconds = lasts.as_secs_f64(), "an instance is ejected");
        }
        Ejection::Returned { instance } => tracing::info!(%service, %instance, "an ejected instance has returned"),
    }
}
