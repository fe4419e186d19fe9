//! Logs go to stderr through a bounded queue and a thread of their own, so that a slow reader of stderr never holds
//! traffic. What does not fit in the queue is dropped, counted and told.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::cli::{LogArgs, LogFormat};
use crate::outcome::Failure;
use crate::terminal;

/// Lines that may wait to be written.
const QUEUE: usize = 4_096;
/// How long the first of some lines waits for the others.
const GATHERING: Duration = Duration::from_millis(10);
/// The most bytes that are written at once.
const MOST_GATHERED: usize = 64 * 1024;
/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Keeps the log running; what is still queued is written when it goes.
pub struct Log {
    queue: SyncSender<Message>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Starts logging for this process.
    pub fn start(args: &LogArgs) -> Result<Self, Failure> {
        let (queue, lines) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = LineWriter { queue: queue.clone(), dropped: dropped.clone() };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&lines, &dropped, &mut io::stderr()))
            .map_err(|error| Failure::new(format!("cannot start the thread that logs: {error}")))?;
        let (filter, handle) = reload::Layer::new(filter(&args.log_level)?);
        let registry = tracing_subscriber::registry().with(filter);
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_target(false);
        let started = match args.log_format {
            LogFormat::Text => registry.with(layer.with_ansi(terminal::stderr_has_colours())).try_init(),
            LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        };
        started.map_err(|error| Failure::new(format!("cannot start logging: {error}")))?;
        Ok(Self { queue, filter: handle })
    }

    /// Changes what is logged, without a restart.
    pub fn set_level(&self, level: &str) -> Result<(), Failure> {
        self.filter.reload(filter(level)?).map_err(|error| Failure::new(format!("cannot change --log-level: {error}")))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH);
        }
    }
}

/// A word alone (`info`) speaks for our own code; the libraries below it say what is wrong and no more.
fn filter(level: &str) -> Result<EnvFilter, Failure> {
    let ours = ["error", "warn", "info", "debug", "trace", "off"];
    let directives = match level {
        "error" | "off" => level.to_owned(),
        _ if ours.contains(&level) => {
            format!(
                "warn,meshctl={level},postern_control={level},postern_proxy={level},postern_ca={level},postern_api={level},postern_intentions={level},access={level},audit={level}"
            )
        }
        _ => level.to_owned(),
    };
    directives.parse().map_err(|_| {
        Failure::new(format!("--log-level {level:?} is not known"))
            .cure("write error, warn, info, debug, trace or a filter such as info,postern_proxy=debug")
    })
}

#[derive(Clone)]
struct LineWriter {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Line(line.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until every sender has gone. After the first line it waits a moment for those that follow: thousands of
/// connections a second cost a few wake-ups and writes, not one each. An error of stderr can be told nowhere, so it ends
/// nothing.
fn write_lines(lines: &Receiver<Message>, dropped: &AtomicU64, out: &mut impl Write) {
    let mut gathered = Vec::new();
    while let Ok(first) = lines.recv() {
        std::thread::park_timeout(GATHERING);
        let mut waiting = Vec::new();
        for message in std::iter::once(first).chain(lines.try_iter()) {
            match message {
                Message::Line(line) => gathered.extend_from_slice(&line),
                Message::Flush(done) => waiting.push(done),
            }
            if gathered.len() >= MOST_GATHERED {
                let _ = out.write_all(&gathered);
                gathered.clear();
            }
        }
        let _ = out.write_all(&gathered);
        gathered.clear();
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} log lines were dropped: stderr is read too slowly");
        }
        let _ = out.flush();
        for done in waiting {
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_counts_and_tells() {
        let (queue, lines) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut writer = LineWriter { queue, dropped: dropped.clone() };
        for line in ["one\n", "two\n", "three\n"] {
            writer.write_all(line.as_bytes()).unwrap();
        }
        drop(writer);
        let mut out = Vec::new();
        write_lines(&lines, &dropped, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "one\n2 log lines were dropped: stderr is read too slowly\n");
    }

    #[test]
    fn a_level_that_is_not_one_is_refused() {
        assert!(filter("info").is_ok() && filter("off").is_ok() && filter("info,postern_proxy=debug").is_ok());
        assert!(filter("postern=loud").is_err());
    }
}
