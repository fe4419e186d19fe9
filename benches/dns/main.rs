//! Questions to the DNS server of a real control plane at a steady rate: how many are not answered, and how long answers
//! take. `cargo bench --bench dns -- --rate 5000 --seconds 10`; it ends with 1 where a question was lost.

#[path = "../chain/process.rs"]
#[allow(dead_code)] // what only the other benchmarks need
mod process;

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::Value;
use socket2::SockRef;

use crate::process::Process;

/// How long the last answers may take.
const LAST: Duration = Duration::from_secs(2);

#[derive(Debug, Parser)]
struct Settings {
    /// Questions a second.
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Instances of the service that is asked for.
    #[arg(long, default_value_t = 3)]
    instances: u32,
    /// The binary.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_meshctl"))]
    meshctl: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let directory = tempfile::tempdir()?;
    let mesh = Mesh::start(&settings, directory.path())?;
    let answers = ask(&settings, &mesh.dns)?;
    println!(
        "{} questions at {}/s: {} lost, {} wrong; answered in µs: median {}, p99 {}, most {}",
        answers.asked,
        settings.rate,
        answers.asked - answers.times.len(),
        answers.wrong,
        answers.times.value_at_quantile(0.5),
        answers.times.value_at_quantile(0.99),
        answers.times.max()
    );
    ensure!(answers.asked == answers.times.len() && answers.wrong == 0, "not every question was answered");
    Ok(())
}

struct Mesh {
    dns: String,
    _processes: Vec<Process>,
}

impl Mesh {
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
        let mut processes = vec![control];
        let (dns, grpc) = (text(&addresses, "dns")?, text(&addresses, "grpc")?);
        for number in 0..settings.instances {
            let created = command("token").args(["create", "--service", "web", "-o", "json"]).output()?;
            ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
            let id = format!("web-{number}");
            let mut sidecar = command("proxy");
            sidecar.args(["--service", "web", "--id", &id, "--control", &grpc, "--print-addresses", "--admin", "127.0.0.1:0"]);
            sidecar.args(["--listen", "127.0.0.1:0", "--local", "127.0.0.1:9"]);
            sidecar.arg("--state-dir").arg(directory.join(&id));
            sidecar.env("POSTERN_PROXY_TOKEN", text(&serde_json::from_slice(&created.stdout)?, "token")?);
            processes.push(Process::start_announcing(&mut sidecar, &directory.join(format!("{id}.log")))?.0);
        }
        Ok(Self { dns, _processes: processes })
    }
}

fn text(value: &Value, key: &str) -> anyhow::Result<String> {
    value[key].as_str().map(ToOwned::to_owned).with_context(|| format!("no {key} in {value}"))
}

struct Answers {
    asked: u64,
    wrong: u64,
    times: Histogram<u64>,
}

fn ask(settings: &Settings, dns: &str) -> anyhow::Result<Answers> {
    let count = settings.rate * settings.seconds;
    let Ok(last) = u16::try_from(count - 1) else { bail!("at most 65536 questions: each has a number of its own") };
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(dns)?;
    SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    socket.set_read_timeout(Some(LAST))?;
    let receiver = socket.try_clone()?;
    let every = Duration::from_secs(1) / settings.rate;
    let start = Instant::now();
    let answers = thread::spawn(move || receive(&receiver, start, every, count));
    for number in 0..=last {
        let mut message = Message::query();
        message.metadata.id = number;
        message.add_query(Query::query(Name::from_ascii("web.service.consul.")?, RecordType::A));
        let due = start + every * u32::from(number);
        if let Some(pause) = due.checked_duration_since(Instant::now()) {
            #[allow(clippy::disallowed_methods)] // a thread of its own keeps the rate
            thread::sleep(pause);
        }
        socket.send(&message.to_vec()?)?;
    }
    answers.join().map_err(|_| anyhow::anyhow!("the receiver failed"))?
}

/// Times count from the moment at which a question was due: one that was sent late waited for what came before it.
fn receive(socket: &UdpSocket, start: Instant, every: Duration, count: u32) -> anyhow::Result<Answers> {
    let mut answers = Answers { asked: count.into(), wrong: 0, times: Histogram::new(3)? };
    let mut buffer = [0; 4096];
    while answers.times.len() < answers.asked {
        let Ok(length) = socket.recv(&mut buffer) else { break };
        let answer = Message::from_vec(&buffer[..length])?;
        let due = start + every * u32::from(answer.metadata.id);
        answers.times.record(u64::try_from(due.elapsed().as_micros())?)?;
        answers.wrong += u64::from(answer.metadata.response_code != ResponseCode::NoError);
    }
    Ok(answers)
}
