//! Bytes, as many as will go through.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Cost;
use crate::http::{BULK, Connection};
use crate::pair::Pair;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the service to the caller.
    Download,
    /// From the caller to the service.
    Upload,
}

/// Whole transfers, the last of which ends after `length`.
pub async fn bulk(pair: &Pair, direction: Direction, streams: usize, length: Duration) -> anyhow::Result<Cost> {
    let (cpu, began) = (pair.cpu()?, Instant::now());
    let mut running = JoinSet::new();
    for entry in pair.entries.iter().cycle().take(streams) {
        running.spawn(transfer_until(*entry, direction, began + length));
    }
    let mut bytes = 0;
    while let Some(moved) = running.join_next().await {
        bytes += moved??;
    }
    Ok(Cost { units: bytes as f64, cpu: pair.cpu()?.saturating_sub(cpu), wall: began.elapsed() })
}

async fn transfer_until(entry: SocketAddr, direction: Direction, end: Instant) -> io::Result<usize> {
    let mut connection = Connection::open(entry).await?;
    let mut bytes = 0;
    while Instant::now() < end {
        match direction {
            Direction::Download => connection.download().await?,
            Direction::Upload => connection.upload().await?,
        }
        bytes += BULK;
    }
    Ok(bytes)
}
