//! What it costs a sidecar to count calls and to tell of them: the same requests at a steady rate to two sidecars, of which
//! one does not. `cargo bench --bench edges -- --rate 1000 --seconds 10 --rounds 9`; it ends with 1 where a goal is missed.
//!
//! Each has its turn in each round, another one first each time; the figures are medians, the ratio that of the ratios
//! within one round. CPU is the time of all threads of the called sidecar, as the scheduler counts it.

#[path = "../chain/process.rs"]
#[allow(dead_code)] // what only the other benchmarks need
mod process;

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::Value;

use crate::process::Process;

/// Connections that carry the requests.
const CONNECTIONS: u32 = 4;
/// Before the first round, so that all is warm.
const WARM_UP: Duration = Duration::from_secs(6);
/// The most that reports may cost of a processor at 1,000 requests a second.
const MOST_CPU: f64 = 0.01;
/// The most bytes of a report for each edge in it.
const MOST_BYTES: f64 = 200.0;

#[derive(Debug, Parser)]
struct Settings {
    /// Requests a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// For how long each has its turn.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// How often.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Shapes of paths that are asked for; half of them have an id.
    #[arg(long, default_value_t = 20)]
    shapes: u32,
    /// The binary.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_meshctl"))]
    meshctl: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A called sidecar.
struct Called {
    process: Process,
    admin: String,
    upstream: String,
}

struct World {
    with: Called,
    without: Called,
    _others: Vec<Process>,
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    ensure!(settings.rounds > 0 && settings.rate >= CONNECTIONS && settings.seconds > 0, "nothing to measure");
    let directory = tempfile::tempdir()?;
    let world = World::start(&settings, directory.path())?;
    for called in [&world.with, &world.without] {
        ask(called, &settings, WARM_UP)?;
    }
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        let measure = |called| cost(called, &settings);
        let (a, b) = if round.is_multiple_of(2) {
            let a = measure(&world.with)?;
            (a, measure(&world.without)?)
        } else {
            let b = measure(&world.without)?;
            (measure(&world.with)?, b)
        };
        println!("round {}: {a:.2} µs a request with reports, {b:.2} without, ratio {:.3}", round + 1, a / b);
        with.push(a);
        without.push(b);
        ratios.push(a / b);
    }
    let differences = with.iter().zip(&without).map(|(a, b)| a - b).collect();
    let of_cpu = median(differences) * f64::from(settings.rate) / 1e6;
    let (edges, bytes) = (world.with.counter("postern_edges_told_total")?, world.with.counter("postern_edges_told_bytes_total")?);
    println!(
        "CPU of the called sidecar at {}/s: {:.2} µs a request with reports, {:.2} without, ratio {:.3}; reports take {:.2} % of a processor",
        settings.rate,
        median(with),
        median(without),
        median(ratios),
        of_cpu * 100.0
    );
    println!("{edges} edges told in {bytes} bytes: {:.0} an edge a report", bytes / edges);
    ensure!(
        of_cpu * 1_000.0 / f64::from(settings.rate) <= MOST_CPU,
        "reports cost more than {} % of a processor",
        MOST_CPU * 100.0
    );
    ensure!(edges > 0.0 && bytes / edges <= MOST_BYTES, "an edge takes more than {MOST_BYTES} bytes");
    Ok(())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    let middle = of.len() / 2;
    if of.len() % 2 == 1 { of[middle] } else { (of[middle - 1] + of[middle]) / 2.0 }
}

/// CPU a request, in µs.
fn cost(called: &Called, settings: &Settings) -> anyhow::Result<f64> {
    let before = called.process.scheduled()?;
    let asked = ask(called, settings, Duration::from_secs(settings.seconds.into()))?;
    let used = called.process.scheduled()? - before;
    Ok(used.as_secs_f64() * 1e6 / f64::from(asked))
}

/// Asks at the steady rate for so long; how often.
fn ask(called: &Called, settings: &Settings, lasts: Duration) -> anyhow::Result<u32> {
    let each = settings.rate / CONNECTIONS;
    let requests = u32::try_from(u128::from(each) * lasts.as_millis() / 1_000)?;
    let every = Duration::from_secs(1) / each;
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (upstream, shapes) = (called.upstream.clone(), settings.shapes);
            thread::spawn(move || connection(&upstream, shapes, number, every, requests))
        })
        .collect();
    for connection in connections {
        connection.join().map_err(|_| anyhow::anyhow!("a caller failed"))??;
    }
    Ok(requests * CONNECTIONS)
}

fn connection(upstream: &str, shapes: u32, number: u32, every: Duration, requests: u32) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(upstream)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    // The callers take turns.
    let start = Instant::now() + every * number / CONNECTIONS;
    for count in 0..requests {
        if let Some(pause) = (start + every * count).checked_duration_since(Instant::now()) {
            #[allow(clippy::disallowed_methods)] // a thread of its own keeps the rate
            thread::sleep(pause);
        }
        let shape = count % shapes.max(1);
        let path =
            if shape.is_multiple_of(2) { format!("/v1/collection-{shape}/{count}") } else { format!("/v1/collection-{shape}") };
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: api\r\nAccept: */*\r\n\r\n").as_bytes())?;
        let (status, _) = read_answer(&mut reader)?;
        ensure!(status == 200, "status {status}");
    }
    Ok(())
}

/// Status and body of an answer.
fn read_answer(reader: &mut impl BufRead) -> anyhow::Result<(u16, String)> {
    let (mut status, mut length) = (0, None);
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the connection ended");
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.get(..3).unwrap_or_default().parse()?;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse()?);
        }
        if line == "\r\n" {
            let mut body = vec![0; length.context("no Content-Length")?];
            reader.read_exact(&mut body)?;
            return Ok((status, String::from_utf8(body)?));
        }
    }
}

/// Answers every request with 200 bytes.
fn serve() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{}", "x".repeat(200));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || answer_each(stream, &answer));
        }
    });
    Ok(address)
}

fn answer_each(mut stream: TcpStream, answer: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            stream.write_all(answer.as_bytes())?;
        }
    }
    Ok(())
}

impl World {
    fn start(settings: &Settings, directory: &Path) -> anyhow::Result<Self> {
        let command = |name: &str| {
            let mut command = Command::new(&settings.meshctl);
            command.arg(name).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
            command.env("HOME", directory).env("POSTERN_DATA_DIR", directory.join("data"));
            command
        };
        let mut control = command("control");
        control.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--print-addresses"]);
        control.arg("--seal-key-file").arg(directory.join("seal.key"));
        let (control, addresses) = Process::start_announcing(&mut control, &directory.join("control.log"))?;
        let grpc = text(&addresses["grpc"])?;
        let proxy = |service: &str, further: &[&str]| {
            let created = command("token").args(["create", "--service", service, "-o", "json"]).output()?;
            ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
            let token: Value = serde_json::from_slice(&created.stdout)?;
            let mut sidecar = command("proxy");
            sidecar.args(["--service", service, "--control", &grpc, "--print-addresses", "--admin", "127.0.0.1:0"]);
            sidecar.arg("--state-dir").arg(directory.join(service)).args(further);
            sidecar.env("POSTERN_PROXY_TOKEN", text(&token["token"])?);
            Process::start_announcing(&mut sidecar, &directory.join(format!("{service}.log")))
        };
        let service = serve()?;
        let local = ["--listen", "127.0.0.1:0", "--local", &service, "--protocol", "http"];
        let (with, of_with) = proxy("with", &local)?;
        let (without, of_without) = proxy("without", &[&local[..], &["--no-edges"]].concat())?;
        let (caller, of_caller) = proxy("caller", &["--upstream", "with=127.0.0.1:0", "--upstream", "without=127.0.0.1:0"])?;
        for called in ["with", "without"] {
            let allowed = command("intention").args(["allow", "caller", called, "--wait", "20s"]).output()?;
            ensure!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
        }
        let called = |process, addresses: &Value, name: &str| {
            anyhow::Ok(Called { process, admin: text(&addresses["admin"])?, upstream: text(&of_caller["upstreams"][name])? })
        };
        Ok(Self {
            with: called(with, &of_with, "with")?,
            without: called(without, &of_without, "without")?,
            _others: vec![control, caller],
        })
    }
}

impl Called {
    /// A counter without labels.
    fn counter(&self, name: &str) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let (status, metrics) = read_answer(&mut BufReader::new(stream))?;
        ensure!(status == 200, "status {status} of the metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name}"))?.parse()?)
    }
}

fn text(value: &Value) -> anyhow::Result<String> {
    value.as_str().map(ToOwned::to_owned).with_context(|| format!("no text: {value}"))
}
