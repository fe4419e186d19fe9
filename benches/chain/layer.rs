//! What the proxies understand of what they carry.

use clap::ValueEnum;

/// A set of pairs and figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Bytes.
    L4,
    /// Requests.
    L7,
}

/// Of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layers {
    /// Bytes.
    L4,
    /// Requests.
    L7,
    /// Both, one after the other.
    All,
}

/// What the proxies of a pair are configured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes, whatever they are.
    Tcp,
    /// HTTP/1.1 on every leg.
    Http,
    /// HTTP/2 on every leg.
    Http2,
    /// HTTP/2 on every leg, with gRPC's trailers.
    Grpc,
}

impl Layers {
    /// In the order in which they are measured.
    pub fn each(self) -> &'static [Layer] {
        match self {
            Self::L4 => &[Layer::L4],
            Self::L7 => &[Layer::L7],
            Self::All => &[Layer::L4, Layer::L7],
        }
    }
}

impl Layer {
    /// In the names of figures and files.
    pub fn id(self) -> &'static str {
        match self {
            Self::L4 => "l4",
            Self::L7 => "l7",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::L4 => "L4: bytes",
            Self::L7 => "L7: HTTP/1.1 and gRPC, judged request by request",
        }
    }

    /// What most of its lines are measured with.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::L4 => Protocol::Tcp,
            Self::L7 => Protocol::Http,
        }
    }
}

impl Protocol {
    /// What the proxies agree on in their handshakes.
    pub fn alpn(self) -> Option<&'static str> {
        match self {
            Self::Tcp => None,
            Self::Http => Some("http/1.1"),
            Self::Http2 | Self::Grpc => Some("h2"),
        }
    }

    /// Whether HTTP/2 is spoken, with prior knowledge where there is no TLS.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}
