//! The private key of an SVID.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;
use zeroize::{Zeroize, Zeroizing};

use crate::IdentityError;

/// A private key that its owner made and never sends. Its bytes are wiped when it is dropped; it prints as `…`.
pub struct PrivateKey {
    pair: KeyPair,
    csr: Vec<u8>,
}

impl PrivateKey {
    /// A new one on P-256.
    ///
    /// # Errors
    /// Only if the system gives no random bytes.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::new(KeyPair::generate().map_err(|error| IdentityError::Key(error.to_string()))?)
    }

    /// Reads what `to_pkcs8` wrote.
    ///
    /// # Errors
    /// If it is not PKCS#8 with a key on P-256, P-384 or Ed25519.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, IdentityError> {
        Self::new(load_pair(der).map_err(IdentityError::Key)?)
    }

    fn new(pair: KeyPair) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&pair).map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(Self { csr: csr.der().to_vec(), pair })
    }

    /// PKCS#8, DER: only for the state directory, which is 0700.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.pair.serialized_der().to_vec())
    }

    /// A certificate request (PKCS#10, DER) that names nothing: the authority decides all names.
    pub fn csr_der(&self) -> Vec<u8> {
        self.csr.clone()
    }

    /// SHA-256 of its public key's SubjectPublicKeyInfo.
    pub fn public_key_hash(&self) -> [u8; 32] {
        sha256(&self.pair.subject_public_key_info())
    }

    /// The key as rustls signs with it.
    pub(crate) fn signing_key(&self) -> Result<Arc<dyn SigningKey>, IdentityError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialized_der().to_vec()));
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|error| IdentityError::Key(error.to_string()))
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A key pair from PKCS#8, of a kind that this mesh accepts from itself.
pub(crate) fn load_pair(der: &[u8]) -> Result<KeyPair, String> {
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(der)).map_err(|error| error.to_string())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_as_it_was_written_and_prints_nothing() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(again.public_key_hash(), key.public_key_hash());
        assert_eq!(format!("{key:?}"), "…");
        assert!(PrivateKey::from_pkcs8(b"no key").is_err());
    }
}
