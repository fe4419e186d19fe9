//! The public keys of a provider (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use data_encoding::BASE64URL_NOPAD;
use postern_traffic::settings::JWKS_LIMIT;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::error::{JwksError, JwtError, KeyError, SkippedKey};
use super::json::{self, JsonError};

/// Most bytes of a key set: what the control plane takes.
pub const MOST_JWKS_BYTES: usize = JWKS_LIMIT;
/// Most keys of a set: a token without `kid` is tried with each that fits.
pub const MOST_KEYS: usize = 64;

/// The keys of a set that can verify tokens, each once for each algorithm that it may be used with.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
    skipped: Vec<SkippedKey>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    public: ParsedPublicKey,
}

impl Keys {
    /// From the text of a key set. Keys that are not understood or not for signatures are left out; a set without keys is
    /// one that takes no token.
    pub fn parse(text: &str) -> Result<Self, JwksError> {
        if text.is_empty() {
            return Err(JwksError::Absent);
        }
        if text.len() > MOST_JWKS_BYTES {
            return Err(JwksError::TooLong);
        }
        let set = json::object(text.as_bytes()).map_err(|error| JwksError::Malformed {
            why: match error {
                JsonError::DuplicateName => "a name stands twice".into(),
                JsonError::Malformed(why) => why,
            },
        })?;
        let Some(Value::Array(members)) = set.get("keys") else {
            return Err(JwksError::Malformed { why: "keys is no array".into() });
        };
        if members.len() > MOST_KEYS {
            return Err(JwksError::TooManyKeys { keys: members.len() });
        }
        let mut all = Self { keys: Vec::new(), skipped: Vec::new() };
        for (index, member) in members.iter().enumerate() {
            match Jwk::read(member) {
                Ok(keys) => all.keys.extend(keys),
                Err(why) => {
                    let kid = member.get("kid").and_then(Value::as_str).map(str::to_owned);
                    all.skipped.push(SkippedKey { index, kid, why });
                }
            }
        }
        match all.skipped.first() {
            Some(first) if all.keys.is_empty() => Err(JwksError::NoUsableKey { first: first.clone() }),
            _ => Ok(all),
        }
    }

    /// The keys that were left out.
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    /// Whether `signature` is by a key that fits. Keys with another `kid` do not; where either side has none, all do
    /// (RFC 7515 §4.1.4).
    pub fn verify(&self, kid: Option<&str>, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), JwtError> {
        let has_kid = |key: &&Key| kid.is_none() || key.kid.is_none() || key.kid.as_deref() == kid;
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm).filter(has_kid).peekable();
        fitting.peek().ok_or(JwtError::UnknownKey)?;
        let is_verified = fitting.any(|key| key.public.verify_sig(message, signature).is_ok());
        if is_verified { Ok(()) } else { Err(JwtError::Signature) }
    }
}

/// A member of a key set.
struct Jwk<'j>(&'j Map<String, Value>);

impl Jwk<'_> {
    fn read(member: &Value) -> Result<Vec<Key>, KeyError> {
        let jwk = Jwk(member.as_object().ok_or(KeyError::Member)?);
        let kind = jwk.text("kty")?.ok_or(KeyError::Member)?;
        if ["d", "p", "q", "dp", "dq", "qi", "oth"].iter().any(|name| jwk.0.contains_key(*name)) {
            return Err(KeyError::Private);
        }
        jwk.refuse_other_purposes()?;
        let wanted = match jwk.text("alg")? {
            Some(name) => Some(Algorithm::named(name).ok_or(KeyError::Algorithm)?),
            None => None,
        };
        let fits = |algorithm: &Algorithm| wanted.is_none_or(|wanted| wanted == *algorithm);
        let algorithms: Vec<Algorithm> = match (kind, jwk.text("crv")?) {
            ("RSA", _) => Algorithm::RSA.into_iter().filter(fits).collect(),
            ("EC", Some("P-256")) => Some(Algorithm::Es256).filter(fits).into_iter().collect(),
            ("EC", Some("P-384")) => Some(Algorithm::Es384).filter(fits).into_iter().collect(),
            ("OKP", Some("Ed25519")) => Some(Algorithm::EdDsa).filter(fits).into_iter().collect(),
            _ => return Err(KeyError::Kind),
        };
        if algorithms.is_empty() {
            return Err(KeyError::Algorithm);
        }
        let kid = jwk.text("kid")?;
        let key = |algorithm| {
            let public = jwk.public_key(algorithm)?;
            Ok(Key { kid: kid.map(str::to_owned), algorithm, public })
        };
        algorithms.into_iter().map(key).collect()
    }

    /// `use` is `sig` and `key_ops` has `verify`, where they are there (RFC 7517 §4.2, §4.3).
    fn refuse_other_purposes(&self) -> Result<(), KeyError> {
        if self.text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(KeyError::Purpose);
        }
        match self.0.get("key_ops") {
            None => Ok(()),
            Some(Value::Array(operations)) if operations.iter().any(|one| one == "verify") => Ok(()),
            Some(Value::Array(_)) => Err(KeyError::Purpose),
            Some(_) => Err(KeyError::Member),
        }
    }

    fn public_key(&self, algorithm: Algorithm) -> Result<ParsedPublicKey, KeyError> {
        if let Some(parameters) = algorithm.rsa() {
            let (n, e) = (self.number("n")?, self.number("e")?);
            if !(2_048..=8_192).contains(&bits(&n)) {
                return Err(KeyError::Size);
            }
            return RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).map_err(|_| KeyError::Value);
        }
        let bytes = match algorithm {
            Algorithm::Es256 => self.point(32)?,
            Algorithm::Es384 => self.point(48)?,
            _ => self.coordinate("x", 32)?,
        };
        let curve = algorithm.curve().ok_or(KeyError::Kind)?;
        ParsedPublicKey::new(curve, bytes).map_err(|_| KeyError::Value)
    }

    /// Both coordinates as an uncompressed point (SEC 1 §2.3.3).
    fn point(&self, length: usize) -> Result<Vec<u8>, KeyError> {
        Ok([vec![4], self.coordinate("x", length)?, self.coordinate("y", length)?].concat())
    }

    /// Its length is part of its meaning (RFC 7518 §6.2.1.2).
    fn coordinate(&self, name: &str, length: usize) -> Result<Vec<u8>, KeyError> {
        self.bytes(name).and_then(|bytes| if bytes.len() == length { Ok(bytes) } else { Err(KeyError::Value) })
    }

    /// A number without the zeros that some issuers write before it.
    fn number(&self, name: &str) -> Result<Vec<u8>, KeyError> {
        let bytes = self.bytes(name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok(bytes[zeros..].to_vec())
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, KeyError> {
        let text = self.text(name)?.ok_or(KeyError::Member)?;
        BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| KeyError::Value)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, KeyError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(KeyError::Member),
        }
    }
}

/// How many bits a number without leading zero bytes has.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}
