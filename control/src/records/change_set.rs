//! A change of intentions that is larger than a transaction: written in chunks, made true by one transaction.
//!
//! | key | value |
//! |---|---|
//! | `change-set/ID/head` | empty: the set is being written, or waits to be moved |
//! | `change-set/ID/NNNNNN` | a chunk: [`StagedChange`]s |
//! | `change-set` | the pointer: [`ChangeSetRecord`], the set that is in force |
//!
//! The life of a set: its head and chunks are written, which nobody heeds; one transaction puts the pointer, and with it
//! every change of the set is true in that one revision; then chunk by chunk moves to the keys of the intentions, where
//! it says the same, until the pointer goes. A set that no pointer names is what a crash left behind.

use std::time::SystemTime;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postern_intentions::PairKey;
use serde::{Deserialize, Serialize};

use super::RecordKey;

/// The pointer to the change set that is in force.
pub const POINTER: &[u8] = b"change-set";
/// What the keys of all sets begin with.
pub const PREFIX: &str = "change-set/";

/// The set that the pointer names, and what its transaction changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeSetRecord {
    /// Which set.
    pub id: String,
    /// How many chunks it was written in.
    pub chunks: u32,
    /// When it was made true.
    #[serde(with = "super::as_millis")]
    pub at: SystemTime,
    /// Who did it.
    pub who: String,
    /// From where.
    pub from: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The revision of the change before it, by which its history is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<u64>,
}

/// A key of a change set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeSetKey {
    /// `change-set/ID/head`
    Head(String),
    /// `change-set/ID/NNNNNN`
    Chunk(String, u32),
}

impl ChangeSetKey {
    /// The key that these bytes are, if they are one.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let (id, part) = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?.split_once('/')?;
        match part {
            "head" => Some(Self::Head(id.to_owned())),
            number => Some(Self::Chunk(id.to_owned(), number.parse().ok()?)),
        }
    }

    /// The bytes of the key in the store.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Head(id) => format!("{PREFIX}{id}/head").into(),
            Self::Chunk(id, number) => format!("{PREFIX}{id}/{number:06}").into(),
        }
    }
}

/// What all keys of a set begin with.
pub fn set_prefix(id: &str) -> Bytes {
    format!("{PREFIX}{id}/").into()
}

/// One change of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedChange {
    /// The key of the intention.
    pub key: Bytes,
    /// What is stored under it from now on; none: it is deleted.
    pub value: Option<Bytes>,
    /// The intention before, as JSON, for the audit log and the history; its name where it could not be read; empty where
    /// there was none.
    pub before: Bytes,
}

impl StagedChange {
    /// The pair that it changes.
    pub fn pair(&self) -> Option<PairKey> {
        match RecordKey::try_from(&self.key[..]) {
            Ok(RecordKey::Intention(pair)) => Some(pair),
            _ => None,
        }
    }

    /// Bytes of it in a chunk.
    pub fn size(&self) -> usize {
        HEADER + self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + self.before.len()
    }
}

/// Kind, and the lengths of key, value and before.
const HEADER: usize = 1 + 3 * 4;
const DELETED: u8 = 0;
const PUT: u8 = 1;

/// A chunk as it is stored: for each change its kind, three lengths, then the bytes.
pub fn encode_chunk(changes: &[StagedChange]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(changes.iter().map(StagedChange::size).sum());
    for change in changes {
        let value = change.value.as_deref().unwrap_or_default();
        bytes.put_u8(if change.value.is_some() { PUT } else { DELETED });
        for part in [&change.key[..], value, &change.before[..]] {
            // A transaction's limit keeps each far below 4 GiB.
            bytes.put_u32(part.len() as u32);
        }
        for part in [&change.key[..], value, &change.before[..]] {
            bytes.put_slice(part);
        }
    }
    bytes.freeze()
}

/// A chunk that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a chunk of a change set is damaged; restore a backup of the store")]
pub struct DamagedChunk;

/// The changes of a chunk.
///
/// # Errors
/// [`DamagedChunk`]: no version writes one such.
pub fn decode_chunk(mut bytes: Bytes) -> Result<Vec<StagedChange>, DamagedChunk> {
    let mut changes = Vec::new();
    while bytes.has_remaining() {
        let kind = bytes.try_get_u8().map_err(|_| DamagedChunk)?;
        let mut lengths = [0; 3];
        for length in &mut lengths {
            *length = bytes.try_get_u32().map_err(|_| DamagedChunk)? as usize;
        }
        let mut take = |length: usize| if length > bytes.len() { Err(DamagedChunk) } else { Ok(bytes.split_to(length)) };
        let (key, value, before) = (take(lengths[0])?, take(lengths[1])?, take(lengths[2])?);
        let value = match kind {
            DELETED => None,
            PUT => Some(value),
            _ => return Err(DamagedChunk),
        };
        changes.push(StagedChange { key, value, before });
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &'static str, value: Option<&'static str>) -> StagedChange {
        StagedChange { key: key.into(), value: value.map(Bytes::from), before: Bytes::from("{}") }
    }

    #[test]
    fn a_chunk_reads_back_as_it_was_written() {
        let changes = [change("intention/p/a/b", Some("x")), change("intention/p/a/c", None), change("k", Some(""))];
        let chunk = encode_chunk(&changes);
        assert_eq!(chunk.len(), changes.iter().map(StagedChange::size).sum::<usize>());
        assert_eq!(decode_chunk(chunk).unwrap(), changes);
        assert_eq!(decode_chunk(Bytes::new()).unwrap(), []);
    }

    #[test]
    fn a_damaged_chunk_is_refused() {
        let chunk = encode_chunk(&[change("intention/p/a/b", Some("x"))]);
        for length in 1..chunk.len() {
            assert_eq!(decode_chunk(chunk.slice(..length)), Err(DamagedChunk), "{length}");
        }
        let mut unknown_kind = [0; 13];
        unknown_kind[0] = 9;
        assert_eq!(decode_chunk(Bytes::copy_from_slice(&unknown_kind)), Err(DamagedChunk));
    }

    #[test]
    fn a_key_of_a_set_reads_back_and_the_pointer_is_none() {
        for key in [ChangeSetKey::Head("ab".into()), ChangeSetKey::Chunk("ab".into(), 17)] {
            assert_eq!(ChangeSetKey::parse(&key.to_bytes()), Some(key));
        }
        for key in [POINTER, b"change-set/", b"change-set/ab/x", b"intention/p/a/b"] {
            assert_eq!(ChangeSetKey::parse(key), None);
        }
    }
}
