//! An acknowledged HTTP/2 PING (RFC 9113 §6.7) is passing.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, tcp, tls};
use crate::PingProbe;

pub(super) async fn ask(probe: &PingProbe) -> Result<Answer, String> {
    match &probe.tls {
        None => ping(&probe.address, tcp::connect(&probe.address).await?).await,
        Some(settings) => ping(&probe.address, tls::connect(&probe.address, settings, &[b"h2"]).await?).await,
    }
}

async fn ping<S: AsyncRead + AsyncWrite + Unpin>(address: &str, stream: S) -> Result<Answer, String> {
    let failed = |error: h2::Error| format!("HTTP/2 ping {address}: {error}");
    let (sender, mut connection) = h2::client::Builder::new().handshake::<S, Bytes>(stream).await.map_err(failed)?;
    let mut pings = connection.ping_pong().ok_or("no ping can be sent")?;
    let answered = tokio::select! {
        biased;
        pong = pings.ping(h2::Ping::opaque()) => pong.map(drop).map_err(failed),
        ended = &mut connection => Err(match ended {
            Ok(()) => format!("HTTP/2 ping {address}: the connection was closed"),
            Err(error) => failed(error),
        }),
    };
    // Without a sender the connection would end before its ping.
    drop(sender);
    answered.map(|()| Answer::passing(format!("HTTP2 ping {address}: success")))
}
