//! The loop that carries a handshake between rustls and a socket.

use rustls::ExtractedSecrets;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::transport::HandshakeError;
use crate::transport::record::{
    Buffered, Connection, InPlace, KEY_UPDATE_AFTER, Kernel, RecordLayer, RecordLayerKind, encode, encode_alert,
};

use super::{Established, broken, read_more, refused};

/// As many bytes of a handshake are kept at most: what rustls itself takes.
pub(super) const MOST_INPUT: usize = 0xffff;

/// The most bytes after the header of a record that rustls reads (RFC 5246 §6.2.3).
const MOST_PAYLOAD: usize = 16_384 + 2_048;

const RECORD_HEADER: usize = 5;

/// rustls' unbuffered connection of one role, until it becomes a record layer.
pub(super) trait Handshaking: Connection + Sized + 'static {
    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error>;

    /// What seals and opens from now on.
    fn into_layer(self, kind: RecordLayerKind) -> Result<Box<dyn RecordLayer>, HandshakeError> {
        match kind {
            RecordLayerKind::Rustls => Ok(Box::new(Buffered::new(self))),
            RecordLayerKind::InPlace => {
                let (secrets, kernel) = self.into_kernel().map_err(refused)?;
                let layer = InPlace::new(secrets, kernel, KEY_UPDATE_AFTER);
                Ok(Box::new(layer.map_err(|error| HandshakeError::Io(std::io::Error::other(error)))?))
            }
        }
    }
}

impl Handshaking for UnbufferedClientConnection {
    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, kernel)| (secrets, Kernel::Client(kernel)))
    }
}

impl Handshaking for UnbufferedServerConnection {
    fn into_kernel(self) -> Result<(ExtractedSecrets, Kernel), rustls::Error> {
        self.dangerous_into_kernel_connection().map(|(secrets, kernel)| (secrets, Kernel::Server(kernel)))
    }
}

/// What rustls wants next.
enum Step {
    /// It has more to say about what it has.
    Again,
    /// What it encoded is to be sent.
    Send,
    /// Another record.
    Receive,
    /// Nothing: the handshake is done.
    Done,
}

/// The input of a handshake. rustls sees it record by record: what it takes beyond the handshake would be lost when the
/// record layer takes over (an answer to a KeyUpdate, for one).
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    /// Bytes at the beginning that rustls has seen and not discarded.
    seen: usize,
}

impl Input {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, seen: 0 }
    }

    /// Shows rustls one more record; false if no whole one is there.
    pub(super) fn advance(&mut self) -> bool {
        let next = &self.bytes[self.seen..];
        let Some(&[kind, major, _, high, low]) = next.first_chunk::<RECORD_HEADER>() else { return false };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !(20..=24).contains(&kind) || major != 3 || length > MOST_PAYLOAD {
            // No record: rustls says so.
            self.seen = self.bytes.len();
            return true;
        }
        let whole = next.len() >= RECORD_HEADER + length;
        if whole {
            self.seen += RECORD_HEADER + length;
        }
        whole
    }

    fn discard(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.seen -= count;
    }
}

/// Makes the handshake. `input` is what was read of it already.
pub(super) async fn drive<C: Handshaking>(
    mut socket: TcpStream,
    mut connection: Box<C>,
    input: Vec<u8>,
    kind: RecordLayerKind,
    own_leaf: CertificateDer<'static>,
) -> Result<Established, HandshakeError> {
    let mut input = Input::new(input);
    let mut output = Vec::new();
    let mut early = Vec::new();
    loop {
        match step(&mut *connection, &mut input, &mut output, &mut early) {
            Ok(Step::Again) => {}
            Ok(Step::Send) => send(&mut socket, &mut output).await?,
            Ok(Step::Receive) => {
                while !input.advance() {
                    read_more(&mut socket, &mut input.bytes).await?;
                }
            }
            Ok(Step::Done) => break,
            Err(error) => {
                // rustls' alert. A peer that is gone does not need it.
                let _ = send(&mut socket, &mut output).await;
                return Err(error);
            }
        }
    }
    input.bytes.shrink_to_fit();
    let common = connection.common();
    Ok(Established {
        peer_chain: common.peer_certificates().unwrap_or_default().to_vec(),
        alpn: common.alpn_protocol().map(<[u8]>::to_vec),
        layer: connection.into_layer(kind)?,
        socket,
        unread: input.bytes,
        early,
        own_leaf,
    })
}

/// One state of rustls. After an error `output` holds its alert.
fn step<C: Handshaking>(
    connection: &mut C,
    input: &mut Input,
    output: &mut Vec<u8>,
    early: &mut Vec<Vec<u8>>,
) -> Result<Step, HandshakeError> {
    let UnbufferedStatus { mut discard, state, .. } = connection.step(&mut input.bytes[..input.seen]);
    let step = match state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(&mut data, output);
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Send)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Receive),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    early.push(record.payload.to_vec());
                }
                Some(Err(error)) => break Err(refused(error)),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(_) => Err(HandshakeError::PeerClosed),
        Err(error) => Err(refused(error)),
    };
    input.discard(discard);
    match step {
        // A server may write before the client's Finished has come; we wait for it.
        Ok(Step::Done) if connection.common().is_handshaking() => Ok(Step::Receive),
        Err(error) => {
            encode_alert(connection, output);
            Err(error)
        }
        step => step,
    }
}

async fn send(socket: &mut TcpStream, output: &mut Vec<u8>) -> Result<(), HandshakeError> {
    let sent = socket.write_all(output).await.map_err(broken);
    *output = Vec::new();
    sent
}
