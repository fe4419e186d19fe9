//! Keys of a real control plane over its HTTP API: durable writes by one client and by many at once, reads of single keys,
//! reads that are sent ahead of their answers, and reads in transactions. `cargo bench --bench kv -- --seconds 10`.

#[path = "../chain/process.rs"]
#[allow(dead_code)] // what only the other benchmarks need
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process::Process;

/// Keys that are read, and reads in one transaction.
const KEYS: usize = 128;

#[derive(Debug, Clone, Parser)]
struct Settings {
    /// For how long each part.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Clients that write at once.
    #[arg(long, default_value_t = 256)]
    writers: usize,
    /// Clients that read at once.
    #[arg(long, default_value_t = 32)]
    readers: usize,
    /// Requests that a client sends ahead of their answers, in the part that does so.
    #[arg(long, default_value_t = 32)]
    ahead: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// The binary.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_meshctl"))]
    meshctl: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let control = Control::start(&settings, directory.path())?;
    runtime.block_on(async {
        report("durable writes, 1 client", 1, &measure(&settings, &control, 1, 1, Work::Write).await?);
        let writers = settings.writers;
        let name = format!("durable writes, {writers} clients");
        report(&name, 1, &measure(&settings, &control, writers, 1, Work::Write).await?);
        control.fill(&settings).await?;
        let readers = settings.readers;
        let name = format!("reads, {readers} clients");
        report(&name, 1, &measure(&settings, &control, readers, 1, Work::Read).await?);
        let name = format!("reads, {readers} clients, {} sent ahead", settings.ahead);
        report(&name, 1, &measure(&settings, &control, readers, settings.ahead, Work::Read).await?);
        let name = format!("reads in transactions of {KEYS}, {readers} clients");
        report(&name, KEYS as u64, &measure(&settings, &control, readers, 1, Work::ReadMany).await?);
        anyhow::Ok(())
    })
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Write,
    Read,
    ReadMany,
}

struct Control {
    http: String,
    requests: Requests,
    _process: Process,
}

/// Makes requests with the operator's token.
#[derive(Clone)]
struct Requests {
    token: String,
}

impl Control {
    fn start(settings: &Settings, directory: &Path) -> anyhow::Result<Self> {
        let mut control = Command::new(&settings.meshctl);
        control.arg("control").env_clear().env("HOME", directory).env("POSTERN_DATA_DIR", directory.join("data"));
        control.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--print-addresses"]);
        control.arg("--seal-key-file").arg(directory.join("seal.key"));
        let (process, addresses) = Process::start_announcing(&mut control, &directory.join("control.log"))?;
        let http = addresses["http"].as_str().context("no http address")?.to_owned();
        let token = std::fs::read_to_string(directory.join("data/operator.token"))?.trim().to_owned();
        Ok(Self { http, requests: Requests { token }, _process: process })
    }

    async fn fill(&self, settings: &Settings) -> anyhow::Result<()> {
        let mut client = Client::connect(self).await?;
        for number in 0..KEYS {
            let path = format!("/v1/kv/read/{number}");
            client.send(&self.requests.request("PUT", &path, &vec![b'x'; settings.bytes])).await?;
            client.answer().await?;
        }
        Ok(())
    }
}

impl Requests {
    fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-consul-token: {}\r\ncontent-length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    /// The request of one client in one round.
    fn work(&self, work: Work, client: usize, round: usize, bytes: usize) -> Vec<u8> {
        match work {
            Work::Write => {
                let mut value = vec![b'x'; bytes.max(16)];
                // Another value each time: what changes nothing is not written.
                value[..16].copy_from_slice(format!("{round:016x}").as_bytes());
                self.request("PUT", &format!("/v1/kv/write/{client}/{}", round % 64), &value)
            }
            Work::Read => self.request("GET", &format!("/v1/kv/read/{}", (client + round) % KEYS), b""),
            Work::ReadMany => {
                let ops: Vec<String> =
                    (0..KEYS).map(|number| format!(r#"{{"KV":{{"Verb":"get","Key":"read/{number}"}}}}"#)).collect();
                self.request("PUT", "/v1/txn", format!("[{}]", ops.join(",")).as_bytes())
            }
        }
    }
}

/// One connection; it reads what it needs of HTTP and no more.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(control: &Control) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&control.http).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    async fn send(&mut self, requests: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(requests).await?)
    }

    /// Reads one answer, which must be a good one.
    async fn answer(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..end])?;
                ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let whole = end + 4 + length.context("an answer without its length")?.parse::<usize>()?;
                if self.buffer.len() >= whole {
                    self.buffer.drain(..whole);
                    return Ok(());
                }
            }
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        }
    }
}

struct Measured {
    took: Duration,
    /// Microseconds from a request to its answer.
    times: Histogram<u64>,
}

async fn measure(settings: &Settings, control: &Control, clients: usize, ahead: usize, work: Work) -> anyhow::Result<Measured> {
    let mut connected = Vec::with_capacity(clients);
    for _ in 0..clients {
        connected.push(Client::connect(control).await?);
        // The first answer frees the place that a connection has among those without a credential.
        let last = connected.len() - 1;
        connected[last].send(&control.requests.request("GET", "/v1/kv/?keys&separator=/", b"")).await?;
        connected[last].answer().await?;
    }
    let start = Instant::now();
    let end = start + Duration::from_secs(settings.seconds);
    let mut tasks = JoinSet::new();
    for (number, mut client) in connected.into_iter().enumerate() {
        let requests: Vec<Vec<u8>> = match work {
            Work::Write => Vec::new(),
            _ => (0..KEYS).map(|round| control.requests.work(work, number, round, 0)).collect(),
        };
        let bytes = settings.bytes;
        let writer = control.requests.clone();
        tasks.spawn(async move {
            let mut times = Histogram::<u64>::new(3)?;
            let mut round = 0;
            while Instant::now() < end {
                let asked = Instant::now();
                let mut together = Vec::new();
                for _ in 0..ahead {
                    match work {
                        Work::Write => together.extend(writer.work(work, number, round, bytes)),
                        _ => together.extend(&requests[round % KEYS]),
                    }
                    round += 1;
                }
                client.send(&together).await?;
                for _ in 0..ahead {
                    client.answer().await?;
                    times.record(u64::try_from(asked.elapsed().as_micros())?)?;
                }
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Histogram::<u64>::new(3)?;
    while let Some(done) = tasks.join_next().await {
        times.add(done??)?;
    }
    Ok(Measured { took: start.elapsed(), times })
}

fn report(name: &str, each: u64, measured: &Measured) {
    let rate = (measured.times.len() * each) as f64 / measured.took.as_secs_f64();
    println!(
        "{name}: {rate:.0}/s; answered in µs: median {}, p99 {}, most {}",
        measured.times.value_at_quantile(0.5),
        measured.times.value_at_quantile(0.99),
        measured.times.max()
    );
}
