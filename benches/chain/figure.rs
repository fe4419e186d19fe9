//! The rows of the table: in which unit, and the goal.

use crate::layer::Layer;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Figure {
    /// Which table.
    pub layer: Layer,
    /// What was measured.
    pub measure: Measure,
}

/// Lower is better, for every one of them but rates.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
pub enum Measure {
    /// CPU of the pair a request, many connections.
    RequestsCpu,
    /// Requests a second that came of it.
    RequestsRate,
    /// CPU of the pair a request, one connection.
    RequestCpu,
    /// How long one request took then.
    RequestTime,
    /// Latency percentiles at the fixed rate.
    LatencyP50,
    /// See [`Measure::LatencyP50`].
    LatencyP99,
    /// See [`Measure::LatencyP50`].
    LatencyP999,
    /// The same percentile, less that of the service without proxies.
    AddedP50,
    /// See [`Measure::AddedP50`].
    AddedP99,
    /// See [`Measure::AddedP50`].
    AddedP999,
    /// CPU of the pair at the fixed rate.
    LatencyCpu,
    /// CPU of the pair a connection with one request.
    ConnectionCpu,
    /// Connections a second that came of it.
    ConnectionRate,
    /// CPU of the pair a GB.
    DownloadCpu,
    /// MB a second that came of it.
    DownloadRate,
    /// See [`Measure::DownloadCpu`].
    UploadCpu,
    /// See [`Measure::DownloadRate`].
    UploadRate,
    /// CPU of the pair a request over HTTP/2.
    Http2Cpu,
    /// Requests a second that came of it.
    Http2Rate,
    /// CPU of the pair a unary call.
    GrpcCpu,
    /// Calls a second that came of it.
    GrpcRate,
    /// PSS of the pair a connection.
    IdleMemory,
    /// The same, when all of them asked at once.
    BurstMemory,
    /// PSS of the pair before any connection.
    StartMemory,
    /// What of it is no part of a file.
    StartAnonymous,
    /// CPU of all proxies a request, spread over many server-side ones.
    SpreadCpu,
}

/// How a figure is shown.
#[derive(Debug)]
pub struct Row {
    /// In JSON and in the names of charts.
    pub id: String,
    /// For people.
    pub label: String,
    /// The unit.
    pub unit: &'static str,
    /// What Postern is meant to stay under, as a ratio to Envoy.
    pub goal: Option<f64>,
    /// Whether it has a chart and a place in the chart of ratios.
    pub is_headline: bool,
}

/// Of both layers.
struct Shape {
    id: &'static str,
    label: &'static str,
    unit: &'static str,
    is_headline: bool,
}

impl Measure {
    fn shape(self) -> Shape {
        let main = |id, label, unit| Shape { id, label, unit, is_headline: true };
        let more = |id, label, unit| Shape { id, label, unit, is_headline: false };
        match self {
            Self::RequestsCpu => main("requests", "request, many connections", "µs CPU"),
            Self::RequestsRate => more("requests-rate", "  requests a second", "1/s"),
            Self::RequestCpu => main("request", "request, 1 connection", "µs CPU"),
            Self::RequestTime => more("request-time", "  mean time of one", "µs"),
            Self::LatencyP50 => more("latency-p50", "latency p50", "µs"),
            Self::LatencyP99 => more("latency-p99", "latency p99", "µs"),
            Self::LatencyP999 => more("latency-p999", "latency p99.9", "µs"),
            Self::AddedP50 => more("added-p50", "added latency p50", "µs"),
            Self::AddedP99 => main("added-p99", "added latency p99", "µs"),
            Self::AddedP999 => more("added-p999", "added latency p99.9", "µs"),
            Self::LatencyCpu => more("latency-cpu", "request, fixed rate", "µs CPU"),
            Self::ConnectionCpu => main("connection", "new connection", "µs CPU"),
            Self::ConnectionRate => more("connection-rate", "  connections a second", "1/s"),
            Self::DownloadCpu => main("download", "download, per GB", "s CPU"),
            Self::DownloadRate => more("download-rate", "  MB a second", "MB/s"),
            Self::UploadCpu => main("upload", "upload, per GB", "s CPU"),
            Self::UploadRate => more("upload-rate", "  MB a second", "MB/s"),
            Self::Http2Cpu => main("http2", "http/2 request, many streams", "µs CPU"),
            Self::Http2Rate => more("http2-rate", "  requests a second", "1/s"),
            Self::GrpcCpu => main("grpc", "grpc unary, many streams", "µs CPU"),
            Self::GrpcRate => more("grpc-rate", "  calls a second", "1/s"),
            Self::IdleMemory => main("idle", "idle connection", "KiB PSS"),
            Self::BurstMemory => main("burst", "idle connection, after a burst", "KiB PSS"),
            Self::StartMemory => main("start", "pair at start", "MiB PSS"),
            Self::StartAnonymous => more("start-anonymous", "  of it not the program", "MiB PSS"),
            Self::SpreadCpu => main("spread", "request, spread over many peers", "µs CPU"),
        }
    }

    /// At L4, and at L7.
    fn goals(self) -> (Option<f64>, Option<f64>) {
        match self {
            Self::RequestsCpu => (Some(0.40), Some(0.18)),
            Self::RequestCpu => (Some(0.90), Some(0.38)),
            Self::AddedP99 => (Some(0.5), Some(0.3)),
            Self::ConnectionCpu => (Some(0.10), Some(0.35)),
            Self::DownloadCpu | Self::UploadCpu => (Some(0.60), Some(0.70)),
            Self::GrpcCpu => (None, Some(0.35)),
            Self::IdleMemory => (Some(0.10), Some(0.08)),
            Self::BurstMemory => (None, Some(0.08)),
            Self::StartMemory => (Some(0.15), Some(0.15)),
            _ => (None, None),
        }
    }
}

impl Figure {
    /// How it is shown.
    pub fn row(self) -> Row {
        let Shape { id, label, unit, is_headline } = self.measure.shape();
        let (l4, l7) = self.measure.goals();
        let goal = match self.layer {
            Layer::L4 => l4,
            Layer::L7 => l7,
        };
        // Rows that belong to the one above need no word before them.
        let has_word = label.starts_with(' ') || matches!(self.measure, Measure::Http2Cpu | Measure::GrpcCpu);
        let needs_word = self.layer == Layer::L7 && !has_word;
        let label = if needs_word { format!("http {label}") } else { label.to_owned() };
        Row { id: format!("{}-{id}", self.layer.id()), label, unit, goal, is_headline }
    }
}
