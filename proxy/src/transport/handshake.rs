//! The TLS handshake of both ends, without buffers of its own after it.
//!
//! rustls' unbuffered connection makes the handshake; what comes after it is a [`RecordLayer`].

mod configs;
mod drive;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use postern_ca::Refusal;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{Acceptor, ClientHello, UnbufferedServerConnection};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::HandshakeError;
use super::record::{RecordLayer, RecordLayerKind};

pub(crate) use configs::{ClientConfigs, ServerConfigs};
use drive::MOST_INPUT;

/// Bytes that one read of a handshake takes at most.
const READ: usize = 4_096;

/// A connection whose handshake is done and whose peer is verified.
pub(crate) struct Established {
    /// The socket.
    pub socket: TcpStream,
    /// Seals and opens what goes over it from now on.
    pub layer: Box<dyn RecordLayer>,
    /// What was read after the handshake: records that are not opened, the last one perhaps in part.
    pub unread: Vec<u8>,
    /// Plaintexts that rustls opened before the handshake was done with, one for each record. They come before `unread`.
    pub early: Vec<Vec<u8>>,
    /// The peer's certificates, leaf first; the verifier of the configuration has passed them.
    pub peer_chain: Vec<CertificateDer<'static>>,
    /// The leaf that we showed in this handshake.
    pub own_leaf: CertificateDer<'static>,
    /// The protocol that both ends agreed on (RFC 7301).
    pub alpn: Option<Vec<u8>>,
}

/// Accepts a connection. `choose` sees the ClientHello, and names the configuration and the leaf that it shows.
///
/// # Errors
/// What `choose` refuses, without an alert; what rustls refuses, after its alert.
pub(crate) async fn accept(
    mut socket: TcpStream,
    kind: RecordLayerKind,
    choose: impl FnOnce(&ClientHello<'_>) -> Result<(Arc<ServerConfig>, CertificateDer<'static>), HandshakeError>,
) -> Result<Established, HandshakeError> {
    let mut input = Vec::new();
    let (config, own_leaf) = Box::pin(inspect_hello(&mut socket, &mut input, choose)).await?;
    let connection = UnbufferedServerConnection::new(config).map_err(refused)?;
    Box::pin(drive::drive(socket, Box::new(connection), input, kind, own_leaf)).await
}

/// Dials: shakes hands over a connected socket. `own_leaf` is the one that `config` shows.
///
/// # Errors
/// What rustls refuses, after its alert.
pub(crate) async fn connect(
    socket: TcpStream,
    kind: RecordLayerKind,
    config: Arc<ClientConfig>,
    own_leaf: CertificateDer<'static>,
    name: ServerName<'static>,
) -> Result<Established, HandshakeError> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(refused)?;
    Box::pin(drive::drive(socket, Box::new(connection), Vec::new(), kind, own_leaf)).await
}

/// Reads a ClientHello into `input` and lets `choose` see it. The bytes stay, for the connection that makes the handshake.
async fn inspect_hello<T>(
    socket: &mut TcpStream,
    input: &mut Vec<u8>,
    choose: impl FnOnce(&ClientHello<'_>) -> Result<T, HandshakeError>,
) -> Result<T, HandshakeError> {
    let mut acceptor = Acceptor::default();
    let mut shown = 0;
    loop {
        read_more(socket, input).await?;
        while shown < input.len() {
            shown += acceptor.read_tls(&mut &input[shown..]).map_err(HandshakeError::NotTls)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return choose(&accepted.client_hello()),
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    // A peer that is gone does not need to be told.
                    let _ = alert.write_all(&mut bytes);
                    let _ = socket.write_all(&bytes).await;
                    return Err(refused(error));
                }
            }
        }
    }
}

/// Appends what the peer sends next.
async fn read_more(socket: &mut TcpStream, input: &mut Vec<u8>) -> Result<(), HandshakeError> {
    let room = MOST_INPUT.saturating_sub(input.len()).min(READ);
    if room == 0 {
        let what = format!("a message of a handshake is longer than {MOST_INPUT} bytes");
        return Err(HandshakeError::NotTls(io::Error::new(io::ErrorKind::InvalidData, what)));
    }
    input.reserve_exact(room);
    match socket.take(room as u64).read_buf(input).await {
        Ok(0) => Err(HandshakeError::PeerClosed),
        Ok(_) => Ok(()),
        Err(error) => Err(broken(error)),
    }
}

/// Sorts what rustls reports into our reasons.
fn refused(error: rustls::Error) -> HandshakeError {
    if let Some(refusal) = Refusal::of(&error) {
        return HandshakeError::Refused(refusal.clone());
    }
    match error {
        rustls::Error::AlertReceived(_) => HandshakeError::Alert(io::Error::new(io::ErrorKind::InvalidData, error)),
        error => HandshakeError::NotTls(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// The same for what the socket reports.
fn broken(error: io::Error) -> HandshakeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => HandshakeError::PeerClosed,
        _ => HandshakeError::Io(error),
    }
}
