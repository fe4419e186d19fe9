//! What Prometheus sees of a control plane. Every name begins with `postern_`, the process metrics with `process_`.

mod issued;
mod process;
mod store;
mod traffic;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use postern_api::http::AuthorityStatus;
use postern_names::{PortName, ServiceName};
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use self::issued::IssuedCounter;
pub use self::store::MeteredStore;
use crate::edges::TrafficCounts;
use crate::identity::IdentityCounts;
use crate::push::PushStats;
use crate::service_config::jwks::KeyStatus;

/// Services that have a series of their own; what is issued for others counts as `other`.
const MAX_SERVICES: usize = 1000;

/// The metrics of one control plane.
pub struct Metrics {
    registry: Registry,
    sidecars: IntGauge,
    push_seconds: Histogram,
    svids_issued: IntCounterVec,
    services: parking_lot::Mutex<std::collections::HashSet<ServiceName>>,
    ca_expiry: GaugeVec,
    store_revision: IntGauge,
    store_commit_seconds: Histogram,
    http_requests: IntCounterVec,
    push_counters: [(IntCounter, Reader); 7],
    refused: [(IntCounter, CountReader); 3],
    jwks_age: GaugeVec,
    traffic: traffic::TrafficMetrics,
    process: process::Process,
}

/// Reads one count of identities.
type CountReader = fn(&IdentityCounts) -> u64;

/// Reads one counter of the push.
type Reader = fn(&PushStats) -> u64;

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// None that can happen: a name that is registered twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let svids_issued = kept(
            &registry,
            counters(
                "postern_control_svids_issued_total",
                "Enrolments and renewals, by service and result.",
                &["service", "result"],
            ),
        )?;
        let metrics = Self {
            sidecars: kept(&registry, IntGauge::new("postern_control_sidecars", "Sidecars with an open stream."))?,
            push_seconds: kept(
                &registry,
                histogram(
                    "postern_control_push_seconds",
                    "From a change in the view to its acknowledgement by a sidecar.",
                    0.001,
                ),
            )?,
            // Whoever is refused has no service.
            refused: [
                (svids_issued.with_label_values(&["unknown", "refused"]), |counts| {
                    counts.refused_enrolments.saturating_sub(counts.replayed_tokens)
                }),
                (svids_issued.with_label_values(&["unknown", "replayed"]), |counts| counts.replayed_tokens),
                (svids_issued.with_label_values(&["unknown", "forked"]), |counts| counts.forks),
            ],
            svids_issued,
            services: parking_lot::Mutex::default(),
            ca_expiry: kept(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "postern_control_ca_expiry_timestamp_seconds",
                        "When a certificate of the authority ends, Unix time.",
                    ),
                    &["ca"],
                ),
            )?,
            store_revision: kept(
                &registry,
                IntGauge::new("postern_control_store_revision", "Revision of the store as the view holds it."),
            )?,
            store_commit_seconds: kept(
                &registry,
                histogram(
                    "postern_control_store_commit_seconds",
                    "From a transaction handed to the store to its durability.",
                    0.000_25,
                ),
            )?,
            http_requests: kept(
                &registry,
                counters(
                    "postern_control_http_requests_total",
                    "Requests to the HTTP API, by route and status code.",
                    &["route", "code"],
                ),
            )?,
            push_counters: push_counters(&registry)?,
            jwks_age: kept(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "postern_control_jwks_age_seconds",
                        "Since the keys of a JWT provider were last read from their file or URL with success.",
                    ),
                    &["provider"],
                ),
            )?,
            traffic: traffic::TrafficMetrics::new(&registry)?,
            process: process::Process::new(&registry)?,
            registry,
        };
        metrics.add_build_info()?;
        Ok(metrics)
    }

    fn add_build_info(&self) -> Result<(), prometheus::Error> {
        let info = IntGaugeVec::new(
            Opts::new("postern_build_info", "Always 1; the labels tell which build runs."),
            &["version", "component"],
        );
        kept(&self.registry, info)?.with_label_values(&[env!("CARGO_PKG_VERSION"), "control"]).set(1);
        Ok(())
    }

    /// Counts an answer of the HTTP API. `route` is a pattern of ours, never what a caller wrote.
    pub fn http_request(&self, route: &str, code: u16) {
        self.http_requests.with_label_values(&[route, code.to_string().as_str()]).inc();
    }

    /// Counts an enrolment or a renewal that was granted.
    pub fn svid_issued(&self, service: &ServiceName) {
        let service = if self.has_series(service) { service.as_str() } else { "other" };
        self.svids_issued.with_label_values(&[service, "issued"]).inc();
    }

    fn has_series(&self, service: &ServiceName) -> bool {
        let mut services = self.services.lock();
        services.contains(service) || (services.len() < MAX_SERVICES && services.insert(service.clone()))
    }

    /// A sidecar acknowledged a change.
    pub fn pushed(&self, took: Duration) {
        self.push_seconds.observe(took.as_secs_f64());
    }

    /// A transaction became durable.
    pub fn committed(&self, took: Duration) {
        self.store_commit_seconds.observe(took.as_secs_f64());
    }

    /// Takes in what is read only when somebody looks.
    pub fn observe(&self, revision: u64, sidecars: usize, push: &PushStats, identity: (&IdentityCounts, &AuthorityStatus)) {
        let (counts, authority) = identity;
        for (counter, read) in &self.refused {
            counter.inc_by(read(counts).saturating_sub(counter.get()));
        }
        self.store_revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.sidecars.set(i64::try_from(sidecars).unwrap_or(i64::MAX));
        for (counter, read) in &self.push_counters {
            counter.inc_by(read(push).saturating_sub(counter.get()));
        }
        self.set_ca_expiry("intermediate", &authority.intermediate.not_after);
        let first_root_to_end = authority.roots.iter().map(|root| &root.not_after).min();
        if let Some(not_after) = first_root_to_end {
            self.set_ca_expiry("root", not_after);
        }
        self.process.observe();
    }

    /// Takes in how old the keys of JWT providers are; those that were never read count from the Unix epoch.
    pub fn observe_keys(&self, keys: &BTreeMap<PortName, KeyStatus>, now: SystemTime) {
        self.jwks_age.reset();
        for (provider, status) in keys {
            let read_at = status.read_at.unwrap_or(SystemTime::UNIX_EPOCH);
            let age = now.duration_since(read_at).unwrap_or_default();
            self.jwks_age.with_label_values(&[provider.as_str()]).set(age.as_secs_f64());
        }
    }

    /// Takes in what was seen of calls.
    pub fn observe_traffic(&self, counts: &TrafficCounts) {
        self.traffic.observe(counts);
    }

    fn set_ca_expiry(&self, ca: &str, not_after: &str) {
        if let Some(time) = parse_rfc3339(not_after) {
            self.ca_expiry.with_label_values(&[ca]).set(seconds(time));
        }
    }

    /// Prometheus text.
    ///
    /// # Errors
    /// Where a metric cannot be written as text; none of ours can fail.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Registers a metric and keeps it.
fn kept<T: Collector + Clone + 'static>(registry: &Registry, made: Result<T, prometheus::Error>) -> Result<T, prometheus::Error> {
    let metric = made?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

/// Sixteen buckets, each twice the one before.
fn histogram(name: &str, help: &str, first: f64) -> Result<Histogram, prometheus::Error> {
    let buckets = prometheus::exponential_buckets(first, 2.0, 16)?;
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
}

fn push_counters(registry: &Registry) -> Result<[(IntCounter, Reader); 7], prometheus::Error> {
    use std::sync::atomic::Ordering::Relaxed;
    let counter = |name: &str, help: &str, read: Reader| -> Result<(IntCounter, Reader), prometheus::Error> {
        Ok((kept(registry, IntCounter::new(name, help))?, read))
    };
    Ok([
        counter("postern_control_pushes_total", "Messages sent to sidecars.", |s| s.pushes.load(Relaxed))?,
        counter("postern_control_acknowledgements_total", "Messages that sidecars acknowledged.", |s| {
            s.acknowledged.load(Relaxed)
        })?,
        counter("postern_control_nacks_total", "Resources that a sidecar did not understand.", |s| s.nacks.load(Relaxed))?,
        counter("postern_control_ack_timeouts_total", "Streams ended since nothing was acknowledged in time.", |s| {
            s.ack_timeouts.load(Relaxed)
        })?,
        counter("postern_control_streams_refused_total", "Streams that were refused.", |s| s.refused.load(Relaxed))?,
        counter("postern_control_handshake_failures_total", "Failed TLS handshakes on the sidecars' port.", |s| {
            s.handshake_failures.load(Relaxed)
        })?,
        counter(
            "postern_control_connections_over_limit_total",
            "Connections closed since their address had too many without a certificate.",
            |s| s.over_address_limit.load(Relaxed),
        )?,
    ])
}

/// A time as the API writes it.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok().map(SystemTime::from)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A gauge that holds seconds or bytes.
fn gauge(registry: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    kept(registry, Gauge::new(name, help))
}

#[cfg(test)]
mod tests {
    use postern_api::http::CertificateStatus;

    use super::*;

    fn authority() -> AuthorityStatus {
        let certificate = |not_after: &str| CertificateStatus {
            pin: String::new(),
            not_before: "2026-01-01T00:00:00Z".into(),
            not_after: not_after.into(),
            origin: "built-in".into(),
        };
        AuthorityStatus {
            trust_domain: "example.test".parse().unwrap(),
            roots: vec![certificate("2036-01-01T00:00:00Z")],
            intermediate: certificate("2026-02-01T00:00:00Z"),
            svid_ttl_s: 1,
            active_svids: 0,
            revoked_svids: 0,
        }
    }

    #[test]
    fn every_promised_metric_is_there_with_help() {
        let metrics = Metrics::new().unwrap();
        metrics.http_request("/v1/mesh", 200);
        metrics.svid_issued(&"web".parse().unwrap());
        metrics.observe(7, 2, &PushStats::default(), (&IdentityCounts::default(), &authority()));
        metrics.observe_traffic(&TrafficCounts { edges: 3, left_out: 4, ..TrafficCounts::default() });
        let text = metrics.render().unwrap();
        for expected in [
            "postern_control_edges 3",
            "postern_control_edges_left_out_total 4",
            "postern_control_followers 0",
            "postern_control_sidecars 2",
            "postern_control_push_seconds_count 0",
            "postern_control_svids_issued_total{result=\"issued\",service=\"web\"} 1",
            "postern_control_ca_expiry_timestamp_seconds{ca=\"intermediate\"} 1769904000",
            "postern_control_ca_expiry_timestamp_seconds{ca=\"root\"}",
            "postern_control_store_revision 7",
            "postern_control_store_commit_seconds_count 0",
            "postern_control_http_requests_total{code=\"200\",route=\"/v1/mesh\"} 1",
            "postern_build_info{",
            "process_start_time_seconds",
            "# HELP postern_control_sidecars ",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }

    #[test]
    fn services_beyond_a_thousand_share_a_series() {
        let metrics = Metrics::new().unwrap();
        for n in 0..1005 {
            metrics.svid_issued(&format!("s{n}").parse().unwrap());
        }
        let text = metrics.render().unwrap();
        assert!(text.contains("{result=\"issued\",service=\"other\"} 5"), "{text}");
    }
}
