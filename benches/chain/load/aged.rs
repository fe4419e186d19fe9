//! Connections with a past.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http::{BULK, Connection};
use crate::pair::Pair;

const BEHIND: usize = 1_000_000_000;

/// Connections that have carried a GB each, all at once, and are still open.
pub async fn aged_connections(pair: &Pair, connections: usize) -> anyhow::Result<Vec<Connection<TcpStream>>> {
    let mut running = JoinSet::new();
    for entry in pair.entries.iter().cycle().take(connections) {
        running.spawn(age(*entry));
    }
    let mut aged = Vec::with_capacity(connections);
    while let Some(connection) = running.join_next().await {
        aged.push(connection??);
    }
    Ok(aged)
}

async fn age(entry: SocketAddr) -> io::Result<Connection<TcpStream>> {
    let mut connection = Connection::open(entry).await?;
    for _ in 0..BEHIND.div_ceil(BULK) {
        connection.download().await?;
    }
    connection.shrink();
    Ok(connection)
}
