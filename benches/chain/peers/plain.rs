//! Two relays that copy bytes and do nothing else: what two hops through processes cost on this kernel.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};

use crate::pair::{Pair, Site, directory, free_addresses};
use crate::process::Process;

const VARIABLE: &str = "CHAIN_RELAY";
const BUFFER: usize = 64 << 10;

/// One process a relay: this program once more, told by its environment what to do.
pub fn start(site: Site<'_>) -> anyhow::Result<Pair> {
    let directory = directory()?;
    let entries = free_addresses(site.servers)?;
    let inbound = free_addresses(site.servers)?;
    let start = |name: &str, legs: &[String]| -> anyhow::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(VARIABLE, legs.join(","));
        Process::start(&mut command, &directory.path().join(format!("{name}.log")))
    };
    let mut sidecars = Vec::new();
    for (number, listen) in inbound.iter().enumerate() {
        sidecars.push(start(&format!("server-{number}"), &[format!("{listen}={}", site.service)])?);
    }
    let legs: Vec<String> = entries.iter().zip(&inbound).map(|(entry, target)| format!("{entry}={target}")).collect();
    sidecars.push(start("client", &legs)?);
    Ok(Pair { entries, inbound, sidecars, companions: Vec::new(), directory })
}

/// What this process is to relay, if it was started as a relay.
pub fn requested_legs() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Relays for ever.
pub fn relay(legs: &str) -> anyhow::Result<()> {
    crate::machine::raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for leg in legs.split(',') {
            let (listen, target) = leg.split_once('=').context("a leg is LISTEN=TARGET")?;
            let listener = TcpListener::bind(listen.parse::<SocketAddr>()?).await?;
            running.spawn(accept(listener, target.parse()?));
        }
        running.join_next().await.context("there is nothing to relay")??
    })
}

async fn accept(listener: TcpListener, target: SocketAddr) -> anyhow::Result<()> {
    loop {
        let (mut near, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut far = TcpStream::connect(target).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await
        });
    }
}
