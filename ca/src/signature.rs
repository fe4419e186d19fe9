//! Signatures by the key of an SVID, outside a handshake.

use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::EndEntityCert;
use webpki::aws_lc_rs::{ECDSA_P256_SHA256, ECDSA_P384_SHA384, ED25519};

use crate::Svid;

/// The keys that an SVID of this mesh may have, with the one scheme that TLS 1.3 gives each (RFC 8446 §4.2.3).
const SCHEMES: [(SignatureScheme, &dyn SignatureVerificationAlgorithm); 3] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, ECDSA_P256_SHA256),
    (SignatureScheme::ECDSA_NISTP384_SHA384, ECDSA_P384_SHA384),
    (SignatureScheme::ED25519, ED25519),
];

/// A signature that is not by the key of its certificate, or of no scheme that an SVID may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not by the key of the certificate")]
pub struct BadSignature;

impl Svid {
    /// Signs with its key.
    ///
    /// # Errors
    /// If the key is of a kind that no SVID has, or the system gives no random bytes.
    pub fn sign(&self, message: &[u8]) -> Result<(SignatureScheme, Vec<u8>), rustls::Error> {
        let schemes = SCHEMES.map(|(scheme, _)| scheme);
        let unfit = || rustls::Error::General("the key is of a kind that no SVID has".into());
        let signer = self.certified_key().key.choose_scheme(&schemes).ok_or_else(unfit)?;
        Ok((signer.scheme(), signer.sign(message)?))
    }
}

/// Checks that a signature is by the key of this certificate. The certificate itself is judged by a verifier.
///
/// # Errors
/// If it is not.
pub fn check_signature_by(
    certificate: &CertificateDer<'_>,
    scheme: SignatureScheme,
    message: &[u8],
    signature: &[u8],
) -> Result<(), BadSignature> {
    let (_, algorithm) = SCHEMES.iter().find(|(known, _)| *known == scheme).ok_or(BadSignature)?;
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| BadSignature)?;
    certificate.verify_signature(*algorithm, message, signature).map_err(|_| BadSignature)
}
