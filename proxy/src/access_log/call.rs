//! What a line tells first, whatever it is about.

use std::net::SocketAddr;

use super::line::Line;
use crate::metrics::{Direction, Judged};

/// Who called whom, and how it was judged.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Who dialled, or sent the request.
    pub direction: Direction,
    /// The calling service; `unknown` before it is verified.
    pub source: &'a str,
    /// The called service.
    pub destination: &'a str,
    /// The called instance; empty when none was reached.
    pub instance: &'a str,
    /// The called port.
    pub port: &'a str,
    /// The address of the other end, where it has one.
    pub address: Option<SocketAddr>,
    /// How it was judged; `None` when it failed before.
    pub judged: Option<Judged>,
}

impl Call<'_> {
    /// Whether it was not let through, by a verdict or by a failure.
    pub(super) fn is_denial(&self) -> bool {
        !matches!(self.judged, Some(Judged::Allow | Judged::Audit))
    }

    /// The other service, which the limit of denied lines goes by.
    pub(super) fn peer(&self) -> &str {
        match self.direction {
            Direction::Inbound => self.source,
            Direction::Outbound => self.destination,
        }
    }

    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.text("direction", self.direction.as_str());
        line.text("source", self.source);
        line.text("destination", self.destination);
        line.text("instance", self.instance);
        line.text("port", self.port);
        match self.address {
            Some(address) => line.address("address", address),
            None => line.text("address", ""),
        }
        line.text("verdict", self.judged.map_or("failed", Judged::as_str));
    }
}
