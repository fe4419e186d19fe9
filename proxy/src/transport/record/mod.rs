//! TLS 1.3 records of application data (RFC 8446 §5), sealed and opened where they lie.
//!
//! Behind [`RecordLayer`] are two implementations: [`InPlace`], which never copies a byte, and [`Buffered`], which is rustls'
//! own. Both continue a connection whose handshake rustls made (`transport::handshake`), and neither does any I/O.

mod error;
mod inplace;
mod keys;
mod messages;
mod rustls;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

pub(crate) use error::RecordError;
pub(crate) use inplace::{InPlace, KEY_UPDATE_AFTER, Kernel};
pub(crate) use rustls::{Buffered, Connection, encode, encode_alert};

/// Bytes before the content of a record: type, version, length.
pub(crate) const HEADER: usize = 5;

/// Bytes after the content of a record that we seal: content type and tag.
pub(crate) const TRAILER: usize = 1 + TAG;

/// The most content that a record carries (RFC 8446 §5.1).
pub(crate) const MOST_PLAINTEXT: usize = 16_384;

/// The tag of every AEAD that TLS 1.3 knows.
const TAG: usize = 16;

/// The most bytes after the header (RFC 8446 §5.2).
const MOST_CIPHERTEXT: usize = MOST_PLAINTEXT + 256;

/// `legacy_record_version` of every record after the handshake (RFC 8446 §5.2).
const VERSION: [u8; 2] = [3, 3];

/// The content types of RFC 8446 §5.1.
mod content {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}

/// The length of the whole record, header included, that begins with these bytes; `None` if there are fewer than five.
///
/// # Errors
/// If no record of a connection that has shaken hands begins like this (RFC 8446 §5.1, §5.2). What follows is then not to
/// be read: where the next record would begin is unknown.
pub(crate) fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[kind, major, minor, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if kind != content::APPLICATION_DATA {
        return Err(RecordError::UnexpectedType(kind));
    }
    if [major, minor] != VERSION {
        return Err(RecordError::Version(major, minor));
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        length if length > MOST_CIPHERTEXT => Err(RecordError::Overflow),
        length => Ok(Some(HEADER + length)),
    }
}

/// What an opened record held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Application data: the plaintext lies at this range of the record. Never empty.
    Data(Range<usize>),
    /// Nothing for the reader: a message to the record layer itself, or padding.
    Nothing,
    /// The peer sends no more; what it sent before is whole (RFC 8446 §6.1).
    CloseNotify,
}

/// Both directions of one connection, from the end of the handshake on.
///
/// An error is final: send [`RecordLayer::fatal_alert`] and close.
pub(crate) trait RecordLayer: Send {
    /// Seals one record of application data in place. `record` is a gap of [`HEADER`] bytes, 1 to [`MOST_PLAINTEXT`] bytes
    /// of plaintext, and a gap of [`TRAILER`] bytes.
    fn seal(&mut self, record: &mut [u8]) -> Result<(), RecordError>;

    /// Opens one whole record, as [`record_length`] measured it, in place.
    fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError>;

    /// Whole sealed records that must go out after what is sealed already and before what is sealed next: a KeyUpdate, or
    /// the answer to one. Ask before each batch of seals.
    fn urgent(&mut self) -> Option<Vec<u8>>;

    /// The record that tells the peer that nothing more comes. Nothing can be sealed after it.
    fn close_notify(&mut self) -> Vec<u8>;

    /// The record that tells the peer of this error. Empty if there is nothing to tell: an alert was sent before, the
    /// peer's own alert is the error, or (with rustls' record layer) rustls has no alert for it.
    fn fatal_alert(&mut self, error: &RecordError) -> Vec<u8>;
}

/// Which implementation a connection uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecordLayerKind {
    /// Ours, without copies.
    #[default]
    InPlace,
    /// rustls' own.
    Rustls,
}

impl fmt::Display for RecordLayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InPlace => "inplace",
            Self::Rustls => "rustls",
        })
    }
}

/// A word that names no record layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no record layer; choose inplace or rustls")]
pub struct UnknownRecordLayer(String);

impl FromStr for RecordLayerKind {
    type Err = UnknownRecordLayer;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "inplace" => Ok(Self::InPlace),
            "rustls" => Ok(Self::Rustls),
            _ => Err(UnknownRecordLayer(word.to_owned())),
        }
    }
}
