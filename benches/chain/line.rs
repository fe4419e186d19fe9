//! The lines of the table: what is measured, in which unit, and the goal.

use clap::ValueEnum;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Line {
    /// Requests over kept-alive connections, closed loop.
    Requests,
    /// The same over one connection.
    Request,
    /// Latency at a fixed rate, open loop.
    Latency,
    /// Connect, one request, close.
    Connections,
    /// Bytes from the service.
    Download,
    /// Bytes to the service.
    Upload,
    /// Memory by idle connections.
    Idle,
    /// Memory of a fresh pair.
    Start,
    /// Requests over kept-alive connections to many server-side proxies.
    Spread,
}

/// Pairs that a line needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// A pair that runs through all rounds.
    Running,
    /// A pair started for the one sample.
    Fresh,
    /// One client-side proxy and many server-side ones.
    Wide,
}

impl Line {
    /// In the order of the report.
    pub const ALL: [Self; 9] = [
        Self::Requests,
        Self::Request,
        Self::Latency,
        Self::Connections,
        Self::Download,
        Self::Upload,
        Self::Idle,
        Self::Start,
        Self::Spread,
    ];

    /// The pairs that it needs.
    pub fn ground(self) -> Ground {
        match self {
            Self::Idle | Self::Start => Ground::Fresh,
            Self::Spread => Ground::Wide,
            _ => Ground::Running,
        }
    }
}

/// One row of the table: lower is better, for every one of them but rates.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
pub enum Figure {
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
    /// See [`Figure::LatencyP50`].
    LatencyP99,
    /// See [`Figure::LatencyP50`].
    LatencyP999,
    /// The same percentile, less that of the service without proxies.
    AddedP50,
    /// See [`Figure::AddedP50`].
    AddedP99,
    /// See [`Figure::AddedP50`].
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
    /// See [`Figure::DownloadCpu`].
    UploadCpu,
    /// See [`Figure::DownloadRate`].
    UploadRate,
    /// PSS of the pair a connection.
    IdleMemory,
    /// PSS of the pair before any connection.
    StartMemory,
    /// CPU of all proxies a request, spread over many server-side ones.
    SpreadCpu,
}

/// How a figure is shown.
#[derive(Debug)]
pub struct Row {
    /// In JSON and in the names of charts.
    pub id: &'static str,
    /// For people.
    pub label: &'static str,
    /// The unit.
    pub unit: &'static str,
    /// What Postern is meant to stay under, as a ratio to Envoy.
    pub goal: Option<f64>,
    /// Whether it has a chart and a place in the chart of ratios.
    pub is_headline: bool,
}

impl Figure {
    /// How it is shown.
    pub fn row(self) -> Row {
        let row = |id, label, unit, goal, is_headline| Row { id, label, unit, goal, is_headline };
        match self {
            Self::RequestsCpu => row("l4-requests", "request, many connections", "µs CPU", Some(0.40), true),
            Self::RequestsRate => row("l4-requests-rate", "  requests a second", "1/s", None, false),
            Self::RequestCpu => row("l4-request", "request, 1 connection", "µs CPU", Some(0.90), true),
            Self::RequestTime => row("l4-request-time", "  mean time of one", "µs", None, false),
            Self::LatencyP50 => row("l4-latency-p50", "latency p50", "µs", None, false),
            Self::LatencyP99 => row("l4-latency-p99", "latency p99", "µs", None, false),
            Self::LatencyP999 => row("l4-latency-p999", "latency p99.9", "µs", None, false),
            Self::AddedP50 => row("l4-added-p50", "added latency p50", "µs", None, false),
            Self::AddedP99 => row("l4-added-p99", "added latency p99", "µs", Some(0.5), true),
            Self::AddedP999 => row("l4-added-p999", "added latency p99.9", "µs", None, false),
            Self::LatencyCpu => row("l4-latency-cpu", "request, fixed rate", "µs CPU", None, false),
            Self::ConnectionCpu => row("l4-connection", "new connection", "µs CPU", Some(0.10), true),
            Self::ConnectionRate => row("l4-connection-rate", "  connections a second", "1/s", None, false),
            Self::DownloadCpu => row("l4-download", "download, per GB", "s CPU", Some(0.60), true),
            Self::DownloadRate => row("l4-download-rate", "  MB a second", "MB/s", None, false),
            Self::UploadCpu => row("l4-upload", "upload, per GB", "s CPU", Some(0.60), true),
            Self::UploadRate => row("l4-upload-rate", "  MB a second", "MB/s", None, false),
            Self::IdleMemory => row("l4-idle", "idle connection", "KiB PSS", Some(0.10), true),
            Self::StartMemory => row("l4-start", "pair at start", "MiB PSS", Some(0.15), true),
            Self::SpreadCpu => row("l4-spread", "request, spread over many peers", "µs CPU", None, true),
        }
    }
}
