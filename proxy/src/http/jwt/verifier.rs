//! Verifies the tokens of one provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use postern_traffic::JwtProvider;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::cache::TokenCache;
use super::error::{JwksError, JwtError, SkippedKey};
use super::json::{self, JsonError};
use super::keys::Keys;

/// Most bytes of a token.
pub const MOST_TOKEN_BYTES: usize = 8 * 1024;

/// How far, beyond the leeway, `iat` may lie ahead. It says when a token was made, not from when it holds, so an issuer
/// whose clock is a little ahead is no reason to refuse; one that is far ahead says that something is wrong.
const FAR_FUTURE: Duration = Duration::from_secs(300);

/// What a provider's tokens must be, made ready: its keys are parsed once.
#[derive(Debug)]
pub struct Verifier {
    issuer: String,
    audiences: Vec<String>,
    leeway: Duration,
    keys: Keys,
    /// No two verifiers of a process have the same.
    generation: u64,
}

/// What a token says, verified, and for how long it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    claims: Arc<Map<String, Value>>,
    /// In seconds since 1970, leeway included: from this moment …
    from: f64,
    /// … until before this one.
    until: f64,
}

impl Claims {
    /// The claims, as the token has them.
    pub fn as_map(&self) -> &Arc<Map<String, Value>> {
        &self.claims
    }

    /// Whether they hold at this moment.
    ///
    /// # Errors
    /// [`JwtError::Expired`] and [`JwtError::NotYetValid`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), JwtError> {
        let now = seconds(now);
        if now >= self.until {
            Err(JwtError::Expired)
        } else if now < self.from {
            Err(JwtError::NotYetValid)
        } else {
            Ok(())
        }
    }
}

impl Verifier {
    /// Makes a provider's rules ready, with the text of its key set (RFC 7517 §5). To be done when either changes.
    ///
    /// # Errors
    /// [`JwksError`] when no key can be used. What is to be done then is to take no token of the provider.
    pub fn compile(provider: &JwtProvider, jwks: &str) -> Result<Self, JwksError> {
        static GENERATION: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            issuer: provider.issuer.clone(),
            audiences: provider.audiences.clone(),
            leeway: provider.leeway.duration(),
            keys: Keys::parse(jwks)?,
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// The keys that are left out, to be told to the operator.
    pub fn skipped_keys(&self) -> &[SkippedKey] {
        self.keys.skipped()
    }

    /// Verifies a token (RFC 7515 §5.2, RFC 7519 §7.2): the signature first, then the claims.
    ///
    /// # Errors
    /// The first reason not to take it.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, JwtError> {
        if token.len() > MOST_TOKEN_BYTES {
            return Err(JwtError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) =
            message.split_once('.').filter(|(_, payload)| !payload.contains('.')).ok_or(JwtError::Malformed)?;
        let header = object(header)?;
        if header.contains_key("crit") {
            return Err(JwtError::CriticalHeader);
        }
        let algorithm = text(&header, "alg", JwtError::Malformed)?.ok_or(JwtError::Malformed)?;
        let algorithm = Algorithm::named(algorithm).ok_or(JwtError::Algorithm)?;
        let kid = text(&header, "kid", JwtError::Malformed)?;
        self.keys.verify(kid, algorithm, message.as_bytes(), &decoded(signature)?)?;
        self.judge(object(payload)?, now)
    }

    /// As [`Self::verify`], but what was verified before is only compared with the clock.
    ///
    /// # Errors
    /// The first reason not to take it.
    pub fn verify_cached(&self, token: &str, now: SystemTime, cache: &mut TokenCache) -> Result<Claims, JwtError> {
        if token.len() > MOST_TOKEN_BYTES {
            return Err(JwtError::TooLong);
        }
        let key = TokenCache::key(self.generation, token);
        if let Some(known) = cache.get(&key) {
            return known.check_time(now).map(|()| known);
        }
        let claims = self.verify(token, now)?;
        cache.insert(key, token.len(), claims.clone());
        Ok(claims)
    }

    /// The claims that RFC 7519 §4.1 gives a meaning.
    fn judge(&self, claims: Map<String, Value>, now: SystemTime) -> Result<Claims, JwtError> {
        if text(&claims, "iss", JwtError::ClaimType)? != Some(self.issuer.as_str()) {
            return Err(JwtError::Issuer);
        }
        self.judge_audience(&claims)?;
        let leeway = self.leeway.as_secs_f64();
        let until = date(&claims, "exp")?.ok_or(JwtError::NoExpiry)? + leeway;
        let from = date(&claims, "nbf")?.map_or(0.0, |from| from - leeway);
        if date(&claims, "iat")?.is_some_and(|issued| issued > seconds(now) + leeway + FAR_FUTURE.as_secs_f64()) {
            return Err(JwtError::IssuedInFuture);
        }
        let claims = Claims { claims: Arc::new(claims), from, until };
        claims.check_time(now)?;
        Ok(claims)
    }

    fn judge_audience(&self, claims: &Map<String, Value>) -> Result<(), JwtError> {
        if self.audiences.is_empty() {
            return Ok(());
        }
        let is_ours = |one: &str| self.audiences.iter().any(|audience| audience == one);
        let is_for_us = match claims.get("aud") {
            None => false,
            Some(Value::String(one)) => is_ours(one),
            Some(Value::Array(all)) if all.iter().all(Value::is_string) => all.iter().filter_map(Value::as_str).any(is_ours),
            Some(_) => return Err(JwtError::ClaimType),
        };
        if is_for_us { Ok(()) } else { Err(JwtError::Audience) }
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, JwtError> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwtError::Malformed)
}

fn object(part: &str) -> Result<Map<String, Value>, JwtError> {
    json::object(&decoded(part)?).map_err(|error| match error {
        JsonError::DuplicateName => JwtError::DuplicateName,
        JsonError::Malformed(_) => JwtError::Malformed,
    })
}

fn text<'o>(object: &'o Map<String, Value>, name: &str, wrong_type: JwtError) -> Result<Option<&'o str>, JwtError> {
    object.get(name).map(|value| value.as_str().ok_or(wrong_type)).transpose()
}

/// A NumericDate: seconds since 1970, whole or not (RFC 7519 §2).
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, JwtError> {
    claims.get(name).map(|value| value.as_f64().ok_or(JwtError::ClaimType)).transpose()
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
