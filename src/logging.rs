//! Logs go to stderr through a bounded queue and a thread of their own, so that a slow reader of stderr never holds
//! traffic. What does not fit in the queue is dropped, counted and told.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use postern_proxy::settings::{LineFormat, Sink};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::cli::{LogArgs, LogFormat};
use crate::outcome::Failure;
use crate::terminal;

/// Bytes of lines that may wait to be written.
const MOST_WAITING: usize = 1024 * 1024;
/// How long the first of some lines waits for the others.
const GATHERING: Duration = Duration::from_millis(10);
/// Room that is kept for lines between two writes.
const MOST_KEPT: usize = 64 * 1024;
/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// Lines on their way to stderr.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    came: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    dropped: u64,
    /// Whether the thread is writing what it took.
    is_writing: bool,
    /// Whether somebody waits until everything is written: no more gathering.
    hurry: bool,
    is_closed: bool,
}

impl Queue {
    /// Adds a line, or counts it where there is no room.
    fn add(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock();
        if waiting.lines.len() + line.len() > MOST_WAITING {
            waiting.dropped += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        // Where there are lines already, the thread knows.
        if waiting.lines.len() == line.len() {
            self.came.notify_one();
        }
    }

    /// Waits until everything that was added is written.
    fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut waiting = self.waiting.lock();
        waiting.hurry = true;
        self.came.notify_one();
        while (!waiting.lines.is_empty() || waiting.is_writing) && !self.written.wait_until(&mut waiting, deadline).timed_out() {}
        waiting.hurry = false;
    }

    /// Takes what waits, once there is something; `None` after the end. Room that was written from comes back.
    fn take(&self, room: Vec<u8>) -> Option<(Vec<u8>, u64)> {
        let mut waiting = self.waiting.lock();
        waiting.is_writing = false;
        self.written.notify_all();
        while waiting.lines.is_empty() {
            if waiting.is_closed {
                return None;
            }
            self.came.wait(&mut waiting);
        }
        // Thousands of lines a second cost a few wake-ups and writes, not one each.
        if !waiting.hurry && !waiting.is_closed {
            self.came.wait_for(&mut waiting, GATHERING);
        }
        waiting.is_writing = true;
        let lines = std::mem::replace(&mut waiting.lines, room);
        Some((lines, std::mem::take(&mut waiting.dropped)))
    }
}

/// Keeps the log running; what is still queued is written when it goes.
pub struct Log {
    queue: Arc<Queue>,
    format: LogFormat,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Starts logging for this process.
    pub fn start(args: &LogArgs) -> Result<Self, Failure> {
        let queue = Arc::new(Queue::default());
        let writer = LineWriter(queue.clone());
        let written = queue.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&written, &mut io::stderr()))
            .map_err(|error| Failure::new(format!("cannot start the thread that logs: {error}")))?;
        let (filter, handle) = reload::Layer::new(filter(&args.log_level)?);
        let registry = tracing_subscriber::registry().with(filter);
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_target(false);
        let started = match args.log_format {
            LogFormat::Text => registry.with(layer.with_ansi(terminal::stderr_has_colours())).try_init(),
            LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        };
        started.map_err(|error| Failure::new(format!("cannot start logging: {error}")))?;
        Ok(Self { queue, format: args.log_format, filter: handle })
    }

    /// Where the access log puts its lines, in the form that the other lines have.
    pub fn access_sink(&self) -> Sink {
        let queue = self.queue.clone();
        let format = match self.format {
            LogFormat::Text => LineFormat::Text,
            LogFormat::Json => LineFormat::Json,
        };
        Sink::new(format, Arc::new(move |line| queue.add(line)))
    }

    /// Changes what is logged, without a restart.
    pub fn set_level(&self, level: &str) -> Result<(), Failure> {
        self.filter.reload(filter(level)?).map_err(|error| Failure::new(format!("cannot change --log-level: {error}")))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush(FLUSH);
        self.queue.waiting.lock().is_closed = true;
        self.queue.came.notify_one();
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
struct LineWriter(Arc<Queue>);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until the end of the queue. An error of stderr can be told nowhere, so it ends nothing.
fn write_lines(queue: &Queue, out: &mut impl Write) {
    let mut room = Vec::new();
    while let Some((mut lines, dropped)) = queue.take(room) {
        let _ = out.write_all(&lines);
        if dropped > 0 {
            let _ = writeln!(out, "{dropped} log lines were dropped: stderr is read too slowly");
        }
        let _ = out.flush();
        lines.clear();
        // A burst leaves no room behind that nobody needs.
        lines.shrink_to(MOST_KEPT);
        room = lines;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_counts_and_tells() {
        let queue = Queue::default();
        let long = vec![b'x'; MOST_WAITING - 4];
        for line in [&long[..], b"one\n", b"two\n", b"three\n"] {
            queue.add(line);
        }
        queue.waiting.lock().is_closed = true;
        let mut out = Vec::new();
        write_lines(&queue, &mut out);
        let told = String::from_utf8_lossy(&out[long.len()..]).into_owned();
        assert_eq!(told, "one\n2 log lines were dropped: stderr is read too slowly\n");
    }

    #[test]
    fn everything_is_written_before_a_flush_returns() {
        let queue = Arc::new(Queue::default());
        let (of_thread, out) = (queue.clone(), Arc::new(Mutex::new(Vec::new())));
        let written = out.clone();
        let thread = std::thread::spawn(move || write_lines(&of_thread, &mut Shared(written)));
        for _ in 0..100 {
            queue.add(b"line\n");
        }
        queue.flush(Duration::from_secs(20));
        assert_eq!(out.lock().len(), 500);
        queue.waiting.lock().is_closed = true;
        queue.came.notify_one();
        thread.join().unwrap();
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_level_that_is_not_one_is_refused() {
        assert!(filter("info").is_ok() && filter("off").is_ok() && filter("info,postern_proxy=debug").is_ok());
        assert!(filter("postern=loud").is_err());
    }
}
