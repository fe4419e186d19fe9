//! Which instance of an upstream a connection goes to: of two random ones, the one with fewer connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use postern_names::{InstanceId, PortName};
use rand::Rng;

use crate::snapshot::Endpoint;

/// How many connections this sidecar has open to each instance.
#[derive(Debug, Default)]
pub struct Loads {
    open: Mutex<HashMap<InstanceId, Arc<AtomicUsize>>>,
}

/// One open connection to an instance; counted until it is dropped.
#[derive(Debug)]
pub struct Load {
    loads: Arc<Loads>,
    instance: InstanceId,
    count: Arc<AtomicUsize>,
}

impl Loads {
    /// Connections open to `instance`.
    pub fn open_to(&self, instance: &InstanceId) -> usize {
        self.open.lock().get(instance).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts one more connection to `instance`.
    pub fn begin(self: &Arc<Self>, instance: &InstanceId) -> Load {
        let count = self.open.lock().entry(instance.clone()).or_default().clone();
        count.fetch_add(1, Ordering::Relaxed);
        Load { loads: self.clone(), instance: instance.clone(), count }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut open = self.loads.open.lock();
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            open.remove(&self.instance);
        }
    }
}

/// Why no endpoint can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEndpoint {
    /// No healthy instance is known.
    NoneHealthy,
    /// There are healthy instances, but none has the port.
    NoneWithPort,
    /// The only instance is this one.
    OnlyOurselves,
    /// Each instance that can be tried was tried.
    AllTried,
}

/// Picks the endpoint to try next: with `port`, reachable by a direct connection, not `own`, not among `tried`.
///
/// # Errors
/// The reason why there is none, for the log.
pub fn pick<'a>(
    endpoints: &'a [Endpoint],
    port: &PortName,
    own: &InstanceId,
    tried: &[InstanceId],
    loads: &Loads,
    rng: &mut impl Rng,
) -> Result<&'a Endpoint, NoEndpoint> {
    if endpoints.is_empty() {
        return Err(NoEndpoint::NoneHealthy);
    }
    let has_port = |endpoint: &&Endpoint| endpoint.ports.contains(port) && speaks_direct(endpoint);
    if !endpoints.iter().any(|endpoint| has_port(&endpoint)) {
        return Err(NoEndpoint::NoneWithPort);
    }
    let others: Vec<&Endpoint> = endpoints.iter().filter(has_port).filter(|endpoint| endpoint.instance != *own).collect();
    if others.is_empty() {
        return Err(NoEndpoint::OnlyOurselves);
    }
    let untried: Vec<&Endpoint> = others.into_iter().filter(|endpoint| !tried.contains(&endpoint.instance)).collect();
    two_choices(&untried, loads, rng).ok_or(NoEndpoint::AllTried)
}

/// Every sidecar accepts direct connections; one that lists its transports without `direct` says that it does not.
fn speaks_direct(endpoint: &Endpoint) -> bool {
    endpoint.transports.is_empty() || endpoint.transports.iter().any(|transport| transport == "direct")
}

fn two_choices<'a>(candidates: &[&'a Endpoint], loads: &Loads, rng: &mut impl Rng) -> Option<&'a Endpoint> {
    match candidates {
        [] => None,
        [only] => Some(only),
        _ => {
            let first = rng.random_range(0..candidates.len());
            let second = (first + rng.random_range(1..candidates.len())) % candidates.len();
            let (first, second) = (candidates[first], candidates[second]);
            Some(if loads.open_to(&second.instance) < loads.open_to(&first.instance) { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str, ports: &[&str]) -> Endpoint {
        Endpoint {
            instance: id.parse().expect("id"),
            address: "127.0.0.1:1".to_owned(),
            ports: ports.iter().map(|port| port.parse().expect("port")).collect(),
            transports: vec!["direct".to_owned()],
            locality: String::new(),
            meta: Arc::default(),
        }
    }

    fn id(text: &str) -> InstanceId {
        text.parse().expect("id")
    }

    #[test]
    fn of_two_instances_the_less_loaded_gets_the_connection() {
        let loads = Arc::new(Loads::default());
        let endpoints = [endpoint("api-1", &["main"]), endpoint("api-2", &["main"])];
        let _load = loads.begin(&id("api-1"));
        for _ in 0..20 {
            let picked = pick(&endpoints, &PortName::main(), &id("web-1"), &[], &loads, &mut rand::rng());
            assert_eq!(picked.map(|e| e.instance.clone()), Ok(id("api-2")));
        }
    }

    #[test]
    fn a_finished_connection_no_longer_counts() {
        let loads = Arc::new(Loads::default());
        drop(loads.begin(&id("api-1")));
        assert_eq!(loads.open_to(&id("api-1")), 0);
        assert!(loads.open.lock().is_empty());
    }

    #[test]
    fn the_reason_for_no_endpoint_is_named() {
        let loads = Loads::default();
        let rng = &mut rand::rng();
        let grpc: PortName = "grpc".parse().expect("port");
        let one = [endpoint("api-1", &["main"])];
        let main = PortName::main();
        let why = |r: Result<&Endpoint, NoEndpoint>| r.map(|e| e.instance.clone()).unwrap_err();
        assert_eq!(why(pick(&[], &main, &id("web-1"), &[], &loads, rng)), NoEndpoint::NoneHealthy);
        assert_eq!(why(pick(&one, &grpc, &id("web-1"), &[], &loads, rng)), NoEndpoint::NoneWithPort);
        assert_eq!(why(pick(&one, &main, &id("api-1"), &[], &loads, rng)), NoEndpoint::OnlyOurselves);
        assert_eq!(why(pick(&one, &main, &id("web-1"), &[id("api-1")], &loads, rng)), NoEndpoint::AllTried);
    }
}
