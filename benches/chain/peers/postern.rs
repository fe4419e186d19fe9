//! Postern: a control plane, and sidecars as they ship: default deny, one intention a callee (at L7 with permissions),
//! metrics, and every connection and request in the access log.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::certificates::{CLIENT, TRUST_DOMAIN, server};
use crate::layer::Protocol;
use crate::pair::{Pair, Site, directory};
use crate::permission::{METHODS, PREFIX, UNARY};
use crate::process::Process;

/// As many as the file limit of the other peers admits.
const CONNECTIONS: &str = "18000";
/// What the circuit breakers of the service let through at once.
const ROOM: u32 = 18_000;

/// One process a sidecar, one worker each.
pub fn start(site: Site<'_>, flags: &[String]) -> anyhow::Result<Pair> {
    let directory = directory()?;
    let mut mesh = Mesh { meshctl: &site.tools.meshctl, directory: directory.path(), control: String::new() };
    // From a file of its own: PSS would credit the sidecars with the pages that a third process shares with them.
    let binary = directory.path().join("meshctl-of-control");
    std::fs::copy(mesh.meshctl, &binary).context("cannot copy the binary")?;
    let mut command = mesh.command_of(&binary, "control");
    command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--print-addresses"]);
    command.args(["--trust-domain", TRUST_DOMAIN, "--default", "deny"]);
    command.arg("--ca-cert").arg(site.certificates.root()).arg("--ca-key").arg(site.certificates.root_key());
    command.arg("--seal-key-file").arg(directory.path().join("seal.key"));
    let (control, addresses) = Process::start_announcing(&mut command, &directory.path().join("control.log"))?;
    mesh.control = text(&addresses, "/grpc")?;

    let mut sidecars = Vec::new();
    let mut inbound = Vec::new();
    let mut upstreams = Vec::new();
    let local = site.service.to_string();
    for number in 0..site.servers {
        let name = server(number);
        let mut arguments = vec!["--local", &local, "--max-connections", CONNECTIONS, "--max-connections-per-peer", CONNECTIONS];
        arguments.extend(protocol(site.protocol));
        arguments.extend(flags.iter().map(String::as_str));
        let (sidecar, addresses) = mesh.sidecar(&name, &arguments)?;
        sidecars.push(sidecar);
        inbound.push(text(&addresses, "/inbound")?.parse()?);
        upstreams.push(format!("{name}=127.0.0.1:0"));
    }
    mesh.allow(site)?;
    let mut arguments: Vec<&str> = upstreams.iter().flat_map(|upstream| ["--upstream", upstream]).collect();
    arguments.extend(flags.iter().map(String::as_str));
    let (sidecar, addresses) = mesh.sidecar(CLIENT, &arguments)?;
    sidecars.push(sidecar);
    let entries = (0..site.servers).map(|number| entry(&addresses, &server(number))).collect::<Result<_, _>>()?;
    Ok(Pair { entries, inbound, sidecars, companions: vec![control], directory })
}

fn protocol(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Tcp => &[],
        Protocol::Http => &["--protocol", "http"],
        Protocol::Http2 => &["--protocol", "http2"],
        Protocol::Grpc => &["--protocol", "grpc"],
    }
}

/// What stands in an intention beside its source and destination.
fn effect(protocol: Protocol) -> Value {
    let (methods, path) = match protocol {
        Protocol::Tcp => return json!({"action": "allow"}),
        Protocol::Http | Protocol::Http2 => (json!(METHODS), ("path_prefix", PREFIX)),
        Protocol::Grpc => (json!(["POST"]), ("path_exact", UNARY)),
    };
    json!({"permissions": [{"methods": methods, path.0: path.1, "action": "allow"}]})
}

fn entry(addresses: &Value, name: &str) -> anyhow::Result<SocketAddr> {
    Ok(text(addresses, &format!("/upstreams/{name}"))?.parse()?)
}

fn text(announced: &Value, pointer: &str) -> anyhow::Result<String> {
    let value = announced.pointer(pointer).and_then(Value::as_str);
    value.map(str::to_owned).with_context(|| format!("{pointer} is missing in {announced}"))
}

/// A control plane in a directory of its own.
struct Mesh<'a> {
    meshctl: &'a Path,
    directory: &'a Path,
    control: String,
}

impl Mesh<'_> {
    /// With nothing else of the environment.
    fn command(&self, command: &str) -> Command {
        self.command_of(self.meshctl, command)
    }

    fn command_of(&self, binary: &Path, command: &str) -> Command {
        let mut process = Command::new(binary);
        process.arg(command).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        process.env("HOME", self.directory).env("POSTERN_DATA_DIR", self.directory.join("data"));
        process
    }

    fn meshctl(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let output = self.command(arguments[0]).args(&arguments[1..]).output()?;
        ensure!(output.status.success(), "meshctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    /// The caller, at each server-side proxy.
    fn allow(&self, site: Site<'_>) -> anyhow::Result<()> {
        let intention = |number| {
            let mut intention = effect(site.protocol);
            intention["source"] = CLIENT.into();
            intention["destination"] = server(number).into();
            intention
        };
        let intentions: Vec<Value> = (0..site.servers).map(intention).collect();
        // JSON is YAML.
        let file = self.directory.join("intentions.yaml");
        std::fs::write(&file, json!({"intentions": intentions}).to_string())?;
        self.meshctl(&["intention", "apply", "--merge", "--yes", "-f", &file.to_string_lossy()])?;
        if site.protocol == Protocol::Tcp {
            return Ok(());
        }
        // As for the others, whose limits of connections are raised too: 2,000 requests at once are a line of the table.
        let breakers = json!({"connections": ROOM, "pending": ROOM, "requests": ROOM});
        let services: Vec<Value> =
            (0..site.servers).map(|number| json!({"service": server(number), "circuit_breakers": breakers})).collect();
        let file = self.directory.join("settings.yaml");
        std::fs::write(&file, json!({"services": services}).to_string())?;
        self.meshctl(&["service", "config", "apply", "--yes", "-f", &file.to_string_lossy()])?;
        Ok(())
    }

    fn sidecar(&self, service: &str, arguments: &[&str]) -> anyhow::Result<(Process, Value)> {
        let created = self.meshctl(&["token", "create", "--service", service, "-o", "json"])?;
        let token = text(&serde_json::from_slice(&created)?, "/token")?;
        let mut command = self.command("proxy");
        command.args(["--service", service, "--id", service, "--control", &self.control, "--print-addresses"]);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"]);
        // A variant may log less, to show what the log costs.
        if !arguments.contains(&"--access-log") {
            command.args(["--access-log", "all"]);
        }
        command.arg("--state-dir").arg(self.directory.join(format!("state-{service}"))).args(arguments);
        command.env("POSTERN_PROXY_TOKEN", token);
        Process::start_announcing(&mut command, &self.directory.join(format!("{service}.log")))
    }
}
