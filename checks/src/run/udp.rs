//! A datagram is sent. An answer is passing, and so is silence, since most servers do not answer what they do not
//! understand; that nobody listens is told by ICMP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use super::Answer;

pub(super) async fn ask(address: &str, within: Duration) -> Result<Answer, String> {
    let failed = |error: std::io::Error| format!("UDP {address}: {error}");
    let to =
        lookup_host(address).await.map_err(failed)?.next().ok_or_else(|| format!("UDP {address}: the name has no address"))?;
    let from: SocketAddr = if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(from).await.map_err(failed)?;
    socket.connect(to).await.map_err(failed)?;
    socket.send(b"\n").await.map_err(failed)?;
    let mut answer = [0; 1];
    match timeout(within, socket.recv(&mut answer)).await {
        Ok(Ok(_)) | Err(_) => Ok(Answer::passing(format!("UDP connect {address}: Success"))),
        Ok(Err(error)) => Err(failed(error)),
    }
}
