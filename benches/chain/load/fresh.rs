//! Connections that carry one request each: connect, ask, read the answer, close.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Cost;
use crate::http::Connection;
use crate::pair::Pair;

/// Callers that connect at the same time.
const CALLERS: usize = 16;

/// Who closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The caller, when it has its answer.
    ByCaller,
    /// The proxy, because the request says `Connection: close`.
    ByAnswer,
}

/// The CPU time of closing the last ones counts too: it is read when the proxies have been quiet.
pub async fn fresh_connections(pair: &Pair, ending: Ending, length: Duration) -> anyhow::Result<Cost> {
    let (cpu, began) = (pair.cpu()?, Instant::now());
    let mut callers = JoinSet::new();
    for entry in pair.entries.iter().cycle().take(CALLERS) {
        callers.spawn(call_until(*entry, ending, began + length));
    }
    let mut connections = 0;
    while let Some(made) = callers.join_next().await {
        connections += made??;
    }
    let wall = began.elapsed();
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(Cost { units: connections as f64, cpu: pair.cpu()?.saturating_sub(cpu), wall })
}

async fn call_until(entry: SocketAddr, ending: Ending, end: Instant) -> io::Result<u64> {
    let mut connections = 0;
    while Instant::now() < end {
        let mut connection = Connection::open(entry).await?;
        match ending {
            Ending::ByCaller => connection.request().await?,
            Ending::ByAnswer => connection.last_request().await?,
        }
        connections += 1;
    }
    Ok(connections)
}
