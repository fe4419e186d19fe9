//! Why a token or a set of keys is refused.

use thiserror::Error;

/// Why a token is not taken. Nothing of the token is in the text. In the order in which it is looked at: the greater one is
/// nearer to being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum JwtError {
    /// Longer than [`super::MOST_TOKEN_BYTES`].
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// Not three parts in base64url of which the first two are JSON objects (RFC 7515 §7.1, RFC 7519 §7.2).
    #[error("the token is not a signed JSON Web Token in compact form")]
    Malformed,
    /// A name stands twice in the header or in the claims (RFC 7515 §4, RFC 7519 §4).
    #[error("a name stands twice in the token")]
    DuplicateName,
    /// `none`, an algorithm with a shared secret, or an unknown one (RFC 8725 §3.1).
    #[error("the algorithm of the token is not one of RS, PS, ES or EdDSA")]
    Algorithm,
    /// The header has `crit`: it demands what is not understood here (RFC 7515 §4.1.11).
    #[error("the token has critical header parameters")]
    CriticalHeader,
    /// No key of the provider has its `kid` and fits its algorithm.
    #[error("the provider has no key for the token")]
    UnknownKey,
    /// The signature is not by a key of the provider.
    #[error("the signature of the token is not valid")]
    Signature,
    /// A claim that is judged has a wrong type.
    #[error("iss, aud, exp, nbf or iat of the token has a wrong type")]
    ClaimType,
    /// `iss` is not the provider's.
    #[error("the token is by another issuer")]
    Issuer,
    /// None of the provider's audiences is in `aud`.
    #[error("the token is for another audience")]
    Audience,
    /// No `exp`: it would be good for ever.
    #[error("the token has no exp")]
    NoExpiry,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iat` is to come.
    #[error("the token was issued in the future")]
    IssuedInFuture,
}

impl JwtError {
    /// The reason as one word, for metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::DuplicateName => "duplicate_name",
            Self::Algorithm => "algorithm",
            Self::CriticalHeader => "critical_header",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::ClaimType => "claim_type",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoExpiry => "no_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedInFuture => "issued_in_future",
        }
    }
}

/// Why the keys of a provider cannot be used. Without keys none of its tokens is taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwksError {
    /// The text is empty.
    #[error("there is no key set yet")]
    Absent,
    /// Longer than [`super::MOST_JWKS_BYTES`].
    #[error("the key set is longer than 64 KiB")]
    TooLong,
    /// Not a JSON object with an array `keys` (RFC 7517 §5).
    #[error("this is no JSON Web Key Set: {why}; give an object with an array named keys")]
    Malformed {
        /// What is wrong with it.
        why: String,
    },
    /// More keys than a token could be tried with.
    #[error("the key set has {keys} keys; at most {} are taken", super::MOST_KEYS)]
    TooManyKeys {
        /// How many.
        keys: usize,
    },
    /// It has keys, but none with which a token could be verified.
    #[error("no key of the set can verify tokens: {first}")]
    NoUsableKey {
        /// What is wrong with the first.
        first: SkippedKey,
    },
}

/// A key of a set that is left out (RFC 7517 §5).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("key {} ({}): {why}", .index + 1, .kid.as_deref().unwrap_or("no kid"))]
pub struct SkippedKey {
    /// Its place in the set.
    pub index: usize,
    /// Its `kid`.
    pub kid: Option<String>,
    /// Why.
    pub why: KeyError,
}

/// Why a key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not an object whose members have the types of RFC 7517 §4.
    #[error("a member is missing or has a wrong type")]
    Member,
    /// For encryption.
    #[error("it is not for signatures (use, key_ops)")]
    Purpose,
    /// Its `alg` is unknown, uses a shared secret, or does not fit the key.
    #[error("its alg is not one of RS, PS, ES or EdDSA, or does not fit the key")]
    Algorithm,
    /// Not RSA, P-256, P-384 or Ed25519.
    #[error("it is not an RSA, P-256, P-384 or Ed25519 key (kty, crv)")]
    Kind,
    /// The private half is in it.
    #[error("it holds a private key, which belongs to the issuer alone; give the public members only")]
    Private,
    /// RSA below 2,048 or above 8,192 bits.
    #[error("an RSA key has 2,048 to 8,192 bits")]
    Size,
    /// Its bytes are no public key.
    #[error("its values are no public key")]
    Value,
}
