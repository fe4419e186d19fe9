//! Counters of HTTP requests. A peer can make no series: methods are the nine of HTTP or `other`.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter};

use super::{Direction, Judged, Metrics, PeerSeries};

/// Series of one peer that are kept at hand; codes and methods beyond them are looked up each time.
const MOST_AT_HAND: usize = 64;

/// The request series of one peer and direction.
#[derive(Debug)]
pub struct RequestMetrics {
    metrics: Arc<Metrics>,
    direction: Direction,
    series: Arc<PeerSeries>,
    seconds: Histogram,
    counters: Mutex<Vec<(Key, IntCounter)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    method: &'static str,
    /// 0: there was no answer.
    code: u16,
    verdict: &'static str,
}

/// The label `method`.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "other",
    }
}

impl RequestMetrics {
    pub(super) fn new(metrics: Arc<Metrics>, direction: Direction, series: Arc<PeerSeries>) -> Self {
        let seconds = metrics.request_seconds.with_label_values(&[direction.as_str(), &series.label]);
        Self { metrics, direction, series, seconds, counters: Mutex::default() }
    }

    /// Counts a request that has ended. Without a status nothing was answered: code `none`.
    pub fn answered(&self, method: &Method, status: Option<StatusCode>, judged: Option<Judged>, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        let code = status.map_or(0, |status| status.as_u16());
        let key = Key { method: label(method), code, verdict: judged.map_or("failed", Judged::as_str) };
        let mut counters = self.counters.lock();
        if let Some((_, counter)) = counters.iter().find(|(of, _)| *of == key) {
            return counter.inc();
        }
        let code = if code == 0 { "none".to_owned() } else { code.to_string() };
        let labels = [self.direction.as_str(), &self.series.label, key.method, &code, key.verdict];
        let counter = self.metrics.requests.with_label_values(&labels);
        counter.inc();
        self.series.requests.lock().insert((self.direction, key.method, code, key.verdict));
        if counters.len() < MOST_AT_HAND {
            counters.push((key, counter));
        }
    }

    /// Counts a request that was ended because it is allowed no more.
    pub fn revoked(&self) {
        self.metrics.revoked.with_label_values(&[&self.series.label]).inc();
    }
}
