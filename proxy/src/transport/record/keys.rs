//! The keys of one direction, and what they do to one record.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use super::{HEADER, MOST_PLAINTEXT, RecordError, TAG, TRAILER, VERSION, content};

/// The keys of one direction with the number of its next record. The key lies in aws-lc's context, which wipes it when it
/// is dropped.
pub(super) struct TrafficKeys {
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    sequence: u64,
}

impl TrafficKeys {
    /// Keys as rustls hands them out.
    ///
    /// # Errors
    /// If they belong to no AEAD that the mesh uses.
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(unusable()),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unusable())?;
        let iv = iv.as_ref().try_into().map_err(|_| unusable())?;
        Ok(Self { key: LessSafeKey::new(key), iv: Zeroizing::new(iv), sequence })
    }

    /// The number of the next record: as many were sealed or opened with these keys.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seals a record whose content is in its place.
    ///
    /// # Errors
    /// If it has no room for header and trailer, or too much content.
    pub(super) fn seal(&mut self, record: &mut [u8], content_type: u8) -> Result<(), RecordError> {
        let shape = RecordError::Shape(record.len());
        let Some((header, rest)) = record.split_first_chunk_mut::<HEADER>() else { return Err(shape) };
        let Some((content, trailer)) = rest.split_last_chunk_mut::<TRAILER>() else { return Err(shape) };
        if content.is_empty() || content.len() > MOST_PLAINTEXT {
            return Err(shape);
        }
        let length = u16::try_from(content.len() + TRAILER).map_err(|_| RecordError::Overflow)?.to_be_bytes();
        *header = [content::APPLICATION_DATA, VERSION[0], VERSION[1], length[0], length[1]];
        let nonce = self.next_nonce()?;
        self.key
            .seal_in_place_scatter(nonce, Aad::from(&*header), content, &[content_type], trailer)
            .map_err(|_| RecordError::KeysUsedUp)
    }

    /// Opens a whole record. The inner plaintext (content, content type, padding) then begins after the header and has the
    /// returned length.
    ///
    /// # Errors
    /// If its tag does not fit.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<usize, RecordError> {
        let Some((header, sealed)) = record.split_first_chunk_mut::<HEADER>() else {
            return Err(RecordError::Shape(record.len()));
        };
        if sealed.len() < TAG {
            return Err(RecordError::BadMac);
        }
        let nonce = self.next_nonce()?;
        let inner = self.key.open_in_place(nonce, Aad::from(&*header), sealed).map_err(|_| RecordError::BadMac)?;
        Ok(inner.len())
    }

    /// RFC 8446 §5.3. A number is never used twice, not even by a record that fails.
    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce = *self.iv;
        let (_, number) = nonce.split_last_chunk_mut::<8>().ok_or(RecordError::KeysUsedUp)?;
        *number = (u64::from_be_bytes(*number) ^ self.sequence).to_be_bytes();
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::KeysUsedUp)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

fn unusable() -> RecordError {
    RecordError::Rustls(rustls::Error::General("traffic keys of an AEAD that this mesh does not use".into()))
}
