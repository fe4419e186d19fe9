//! `service-defaults`: what a service speaks, and how many requests it lets in.

use postern_intentions::Protocol;
use postern_traffic::ServiceSettings;
use postern_traffic::settings::{RateKey, RateLimit};
use serde_json::{Value, json};

use super::super::NotCarried;
use super::reader::Reader;

/// What `service-defaults` says of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defaults {
    /// What it speaks.
    pub protocol: Option<Protocol>,
    /// How many requests it lets in.
    pub rate_limits: Vec<RateLimit>,
}

/// Fields that mean something else in Consul, or have another place here.
const ELSEWHERE: [(&str, &str); 13] = [
    (
        "UpstreamConfig",
        "it is about the services that this one calls; settings belong to the service that is called: set its timeouts, circuit_breakers and outlier_ejection with `meshctl service config`",
    ),
    ("MaxInboundConnections", "give its sidecars --max-connections"),
    ("MaxRequestHeadersKB", "the limit is fixed; leave it out"),
    (
        "LocalConnectTimeoutMs",
        "callers bound the whole request: set timeouts.request with `meshctl service config`, or RequestTimeout in its service-resolver",
    ),
    (
        "LocalRequestTimeoutMs",
        "callers bound the whole request: set timeouts.request with `meshctl service config`, or RequestTimeout in its service-resolver",
    ),
    ("BalanceInboundConnections", "leave it out"),
    ("TransparentProxy", "there is no transparent proxy: name upstreams with --upstream"),
    ("MeshGateway", "there are no gateways"),
    ("Expose", "there are no paths past the mesh: let checks be run by the sidecar (--check), or call with a sidecar"),
    ("ExternalSNI", "there are no gateways"),
    ("EnvoyExtensions", "there is no Envoy"),
    ("Destination", "bring it in with a sidecar beside it: `meshctl proxy --service NAME --local HOST:PORT`"),
    ("EnvoyExtraStaticClusters", "there is no Envoy"),
];

impl Defaults {
    pub(super) fn of(settings: &ServiceSettings) -> Self {
        Self { protocol: settings.protocol, rate_limits: settings.rate_limits.clone() }
    }

    pub(super) fn set(self, settings: &mut ServiceSettings) {
        settings.protocol = self.protocol;
        settings.rate_limits = self.rate_limits;
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, NotCarried> {
        for (name, cure) in ELSEWHERE {
            reader.refuse(name, cure)?;
        }
        reader.refuse_but("Mode", &["direct"], "there is no transparent proxy: name upstreams with --upstream")?;
        reader.refuse_but("MutualTLSMode", &["strict"], "every connection of the mesh is mutual TLS")?;
        let protocol =
            match reader.text("Protocol")? {
                "" => None,
                word => Some(word.to_ascii_lowercase().parse::<Protocol>().map_err(|_| {
                    NotCarried(format!("Protocol {word:?} is none of tcp, http, http2, grpc: write one of them"))
                })?),
            };
        Ok(Self { protocol, rate_limits: rate_limits(reader)? })
    }

    pub(super) fn write(self, entry: &mut Value, unsaid: &mut Vec<String>) {
        if let Some(protocol) = self.protocol {
            entry["Protocol"] = protocol.to_string().into();
        }
        match self.rate_limits.as_slice() {
            [] => {}
            [RateLimit { matches: None, source: None, per: RateKey::Service, requests_per_second, burst }]
                if requests_per_second.fract() == 0.0 =>
            {
                entry["RateLimits"]["InstanceLevel"] = json!({ "RequestsPerSecond": *requests_per_second as u64 });
                if let Some(burst) = burst {
                    entry["RateLimits"]["InstanceLevel"]["RequestsMaxBurst"] = (*burst).into();
                }
            }
            limits => unsaid.push(format!("{} rate_limits are not shown", limits.len())),
        }
    }
}

fn rate_limits(reader: &mut Reader<'_>) -> Result<Vec<RateLimit>, NotCarried> {
    let Some(mut limits) = reader.object("RateLimits")? else { return Ok(Vec::new()) };
    let level = limits.object("InstanceLevel")?;
    limits.finish()?;
    let Some(mut level) = level else { return Ok(Vec::new()) };
    level.refuse("Routes", "there every limit that matches holds: write rate_limits with `meshctl service config`")?;
    let (requests, burst) = (level.number("RequestsPerSecond")?, level.number("RequestsMaxBurst")?);
    let place = level.place_of("RequestsMaxBurst");
    level.finish()?;
    let burst = u32::try_from(burst).map_err(|_| NotCarried(format!("{place} is too large: 1000000 is the most")))?;
    match (requests, burst) {
        (0, 0) => Ok(Vec::new()),
        (0, _) => Err(NotCarried(format!("{place} is given without RequestsPerSecond: give both"))),
        (requests, burst) => Ok(vec![RateLimit {
            matches: None,
            source: None,
            per: RateKey::Service,
            requests_per_second: requests as f64,
            burst: (burst > 0).then_some(burst),
        }]),
    }
}
