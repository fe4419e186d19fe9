//! Settings of identities.

use std::path::PathBuf;
use std::time::Duration;

use postern_ca::AuthorityError;

use super::IdentityError;

/// A CA that the operator brings: `--ca-cert`, `--ca-key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroughtCa {
    /// PEM: the CA first, then its issuers up to a self-signed root.
    pub certificates: PathBuf,
    /// PEM: the CA's key, unencrypted.
    pub key: PathBuf,
}

impl BroughtCa {
    /// The same refusal, with the files that it is about.
    pub(super) fn refused(&self, source: AuthorityError) -> IdentityError {
        IdentityError::Brought { certificates: self.certificates.clone(), key: self.key.clone(), source }
    }
}

/// Settings of identities.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// How long an SVID lives.
    pub svid_ttl: Duration,
    /// How long after its end an SVID can still be renewed; 0: not at all.
    pub renew_grace: Duration,
    /// How long an intermediate lives.
    pub intermediate_ttl: Duration,
    /// The CA to sign under; none: one of our own.
    pub ca: Option<BroughtCa>,
    /// For how long a token is remembered after its end, so that a replay is seen.
    pub tombstone: Duration,
    /// Failed enrolments of one address in a minute.
    pub failed_tries: u32,
    /// How often is looked for what has to be renewed or removed; at least eight times in an SVID's life.
    pub upkeep: Duration,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            svid_ttl: Duration::from_secs(24 * 3600),
            renew_grace: Duration::from_secs(72 * 3600),
            intermediate_ttl: postern_ca::INTERMEDIATE_LIFETIME,
            ca: None,
            tombstone: Duration::from_secs(24 * 3600),
            failed_tries: 10,
            upkeep: Duration::from_secs(10),
        }
    }
}
