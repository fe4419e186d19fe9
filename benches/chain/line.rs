//! The lines of the table: what is measured, and on what.

use clap::ValueEnum;

use crate::layer::{Layer, Protocol};

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
    /// Requests over HTTP/2, many streams of one connection; at L7 only.
    Http2,
    /// Unary gRPC calls, many streams of one connection; at L7 only.
    Grpc,
    /// Memory by idle connections.
    Idle,
    /// The same, when all of them asked at once; at L7 only.
    Burst,
    /// Memory of a fresh pair.
    Start,
    /// Requests over kept-alive connections to many server-side proxies; at L4 only.
    Spread,
}

/// Pairs that a line needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// A pair that runs through all rounds.
    Running,
    /// The same, with HTTP/2 as its protocol.
    Http2,
    /// The same, with gRPC as its protocol.
    Grpc,
    /// A pair started for the one sample.
    Fresh,
    /// Another such pair: the memory of the lines before would not be given back.
    FreshToo,
    /// One client-side proxy and many server-side ones.
    Wide,
}

impl Line {
    /// In the order of the report.
    pub const ALL: [Self; 12] = [
        Self::Requests,
        Self::Request,
        Self::Latency,
        Self::Connections,
        Self::Download,
        Self::Upload,
        Self::Http2,
        Self::Grpc,
        Self::Idle,
        Self::Burst,
        Self::Start,
        Self::Spread,
    ];

    /// The pairs that it needs.
    pub fn ground(self) -> Ground {
        match self {
            Self::Idle | Self::Start => Ground::Fresh,
            Self::Burst => Ground::FreshToo,
            Self::Spread => Ground::Wide,
            Self::Http2 => Ground::Http2,
            Self::Grpc => Ground::Grpc,
            _ => Ground::Running,
        }
    }

    /// Whether it is measured there.
    pub fn is_of(self, layer: Layer) -> bool {
        match self {
            Self::Http2 | Self::Grpc | Self::Burst => layer == Layer::L7,
            Self::Spread => layer == Layer::L4,
            _ => true,
        }
    }
}

impl Ground {
    /// In the order in which they are measured.
    pub const ALL: [Self; 6] = [Self::Running, Self::Http2, Self::Grpc, Self::Fresh, Self::FreshToo, Self::Wide];

    /// What its pairs understand.
    pub fn protocol(self, layer: Layer) -> Protocol {
        match self {
            Self::Http2 => Protocol::Http2,
            Self::Grpc => Protocol::Grpc,
            _ => layer.protocol(),
        }
    }
}
