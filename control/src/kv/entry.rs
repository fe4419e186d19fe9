//! A key's value, flags and lock, as stored.

use bytes::{Buf, BufMut, Bytes};
use zeroize::Zeroizing;

use crate::records::UnreadableRecord;
use crate::seal::{SealError, SealKey};

/// Where the entries are in the store; the key follows as it is, and may hold any bytes.
pub const KV_PREFIX: &[u8] = b"kv/";
/// The form of a stored entry: version, flags, lock index, end of the lock-delay, length of the session, session, sealed
/// value. Numbers are big-endian.
const VERSION: u8 = 1;

/// The key of an entry in the store.
pub fn kv_key(key: &[u8]) -> Bytes {
    [KV_PREFIX, key].concat().into()
}

/// An entry of the store, without its place in history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Whatever the writer wants them to be.
    pub flags: u64,
    /// How often the key was locked since it was created.
    pub lock_index: u64,
    /// Nobody may lock it before, milliseconds since 1970; 0: anybody may.
    pub not_before: u64,
    /// The session that holds its lock.
    pub session: Option<String>,
    /// The value, sealed for this key.
    pub sealed: Bytes,
}

/// An entry as the view holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The revision that created the key.
    pub create_index: u64,
    /// The revision that last changed it.
    pub modify_index: u64,
    /// What is stored.
    pub stored: StoredEntry,
}

impl StoredEntry {
    /// What a key that does not exist reads as.
    pub(super) fn nothing() -> Self {
        Self { flags: 0, lock_index: 0, not_before: 0, session: None, sealed: Bytes::new() }
    }

    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        let session = self.session.as_deref().unwrap_or_default().as_bytes();
        let mut bytes = Vec::with_capacity(1 + 8 * 3 + 1 + session.len() + self.sealed.len());
        bytes.put_u8(VERSION);
        bytes.put_u64(self.flags);
        bytes.put_u64(self.lock_index);
        bytes.put_u64(self.not_before);
        // A session's id is a UUID.
        bytes.put_u8(u8::try_from(session.len()).unwrap_or(0));
        bytes.put_slice(session);
        bytes.put_slice(&self.sealed);
        bytes.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`UnreadableRecord`] names the key.
    pub fn decode(key: &[u8], value: &Bytes) -> Result<Self, UnreadableRecord> {
        let unreadable =
            |why: &str| UnreadableRecord { key: format!("kv/{}", String::from_utf8_lossy(key)), why: why.to_owned() };
        let mut rest = value.clone();
        let short = |_| unreadable("it is cut short");
        let version = rest.try_get_u8().map_err(short)?;
        if version != VERSION {
            return Err(unreadable(&format!("it has version {version}")));
        }
        let flags = rest.try_get_u64().map_err(short)?;
        let lock_index = rest.try_get_u64().map_err(short)?;
        let not_before = rest.try_get_u64().map_err(short)?;
        let length = usize::from(rest.try_get_u8().map_err(short)?);
        if length > rest.len() {
            return Err(unreadable("it is cut short"));
        }
        let session = rest.split_to(length);
        let session = std::str::from_utf8(&session).map_err(|_| unreadable("its session is no text"))?;
        let session = (!session.is_empty()).then(|| session.to_owned());
        Ok(Self { flags, lock_index, not_before, session, sealed: rest })
    }
}

/// Seals a value for its key.
pub(super) fn seal(seal: &SealKey, cluster_id: &str, key: &[u8], value: &[u8]) -> Bytes {
    seal.seal(cluster_id, kv_key(key), value).into()
}

/// Opens the value of a key.
///
/// # Errors
/// [`SealError::Refused`] if it was sealed for another key or cluster, or changed since.
pub(super) fn open(seal: &SealKey, cluster_id: &str, key: &[u8], stored: &StoredEntry) -> Result<Zeroizing<Vec<u8>>, SealError> {
    seal.open(cluster_id, kv_key(key), &stored.sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        for session in [None, Some("a0a0a0a0-0000-0000-0000-000000000000".to_owned())] {
            let stored = StoredEntry { flags: u64::MAX, lock_index: 3, not_before: 9, session, sealed: Bytes::from_static(b"x") };
            let encoded = stored.encode();
            assert_eq!(StoredEntry::decode(b"k", &encoded).unwrap(), stored);
            for length in 0..encoded.len() - 1 {
                let cut = StoredEntry::decode(b"k", &encoded.slice(..length));
                assert!(cut.is_err(), "cut to {length}");
            }
        }
    }

    #[test]
    fn a_value_opens_under_its_own_key_only() {
        let key = SealKey::in_memory();
        let sealed = seal(&key, "c", b"a", b"secret");
        let stored = StoredEntry { flags: 0, lock_index: 0, not_before: 0, session: None, sealed };
        assert_eq!(open(&key, "c", b"a", &stored).unwrap().as_slice(), b"secret");
        assert!(open(&key, "c", b"b", &stored).is_err());
        assert!(open(&key, "d", b"a", &stored).is_err());
    }
}
