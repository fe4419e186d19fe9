//! Why a peer's certificate is refused.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CertificateError, OtherError};

use crate::error::show;

/// Why a certificate is refused. The word goes to the metric, the whole message to the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its lifetime is over.
    #[error("the certificate expired at {}, now is {}; if it is fresh, compare the clocks of both hosts", show(*not_after), show(*now))]
    Expired {
        /// The end of its lifetime.
        not_after: SystemTime,
        /// The time that was compared.
        now: SystemTime,
    },
    /// Its lifetime has not begun.
    #[error("the certificate is valid from {}, now is {}; compare the clocks of both hosts", show(*not_before), show(*now))]
    NotYetValid {
        /// The beginning of its lifetime.
        not_before: SystemTime,
        /// The time that was compared.
        now: SystemTime,
    },
    /// No chain leads from it to a root of the trust bundle.
    #[error("the certificate was not signed under a root of this mesh; is the peer enrolled with another control plane?")]
    UnknownAuthority,
    /// It belongs to another trust domain.
    #[error("the certificate belongs to another trust domain")]
    WrongTrustDomain,
    /// It belongs to another datacenter.
    #[error("the certificate belongs to another datacenter")]
    WrongDatacenter,
    /// Its URI is no SPIFFE ID that this mesh gives out.
    #[error("the certificate's URI is not an ID of this mesh (spiffe://<trust-domain>/ns/default/dc/<dc>/svc/<service>)")]
    BadSpiffeId,
    /// It has no URI SAN.
    #[error("the certificate has no SPIFFE ID (no URI in its subject alternative names)")]
    NoUriSan,
    /// It has more than one URI SAN (X509-SVID §2).
    #[error("the certificate has more than one URI in its subject alternative names; an SVID has exactly one")]
    ManyUriSans,
    /// It is a CA.
    #[error("the certificate is that of an authority, not of a peer")]
    NotALeaf,
    /// Its usages are not those of an SVID (X509-SVID §4.3, §4.4).
    #[error("the certificate's usages are wrong: digitalSignature, serverAuth and clientAuth are needed, signing is forbidden")]
    WrongUsage,
    /// Its key is too weak or of an unknown kind.
    #[error("the certificate's key is too weak or of an unknown kind; P-256, P-384, Ed25519 or RSA of 2,048 bits are accepted")]
    WeakKey,
    /// It was revoked.
    #[error("the certificate was revoked; the instance needs a new token")]
    Revoked,
    /// It is valid, and somebody else's.
    #[error("the peer is {got}, {expected} was expected")]
    UnexpectedPeer {
        /// Who should be there.
        expected: String,
        /// Who is there.
        got: String,
    },
    /// There is none.
    #[error("the peer showed no certificate; only enrolled sidecars get in")]
    NoCertificate,
}

impl Refusal {
    /// The reason word that metrics and logs carry.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::UnknownAuthority => "unknown_authority",
            Self::WrongTrustDomain => "wrong_trust_domain",
            Self::WrongDatacenter => "wrong_datacenter",
            Self::BadSpiffeId => "bad_spiffe_id",
            Self::NoUriSan => "no_uri_san",
            Self::ManyUriSans => "many_uri_sans",
            Self::NotALeaf => "not_a_leaf",
            Self::WrongUsage => "wrong_usage",
            Self::WeakKey => "weak_key",
            Self::Revoked => "revoked",
            Self::UnexpectedPeer { .. } => "unexpected_peer",
            Self::NoCertificate => "no_certificate",
        }
    }

    /// The refusal that a failed handshake carries, if it failed for one.
    pub fn of(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(&Self::UnknownAuthority),
            rustls::Error::NoCertificatesPresented => Some(&Self::NoCertificate),
            _ => None,
        }
    }

    /// The same for the I/O error that tokio-rustls wraps it in.
    pub fn of_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref::<rustls::Error>().and_then(Self::of)
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}
