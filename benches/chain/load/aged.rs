//! Connections with a past.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::http::{BULK, Connection};
use crate::pair::Pair;
use crate::settings::PeerName;

const BEHIND: usize = 1_000_000_000;

/// Connections on every pair that have been open for `seconds`, have carried a GB each in that time, all of a pair at once, and
/// are still open.
pub async fn age(pairs: &[(&PeerName, Pair)], connections: usize, seconds: f64) -> anyhow::Result<Vec<Connection<TcpStream>>> {
    let mut young = Vec::new();
    for (peer, pair) in pairs {
        let mut opened = Vec::new();
        for entry in pair.entries.iter().cycle().take(connections) {
            let mut connection = Connection::open(*entry).await?;
            connection.request().await?;
            opened.push(connection);
        }
        young.push((peer, opened));
    }
    let old = Instant::now() + Duration::from_secs_f64(seconds);
    let mut aged = Vec::new();
    for (peer, opened) in young {
        eprintln!("{peer}: a GB over each of {connections} connections");
        let mut running = JoinSet::new();
        for connection in opened {
            running.spawn(carry(connection));
        }
        while let Some(connection) = running.join_next().await {
            aged.push(connection??);
        }
    }
    eprintln!("for {:.0} s more these connections are only open", old.saturating_duration_since(Instant::now()).as_secs_f64());
    sleep_until(old).await;
    Ok(aged)
}

async fn carry(mut connection: Connection<TcpStream>) -> io::Result<Connection<TcpStream>> {
    for _ in 0..BEHIND.div_ceil(BULK) {
        connection.download().await?;
    }
    connection.shrink();
    Ok(connection)
}
