//! One line for each connection, or for each request on it: the target `access` of the log.
//!
//! Lines are written straight into the room that the log has for them: one a request would cost more by way of `tracing`
//! than all else that a sidecar does with the request.

mod call;
mod line;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use call::Call;
pub use line::{LineFormat, Sink, WriteLine};
use parking_lot::Mutex;
use postern_traffic::settings::Percent;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::http::exchange::Decider;
use crate::http::trace::Trace;
use crate::metrics::Direction;

/// Denied lines of one peer and reason that are written in a second; the rest is counted.
const DENIED_A_SECOND: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);
/// Windows that are kept at once; over it, all further peers share one for each reason.
const MOST_WINDOWS: usize = 4_096;

/// Which connections are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogMode {
    /// Each one.
    #[default]
    All,
    /// Those that were denied, refused or failed.
    Denied,
    /// None.
    Off,
}

/// A text that is no [`LogMode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an access log mode; use all, denied or off")]
pub struct LogModeError(String);

impl FromStr for LogMode {
    type Err = LogModeError;

    fn from_str(text: &str) -> Result<Self, LogModeError> {
        match text {
            "all" => Ok(Self::All),
            "denied" => Ok(Self::Denied),
            "off" => Ok(Self::Off),
            _ => Err(LogModeError(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for LogMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Denied => "denied",
            Self::Off => "off",
        })
    }
}

/// Writes connections to the log; clones share the limits.
#[derive(Debug, Clone)]
pub struct AccessLog {
    mode: LogMode,
    sample: Percent,
    sink: Sink,
    denied: Arc<Denied>,
}

#[derive(Debug, Default)]
struct Denied {
    windows: Mutex<HashMap<Key, Window>>,
    opened: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    direction: &'static str,
    peer: String,
    reason: String,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

/// What is told of one connection when it has ended.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Who dialled whom.
    pub call: Call<'a>,
    /// What decided.
    pub because: Cow<'a, str>,
    /// Bytes from the peer.
    pub bytes_in: u64,
    /// Bytes to the peer.
    pub bytes_out: u64,
    /// From accept to end.
    pub duration: Duration,
    /// Why it ended, in one word.
    pub reason: &'a str,
}

impl Record<'_> {
    fn emit(&self, sink: &Sink) {
        sink.line("connection", |line| {
            self.call.write(line);
            line.text("because", &self.because);
            line.number("bytes_in", self.bytes_in);
            line.number("bytes_out", self.bytes_out);
            line.milliseconds("duration_ms", self.duration.as_micros() as u64);
            line.text("reason", self.reason);
        });
    }
}

/// What is told of one HTTP request when it has ended.
pub(crate) struct RequestRecord<'a> {
    /// Who sent it to whom.
    pub(crate) call: Call<'a>,
    /// What decided.
    pub(crate) because: &'a Decider,
    /// As received.
    pub(crate) method: &'a str,
    /// As received, without the query, which may hold secrets.
    pub(crate) path: &'a str,
    /// Of the answer; `None` when there was none.
    pub(crate) status: Option<u16>,
    /// Of a gRPC call.
    pub(crate) grpc_status: Option<u8>,
    /// Bytes of bodies from the peer.
    pub(crate) bytes_in: u64,
    /// Bytes of bodies to the peer.
    pub(crate) bytes_out: u64,
    /// From the head to the last byte of the answer.
    pub(crate) duration: Duration,
    /// Why it ended, in one word.
    pub(crate) reason: &'a str,
    /// Its place in a trace.
    pub(crate) trace: Option<Trace>,
}

impl RequestRecord<'_> {
    fn emit(&self, sink: &Sink) {
        sink.line("request", |line| {
            self.call.write(line);
            line.display("because", self.because);
            line.text("method", self.method);
            line.text("path", self.path);
            if let Some(status) = self.status {
                line.number("status", status.into());
            }
            if let Some(status) = self.grpc_status {
                line.number("grpc_status", status.into());
            }
            line.number("bytes_in", self.bytes_in);
            line.number("bytes_out", self.bytes_out);
            line.milliseconds("duration_ms", self.duration.as_micros() as u64);
            line.text("reason", self.reason);
            if let Some(trace) = self.trace {
                line.hexadecimal("trace", trace.id);
            }
        });
    }
}

impl AccessLog {
    /// A log that writes what `mode` says, and of what was allowed this share.
    pub fn new(mode: LogMode, sample: Percent, sink: Sink) -> Self {
        Self { mode, sample, sink, denied: Arc::default() }
    }

    fn wants(&self, is_denial: bool) -> bool {
        let wanted = match self.mode {
            LogMode::Off => false,
            LogMode::Denied => is_denial,
            LogMode::All => is_denial || self.sample == Percent::ALL || rand::random_range(0..10_000) < self.sample.hundredths(),
        };
        wanted && tracing::enabled!(target: "access", tracing::Level::INFO)
    }

    /// Writes the line of one connection, if the mode and the limit of denied lines let it.
    pub fn write(&self, record: &Record<'_>) {
        if self.admits(&record.call, record.reason, &record.because) {
            record.emit(&self.sink);
        }
    }

    /// Writes the line of one request, by the same rules.
    pub(crate) fn write_request(&self, record: &RequestRecord<'_>) {
        if self.admits(&record.call, record.reason, record.because) {
            record.emit(&self.sink);
        }
    }

    fn admits(&self, call: &Call<'_>, reason: &str, because: &dyn fmt::Display) -> bool {
        let is_denial = call.is_denial();
        let of_denied = || (call.direction, call.peer(), format!("{reason}: {because}"), reason);
        self.wants(is_denial) && (!is_denial || self.denied.lets(of_denied()))
    }

    /// Tells, at the end of each second in which lines were left out, how many. Runs until it is dropped.
    pub async fn tell_left_out(&self) {
        loop {
            self.denied.opened.notified().await;
            while !self.denied.windows.lock().is_empty() {
                tokio::time::sleep(WINDOW).await;
                for (key, left_out) in self.denied.close_windows() {
                    tracing::info!(
                        target: "access",
                        direction = key.direction,
                        peer = key.peer,
                        reason = key.reason,
                        left_out,
                        "more connections like these were denied or failed"
                    );
                }
            }
        }
    }
}

impl Denied {
    fn lets(&self, (direction, peer, reason, word): (Direction, &str, String, &str)) -> bool {
        let now = Instant::now();
        let mut windows = self.windows.lock();
        let mut key = Key { direction: direction.as_str(), peer: peer.to_owned(), reason };
        if windows.len() >= MOST_WINDOWS && !windows.contains_key(&key) {
            key = Key { peer: "others".to_owned(), reason: word.to_owned(), ..key };
        }
        let window = windows.entry(key).or_insert_with(|| {
            self.opened.notify_one();
            Window { since: now, lines: 0, left_out: 0 }
        });
        if window.lines < DENIED_A_SECOND {
            window.lines += 1;
            return true;
        }
        window.left_out += 1;
        false
    }

    /// Ends the windows that are a second old, and gives those in which lines were left out.
    fn close_windows(&self) -> Vec<(Key, u64)> {
        let now = Instant::now();
        let over = |window: &Window| now.duration_since(window.since) >= WINDOW;
        let ended: Vec<_> = self.windows.lock().extract_if(|_, window| over(window)).collect();
        ended.into_iter().filter(|(_, window)| window.left_out > 0).map(|(key, window)| (key, window.left_out)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Judged;

    fn denied(source: &str) -> (Direction, &str, String, &str) {
        (Direction::Inbound, source, "denied: default (deny)".to_owned(), "denied")
    }

    #[tokio::test(start_paused = true)]
    async fn ten_denied_lines_a_second_are_written_and_the_rest_is_counted() {
        let log = AccessLog::new(LogMode::All, Percent::ALL, Sink::default());
        assert_eq!((0..25).filter(|_| log.denied.lets(denied("web"))).count(), 10);
        assert!(log.denied.lets(denied("shop")), "another peer has its own ten");

        tokio::time::advance(WINDOW).await;
        let left_out = log.denied.close_windows();
        assert_eq!(left_out.iter().map(|(key, count)| (key.peer.as_str(), *count)).collect::<Vec<_>>(), [("web", 15)]);
        assert!(log.denied.lets(denied("web")), "the next second has its own ten");
    }

    #[tokio::test(start_paused = true)]
    async fn many_peers_do_not_grow_the_memory_without_end() {
        let log = AccessLog::new(LogMode::All, Percent::ALL, Sink::default());
        for n in 0..MOST_WINDOWS + 500 {
            log.denied.lets(denied(&format!("s{n}")));
        }
        assert!(log.denied.windows.lock().len() <= MOST_WINDOWS + 1);
    }

    fn written(emit: impl FnOnce(&Sink)) -> serde_json::Map<String, serde_json::Value> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        emit(&Sink::new(LineFormat::Json, Arc::new(move |line: &[u8]| kept.lock().extend_from_slice(line))));
        serde_json::from_slice(&lines.lock()).expect("one JSON object")
    }

    fn call() -> Call<'static> {
        Call {
            direction: Direction::Inbound,
            source: "web",
            destination: "api",
            instance: "api-1",
            port: "main",
            address: None,
            judged: Some(Judged::Allow),
        }
    }

    fn connection() -> serde_json::Map<String, serde_json::Value> {
        let record = Record {
            call: call(),
            because: "default (allow)".into(),
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_millis(3),
            reason: "closed",
        };
        written(|sink| record.emit(sink))
    }

    fn request() -> serde_json::Map<String, serde_json::Value> {
        let record = RequestRecord {
            call: call(),
            because: &Decider::Words("default (allow)".into()),
            method: "POST",
            path: "/shop.Cart/Add",
            status: Some(200),
            grpc_status: Some(0),
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_millis(3),
            reason: "answered",
            trace: Some(Trace { id: 1, parent: 2, span: 3, is_sampled: true }),
        };
        written(|sink| record.emit(sink))
    }

    const DOCUMENTED: &str = include_str!("../../../docs/access-log.md");

    #[test]
    fn every_field_is_documented_and_every_documented_field_is_written() {
        let (connection, request) = (connection(), request());
        let mut documented = Vec::new();
        for row in DOCUMENTED.lines().filter_map(|line| line.strip_prefix("| `")) {
            let Some((name, rest)) = row.split_once("` | ") else { continue };
            match rest.split(" | ").next() {
                Some("both") => assert!(connection.contains_key(name) && request.contains_key(name), "{name}"),
                Some("request") => assert!(!connection.contains_key(name) && request.contains_key(name), "{name}"),
                _ => continue,
            }
            documented.push(name);
        }
        for name in connection.keys().chain(request.keys()) {
            assert!(documented.contains(&name.as_str()), "docs/access-log.md does not tell of {name}");
        }
    }

    #[test]
    fn the_documented_lines_have_the_fields_that_are_written() {
        let lines: Vec<_> = DOCUMENTED.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(lines.len(), 3);
        for line in lines {
            let line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect("JSON");
            let written = if line["message"] == "request" { request() } else { connection() };
            let kept: Vec<_> = written.keys().filter(|name| line.contains_key(*name)).collect();
            assert_eq!(line.keys().collect::<Vec<_>>(), kept, "in this order");
            let left_out: Vec<_> = written.keys().filter(|name| !line.contains_key(*name)).collect();
            assert!(left_out.iter().all(|name| ["grpc_status", "trace", "status"].contains(&name.as_str())), "{left_out:?}");
        }
    }
}
