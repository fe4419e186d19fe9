//! The record layer of rustls itself, which moves every record through vectors of its own.

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic};

use super::inplace::KEY_UPDATE_AFTER;
use super::{HEADER, Opened, RecordError, RecordLayer, TRAILER, record_length};

/// rustls' unbuffered connection of either role.
pub(crate) trait Connection: Send {
    /// What rustls keeps for this role.
    type Data;

    /// What rustls tells of it.
    fn common(&self) -> &CommonState;

    /// Processes records, at most up to the first thing that the caller has to do.
    fn step<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;

    fn common(&self) -> &CommonState {
        self
    }

    fn step<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Connection for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;

    fn common(&self) -> &CommonState {
        self
    }

    fn step<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

/// Appends what rustls wants to send.
pub(crate) fn encode<D>(data: &mut rustls::unbuffered::EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let begin = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
        out.resize(begin + required_size, 0);
        let written = data.encode(&mut out[begin..]).unwrap_or(0);
        out.truncate(begin + written);
    }
}

/// Appends what rustls wants to send after an error: its alert. It is not asked for more, since it would process again what
/// it refused.
pub(crate) fn encode_alert<C: Connection>(connection: &mut C, out: &mut Vec<u8>) {
    while connection.common().wants_write() {
        let Ok(ConnectionState::EncodeTlsData(mut data)) = connection.step(&mut []).state else { return };
        encode(&mut data, out);
    }
}

/// A connection whose records rustls seals and opens.
pub(crate) struct Buffered<C> {
    connection: C,
    /// Records that rustls has not discarded: parts of a handshake message.
    incoming: Vec<u8>,
    /// What rustls wants to send on its own account.
    outgoing: Vec<u8>,
    /// A sealed record, before it is copied to its place.
    sealed: Vec<u8>,
    records: u64,
    key_update_after: u64,
    /// rustls may have an answer to a KeyUpdate that nothing but the next seal would show.
    may_owe: bool,
    /// After a close_notify, or an alert, of ours.
    closed: bool,
    /// After an error. rustls itself would go on with the next record.
    failed: bool,
}

impl<C: Connection> Buffered<C> {
    /// Continues a connection that has shaken hands.
    pub(crate) fn new(connection: C) -> Self {
        Self::with_key_update_after(connection, KEY_UPDATE_AFTER)
    }

    /// The same, which asks for new keys after so many records.
    pub(crate) fn with_key_update_after(connection: C, key_update_after: u64) -> Self {
        Self {
            connection,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sealed: Vec::new(),
            records: 0,
            key_update_after,
            may_owe: false,
            closed: false,
            failed: false,
        }
    }

    /// Lets rustls process what came, until it has nothing more to say about it.
    fn process(&mut self, plaintext: &mut Vec<u8>) -> Result<Outcome, RecordError> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.step(&mut self.incoming);
            let outcome = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(RecordError::Rustls)?;
                        discard += record.discard;
                        plaintext.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, &mut self.outgoing);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(Ok(Outcome::PeerClosed)),
                Ok(ConnectionState::WriteTraffic(_)) => Some(Ok(Outcome::Writable)),
                Ok(_) => Some(Err(RecordError::Closed)),
                Err(error) => Some(Err(RecordError::Rustls(error))),
            };
            self.incoming.drain(..discard.min(self.incoming.len()));
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    fn open_record(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        if record_length(record)? != Some(record.len()) {
            return Err(RecordError::Shape(record.len()));
        }
        self.incoming.extend_from_slice(record);
        let mut plaintext = Vec::new();
        let outcome = self.process(&mut plaintext)?;
        match (plaintext.len(), outcome) {
            (0, Outcome::PeerClosed) => Ok(Opened::CloseNotify),
            (0, Outcome::Writable) => {
                self.may_owe = true;
                Ok(Opened::Nothing)
            }
            (length, _) => {
                let place = record.get_mut(HEADER..HEADER + length).ok_or(RecordError::Overflow)?;
                place.copy_from_slice(&plaintext);
                Ok(Opened::Data(HEADER..HEADER + length))
            }
        }
    }

    fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// What rustls is asked to do when it has nothing to say itself.
    fn writable<T>(&mut self, act: impl FnOnce(WriteTraffic<'_, C::Data>) -> T) -> Result<T, RecordError> {
        self.process(&mut Vec::new())?;
        match self.connection.step(&mut self.incoming).state {
            Ok(ConnectionState::WriteTraffic(traffic)) => Ok(act(traffic)),
            Ok(_) => Err(RecordError::Closed),
            Err(error) => Err(RecordError::Rustls(error)),
        }
    }

    fn renew_keys(&mut self) -> Result<(), RecordError> {
        self.records = 0;
        self.writable(|traffic| traffic.refresh_traffic_keys())?.map_err(RecordError::Rustls)
    }

    /// Makes rustls show the answer to a KeyUpdate that it keeps for the next record: a record that does not fit is not
    /// sealed, but what must go before it is queued.
    fn uncover_key_update(&mut self) -> Result<(), RecordError> {
        self.may_owe = false;
        match self.writable(|mut traffic| traffic.encrypt(&[0], &mut []))? {
            Err(EncryptError::InsufficientSize(_)) => Ok(()),
            _ => Err(RecordError::KeysUsedUp),
        }
    }

    fn queue_urgent(&mut self) -> Result<(), RecordError> {
        if self.may_owe {
            self.uncover_key_update()?;
        }
        if self.records >= self.key_update_after {
            self.renew_keys()?;
        }
        self.process(&mut Vec::new()).map(drop)
    }
}

enum Outcome {
    Writable,
    PeerClosed,
}

impl<C: Connection> RecordLayer for Buffered<C> {
    fn seal(&mut self, record: &mut [u8]) -> Result<(), RecordError> {
        let shape = RecordError::Shape(record.len());
        if record.len() <= HEADER + TRAILER {
            return Err(shape);
        }
        if self.closed || self.failed {
            return Err(RecordError::Closed);
        }
        let mut sealed = std::mem::take(&mut self.sealed);
        sealed.resize(record.len(), 0);
        let written = self.writable(|mut traffic| traffic.encrypt(&record[HEADER..record.len() - TRAILER], &mut sealed))?;
        match written {
            Ok(written) if written == record.len() => record.copy_from_slice(&sealed),
            Err(EncryptError::EncryptExhausted) => return Err(RecordError::KeysUsedUp),
            _ => return Err(shape),
        }
        self.sealed = sealed;
        self.records += 1;
        Ok(())
    }

    fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        if self.failed {
            return Err(RecordError::Closed);
        }
        let opened = self.open_record(record);
        if opened.is_err() {
            self.failed = true;
            encode_alert(&mut self.connection, &mut self.outgoing);
        }
        opened
    }

    fn urgent(&mut self) -> Option<Vec<u8>> {
        let due = self.may_owe || self.records >= self.key_update_after || !self.outgoing.is_empty();
        if self.closed || self.failed || !due || self.queue_urgent().is_err() {
            return None;
        }
        let outgoing = self.take_outgoing();
        (!outgoing.is_empty()).then_some(outgoing)
    }

    fn close_notify(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.closed, true) || self.failed {
            return Vec::new();
        }
        // The size of the alert is known to rustls alone; more than it needs does no harm.
        let mut alert = [0; 256];
        if let Ok(Ok(written)) = self.writable(|mut traffic| traffic.queue_close_notify(&mut alert)) {
            self.outgoing.extend_from_slice(&alert[..written]);
        }
        self.take_outgoing()
    }

    fn fatal_alert(&mut self, _error: &RecordError) -> Vec<u8> {
        self.failed = true;
        if std::mem::replace(&mut self.closed, true) {
            return Vec::new();
        }
        self.take_outgoing()
    }
}
