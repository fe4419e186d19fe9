//! The run: a mesh over each link, and what each transport carries over it, in turn.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::hosts::{FAR, Host, Hosts, NEAR};
use crate::process::Process;
use crate::settings::{Bulk, Settings};

/// The transports that are compared.
pub const TRANSPORTS: [&str; 2] = ["tunnel", "direct"];

/// What is measured, as the report calls it.
pub const WORK: [(&str, Bulk, bool); 4] = [
    ("bulk alone", Bulk::After, false),
    ("small alone", Bulk::None, true),
    ("bulk begins beside them", Bulk::After, true),
    ("they begin beside bulk", Bulk::Before, true),
];

/// One measurement.
#[derive(Debug)]
pub struct Sample {
    /// The congestion control.
    pub congestion: String,
    /// The name of the work.
    pub work: &'static str,
    /// The transport.
    pub transport: &'static str,
    /// The round.
    pub round: usize,
    /// What the load has measured.
    pub figures: Value,
}

/// Every measurement of a run.
pub fn run(settings: &Settings) -> anyhow::Result<Vec<Sample>> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    let mut samples = Vec::new();
    for congestion in &settings.congestion {
        let directory = TempDir::new()?;
        let hosts = Hosts::new(settings.link, congestion, &directory.path().join("relay.log"))?;
        let mesh = Mesh::start(settings, &hosts, directory.path())?;
        for round in 0..settings.rounds {
            for (work, bulk, has_requests) in WORK {
                for turn in 0..TRANSPORTS.len() {
                    let transport = (turn + round) % TRANSPORTS.len();
                    let connections = if has_requests { settings.connections } else { 0 };
                    let figures = mesh.load(mesh.entries[transport], settings.seconds, connections, bulk)?;
                    eprintln!("{congestion} {} {work}: {figures}", TRANSPORTS[transport]);
                    let transport = TRANSPORTS[transport];
                    samples.push(Sample { congestion: congestion.clone(), work, transport, round, figures });
                }
            }
        }
    }
    Ok(samples)
}

/// A control plane and a caller for each transport on the near host, the service on the far one.
struct Mesh<'a> {
    meshctl: &'a Path,
    directory: &'a Path,
    near: &'a Host,
    control: String,
    /// Of [`TRANSPORTS`].
    entries: Vec<SocketAddr>,
    processes: Vec<Process>,
}

impl<'a> Mesh<'a> {
    fn start(settings: &'a Settings, hosts: &'a Hosts, directory: &'a Path) -> anyhow::Result<Self> {
        let (near, processes) = (&hosts.near, Vec::new());
        let mut mesh =
            Self { meshctl: &settings.meshctl, directory, near, control: String::new(), entries: Vec::new(), processes };
        let mut command = mesh.command(near, "control");
        command.args(["--http", "127.0.0.1:0", "--grpc", &format!("{NEAR}:0"), "--print-addresses", "--default", "deny"]);
        command.arg("--seal-key-file").arg(directory.join("seal.key"));
        let (control, addresses) = Process::start_announcing(&mut command, &directory.join("control.log"))?;
        mesh.control = text(&addresses, "/grpc")?;
        mesh.processes.push(control);

        let mut command = hosts.far.command(&std::env::current_exe()?);
        let (service, _) = Process::start_announcing(command.args(["serve", "127.0.0.1:8000"]), &directory.join("service.log"))?;
        mesh.processes.push(service);
        mesh.sidecar(&hosts.far, "api", "api", settings, &["--listen", &format!("{FAR}:21000"), "--local", "127.0.0.1:8000"])?;
        mesh.meshctl(&["intention", "allow", "web", "api"])?;
        for transport in TRANSPORTS {
            let arguments = ["--listen", "127.0.0.1:0", "--upstream", "api=127.0.0.1:0", "--transport", transport];
            let addresses = mesh.sidecar(near, "web", transport, settings, &arguments)?;
            mesh.entries.push(text(&addresses, "/upstreams/api")?.parse()?);
        }
        Ok(mesh)
    }

    fn load(&self, entry: SocketAddr, seconds: f64, connections: usize, bulk: Bulk) -> anyhow::Result<Value> {
        let bulk = clap::ValueEnum::to_possible_value(&bulk).context("a word for it")?;
        let mut command = self.near.command(&std::env::current_exe()?);
        command.args(["load", &entry.to_string(), "--seconds", &seconds.to_string()]);
        command.args(["--connections", &connections.to_string(), "--bulk", bulk.get_name()]);
        let output = command.output()?;
        ensure!(output.status.success(), "the load failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn command(&self, host: &Host, command: &str) -> Command {
        let mut process = host.command(self.meshctl);
        process.arg(command).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        process.env("HOME", self.directory).env("POSTERN_DATA_DIR", self.directory.join("data"));
        process
    }

    fn meshctl(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = self.command(self.near, arguments[0]).args(&arguments[1..]).output()?;
        ensure!(output.status.success(), "meshctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    fn sidecar(&mut self, host: &Host, service: &str, id: &str, settings: &Settings, flags: &[&str]) -> anyhow::Result<Value> {
        let created = self.meshctl(&["token", "create", "--service", service, "-o", "json"])?;
        let token = text(&serde_json::from_slice(&created)?, "/token")?;
        let mut command = self.command(host, "proxy");
        command.args(["--service", service, "--id", id, "--control", &self.control, "--print-addresses"]);
        command.args(["--admin", "127.0.0.1:0", "--workers", "1"]).args(flags).args(settings.postern_args.split_whitespace());
        command.arg("--state-dir").arg(self.directory.join(format!("state-{id}")));
        command.env("POSTERN_PROXY_TOKEN", token);
        let (sidecar, addresses) = Process::start_announcing(&mut command, &self.directory.join(format!("{id}.log")))?;
        self.processes.push(sidecar);
        Ok(addresses)
    }
}

fn text(announced: &Value, pointer: &str) -> anyhow::Result<String> {
    let value = announced.pointer(pointer).and_then(Value::as_str);
    value.map(str::to_owned).with_context(|| format!("{pointer} is missing in {announced}"))
}
