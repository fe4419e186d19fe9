//! TLS records after a handshake in memory.

use std::ops::Range;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};

use crate::transport::record::{
    self, Buffered, Connection, HEADER, InPlace, KEY_UPDATE_AFTER, Kernel, MOST_PLAINTEXT, Opened, RecordError, RecordLayer,
    RecordLayerKind, TRAILER, encode,
};

/// Bytes of a record before its content.
pub const BEFORE: usize = HEADER;
/// Bytes of a record after its content.
pub const AFTER: usize = TRAILER;
/// The most content that a record carries.
pub const MOST_CONTENT: usize = MOST_PLAINTEXT;

/// Shakes hands in memory. Both configurations must hand out their secrets for records that are opened in place.
///
/// # Errors
/// What either end refuses.
pub fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: ServerName<'static>,
) -> Result<(UnbufferedClientConnection, UnbufferedServerConnection), rustls::Error> {
    let (mut client, mut server) = (UnbufferedClientConnection::new(client, name)?, UnbufferedServerConnection::new(server)?);
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    loop {
        let is_client_done = advance(&mut client, &mut to_client, &mut to_server)?;
        let is_server_done = advance(&mut server, &mut to_server, &mut to_client)?;
        if is_client_done && is_server_done {
            return Ok((client, server));
        }
    }
}

/// Lets one end take `input` and append its answer to `output`; true when it has shaken hands.
fn advance<C: Connection>(connection: &mut C, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Result<bool, rustls::Error> {
    loop {
        let UnbufferedStatus { discard, state, .. } = connection.step(input);
        let is_done = match state? {
            ConnectionState::EncodeTlsData(mut data) => {
                encode(&mut data, output);
                None
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                None
            }
            ConnectionState::BlockedHandshake => Some(false),
            ConnectionState::WriteTraffic(_) => Some(true),
            _ => return Err(rustls::Error::General("the handshake ended".into())),
        };
        input.drain(..discard);
        if let Some(is_done) = is_done {
            return Ok(is_done);
        }
    }
}

/// The length of the whole record that begins with these bytes; `None` if that cannot be said yet.
///
/// # Errors
/// The reason in one word.
pub fn record_length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    record::record_length(bytes).map_err(word)
}

fn word(error: RecordError) -> &'static str {
    error.word()
}

/// What an opened record held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Application data, at this range of the record.
    Data(Range<usize>),
    /// Nothing for the reader.
    Nothing,
    /// The peer sends no more.
    CloseNotify,
}

/// Both directions of one end of a connection.
pub struct Records(Box<dyn RecordLayer>);

impl Records {
    /// Continues the dialling end.
    ///
    /// # Errors
    /// If rustls does not hand out the secrets.
    pub fn of_client(connection: UnbufferedClientConnection, kind: RecordLayerKind) -> Result<Self, rustls::Error> {
        Ok(Self(match kind {
            RecordLayerKind::Rustls => Box::new(Buffered::new(connection)),
            RecordLayerKind::InPlace => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                Box::new(InPlace::new(secrets, Kernel::Client(kernel), KEY_UPDATE_AFTER).map_err(unusable)?)
            }
        }))
    }

    /// Continues the accepting end.
    ///
    /// # Errors
    /// If rustls does not hand out the secrets.
    pub fn of_server(connection: UnbufferedServerConnection, kind: RecordLayerKind) -> Result<Self, rustls::Error> {
        Ok(Self(match kind {
            RecordLayerKind::Rustls => Box::new(Buffered::new(connection)),
            RecordLayerKind::InPlace => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                Box::new(InPlace::new(secrets, Kernel::Server(kernel), KEY_UPDATE_AFTER).map_err(unusable)?)
            }
        }))
    }

    /// Seals one record in place: a gap of [`BEFORE`] bytes, content, a gap of [`AFTER`] bytes.
    ///
    /// # Errors
    /// The reason in one word.
    pub fn seal(&mut self, record: &mut [u8]) -> Result<(), &'static str> {
        self.0.seal(record).map_err(word)
    }

    /// Opens one whole record in place.
    ///
    /// # Errors
    /// The reason in one word.
    pub fn open(&mut self, record: &mut [u8]) -> Result<Record, &'static str> {
        match self.0.open(record) {
            Ok(Opened::Data(range)) => Ok(Record::Data(range)),
            Ok(Opened::Nothing) => Ok(Record::Nothing),
            Ok(Opened::CloseNotify) => Ok(Record::CloseNotify),
            Err(error) => Err(word(error)),
        }
    }

    /// Sealed records that must go out before what is sealed next.
    pub fn urgent(&mut self) -> Option<Vec<u8>> {
        self.0.urgent()
    }

    /// The record that tells the peer that nothing more comes.
    pub fn close_notify(&mut self) -> Vec<u8> {
        self.0.close_notify()
    }
}

fn unusable(error: RecordError) -> rustls::Error {
    rustls::Error::General(error.to_string())
}
