//! Sends spans in batches, with patience for a receiver that is busy and none for one that refuses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use postern_api::otlp::{ExportTraceServiceResponse, Resource};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{OtlpUrl, Span, wire};
use crate::control_client::backoff::Backoff;
use crate::metrics::Metrics;

/// Spans in one message.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);
const TIME_OUT: Duration = Duration::from_secs(5);
/// Tries of one batch.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const MOST_ANSWER: usize = 64 * 1024;

/// Sends what comes out of the queue until nobody can put anything into it.
pub struct Exporter {
    url: OtlpUrl,
    resource: Resource,
    spans: mpsc::Receiver<Span>,
    metrics: Arc<Metrics>,
    client: Client<HttpConnector, Full<Bytes>>,
    is_failing: bool,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error("it cannot be reached: {0}")]
    Unreached(String),
    #[error("no answer within 5 s")]
    TimedOut,
    #[error("it answers {status}")]
    Busy { status: StatusCode, after: Option<Duration> },
    #[error("it refuses them with {0}")]
    Refused(StatusCode),
}

impl Exporter {
    pub(super) fn new(url: OtlpUrl, resource: Resource, spans: mpsc::Receiver<Span>, metrics: Arc<Metrics>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIME_OUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Self { url, resource, spans, metrics, client, is_failing: false }
    }

    /// Sends until the last [`super::SpanSink`] is gone and everything is sent or given up.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = self.spans.recv().await {
            batch.push(first);
            let deadline = Instant::now() + GATHERING;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                match timeout_at(deadline, self.spans.recv_many(&mut batch, room)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            self.deliver(&batch).await;
            batch.clear();
        }
    }

    async fn deliver(&mut self, batch: &[Span]) {
        let body = Bytes::from(wire::request(&self.resource, batch).encode_to_vec());
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match timeout(TIME_OUT, self.post(body.clone())).await.unwrap_or(Err(Undelivered::TimedOut)) {
                Ok(rejected) => {
                    self.works_again();
                    if rejected > 0 {
                        self.metrics.spans_dropped("refused", rejected);
                        tracing::debug!(rejected, "the receiver of spans took not all of them");
                    }
                    return;
                }
                Err(error) => error,
            };
            self.fails(&error);
            match error {
                Undelivered::Refused(_) => return self.metrics.spans_dropped("refused", batch.len() as u64),
                _ if tries == TRIES => return self.metrics.spans_dropped("not_delivered", batch.len() as u64),
                Undelivered::Busy { after: Some(after), .. } => sleep(after.min(LONGEST_WAIT)).await,
                _ => {
                    let wait = backoff.wait(&mut rand::rng());
                    sleep(wait).await;
                }
            }
        }
    }

    /// Sends one message; gives how many of its spans were not taken.
    async fn post(&self, body: Bytes) -> Result<u64, Undelivered> {
        let unreached = |error: &dyn std::error::Error| Undelivered::Unreached(with_sources(error));
        let request = Request::post(self.url.uri())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("postern/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| unreached(&error))?;
        let answer = self.client.request(request).await.map_err(|error| unreached(&error))?;
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        // Read to its end, so that the connection can be used again.
        let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await;
        match status.as_u16() {
            200..=299 => {
                let told = body.ok().and_then(|body| ExportTraceServiceResponse::decode(body.to_bytes()).ok());
                let rejected = told.and_then(|told| told.partial_success).map_or(0, |partial| partial.rejected_spans);
                Ok(u64::try_from(rejected).unwrap_or(0))
            }
            429 | 502 | 503 | 504 => Err(Undelivered::Busy { status, after: after.map(Duration::from_secs) }),
            _ => Err(Undelivered::Refused(status)),
        }
    }

    fn fails(&mut self, error: &Undelivered) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(url = %self.url, "spans cannot be delivered: {error}; it is tried again, and told when it works");
        }
    }

    fn works_again(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(url = %self.url, "spans are delivered again");
        }
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
