//! What can go wrong with keys and certificates of our own.

/// A key, an SVID or a bundle that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The key is not what is expected.
    #[error("the private key cannot be used: {0}; a PKCS#8 key on P-256, P-384 or Ed25519 is expected")]
    Key(String),
    /// A certificate does not parse or breaks the X.509-SVID profile.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// There is no certificate at all.
    #[error("the certificate chain is empty; give the leaf first, then its issuers")]
    EmptyChain,
    /// The key is not the one that the leaf names.
    #[error("the private key does not belong to the certificate; they are from different enrolments")]
    KeyDiffers,
    /// PEM text that is not what is expected.
    #[error("the PEM text cannot be used: {0}")]
    Pem(String),
}

/// Why an authority cannot be made, loaded or renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The CA certificate that was brought does not fit.
    #[error("this CA certificate cannot sign for the mesh: {0}")]
    Unfit(String),
    /// A key that does not parse or does not belong to its certificate.
    #[error("the CA key cannot be used: {0}")]
    Key(String),
    /// The chain does not lead to a self-signed root.
    #[error("the CA certificate's chain does not reach its root: {0}; put every certificate up to the root in the file")]
    Chain(String),
    /// A CA that was brought has expired, or is not valid yet.
    #[error("the CA certificate is valid from {not_before} to {not_after}, now is {now}")]
    NotValidNow {
        /// RFC 3339.
        not_before: String,
        /// RFC 3339.
        not_after: String,
        /// RFC 3339.
        now: String,
    },
    /// The key that signs intermediates is not here.
    #[error("the key that signs intermediates is not loaded; give --ca-cert and --ca-key again")]
    NoSigningKey,
    /// The crypto library refused.
    #[error("cannot make the certificate: {0}")]
    Crypto(String),
}

/// Why a certificate was not issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Not a PKCS#10 request, or too large.
    #[error("the certificate request cannot be read: {0}")]
    BadRequest(String),
    /// The requester does not hold the private key.
    #[error("the certificate request is not signed with its own key")]
    NotSignedByItsKey,
    /// A key that is too weak or of an unknown kind.
    #[error("the certificate request has a key of a kind that is not accepted ({0}); use P-256, P-384 or Ed25519")]
    WeakKey(String),
    /// A name that does not fit into a certificate.
    #[error("the certificate cannot carry {0}")]
    Name(String),
    /// The authority that would sign has expired.
    #[error("the intermediate certificate has expired at {0}; it must be renewed first")]
    AuthorityExpired(String),
    /// The crypto library refused.
    #[error("cannot sign: {0}")]
    Crypto(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

impl From<rcgen::Error> for IssueError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// A time as messages show it: RFC 3339, UTC, whole seconds.
pub(crate) fn show(time: std::time::SystemTime) -> String {
    let moment = time::OffsetDateTime::from(time).replace_nanosecond(0).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    moment.format(&time::format_description::well_known::Rfc3339).unwrap_or_else(|_| "an unknown time".to_owned())
}
