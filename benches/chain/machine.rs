//! What the figures were measured on.

use std::path::Path;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::install::Tools;
use crate::settings::{Product, Settings};

/// Lets this process and its children open as many files as the machine allows; how many.
pub fn raise_file_limit() -> anyhow::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// The machine and the versions of those who take part.
pub fn describe(tools: &Tools, settings: &Settings) -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut versions = serde_json::Map::new();
    for peer in &settings.peers {
        let (name, program, argument) = match peer.product {
            Product::Envoy => ("envoy", &tools.envoy, "--version"),
            Product::Nginx => ("nginx", &tools.nginx, "-v"),
            Product::Haproxy => ("haproxy", &tools.haproxy, "-v"),
            Product::Postern => ("postern", &tools.meshctl, "--version"),
            Product::Plain => continue,
        };
        versions.insert(name.into(), first_line(program, argument).into());
    }
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": kernel.trim(),
        "versions": versions,
    })
}

fn first_line(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return "unknown".into() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown");
    // Envoy puts its own path first.
    line.replace(&*program.to_string_lossy(), "").trim().into()
}
