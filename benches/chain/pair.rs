//! A client-side proxy and its server-side proxies, running.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::install::Tools;
use crate::layer::Protocol;
use crate::process::Process;

/// What a peer is started on.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The binaries.
    pub tools: &'a Tools,
    /// The certificates.
    pub certificates: &'a Certificates,
    /// Where the service listens.
    pub service: SocketAddr,
    /// What the proxies understand of what they carry.
    pub protocol: Protocol,
    /// How many server-side proxies there are: 1, but for the line `spread`.
    pub servers: usize,
}

/// Proxies that run; ended when dropped.
#[derive(Debug)]
pub struct Pair {
    /// Where the caller connects: one listener of the client-side proxy for each server-side proxy.
    pub entries: Vec<SocketAddr>,
    /// Where the server-side proxies listen, in the same order.
    pub inbound: Vec<SocketAddr>,
    /// The proxies, whose CPU time and memory count.
    pub sidecars: Vec<Process>,
    /// What else runs for them, such as a control plane.
    pub companions: Vec<Process>,
    /// Settings and logs.
    #[expect(dead_code, reason = "held for its end: the directory goes with the pair")]
    pub directory: TempDir,
}

impl Pair {
    /// User and system time of all proxies.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.sidecars.iter().map(Process::cpu).sum()
    }

    /// Proportional set size of all proxies.
    pub fn pss_kib(&self) -> anyhow::Result<u64> {
        self.sidecars.iter().map(Process::pss_kib).sum()
    }

    /// What of it is no part of a file.
    pub fn anonymous_kib(&self) -> anyhow::Result<u64> {
        self.sidecars.iter().map(Process::anonymous_kib).sum()
    }

    /// # Errors
    /// If one of them has ended.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        self.sidecars.iter_mut().chain(&mut self.companions).try_for_each(Process::check_running)
    }

    /// The last of what each of them has logged.
    pub fn logs(&self) -> String {
        let logs: Vec<String> = self.sidecars.iter().chain(&self.companions).map(Process::log).collect();
        logs.join("\n----\n")
    }
}

/// Addresses on loopback whose ports were free a moment ago, for servers that cannot bind port 0.
pub fn free_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let bound: Result<Vec<_>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let bound = bound.context("cannot bind ports on loopback")?;
    Ok(bound.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

/// A directory for the settings and logs of one pair.
pub fn directory() -> anyhow::Result<TempDir> {
    tempfile::Builder::new().prefix("chain-").tempdir().context("cannot make a temporary directory")
}
