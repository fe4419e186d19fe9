//! Hosts as network namespaces, joined by veth pairs. Needs root.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed with the last handle.
#[derive(Clone)]
pub struct Host(Arc<Namespace>);

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

impl Host {
    pub fn new() -> Self {
        let name = format!("postern-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        shell(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        Self(Arc::new(Namespace(name)))
    }

    pub fn name(&self) -> &str {
        &self.0.0
    }

    /// A command that runs on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(), program]);
        command
    }

    /// Runs a shell line on this host; it must succeed.
    #[track_caller]
    pub fn shell(&self, line: &str) {
        let output = self.command("sh").args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Joins two hosts by a link with the addresses given (`10.0.0.1/24`).
pub fn link(left: (&Host, &str), right: (&Host, &str)) {
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let process = std::process::id() % 100_000;
    let (a, b) = (format!("p{process}a{number}"), format!("p{process}b{number}"));
    shell(&format!("ip link add {a} netns {} type veth peer name {b} netns {}", left.0.name(), right.0.name()));
    for ((host, address), device) in [(left, a), (right, b)] {
        shell(&format!("ip -n {} address add {address} dev {device}", host.name()));
        shell(&format!("ip -n {} link set {device} up", host.name()));
    }
}

#[track_caller]
fn shell(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
