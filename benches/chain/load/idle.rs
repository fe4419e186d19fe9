//! Connections that were used once and then say nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::http::Connection;
use crate::pair::Pair;

/// Callers that connect at the same time.
const CALLERS: usize = 16;

/// For what is held only while bytes move to be given back: some look for it every few seconds.
const SETTLE: Duration = Duration::from_secs(5);

/// KiB of PSS that each of `count` idle connections adds to the pair, after a request on each as soon as it is open.
pub async fn idle_connections(pair: &Pair, count: usize) -> anyhow::Result<f64> {
    let before = pair.pss_kib()?;
    let mut connections = open(pair, count).await?;
    grown(pair, before, &mut connections).await
}

/// The same, but all of them are open first and then ask at once, as after a pause of everything: what a proxy has had in
/// flight at its worst shows in what it keeps.
pub async fn idle_after_burst(pair: &Pair, count: usize) -> anyhow::Result<f64> {
    let before = pair.pss_kib()?;
    let mut asking = JoinSet::new();
    for mut connection in connect(pair, count).await? {
        asking.spawn(async move {
            connection.request().await?;
            connection.shrink();
            Ok::<_, io::Error>(connection)
        });
    }
    let mut connections = Vec::with_capacity(count);
    while let Some(answered) = asking.join_next().await {
        connections.push(answered??);
    }
    grown(pair, before, &mut connections).await
}

async fn grown(pair: &Pair, before: u64, connections: &mut [Connection<TcpStream>]) -> anyhow::Result<f64> {
    sleep(SETTLE).await;
    let after = pair.pss_kib()?;
    let count = connections.len();
    for connection in connections.iter_mut().step_by(100) {
        connection.request().await.context("an idle connection does not work any more")?;
    }
    // Less than nothing is possible, and says that this is too little to be seen.
    Ok((after as f64 - before as f64) / count as f64)
}

async fn open(pair: &Pair, count: usize) -> anyhow::Result<Vec<Connection<TcpStream>>> {
    let mut callers = JoinSet::new();
    for (entry, share) in shares(pair, count) {
        callers.spawn(async move {
            let mut connections = Vec::with_capacity(share);
            for _ in 0..share {
                let mut connection = Connection::open(entry).await?;
                connection.request().await?;
                connection.shrink();
                connections.push(connection);
            }
            Ok(connections)
        });
    }
    all(callers).await
}

async fn connect(pair: &Pair, count: usize) -> anyhow::Result<Vec<Connection<TcpStream>>> {
    let mut callers = JoinSet::new();
    for (entry, share) in shares(pair, count) {
        callers.spawn(async move {
            let mut connections = Vec::with_capacity(share);
            for _ in 0..share {
                connections.push(Connection::open(entry).await?);
            }
            Ok(connections)
        });
    }
    all(callers).await
}

/// Where each caller connects, and how often.
fn shares(pair: &Pair, count: usize) -> Vec<(SocketAddr, usize)> {
    let entries = pair.entries.iter().cycle().take(CALLERS).enumerate();
    entries.map(|(caller, entry)| (*entry, count / CALLERS + usize::from(caller < count % CALLERS))).collect()
}

async fn all<T: 'static>(mut callers: JoinSet<io::Result<Vec<T>>>) -> anyhow::Result<Vec<T>> {
    let mut connections = Vec::new();
    while let Some(opened) = callers.join_next().await {
        connections.extend(opened??);
    }
    Ok(connections)
}
