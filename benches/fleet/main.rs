//! A mesh of many services that were seen calling each other, at a real control plane: what it holds for them, and how long
//! `edges`, `suggest` and `plan` take. `cargo bench --bench fleet`; with `--stay` it goes on, to look at the page.
//!
//! Each service is a stream of a sidecar that enrolled as one does, and tells edges as one does; nothing behind it runs.

#[path = "../chain/process.rs"]
#[allow(dead_code)] // what only the other benchmarks need
mod process;
mod sidecar;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::process::Process;
use crate::sidecar::{FakeSidecar, Seen};

#[derive(Debug, Clone, Parser)]
struct Settings {
    /// Services, with one sidecar each.
    #[arg(long, default_value_t = 500)]
    services: usize,
    /// Edges between them.
    #[arg(long, default_value_t = 3_000)]
    edges: usize,
    /// How often each figure is taken.
    #[arg(long, default_value_t = 5)]
    times: usize,
    /// Goes on until Enter is pressed, and tells the edges again every five seconds.
    #[arg(long)]
    stay: bool,
    /// The binary.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_meshctl"))]
    meshctl: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A control plane in a directory of its own.
struct Control {
    directory: PathBuf,
    meshctl: PathBuf,
    process: Process,
    http: String,
    grpc: String,
}

impl Control {
    fn start(settings: &Settings, directory: &Path) -> anyhow::Result<Self> {
        let mut control = Command::new(&settings.meshctl);
        control.arg("control").env_clear().env("HOME", directory).env("POSTERN_DATA_DIR", directory.join("data"));
        control.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--print-addresses"]);
        control.args(["--default", "audit"]).arg("--seal-key-file").arg(directory.join("seal.key"));
        let (process, addresses) = Process::start_announcing(&mut control, &directory.join("control.log"))?;
        let address = |of: &str| addresses[of].as_str().map(str::to_owned).with_context(|| format!("no address of {of}"));
        let (http, grpc) = (address("http")?, address("grpc")?);
        Ok(Self { directory: directory.into(), meshctl: settings.meshctl.clone(), process, http, grpc })
    }

    fn meshctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.meshctl);
        command.args(arguments).env_clear().env("POSTERN_DATA_DIR", self.directory.join("data")).stdin(Stdio::null());
        command
    }

    fn token(&self, service: &str) -> anyhow::Result<String> {
        let output = self.meshctl(&["token", "create", "--service", service, "-o", "json"]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let token: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        token["token"].as_str().map(str::to_owned).context("no token")
    }

    /// Runs a command so often; the median and the most of how long it took, from start to exit, and what it said last.
    fn time(&self, arguments: &[&str], times: usize) -> anyhow::Result<(Duration, Duration, String)> {
        let mut took = Vec::with_capacity(times);
        let mut said = String::new();
        for _ in 0..times {
            let asked = Instant::now();
            let output = self.meshctl(arguments).output()?;
            took.push(asked.elapsed());
            ensure!(output.status.code().is_some_and(|code| code < 2), "{}", String::from_utf8_lossy(&output.stderr));
            said = String::from_utf8_lossy(&output.stdout).into_owned();
        }
        took.sort_unstable();
        Ok((took[took.len() / 2], took[took.len() - 1], said))
    }
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let directory = tempfile::tempdir()?;
    let control = Control::start(&settings, directory.path())?;
    // The streams go on while commands are waited for.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let bare = control.process.pss_kib()?;
    let mut fleet = runtime.block_on(fleet(&settings, &control))?;
    let with_services = control.process.pss_kib()?;
    runtime.block_on(async {
        for sidecar in &mut fleet {
            sidecar.tell().await?;
        }
        anyhow::Ok(())
    })?;
    await_edges(&control, settings.edges)?;
    let with_edges = control.process.pss_kib()?;
    println!(
        "control plane, PSS: {bare} KiB bare, {with_services} KiB with {} services, {with_edges} KiB with {} edges",
        fleet.len(),
        settings.edges
    );
    if settings.stay {
        return runtime.block_on(stay(&control, &mut fleet));
    }
    report(&settings, &control)
}

/// Every service enrols and connects.
async fn fleet(settings: &Settings, control: &Control) -> anyhow::Result<Vec<FakeSidecar>> {
    let began = Instant::now();
    let mut rng = StdRng::seed_from_u64(7);
    let names: Vec<String> = (0..settings.services).map(|number| format!("svc-{number:04}")).collect();
    let mut fleet = Vec::with_capacity(names.len());
    for (number, name) in names.iter().enumerate() {
        let edges = settings.edges / names.len() + usize::from(number < settings.edges % names.len());
        // Services call those behind them, as in a mesh with layers; a few call anyone.
        let callers = &names[..number.max(1)];
        let seen = (0..edges).filter_map(|at| callers.choose(&mut rng).map(|caller| Seen::of(caller, at, &mut rng)));
        fleet.push(FakeSidecar::start(&control.grpc, &control.token(name)?, name, seen.collect()).await?);
    }
    println!("{} services enrolled and connected in {:.1} s", fleet.len(), began.elapsed().as_secs_f64());
    Ok(fleet)
}

/// Waits until the control plane shows what was told.
#[allow(clippy::disallowed_methods)] // the pause between two looks at a condition
fn await_edges(control: &Control, edges: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let (_, _, said) = control.time(&["intention", "suggest", "--l7", "-o", "json"], 1)?;
        let suggestion: serde_json::Value = serde_json::from_str(&said)?;
        // Some edges are drawn twice.
        if suggestion["edges"].as_u64().is_some_and(|seen| seen * 10 >= edges as u64 * 9) {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "the edges did not arrive: {}", suggestion["edges"]);
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn report(settings: &Settings, control: &Control) -> anyhow::Result<()> {
    let file = control.directory.join("suggested.yaml").display().to_string();
    for (name, arguments, goal) in [
        ("suggest", &["intention", "suggest"][..], "2 s"),
        ("suggest --l7", &["intention", "suggest", "--l7"], "2 s"),
        ("plan of what was suggested", &["intention", "plan", "-f", &file], "1 s"),
    ] {
        let (median, most, said) = control.time(arguments, settings.times)?;
        println!("{name}: median {} ms, most {} ms (goal {goal})", median.as_millis(), most.as_millis());
        if arguments.contains(&"suggest") {
            std::fs::write(&file, said)?;
        }
    }
    Ok(())
}

async fn stay(control: &Control, fleet: &mut [FakeSidecar]) -> anyhow::Result<()> {
    let token = std::fs::read_to_string(control.directory.join("data/operator.token"))?;
    println!("http://{}/ui/ with the token {}\nEnter ends it.", control.http, token.trim());
    let mut enter = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let mut period = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            _ = &mut enter => return Ok(()),
            _ = period.tick() => for sidecar in fleet.iter_mut() {
                sidecar.tell().await?;
            },
        }
    }
}
