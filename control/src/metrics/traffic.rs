//! What was seen of calls, as Prometheus sees it.

use prometheus::{IntCounter, IntGauge, Registry};

use super::kept;
use crate::edges::TrafficCounts;

/// Reads one count.
type Reader = fn(&TrafficCounts) -> u64;

/// Gauges and counters of the traffic.
pub(super) struct TrafficMetrics {
    gauges: [(IntGauge, Reader); 4],
    counters: [(IntCounter, Reader); 4],
}

impl TrafficMetrics {
    /// All at zero.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, read: Reader| -> Result<(IntGauge, Reader), prometheus::Error> {
            Ok((kept(registry, IntGauge::new(name, help))?, read))
        };
        let counter = |name: &str, help: &str, read: Reader| -> Result<(IntCounter, Reader), prometheus::Error> {
            Ok((kept(registry, IntCounter::new(name, help))?, read))
        };
        Ok(Self {
            gauges: [
                gauge("postern_control_edges", "Edges that are kept.", |counts| counts.edges)?,
                gauge("postern_control_edges_bytes", "Memory for them, about.", |counts| counts.bytes)?,
                gauge(
                    "postern_control_edges_unwritten",
                    "Pairs of services whose counts are to be written to the store.",
                    |counts| counts.unwritten,
                )?,
                gauge("postern_control_followers", "Whoever follows GET /v1/live.", |counts| counts.followers)?,
            ],
            counters: [
                counter("postern_control_edges_left_out_total", "Calls that there was no room for.", |counts| counts.left_out)?,
                counter("postern_control_decisions_total", "Decisions that sidecars told one by one.", |counts| {
                    counts.decisions
                })?,
                counter(
                    "postern_control_decisions_left_out_total",
                    "Decisions that there was no room for, here or at a sidecar.",
                    |counts| counts.decisions_left_out,
                )?,
                counter("postern_control_seen_refused_total", "What sidecars told of calls and cannot be.", |counts| {
                    counts.refused
                })?,
            ],
        })
    }

    pub(super) fn observe(&self, counts: &TrafficCounts) {
        for (gauge, read) in &self.gauges {
            gauge.set(i64::try_from(read(counts)).unwrap_or(i64::MAX));
        }
        for (counter, read) in &self.counters {
            counter.inc_by(read(counts).saturating_sub(counter.get()));
        }
    }
}
