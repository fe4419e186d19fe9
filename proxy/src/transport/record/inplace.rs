//! The record layer without copies: rustls keeps the key schedule, everything else of RFC 8446 §5 and §6 is here.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ConnectionTrafficSecrets, ExtractedSecrets, Side};

use super::keys::TrafficKeys;
use super::messages::{KEY_UPDATE_MESSAGE, KeyUpdateRequest, Message, Messages};
use super::{HEADER, MOST_PLAINTEXT, Opened, RecordError, RecordLayer, TRAILER, content, record_length};

/// Our own keys are renewed after so many records. AES-GCM is safe up to 2^24.5 (RFC 8446 §5.5).
pub(crate) const KEY_UPDATE_AFTER: u64 = 1 << 22;

/// How often [`KEY_UPDATE_AFTER`] fits into what the keys may seal at all, should nobody ask for the key update.
const KEYS_USED_UP_AFTER: u64 = 4;

/// So many empty records in a row end a connection.
const MOST_EMPTY_RECORDS: u8 = 32;

/// So many KeyUpdates without application data between them end a connection.
const MOST_KEY_UPDATES: u8 = 32;

/// So many warnings are tolerated in the life of a connection, as in rustls.
const MOST_WARNINGS: u8 = 4;

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// What rustls keeps of a connection: the key schedule, and where tickets go.
pub(crate) enum Kernel {
    /// Of a connection that we dialled.
    Client(KernelConnection<ClientConnectionData>),
    /// Of a connection that we accepted.
    Server(KernelConnection<ServerConnectionData>),
}

impl Kernel {
    fn side(&self) -> Side {
        match self {
            Self::Client(_) => Side::Client,
            Self::Server(_) => Side::Server,
        }
    }

    fn next_write_keys(&mut self) -> Result<TrafficKeys, RecordError> {
        TrafficKeys::new(updated(match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        })?)
    }

    fn next_read_keys(&mut self) -> Result<TrafficKeys, RecordError> {
        TrafficKeys::new(updated(match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        })?)
    }

    fn take_ticket(&mut self, ticket: &[u8]) -> Result<(), RecordError> {
        match self {
            Self::Client(kernel) => kernel.handle_new_session_ticket(ticket).map_err(RecordError::Ticket),
            Self::Server(_) => Err(RecordError::UnexpectedMessage(4)),
        }
    }
}

fn updated(keys: Result<(u64, ConnectionTrafficSecrets), rustls::Error>) -> Result<(u64, ConnectionTrafficSecrets), RecordError> {
    keys.map_err(RecordError::Rustls)
}

/// A connection whose records are sealed and opened in place.
pub(crate) struct InPlace {
    kernel: Kernel,
    write: TrafficKeys,
    read: TrafficKeys,
    messages: Messages,
    key_update_after: u64,
    /// The peer asked for new keys and has no answer yet. More such requests change nothing: one answer serves all.
    owes_key_update: bool,
    empty_records: u8,
    key_updates: u8,
    warnings: u8,
    writing: Direction,
    reading: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// After a close_notify.
    Closed,
    /// After an error, or a fatal alert.
    Failed,
}

impl InPlace {
    /// Continues a connection from the secrets of its handshake. Our own keys are renewed after `key_update_after` records.
    ///
    /// # Errors
    /// If the secrets belong to no AEAD that the mesh uses.
    pub(crate) fn new(secrets: ExtractedSecrets, kernel: Kernel, key_update_after: u64) -> Result<Self, RecordError> {
        Ok(Self {
            messages: Messages::new(kernel.side()),
            kernel,
            write: TrafficKeys::new(secrets.tx)?,
            read: TrafficKeys::new(secrets.rx)?,
            key_update_after,
            owes_key_update: false,
            empty_records: 0,
            key_updates: 0,
            warnings: 0,
            writing: Direction::Open,
            reading: Direction::Open,
        })
    }

    fn open_record(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        if record_length(record)? != Some(record.len()) {
            return Err(RecordError::Shape(record.len()));
        }
        let inner = self.read.open(record)?;
        if inner > MOST_PLAINTEXT + 1 {
            return Err(RecordError::Overflow);
        }
        let inner = record.get(HEADER..HEADER + inner).unwrap_or_default();
        // The content type is the last byte that is not zero; after it comes padding (RFC 8446 §5.4).
        let length = inner.iter().rposition(|&byte| byte != 0).ok_or(RecordError::NoContentType)?;
        let (content, kind) = (&inner[..length], inner[length]);
        if self.messages.is_partial() && kind != content::HANDSHAKE {
            return Err(RecordError::Interleaved);
        }
        match kind {
            content::APPLICATION_DATA if content.is_empty() => self.receive_empty(),
            content::APPLICATION_DATA => {
                (self.empty_records, self.key_updates) = (0, 0);
                Ok(Opened::Data(HEADER..HEADER + length))
            }
            content::HANDSHAKE => self.receive_messages(content),
            content::ALERT => self.receive_alert(content),
            _ => Err(RecordError::UnexpectedType(kind)),
        }
    }

    fn receive_empty(&mut self) -> Result<Opened, RecordError> {
        self.empty_records += 1;
        if self.empty_records >= MOST_EMPTY_RECORDS { Err(RecordError::TooManyEmptyRecords) } else { Ok(Opened::Nothing) }
    }

    fn receive_messages(&mut self, content: &[u8]) -> Result<Opened, RecordError> {
        self.empty_records = 0;
        let Self { messages, kernel, read, owes_key_update, key_updates, .. } = self;
        messages.receive(content, |message| match message {
            Message::Ticket(ticket) => kernel.take_ticket(ticket),
            Message::KeyUpdate(request) => {
                *key_updates += 1;
                if *key_updates >= MOST_KEY_UPDATES {
                    return Err(RecordError::TooManyKeyUpdates);
                }
                *owes_key_update |= request == KeyUpdateRequest::Requested;
                *read = kernel.next_read_keys()?;
                Ok(())
            }
        })?;
        Ok(Opened::Nothing)
    }

    fn receive_alert(&mut self, content: &[u8]) -> Result<Opened, RecordError> {
        if content.is_empty() {
            return Err(RecordError::EmptyMessage);
        }
        let &[level, description] = content else { return Err(RecordError::MalformedAlert) };
        self.empty_records = 0;
        let description = AlertDescription::from(description);
        match level {
            WARNING | FATAL if description == AlertDescription::CloseNotify => {
                self.reading = Direction::Closed;
                Ok(Opened::CloseNotify)
            }
            // The one warning that means nothing (RFC 8446 §6.1).
            WARNING if description == AlertDescription::UserCanceled && self.warnings < MOST_WARNINGS => {
                self.warnings += 1;
                Ok(Opened::Nothing)
            }
            WARNING if description == AlertDescription::UserCanceled => Err(RecordError::TooManyWarnings),
            WARNING | FATAL => Err(RecordError::Alert(description)),
            level => Err(RecordError::AlertLevel(level)),
        }
    }

    /// A record of a few bytes that is not application data.
    fn sealed(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut record = vec![0; HEADER + content.len() + TRAILER];
        record[HEADER..HEADER + content.len()].copy_from_slice(content);
        match self.write.seal(&mut record, kind) {
            Ok(()) => record,
            Err(_) => Vec::new(),
        }
    }

    fn renew_keys(&mut self) -> Option<Vec<u8>> {
        let announcement = self.sealed(content::HANDSHAKE, &KEY_UPDATE_MESSAGE);
        match self.kernel.next_write_keys() {
            Ok(keys) if !announcement.is_empty() => {
                self.write = keys;
                self.owes_key_update = false;
                Some(announcement)
            }
            // What was sealed and not sent leaves a gap: nothing can follow it.
            _ => {
                self.writing = Direction::Failed;
                None
            }
        }
    }
}

impl RecordLayer for InPlace {
    fn seal(&mut self, record: &mut [u8]) -> Result<(), RecordError> {
        if self.writing != Direction::Open {
            return Err(RecordError::Closed);
        }
        if self.write.sequence() >= self.key_update_after.saturating_mul(KEYS_USED_UP_AFTER) {
            return Err(RecordError::KeysUsedUp);
        }
        self.write.seal(record, content::APPLICATION_DATA)
    }

    fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        match self.reading {
            Direction::Open => {}
            // What comes after a close_notify is ignored (RFC 8446 §6.1).
            Direction::Closed => return Ok(Opened::CloseNotify),
            Direction::Failed => return Err(RecordError::Closed),
        }
        let opened = self.open_record(record);
        if opened.is_err() {
            self.reading = Direction::Failed;
        }
        opened
    }

    fn urgent(&mut self) -> Option<Vec<u8>> {
        let due = self.owes_key_update || self.write.sequence() >= self.key_update_after;
        if due && self.writing == Direction::Open { self.renew_keys() } else { None }
    }

    fn close_notify(&mut self) -> Vec<u8> {
        if self.writing != Direction::Open {
            return Vec::new();
        }
        self.writing = Direction::Closed;
        self.sealed(content::ALERT, &[WARNING, u8::from(AlertDescription::CloseNotify)])
    }

    fn fatal_alert(&mut self, error: &RecordError) -> Vec<u8> {
        let before = std::mem::replace(&mut self.writing, Direction::Failed);
        self.reading = Direction::Failed;
        match error.alert() {
            Some(description) if before == Direction::Open => self.sealed(content::ALERT, &[FATAL, u8::from(description)]),
            _ => Vec::new(),
        }
    }
}
