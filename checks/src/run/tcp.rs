//! A connection is passing.

use tokio::net::TcpStream;

use super::{Answer, tls};
use crate::PingProbe;

pub(super) async fn ask(probe: &PingProbe) -> Result<Answer, String> {
    match &probe.tls {
        None => drop(connect(&probe.address).await?),
        Some(settings) => drop(tls::connect(&probe.address, settings, &[]).await?),
    }
    Ok(Answer::passing(format!("TCP connect {}: Success", probe.address)))
}

/// Connects to HOST:PORT; a name is resolved each time.
pub(super) async fn connect(address: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connect {address}: {error}"))?;
    // What is asked next is small; a socket that refuses the option works without.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
