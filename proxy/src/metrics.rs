//! What Prometheus can read from a sidecar.
//!
//! Nobody who connects can create a series: peers are names that a certificate of this mesh carries, at most 1,000 of
//! them, and reasons come from fixed lists. A connection looks its counters up once.

mod process;
mod requests;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use postern_names::ServiceName;
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tokio::time::Instant;

use process::ProcessMetrics;
pub use requests::RequestMetrics;

/// The most peers that have series of their own.
const MOST_PEERS: usize = 1_000;
/// The label of all peers over that number.
const OTHER: &str = "other";
/// How long a peer without connections keeps its series.
const KEPT: Duration = Duration::from_secs(3_600);
const HANDSHAKE_BUCKETS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

const REQUEST_BUCKETS: [f64; 14] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Another service dialled this one.
    Inbound,
    /// This service dialled another one.
    Outbound,
}

impl Direction {
    /// The value of the label `direction`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// How a connection was judged, as logs and metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Judged {
    /// Allowed.
    Allow,
    /// Denied.
    Deny,
    /// Allowed because of audit mode; it would be denied.
    Audit,
}

impl Judged {
    /// From the two parts of a verdict.
    pub fn new(allowed: bool, would_deny: bool) -> Self {
        match (allowed, would_deny) {
            (false, _) => Self::Deny,
            (true, true) => Self::Audit,
            (true, false) => Self::Allow,
        }
    }

    /// The value of the label `verdict`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}

/// All metrics of one sidecar.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: IntCounterVec,
    active: IntGaugeVec,
    revoked: IntCounterVec,
    bytes: IntCounterVec,
    handshake_seconds: HistogramVec,
    handshake_failures: IntCounterVec,
    refused: IntCounterVec,
    snapshots_refused: IntCounterVec,
    tunnels: IntGaugeVec,
    proofs_refused: IntCounterVec,
    tokens_refused: IntCounterVec,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    tunnel_violations: IntCounterVec,
    spans_dropped: IntCounterVec,
    edges_left_out: IntCounter,
    edges_told: IntCounter,
    edges_told_bytes: IntCounter,
    process: ProcessMetrics,
    peers: Mutex<HashMap<ServiceName, Arc<PeerSeries>>>,
    other: Arc<PeerSeries>,
    started: Instant,
    /// When the SVID ends, as a UNIX time in seconds.
    pub svid_expiry: Gauge,
    /// The revision of the snapshot in use.
    pub snapshot_revision: IntGauge,
    /// Seconds since the control plane last confirmed the snapshot.
    pub snapshot_age: Gauge,
    /// 1 while the stream to the control plane is open, else 0.
    pub control_connected: IntGauge,
}

impl Metrics {
    /// Makes and registers every metric.
    ///
    /// # Errors
    /// Only when two metrics have one name, which the tests rule out.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let plain = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let whole_gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let active =
            IntGaugeVec::new(Opts::new("postern_connections_active", "Connections that are open."), &["direction", "peer"])?;
        registry.register(Box::new(active.clone()))?;
        let tunnels = IntGaugeVec::new(Opts::new("postern_tunnels_active", "Tunnels that are open."), &["direction", "peer"])?;
        registry.register(Box::new(tunnels.clone()))?;
        let handshake_seconds = HistogramVec::new(
            HistogramOpts::new("postern_handshake_seconds", "Time from the first byte of a TLS handshake to its end.")
                .buckets(HANDSHAKE_BUCKETS.to_vec()),
            &["direction"],
        )?;
        registry.register(Box::new(handshake_seconds.clone()))?;
        let request_seconds = HistogramVec::new(
            HistogramOpts::new("postern_http_request_seconds", "Time from a request head to the last byte of the answer.")
                .buckets(REQUEST_BUCKETS.to_vec()),
            &["direction", "peer"],
        )?;
        registry.register(Box::new(request_seconds.clone()))?;
        let build = IntGaugeVec::new(Opts::new("postern_build_info", "The version that runs; always 1."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
        Ok(Arc::new(Self {
            connections: counter(
                "postern_connections_total",
                "Connections judged, by verdict and by the intention that decided.",
                &["direction", "peer", "verdict", "intention"],
            )?,
            revoked: counter(
                "postern_connections_revoked_total",
                "Open connections closed because they are allowed no more.",
                &["peer"],
            )?,
            bytes: counter(
                "postern_bytes_total",
                "Bytes moved; in is from the peer, out is to it.",
                &["direction", "peer", "way"],
            )?,
            handshake_failures: counter(
                "postern_handshake_failures_total",
                "TLS handshakes that failed.",
                &["direction", "reason"],
            )?,
            refused: counter(
                "postern_connections_refused_total",
                "Connections ended before any byte passed for want of room or of something to connect to.",
                &["direction", "reason"],
            )?,
            snapshots_refused: counter(
                "postern_snapshot_refused_total",
                "What the control plane offered and this sidecar did not take: it keeps what it holds.",
                &["reason"],
            )?,
            svid_expiry: gauge(
                "postern_svid_expiry_timestamp_seconds",
                "When the certificate of this sidecar ends, as a UNIX time.",
            )?,
            snapshot_revision: whole_gauge("postern_snapshot_revision", "The revision of the snapshot in use.")?,
            snapshot_age: gauge("postern_snapshot_age_seconds", "Seconds since the control plane last confirmed the snapshot.")?,
            control_connected: whole_gauge("postern_control_connected", "1 while connected to the control plane, else 0.")?,
            process: ProcessMetrics::register(&registry)?,
            proofs_refused: counter(
                "postern_identity_proofs_refused_total",
                "Tunnels ended because the peer did not prove its renewed identity as it should.",
                &["reason"],
            )?,
            tokens_refused: counter(
                "postern_jwt_refused_total",
                "Tokens of requests that were not taken, by reason.",
                &["reason"],
            )?,
            requests: counter(
                "postern_http_requests_total",
                "HTTP requests that have ended, by method, status and verdict.",
                &["direction", "peer", "method", "code", "verdict"],
            )?,
            request_seconds,
            tunnel_violations: counter(
                "postern_tunnel_violations_total",
                "Tunnels ended because the peer did not keep to the protocol.",
                &["reason"],
            )?,
            spans_dropped: counter("postern_spans_dropped_total", "Spans of requests that were not delivered.", &["reason"])?,
            edges_told: plain(
                "postern_edges_told_total",
                "Edges told to the control plane, in reports of the calls that were seen.",
            )?,
            edges_told_bytes: plain("postern_edges_told_bytes_total", "Bytes of those reports.")?,
            edges_left_out: plain(
                "postern_edges_left_out_total",
                "Calls that were not told to the control plane, for want of room for their edge.",
            )?,
            active,
            tunnels,
            handshake_seconds,
            registry,
            peers: Mutex::default(),
            other: Arc::new(PeerSeries::new(OTHER)),
            started: Instant::now(),
        }))
    }

    /// Everything in the Prometheus text format.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        self.process.refresh();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Counts what the control plane offered and was not taken; `reason` is from a fixed list.
    pub fn snapshot_refused(&self, reason: &'static str) {
        self.snapshots_refused.with_label_values(&[reason]).inc();
    }

    /// The series of a connection with `peer`; looked up once a connection.
    pub fn connection(self: &Arc<Self>, direction: Direction, peer: &ServiceName) -> ConnectionMetrics {
        let series = self.series(peer);
        series.last_seen.store(self.started.elapsed().as_secs(), Ordering::Relaxed);
        ConnectionMetrics { metrics: self.clone(), direction, series, active: None }
    }

    /// The series of HTTP requests to or from `peer`; looked up once a connection.
    pub fn requests(self: &Arc<Self>, direction: Direction, peer: &ServiceName) -> RequestMetrics {
        RequestMetrics::new(self.clone(), direction, self.series(peer))
    }

    fn series(&self, peer: &ServiceName) -> Arc<PeerSeries> {
        let mut peers = self.peers.lock();
        if let Some(series) = peers.get(peer) {
            return series.clone();
        }
        if peers.len() >= MOST_PEERS {
            return self.other.clone();
        }
        let series = Arc::new(PeerSeries::new(peer.as_str()));
        peers.insert(peer.clone(), series.clone());
        series
    }

    /// Counts a tunnel with `peer` as open until the result is dropped.
    pub fn tunnel_opened(&self, direction: Direction, peer: &ServiceName) -> OpenTunnel {
        let series = self.series(peer);
        let open = self.tunnels.with_label_values(&[direction.as_str(), &series.label]);
        open.inc();
        OpenTunnel { open, _series: series }
    }

    /// Counts a proof of identity that was refused; `reason` is a word of a fixed list.
    pub fn proof_refused(&self, reason: &'static str) {
        self.proofs_refused.with_label_values(&[reason]).inc();
    }

    /// Counts a token of a request that was not taken; `reason` is a word of a fixed list.
    pub fn token_refused(&self, reason: &'static str) {
        self.tokens_refused.with_label_values(&[reason]).inc();
    }

    /// Counts a tunnel that ended because the peer did not keep to the protocol; `reason` is a word of a fixed list.
    pub fn tunnel_violated(&self, reason: &'static str) {
        self.tunnel_violations.with_label_values(&[reason]).inc();
    }

    /// Counts spans that were not delivered; `reason` is a word of a fixed list.
    pub fn spans_dropped(&self, reason: &'static str, spans: u64) {
        self.spans_dropped.with_label_values(&[reason]).inc_by(spans);
    }

    /// Counts a report with so many edges.
    pub fn edges_told(&self, edges: usize, bytes: usize) {
        self.edges_told.inc_by(edges as u64);
        self.edges_told_bytes.inc_by(bytes as u64);
    }

    /// Counts calls that no edge had room for.
    pub fn edges_left_out(&self, calls: u64) {
        self.edges_left_out.inc_by(calls);
    }

    /// Notes how long a handshake took.
    pub fn handshake_done(&self, direction: Direction, took: Duration) {
        self.handshake_seconds.with_label_values(&[direction.as_str()]).observe(took.as_secs_f64());
    }

    /// Counts a handshake that failed; `reason` is a word of a fixed list.
    pub fn handshake_failed(&self, direction: Direction, reason: &'static str) {
        self.handshake_failures.with_label_values(&[direction.as_str(), reason]).inc();
    }

    /// Counts a connection that found no room or nothing to connect to; `reason` is a word of a fixed list.
    pub fn refused(&self, direction: Direction, reason: &'static str) {
        self.refused.with_label_values(&[direction.as_str(), reason]).inc();
    }

    /// Drops the series of peers that have no connection and had none for an hour.
    pub fn forget_unseen(&self) {
        let now = self.started.elapsed();
        let mut peers = self.peers.lock();
        peers.retain(|_, series| {
            let last_seen = Duration::from_secs(series.last_seen.load(Ordering::Relaxed));
            // A connection holds its series, so one that only this map holds has none.
            let keep = Arc::strong_count(series) > 1 || now.saturating_sub(last_seen) < KEPT;
            if !keep {
                self.remove(series);
            }
            keep
        });
    }

    fn remove(&self, series: &PeerSeries) {
        // A series that was never made cannot be removed, and need not be.
        let peer = series.label.as_str();
        for direction in ["inbound", "outbound"] {
            let _ = self.active.remove_label_values(&[direction, peer]);
            let _ = self.tunnels.remove_label_values(&[direction, peer]);
            let _ = self.request_seconds.remove_label_values(&[direction, peer]);
            for way in ["in", "out"] {
                let _ = self.bytes.remove_label_values(&[direction, peer, way]);
            }
        }
        let _ = self.revoked.remove_label_values(&[peer]);
        for (direction, method, code, verdict) in series.requests.lock().iter() {
            let _ = self.requests.remove_label_values(&[direction.as_str(), peer, method, code, verdict]);
        }
        for (direction, judged, intention, _) in series.verdicts.lock().iter() {
            let _ = self.connections.remove_label_values(&[direction.as_str(), peer, judged.as_str(), intention]);
        }
    }
}

#[derive(Debug)]
struct PeerSeries {
    label: String,
    last_seen: AtomicU64,
    /// The few verdicts that this peer gets; a look through them allocates nothing.
    verdicts: Mutex<Vec<(Direction, Judged, String, IntCounter)>>,
    /// The request series that were made: direction, method, code and verdict.
    requests: Mutex<HashSet<(Direction, &'static str, String, &'static str)>>,
    inbound: OnceLock<Handles>,
    outbound: OnceLock<Handles>,
}

/// The series of one peer and direction that every connection needs, looked up once.
#[derive(Debug)]
struct Handles {
    active: IntGauge,
    bytes_in: IntCounter,
    bytes_out: IntCounter,
}

impl PeerSeries {
    fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            last_seen: AtomicU64::new(0),
            verdicts: Mutex::default(),
            requests: Mutex::default(),
            inbound: OnceLock::new(),
            outbound: OnceLock::new(),
        }
    }
}

/// A tunnel that counts as open.
#[derive(Debug)]
pub struct OpenTunnel {
    open: IntGauge,
    /// As long as it is held, the peer keeps its series.
    _series: Arc<PeerSeries>,
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The series of one connection. While [`ConnectionMetrics::opened`] holds, it counts as active.
#[derive(Debug)]
pub struct ConnectionMetrics {
    metrics: Arc<Metrics>,
    direction: Direction,
    series: Arc<PeerSeries>,
    active: Option<IntGauge>,
}

impl ConnectionMetrics {
    /// Counts the verdict of this connection; `intention` is `SRC -> DST`, `default` or `not_understood`.
    pub fn judged(&self, judged: Judged, intention: &str) {
        let mut verdicts = self.series.verdicts.lock();
        let found =
            verdicts.iter().find(|(of, verdict, by, _)| (*of, *verdict, by.as_str()) == (self.direction, judged, intention));
        if let Some((.., counter)) = found {
            return counter.inc();
        }
        let labels = [self.direction.as_str(), &self.series.label, judged.as_str(), intention];
        let counter = self.metrics.connections.with_label_values(&labels);
        counter.inc();
        verdicts.push((self.direction, judged, intention.to_owned(), counter));
    }

    /// Counts the connection as active until this is dropped.
    pub fn opened(&mut self) {
        let gauge = self.handles().active.clone();
        gauge.inc();
        self.active = Some(gauge);
    }

    /// Counts a connection that was closed because it is allowed no more.
    pub fn revoked(&self) {
        self.metrics.revoked.with_label_values(&[&self.series.label]).inc();
    }

    /// The counters of bytes from the peer, and of bytes to it.
    pub fn bytes(&self) -> (IntCounter, IntCounter) {
        let Handles { bytes_in, bytes_out, .. } = self.handles();
        (bytes_in.clone(), bytes_out.clone())
    }

    fn handles(&self) -> &Handles {
        let of_direction = match self.direction {
            Direction::Inbound => &self.series.inbound,
            Direction::Outbound => &self.series.outbound,
        };
        of_direction.get_or_init(|| {
            let (direction, peer) = (self.direction.as_str(), self.series.label.as_str());
            let bytes = |way| self.metrics.bytes.with_label_values(&[direction, peer, way]);
            let active = self.metrics.active.with_label_values(&[direction, peer]);
            Handles { active, bytes_in: bytes("in"), bytes_out: bytes("out") }
        })
    }
}

impl Drop for ConnectionMetrics {
    fn drop(&mut self) {
        self.series.last_seen.store(self.metrics.started.elapsed().as_secs(), Ordering::Relaxed);
        if let Some(gauge) = &self.active {
            gauge.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().expect("name")
    }

    #[tokio::test]
    async fn the_names_and_labels_are_those_that_are_documented() {
        let metrics = Metrics::new().expect("metrics");
        let mut connection = metrics.connection(Direction::Inbound, &name("web"));
        connection.opened();
        connection.judged(Judged::Audit, "web -> api");
        connection.revoked();
        connection.bytes().0.inc_by(7);
        metrics.handshake_failed(Direction::Inbound, "not_tls");
        metrics.handshake_done(Direction::Inbound, Duration::from_millis(1));
        let text = metrics.encode().expect("text");
        for line in [
            r#"postern_connections_total{direction="inbound",intention="web -> api",peer="web",verdict="audit"} 1"#,
            r#"postern_connections_active{direction="inbound",peer="web"} 1"#,
            r#"postern_connections_revoked_total{peer="web"} 1"#,
            r#"postern_bytes_total{direction="inbound",peer="web",way="in"} 7"#,
            r#"postern_handshake_failures_total{direction="inbound",reason="not_tls"} 1"#,
            r#"postern_handshake_seconds_count{direction="inbound"} 1"#,
            "postern_svid_expiry_timestamp_seconds 0",
            "postern_snapshot_revision 0",
            "postern_snapshot_age_seconds 0",
            "postern_control_connected 0",
            "process_open_fds",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[tokio::test]
    async fn peers_beyond_a_thousand_share_one_series() {
        let metrics = Metrics::new().expect("metrics");
        for n in 0..1_010 {
            metrics.connection(Direction::Inbound, &name(&format!("s{n}"))).judged(Judged::Deny, "default");
        }
        let text = metrics.encode().expect("text");
        assert!(text.contains(r#"intention="default",peer="other",verdict="deny"} 10"#));
        assert_eq!(text.lines().filter(|line| line.starts_with("postern_connections_total")).count(), 1_001);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_unseen_for_an_hour_goes_and_one_with_a_connection_stays() {
        let metrics = Metrics::new().expect("metrics");
        metrics.connection(Direction::Inbound, &name("gone")).judged(Judged::Deny, "default");
        let mut open = metrics.connection(Direction::Inbound, &name("stays"));
        open.opened();
        tokio::time::advance(KEPT + Duration::from_secs(1)).await;
        metrics.forget_unseen();
        let text = metrics.encode().expect("text");
        assert!(!text.contains("gone"), "{text}");
        assert!(text.contains("stays"));
    }
}
