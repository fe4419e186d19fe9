//! The signature of a TLS 1.3 handshake, checked in one way by every verifier of the mesh.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::CertificateDer;
use rustls::{DigitallySignedStruct, PeerIncompatible, SignatureScheme};

/// TLS 1.2 is never spoken; should a configuration ever allow it, nothing is verified.
pub(crate) fn no_tls12() -> rustls::Error {
    PeerIncompatible::Tls12NotOffered.into()
}

/// The signature of a TLS 1.3 handshake (RFC 8446 §4.4.3).
pub(crate) fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &crate::tls::provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}

pub(crate) fn schemes() -> Vec<SignatureScheme> {
    crate::tls::provider().signature_verification_algorithms.supported_schemes()
}

/// The methods on signatures that rustls' verifiers of servers and of clients have in common.
macro_rules! tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &rustls::pki_types::CertificateDer<'_>,
            _signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(crate::tls_signatures::no_tls12())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            crate::tls_signatures::check_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            crate::tls_signatures::schemes()
        }
    };
}
pub(crate) use tls13_signatures;
