//! Requests over kept-alive connections: each connection asks again as soon as it has its answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Cost;
use crate::http::Connection;
use crate::pair::Pair;

/// Counts from when every connection is open and warm.
pub async fn requests(pair: &Pair, connections: usize, length: Duration) -> anyhow::Result<Cost> {
    let answered = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for entry in pair.entries.iter().cycle().take(connections) {
        let mut connection = Connection::open(*entry).await?;
        connection.request().await.context("the first request on a connection")?;
        running.spawn(ask_for_ever(connection, Arc::clone(&answered)));
    }
    wait(&mut running, length / 10).await?;
    let (cpu, units, began) = (pair.cpu()?, answered.load(Ordering::Relaxed), Instant::now());
    wait(&mut running, length).await?;
    Ok(Cost {
        units: (answered.load(Ordering::Relaxed) - units) as f64,
        cpu: pair.cpu()?.saturating_sub(cpu),
        wall: began.elapsed(),
    })
}

async fn ask_for_ever(mut connection: Connection<TcpStream>, answered: Arc<AtomicU64>) -> io::Result<()> {
    loop {
        connection.request().await?;
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets the connections work; they end early only with an error.
async fn wait(running: &mut JoinSet<io::Result<()>>, length: Duration) -> anyhow::Result<()> {
    match tokio::time::timeout(length, running.join_next()).await {
        Err(_) => Ok(()),
        Ok(ended) => Ok(ended.context("there is no connection")???),
    }
}
