//! Two hosts, as network namespaces, and the link between them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::process::Process;
use crate::settings::Link;

/// The addresses of the two.
pub const NEAR: &str = "10.79.0.1";
/// The other one.
pub const FAR: &str = "10.79.0.2";

/// Makes the devices `left` and `right`, which only an ioctl can, and becomes the relay between them.
const DEVICES: &str = r#"
import fcntl, os, struct, sys
def device(name, to):
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", name.encode(), 0x1001))
    os.dup2(tun, to)
device("left", 0)
print('"ready"', flush=True)
device("right", 1)
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// A network namespace, removed when dropped.
pub struct Host(String);

impl Host {
    fn new(name: &str) -> anyhow::Result<Self> {
        let name = format!("postern-link-{}-{name}", std::process::id());
        let host = Self(name);
        shell(&format!("ip netns add {0} && ip -n {0} link set lo up", host.0))?;
        Ok(host)
    }

    /// A command that runs on this host.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Whatever is left of it is of no use to anybody.
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// The two hosts, joined.
pub struct Hosts {
    /// Where the control plane and the callers are.
    pub near: Host,
    /// Where the service is.
    pub far: Host,
    _relay: Process,
}

impl Hosts {
    /// Joins two new hosts by `link`; their connections use `congestion`.
    pub fn new(link: Link, congestion: &str, log: &Path) -> anyhow::Result<Self> {
        let (near, far) = (Host::new("near")?, Host::new("far")?);
        let mut command = near.command(Path::new("python3"));
        command.args(["-c", DEVICES]).arg(std::env::current_exe()?).arg("relay");
        for (flag, value) in [("--delay", link.delay), ("--loss", link.loss), ("--rate", link.rate), ("--queue", link.queue)] {
            command.args([flag, &value.to_string()]);
        }
        let (relay, _) = Process::start_announcing(&mut command, log)?;
        let mut tries = 0..200;
        while shell(&format!("ip -n {} link show right", near.0)).is_err() {
            ensure!(tries.next().is_some(), "the link did not come up: {}", relay.log());
        }
        shell(&format!("ip -n {} link set right netns {}", near.0, far.0))?;
        for (host, device, address) in [(&near, "left", NEAR), (&far, "right", FAR)] {
            shell(&format!("ip -n {} address add {address}/24 dev {device} noprefixroute", host.0))?;
            shell(&format!("ip -n {} link set {device} up", host.0))?;
            shell(&format!("ip -n {} route add 10.79.0.0/24 dev {device} congctl {congestion}", host.0))?;
        }
        Ok(Self { near, far, _relay: relay })
    }
}

fn shell(line: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-c", line]).output().context("cannot run a shell")?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
