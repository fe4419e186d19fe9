//! Spans of requests, by OTLP over HTTP. A thread that carries traffic puts what it knows into a bounded queue and goes on;
//! the thread of the control stream makes it into messages and sends them.

mod exporter;
mod url;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use postern_names::{InstanceId, PortName, ServiceName};
use tokio::sync::mpsc;

pub use exporter::Exporter;
pub use url::{OtlpUrl, OtlpUrlError};

use crate::http::exchange::Decider;
use crate::http::trace::Trace;
use crate::metrics::{Direction, Judged, Metrics};

/// Spans that wait to be sent; over it they are dropped and counted.
const MOST_WAITING: usize = 4_096;
/// Bytes of a text that a caller chose; the rest is cut off.
const MOST_TEXT: usize = 1_024;

/// One request, as a receiver of traces is told of it.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) trace: Trace,
    pub(crate) begun: SystemTime,
    pub(crate) ended: SystemTime,
    pub(crate) direction: Direction,
    pub(crate) source: ServiceName,
    pub(crate) destination: ServiceName,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) port: PortName,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) method: Box<str>,
    pub(crate) path: Box<str>,
    pub(crate) is_grpc: bool,
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u8>,
    pub(crate) judged: Option<Judged>,
    pub(crate) because: Decider,
    pub(crate) reason: &'static str,
}

/// The beginning of a text that a caller chose. What waits must not hold the buffers of the connection that it came on.
pub(crate) fn bounded(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(MOST_TEXT)].into()
}

/// Where spans are put. Clones share the queue.
#[derive(Debug, Clone)]
pub struct SpanSink {
    queue: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

impl SpanSink {
    /// Puts a span into the queue, or counts it as dropped. It never waits.
    pub(crate) fn send(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.spans_dropped("queue_full", 1);
        }
    }
}

/// A queue, and what sends to `url` in the name of an instance of a service whatever is put into it.
pub fn queue(url: OtlpUrl, of: (&ServiceName, &InstanceId), metrics: Arc<Metrics>) -> (SpanSink, Exporter) {
    let (queue, spans) = mpsc::channel(MOST_WAITING);
    let exporter = Exporter::new(url, wire::resource(of.0, of.1), spans, metrics.clone());
    (SpanSink { queue, metrics }, exporter)
}

#[cfg(test)]
mod tests;
