//! What an instance tells of itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use postern_api::v1;
use postern_intentions::Protocol;
use postern_names::{InstanceId, PortName, ServiceName};

use super::health::{Health, open_beyond_loopback};
use crate::local::LocalTarget;
use crate::settings::{Advertise, TransportMode, Weight};

/// The instance, as it does not change while the sidecar runs.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// `--advertise`.
    pub advertise: Option<Advertise>,
    /// Where it listens; `None`: it only calls.
    pub inbound: Option<SocketAddr>,
    /// `--protocol`.
    pub protocol: Option<Protocol>,
    /// The names of its ports.
    pub ports: Vec<PortName>,
    /// `--meta`.
    pub meta: BTreeMap<String, String>,
    /// `--locality`.
    pub locality: String,
    /// The host's name.
    pub node: String,
    /// Where Prometheus may scrape.
    pub metrics: SocketAddr,
    /// `--transport`: whether it accepts tunnels.
    pub transport: TransportMode,
    /// What it calls.
    pub upstreams: Vec<ServiceName>,
    /// The service itself.
    pub locals: Arc<[LocalTarget]>,
    /// `--tag`
    pub tags: Vec<String>,
    /// `--weight`
    pub weight: Weight,
}

impl Instance {
    /// The registration; `local` is this end of the connection to the control plane.
    pub async fn registration(&self, local: SocketAddr, health: Health, mut warnings: Vec<String>) -> v1::Registration {
        let locals = self.locals.clone();
        let open = tokio::task::spawn_blocking(move || open_beyond_loopback(&locals)).await;
        warnings.extend(open.unwrap_or_default());
        v1::Registration {
            instance_id: self.id.to_string(),
            advertise: self.advertised(local.ip()),
            protocol: self.protocol.map(|protocol| protocol.to_string()).unwrap_or_default(),
            ports: self.ports.iter().map(ToString::to_string).collect(),
            meta: self.meta.iter().map(|(key, value)| v1::Label { key: key.clone(), value: value.clone() }).collect(),
            locality: self.locality.clone(),
            transports: self.transports(),
            node: self.node.clone(),
            metrics: reachable(self.metrics, local.ip()).to_string(),
            healthy: health.is_well,
            warnings,
            tags: self.tags.clone(),
            weights: (self.weight != Weight::default())
                .then(|| v1::Weights { passing: self.weight.passing.into(), warning: self.weight.warning.into() }),
            checks: health.checks,
        }
    }

    /// What its sidecar accepts: direct connections always, and tunnels unless told otherwise.
    fn transports(&self) -> Vec<String> {
        let accepted: &[&str] = match (self.inbound, self.transport) {
            (None, _) => &[],
            (Some(_), TransportMode::Direct) => &["direct"],
            (Some(_), TransportMode::Auto | TransportMode::Tunnel) => &["direct", "tunnel"],
        };
        accepted.iter().map(ToString::to_string).collect()
    }

    fn advertised(&self, local: IpAddr) -> String {
        match (self.inbound, &self.advertise) {
            (None, _) => String::new(),
            (Some(inbound), Some(advertise)) => advertise.address(inbound.port()),
            (Some(inbound), None) => reachable(inbound, local).to_string(),
        }
    }
}

/// A listener on every interface is reached at the address that this host has towards the control plane.
fn reachable(listener: SocketAddr, local: IpAddr) -> SocketAddr {
    if listener.ip().is_unspecified() { SocketAddr::new(local.to_canonical(), listener.port()) } else { listener }
}
