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

/// For what is held only while bytes move to be given back.
const SETTLE: Duration = Duration::from_secs(2);

/// KiB of PSS that each of `count` idle connections adds to the pair.
pub async fn idle_connections(pair: &Pair, count: usize) -> anyhow::Result<f64> {
    let before = pair.pss_kib()?;
    let mut callers = JoinSet::new();
    for (caller, entry) in pair.entries.iter().cycle().take(CALLERS).enumerate() {
        let share = count / CALLERS + usize::from(caller < count % CALLERS);
        callers.spawn(open(*entry, share));
    }
    let mut connections = Vec::with_capacity(count);
    while let Some(opened) = callers.join_next().await {
        connections.extend(opened??);
    }
    sleep(SETTLE).await;
    let after = pair.pss_kib()?;
    for connection in connections.iter_mut().step_by(100) {
        connection.request().await.context("an idle connection does not work any more")?;
    }
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

async fn open(entry: SocketAddr, count: usize) -> io::Result<Vec<Connection<TcpStream>>> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = Connection::open(entry).await?;
        connection.request().await?;
        connection.shrink();
        connections.push(connection);
    }
    Ok(connections)
}
