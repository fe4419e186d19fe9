//! A check that is valid.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::{CheckForm, Status, Thresholds};

/// A check that is valid. It is read from and written as a [`CheckForm`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CheckForm", into = "CheckForm")]
pub struct Definition {
    /// Names it among those of its node; empty where whoever registers it is to give one.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people.
    pub notes: String,
    /// What it does.
    pub kind: Kind,
    /// Before the first result. Critical, unless told otherwise.
    pub initial: Status,
    /// How many results in a row change the status.
    pub thresholds: Thresholds,
    /// The instance is deregistered when the check was critical for so long, at least a minute.
    pub deregister_after: Option<Duration>,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Somebody is asked every so often.
    Probe(Probe, Schedule),
    /// Somebody tells; silence for so long is critical.
    Ttl(Duration),
    /// As the checks of another service, or of a node, say.
    Alias {
        /// The node; `None`: the one that this check is of.
        node: Option<String>,
        /// The id of the service; `None`: the checks of the node itself.
        service: Option<String>,
    },
}

/// How often, and how long at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Between the starts of two probes, 100 ms to a day.
    pub interval: Duration,
    /// The longest that one may take.
    pub timeout: Duration,
}

/// Who is asked, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// 2xx is passing, 429 a warning, all else critical.
    Http(HttpProbe),
    /// A connection is passing.
    Tcp(PingProbe),
    /// A datagram is sent: an answer, or silence, is passing; an ICMP error is critical.
    Udp(String),
    /// `grpc.health.v1.Health/Check`: `SERVING` is passing.
    Grpc(GrpcProbe),
    /// An acknowledged HTTP/2 PING is passing.
    H2Ping(PingProbe),
    /// A program: exit code 0 is passing, 1 a warning, all else critical.
    Script(Vec<String>),
}

/// An HTTP request. A redirect is not followed: it is critical.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// `http` or `https`, with a host.
    pub url: Uri,
    /// `GET`, unless told otherwise.
    pub method: Method,
    /// Sent with it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Sent with it.
    pub body: String,
    /// For `https`.
    pub tls: Tls,
}

/// HOST:PORT, with or without TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct PingProbe {
    /// HOST:PORT.
    pub address: String,
    /// Where TLS is spoken.
    pub tls: Option<Tls>,
}

/// A question of the health protocol of gRPC.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcProbe {
    /// HOST:PORT.
    pub address: String,
    /// The service that is asked about; empty: the server.
    pub service: String,
    /// Where TLS is spoken.
    pub tls: Option<Tls>,
}

/// How the certificate of the other end is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Any certificate will do.
    pub skip_verify: bool,
    /// The name that it has to be for; `None`: the host.
    pub server_name: Option<String>,
}

/// Why something is no check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("check {check:?}: {why}")]
pub struct InvalidCheck {
    /// Its id or name, as given.
    pub check: String,
    /// What is wrong, and the cure.
    pub why: String,
}

impl Definition {
    /// The word for its kind: `http`, `tcp`, `udp`, `grpc`, `h2ping`, `script`, `ttl` or `alias`.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Probe(Probe::Http(_), _) => "http",
            Kind::Probe(Probe::Tcp(_), _) => "tcp",
            Kind::Probe(Probe::Udp(_), _) => "udp",
            Kind::Probe(Probe::Grpc(_), _) => "grpc",
            Kind::Probe(Probe::H2Ping(_), _) => "h2ping",
            Kind::Probe(Probe::Script(_), _) => "script",
            Kind::Ttl(_) => "ttl",
            Kind::Alias { .. } => "alias",
        }
    }

    /// Whether it runs a program on this machine.
    pub fn is_script(&self) -> bool {
        matches!(self.kind, Kind::Probe(Probe::Script(_), _))
    }
}
