//! Handshake messages after the handshake (RFC 8446 §4.6), whole or in parts.

use rustls::Side;
use zeroize::Zeroizing;

use super::RecordError;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// Message type and length.
const MESSAGE_HEADER: usize = 4;

/// The longest message that is put together, as in rustls.
const MOST_MESSAGE: usize = 0xffff;

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The content of a NewSessionTicket, without its header.
    Ticket(&'a [u8]),
    /// The peer's next record has new keys. True if it wants the same of us.
    KeyUpdate(KeyUpdateRequest),
}

/// What the sender of a KeyUpdate wants of its receiver (RFC 8446 §4.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyUpdateRequest {
    /// Nothing.
    NotRequested,
    /// New keys of its own.
    Requested,
}

/// A KeyUpdate that asks for nothing.
pub(super) const KEY_UPDATE_MESSAGE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];

/// Puts messages together from the records that carry them.
pub(super) struct Messages {
    role: Side,
    /// The beginning of a message whose end has not come. A ticket is a secret.
    partial: Zeroizing<Vec<u8>>,
}

impl Messages {
    /// Of a connection whose own end is this one.
    pub(super) fn new(role: Side) -> Self {
        Self { role, partial: Zeroizing::new(Vec::new()) }
    }

    /// True between the parts of a message: nothing else may come (RFC 8446 §5.1).
    pub(super) fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Takes the content of one handshake record, and tells `each` of every message that it completes.
    ///
    /// # Errors
    /// What has no place here, and what `each` returns.
    pub(super) fn receive(
        &mut self,
        content: &[u8],
        mut each: impl FnMut(Message<'_>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        if content.is_empty() {
            return Err(RecordError::EmptyMessage);
        }
        if self.partial.is_empty() {
            let rest = self.complete(content, &mut each)?;
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        self.partial.extend_from_slice(content);
        let mut joined = std::mem::take(&mut self.partial);
        let rest = self.complete(&joined, &mut each)?.len();
        if rest > 0 {
            let done = joined.len() - rest;
            joined.drain(..done);
            self.partial = joined;
        }
        Ok(())
    }

    /// Tells of the whole messages at the beginning of `bytes` and returns what follows them.
    fn complete<'a>(
        &self,
        mut bytes: &'a [u8],
        each: &mut impl FnMut(Message<'_>) -> Result<(), RecordError>,
    ) -> Result<&'a [u8], RecordError> {
        while let Some(&kind) = bytes.first() {
            let Some(&[_, high, middle, low]) = bytes.first_chunk::<MESSAGE_HEADER>() else {
                self.check(kind, None)?;
                break;
            };
            let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX);
            self.check(kind, Some(length))?;
            let Some(body) = bytes.get(MESSAGE_HEADER..MESSAGE_HEADER + length) else { break };
            bytes = bytes.get(MESSAGE_HEADER + length..).unwrap_or_default();
            match (kind, body) {
                (KEY_UPDATE, _) if !bytes.is_empty() => return Err(RecordError::KeyUpdateNotAligned),
                (KEY_UPDATE, &[0]) => each(Message::KeyUpdate(KeyUpdateRequest::NotRequested))?,
                (KEY_UPDATE, &[1]) => each(Message::KeyUpdate(KeyUpdateRequest::Requested))?,
                (KEY_UPDATE, body) => return Err(RecordError::KeyUpdateValue(body.first().copied().unwrap_or_default())),
                _ => each(Message::Ticket(body))?,
            }
        }
        Ok(bytes)
    }

    /// Refuses a message as soon as its type, or its length, is known.
    fn check(&self, kind: u8, length: Option<usize>) -> Result<(), RecordError> {
        match (kind, self.role) {
            (KEY_UPDATE, _) if length.is_none_or(|length| length == 1) => Ok(()),
            (NEW_SESSION_TICKET, Side::Client) if length.is_none_or(|length| length <= MOST_MESSAGE) => Ok(()),
            (KEY_UPDATE, _) | (NEW_SESSION_TICKET, Side::Client) => Err(RecordError::MessageLength(kind)),
            _ => Err(RecordError::UnexpectedMessage(kind)),
        }
    }
}
