//! Latency at a fixed rate. Requests are due by a schedule that no answer can delay, and each is timed from the moment it
//! was due: a stall is seen by every request that it held up (no coordinated omission).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use nix::sys::prctl;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::http::Connection;

/// Nanoseconds: requests that take longer than this count as this long.
const LONGEST: u64 = 60_000_000_000;

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// Half of the requests were faster.
    pub p50: f64,
    /// 99 % of the requests were faster.
    pub p99: f64,
    /// 99.9 % of the requests were faster.
    pub p999: f64,
}

/// Sends `rate` requests a second for `length`, in turn over `connections`; the first tenth is not counted.
pub async fn at_fixed_rate(
    entries: &[SocketAddr],
    connections: usize,
    rate: f64,
    length: Duration,
) -> anyhow::Result<(Latency, u64)> {
    let mut due = Vec::new();
    let mut running = JoinSet::new();
    for entry in entries.iter().cycle().take(connections) {
        let mut connection = Connection::open(*entry).await?;
        connection.request().await.context("the first request on a connection")?;
        let (send, receive) = mpsc::unbounded_channel();
        due.push(send);
        running.spawn(answer_in_order(connection, receive));
    }
    let schedule = Schedule { began: Instant::now(), interval: Duration::from_secs_f64(1.0 / rate), length };
    let pacer = std::thread::Builder::new().name("pacer".into()).spawn(move || schedule.run(&due))?;
    let warm = schedule.began + length / 10;
    let mut latencies = Histogram::<u64>::new_with_bounds(1, LONGEST, 3)?;
    while let Some(answered) = running.join_next().await {
        for (due, took) in answered?? {
            if due >= warm {
                latencies.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST));
            }
        }
    }
    ensure!(pacer.join().is_ok(), "the pacer failed");
    let at = |share| latencies.value_at_quantile(share) as f64 / 1e3;
    Ok((Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) }, schedule.count()))
}

/// When requests are due.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    began: Instant,
    interval: Duration,
    length: Duration,
}

impl Schedule {
    fn count(&self) -> u64 {
        (self.length.as_secs_f64() / self.interval.as_secs_f64()) as u64
    }

    /// Tells each connection in turn what is due.
    #[allow(clippy::disallowed_methods)] // a thread of its own: the timers of a runtime are a millisecond apart
    fn run(&self, connections: &[mpsc::UnboundedSender<Instant>]) {
        // With the default slack of 50 µs each request would be late by as much; without it the figures only get worse.
        let _ = prctl::set_timerslack(1_000);
        for (number, connection) in (0..self.count()).zip(connections.iter().cycle()) {
            let due = self.began + self.interval.mul_f64(number as f64);
            let now = Instant::now();
            if due > now {
                std::thread::sleep(due - now);
            }
            if connection.send(due).is_err() {
                return;
            }
        }
    }
}

/// One after the other: what is due while an answer is outstanding waits, and its wait counts.
async fn answer_in_order(
    mut connection: Connection<TcpStream>,
    mut due: mpsc::UnboundedReceiver<Instant>,
) -> io::Result<Vec<(Instant, Duration)>> {
    let mut answered = Vec::new();
    while let Some(due) = due.recv().await {
        connection.request().await?;
        answered.push((due, due.elapsed()));
    }
    Ok(answered)
}
