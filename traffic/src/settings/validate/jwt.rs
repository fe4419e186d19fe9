//! Providers of tokens, and key sets (RFC 7517).

use postern_intentions::checks::check_text;
use serde_json::Value;

use super::super::{JwksSource, JwtProvider, TokenPlace};
use super::faults::{Checker, shown};
use super::headers::{check_cookie, check_name, check_parameter, is_reserved};
use crate::Period;

/// Bytes of a key set.
pub const JWKS_LIMIT: usize = 64 << 10;
const REFRESH: std::ops::RangeInclusive<Period> = Period::seconds(1)..=Period::seconds(86_400);
const LONGEST_LEEWAY: Period = Period::seconds(3_600);

/// Why a text is no set of public keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is larger than [`JWKS_LIMIT`].
    #[error("the key set is larger than 64 KiB; take out keys that are no longer used")]
    TooLarge,
    /// It is not what RFC 7517 §5 says.
    #[error("the key set is not valid: {0}; give a JSON object with a list `keys` (RFC 7517)")]
    NotValid(String),
    /// No key in it can verify a signature.
    #[error("the key set holds no key; give at least one of type RSA, EC or OKP")]
    Empty,
    /// A secret that would be sent to every sidecar, and by which each of them could sign.
    #[error("key {0} is symmetric (oct): whoever verifies with it can also sign; use a public key")]
    Symmetric(usize),
    /// The private half of a key.
    #[error("key {0} holds its private part: give the public one, and replace this key, for it has been seen")]
    Private(usize),
}

/// Checks a set of public keys, and gives how many of a known type it has. Types that are not known are passed over
/// (RFC 7517 §5).
///
/// # Errors
/// [`JwksError`].
pub fn check_jwks(text: &str) -> Result<usize, JwksError> {
    if text.len() > JWKS_LIMIT {
        return Err(JwksError::TooLarge);
    }
    let set: Value = serde_json::from_str(text).map_err(|error| JwksError::NotValid(error.to_string()))?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| JwksError::NotValid("it has no list `keys`".to_owned()))?;
    let mut known = 0;
    for (number, key) in keys.iter().enumerate() {
        let kind = key.get("kty").and_then(Value::as_str);
        match kind.ok_or_else(|| JwksError::NotValid(format!("key {number} has no kty")))? {
            "oct" => return Err(JwksError::Symmetric(number)),
            "RSA" | "EC" | "OKP" if key.get("d").is_some() => return Err(JwksError::Private(number)),
            "RSA" | "EC" | "OKP" => known += 1,
            _ => {}
        }
    }
    if known == 0 { Err(JwksError::Empty) } else { Ok(known) }
}

impl JwtProvider {
    pub(super) fn check(&self, checker: &mut Checker) {
        if self.issuer.is_empty() {
            checker.note_at("issuer", "issuer is empty", "give what `iss` must be");
        } else {
            checker.check("issuer", check_text("issuer", &self.issuer, 1024));
        }
        checker.within("audiences", |checker| {
            checker.at_most("audiences", self.audiences.len());
            checker.each(&self.audiences, |checker, audience| {
                if let Err(error) = check_text("an audience", audience, 1024) {
                    checker.error(error);
                }
            });
        });
        checker.within("jwks", |checker| check_source(checker, &self.jwks));
        checker.within("from", |checker| {
            checker.at_most("places", self.from.len());
            checker.each(&self.from, check_place);
        });
        checker.holds("leeway", self.leeway <= LONGEST_LEEWAY, "leeway is too long", "use at most 1h");
    }
}

fn check_source(checker: &mut Checker, source: &JwksSource) {
    match source {
        JwksSource::Inline(text) => checker.check("inline", check_jwks(text).map(|_| ())),
        JwksSource::File(path) => {
            checker.check("file", check_text("the path of a key set", path, 4096));
            let cure = "the control plane reads it: give its whole path there";
            checker.holds("file", path.starts_with('/'), "the path does not begin with /", cure);
        }
        JwksSource::Url { url, refresh } => checker.within("url", |checker| {
            if let Err(why) = check_url(url) {
                checker.note_at("url", format!("url {:?} {why}", shown(url)), "use https://HOST/PATH");
            }
            checker.holds("refresh", REFRESH.contains(refresh), "refresh is out of range", "use 1s to 1d");
        }),
    }
}

/// An https URL, or http on loopback, without user and fragment.
fn check_url(url: &str) -> Result<(), &'static str> {
    let (rest, is_plain) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return Err("is not https"),
    };
    if url.len() > 2048 || !url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'#')) {
        return Err("holds a character that no URL has, or is too long");
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("holds a user");
    }
    let host = host_of(authority).ok_or("has no valid host and port")?;
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    if is_plain && !is_loopback {
        return Err("is http, which only loopback may use: whoever can change the keys can be anyone");
    }
    Ok(())
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port = if port.is_empty() { "443" } else { port.strip_prefix(':')? };
    port.parse::<u16>().ok().filter(|port| *port != 0)?;
    (!host.is_empty() && host.len() <= 253).then_some(host)
}

fn check_place(checker: &mut Checker, place: &TokenPlace) {
    match place {
        TokenPlace::Header { name, prefix } => checker.within("header", |checker| {
            if is_reserved(name) {
                checker.note_at("name", format!("header {:?} carries no token", shown(name)), "use a header of the request");
            }
            checker.within("name", |checker| check_name(checker, name));
            let is_valid = prefix.len() <= 64 && prefix.bytes().all(|b| (b' '..=b'~').contains(&b));
            checker.holds("prefix", is_valid, "prefix is not valid", "use at most 64 printable ASCII characters");
        }),
        TokenPlace::Cookie(name) => checker.within("cookie", |checker| check_cookie(checker, name)),
        TokenPlace::Query(name) => checker.within("query", |checker| check_parameter(checker, name)),
    }
}
