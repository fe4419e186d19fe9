//! Why a connection's records end.

use ::rustls::AlertDescription;

/// Why nothing more is sealed or opened. [`RecordError::word`] is the reason that the metric and the log carry.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum RecordError {
    /// A record that is not protected, or whose content is of a type that has no place after the handshake.
    #[error("a record of type {0} came, which has no place after the handshake (RFC 8446 §5)")]
    UnexpectedType(u8),
    /// Its version is not that of TLS 1.3 records.
    #[error("a record of version {0}.{1} came, TLS 1.3 has 3.3 alone (RFC 8446 §5.2)")]
    Version(u8, u8),
    /// It is longer than a record may be.
    #[error("a record is longer than TLS allows (RFC 8446 §5.2)")]
    Overflow,
    /// Its tag does not fit: changed, lost, repeated or reordered on the way, or sealed with other keys.
    #[error("a record was changed, lost, repeated or reordered on the way (its authentication failed)")]
    BadMac,
    /// It is all padding, without a content type.
    #[error("a record has no content type (RFC 8446 §5.4)")]
    NoContentType,
    /// An alert or a handshake record without content.
    #[error("an alert or handshake record is empty (RFC 8446 §5.4)")]
    EmptyMessage,
    /// Too many records without content in a row.
    #[error("too many empty records in a row")]
    TooManyEmptyRecords,
    /// Something else came between the parts of a handshake message.
    #[error("a record came between the parts of a handshake message (RFC 8446 §5.1)")]
    Interleaved,
    /// A handshake message that has no place after the handshake.
    #[error("a handshake message of type {0} came after the handshake (RFC 8446 §4.6)")]
    UnexpectedMessage(u8),
    /// A handshake message whose length cannot be.
    #[error("a handshake message of type {0} has an impossible length")]
    MessageLength(u8),
    /// A KeyUpdate that is not the end of its record.
    #[error("a key update is not at the end of a record (RFC 8446 §5.1)")]
    KeyUpdateNotAligned,
    /// A KeyUpdate that asks for something unknown.
    #[error("a key update asks for {0}, which means nothing (RFC 8446 §4.6.3)")]
    KeyUpdateValue(u8),
    /// Too many KeyUpdates without application data between them.
    #[error("too many key updates without data between them")]
    TooManyKeyUpdates,
    /// A session ticket that cannot be read.
    #[error("a session ticket cannot be read: {0}")]
    Ticket(::rustls::Error),
    /// An alert that cannot be read.
    #[error("an alert cannot be read (RFC 8446 §6)")]
    MalformedAlert,
    /// An alert of a level that does not exist.
    #[error("an alert has level {0}, which means nothing (RFC 8446 §6)")]
    AlertLevel(u8),
    /// Too many warnings.
    #[error("too many warning alerts")]
    TooManyWarnings,
    /// The peer ended the connection with an alert.
    #[error("the peer ended the connection with the alert {0:?}")]
    Alert(AlertDescription),
    /// The record that was given to be sealed or opened has no valid shape: an error of ours.
    #[error("a record of {0} bytes has no valid shape")]
    Shape(usize),
    /// The connection was closed, or failed, before.
    #[error("the connection was closed before")]
    Closed,
    /// The keys may not seal another record, and nobody asked for the key update.
    #[error("the traffic keys are used up")]
    KeysUsedUp,
    /// rustls refuses.
    #[error("{0}")]
    Rustls(::rustls::Error),
}

impl RecordError {
    /// The reason in one word, from a fixed list, so that no peer can make a metric series.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::BadMac | Self::Rustls(::rustls::Error::DecryptError) => "bad_record_mac",
            Self::Alert(_) | Self::Rustls(::rustls::Error::AlertReceived(_)) => "alert",
            Self::Overflow | Self::Rustls(::rustls::Error::PeerSentOversizedRecord) => "record_overflow",
            Self::TooManyEmptyRecords | Self::TooManyKeyUpdates | Self::TooManyWarnings => "flood",
            Self::Shape(_) | Self::Closed | Self::KeysUsedUp => "internal",
            _ => "bad_record",
        }
    }

    /// The alert that tells the peer of it (RFC 8446 §6.2).
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        match self {
            Self::UnexpectedType(_)
            | Self::NoContentType
            | Self::EmptyMessage
            | Self::TooManyEmptyRecords
            | Self::TooManyKeyUpdates
            | Self::TooManyWarnings
            | Self::Interleaved
            | Self::UnexpectedMessage(_)
            | Self::KeyUpdateNotAligned => Some(AlertDescription::UnexpectedMessage),
            Self::Overflow => Some(AlertDescription::RecordOverflow),
            Self::BadMac => Some(AlertDescription::BadRecordMac),
            Self::Version(..) | Self::MessageLength(_) | Self::Ticket(_) | Self::MalformedAlert => {
                Some(AlertDescription::DecodeError)
            }
            Self::KeyUpdateValue(_) | Self::AlertLevel(_) => Some(AlertDescription::IllegalParameter),
            Self::Shape(_) | Self::KeysUsedUp | Self::Rustls(_) => Some(AlertDescription::InternalError),
            Self::Alert(_) | Self::Closed => None,
        }
    }
}
