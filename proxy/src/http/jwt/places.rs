//! Where a request carries its tokens.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};
use postern_traffic::settings::{JwtProvider, TokenPlace};
use smallvec::SmallVec;

/// The tokens of one provider in a request; rarely more than one.
pub type Found<'r> = SmallVec<[&'r str; 2]>;

/// The places where a provider's tokens are looked for, made ready.
#[derive(Debug)]
pub struct Places(Vec<Place>);

#[derive(Debug)]
enum Place {
    Header { name: HeaderName, prefix: String },
    Cookie(String),
    Query(String),
}

impl Places {
    /// The places that a provider names; without any, `Authorization: Bearer` (RFC 6750 §2.1). A header name that no
    /// request can have is no place.
    pub fn of(provider: &JwtProvider) -> Self {
        if provider.from.is_empty() {
            return Self(vec![Place::Header { name: AUTHORIZATION, prefix: "Bearer ".into() }]);
        }
        let ready = |place: &TokenPlace| {
            Some(match place {
                TokenPlace::Header { name, prefix } => Place::Header { name: name.parse().ok()?, prefix: prefix.clone() },
                TokenPlace::Cookie(name) => Place::Cookie(name.clone()),
                TokenPlace::Query(name) => Place::Query(name.clone()),
            })
        };
        Self(provider.from.iter().filter_map(ready).collect())
    }

    /// Every token in these places, in their order. What cannot be read as text is given as an empty text, which is no
    /// valid token: a service that does read it must not get it unverified.
    pub fn find<'r>(&self, headers: &'r HeaderMap, query: Option<&'r str>) -> Found<'r> {
        let mut found = Found::new();
        for place in &self.0 {
            match place {
                Place::Header { name, prefix } => {
                    found.extend(headers.get_all(name).iter().filter_map(|value| after_prefix(value.as_bytes(), prefix)));
                }
                Place::Cookie(name) => found.extend(cookies(headers).filter_map(|cookie| value_of_cookie(cookie, name))),
                Place::Query(name) => found.extend(values_in_query(query, name)),
            }
        }
        found
    }

    /// Takes the headers and cookies away in which tokens were looked for. The query stays as it is.
    pub fn remove(&self, headers: &mut HeaderMap) {
        for place in &self.0 {
            match place {
                Place::Header { name, prefix } => remove_header(headers, name, prefix),
                Place::Cookie(name) => remove_cookie(headers, name),
                Place::Query(_) => {}
            }
        }
    }
}

/// Where the tokens of a provider are in a request: [`Places::find`], for one request.
pub fn find_token<'r>(provider: &JwtProvider, headers: &'r HeaderMap, query: Option<&'r str>) -> Found<'r> {
    Places::of(provider).find(headers, query)
}

/// What follows the prefix, in any case of letters as schemes are (RFC 9110 §11.1), and spaces.
fn after_prefix<'v>(value: &'v [u8], prefix: &str) -> Option<&'v str> {
    let (start, rest) = value.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix.as_bytes()).then(|| text(rest).trim_matches(' '))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Every `name=value` of every Cookie header; HTTP/2 may have many (RFC 9113 §8.2.3).
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
}

fn value_of_cookie<'c>(cookie: &'c [u8], wanted: &str) -> Option<&'c str> {
    let value = cookie.trim_ascii_start().strip_prefix(wanted.as_bytes())?.trim_ascii_start().strip_prefix(b"=")?;
    let value = text(value).trim_ascii();
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// The values of a parameter. No character of a token needs an escape, so a value is taken as it is; a name with escapes
/// is read, or a service would find a token that was not looked at.
fn values_in_query<'q>(query: Option<&'q str>, wanted: &str) -> impl Iterator<Item = &'q str> {
    query.unwrap_or_default().split('&').filter_map(move |pair| {
        let (name, value) = pair.split_once('=')?;
        is_named(name, wanted).then_some(value)
    })
}

fn is_named(name: &str, wanted: &str) -> bool {
    let mut rest = name.bytes();
    let mut wanted = wanted.bytes();
    loop {
        let byte = match rest.next() {
            Some(b'+') => Some(b' '),
            Some(b'%') => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
                    _ => return false,
                }
            }
            byte => byte,
        };
        match (byte, wanted.next()) {
            (None, None) => return true,
            (byte, wanted) if byte != wanted => return false,
            _ => {}
        }
    }
}

fn remove_header(headers: &mut HeaderMap, name: &HeaderName, prefix: &str) {
    let all = headers.get_all(name);
    if !all.iter().any(|value| after_prefix(value.as_bytes(), prefix).is_some()) {
        return;
    }
    let kept: Vec<HeaderValue> = all.iter().filter(|value| after_prefix(value.as_bytes(), prefix).is_none()).cloned().collect();
    replace(headers, name, kept);
}

fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    if !cookies(headers).any(|cookie| value_of_cookie(cookie, name).is_some()) {
        return;
    }
    let without = |value: &HeaderValue| {
        let kept: Vec<&[u8]> = value
            .as_bytes()
            .split(|byte| *byte == b';')
            .map(<[u8]>::trim_ascii)
            .filter(|cookie| !cookie.is_empty() && value_of_cookie(cookie, name).is_none())
            .collect();
        HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok().filter(|value| !value.is_empty())
    };
    let kept = headers.get_all(COOKIE).iter().filter_map(without).collect();
    replace(headers, &COOKIE, kept);
}

fn replace(headers: &mut HeaderMap, name: &HeaderName, values: Vec<HeaderValue>) {
    headers.remove(name);
    for value in values {
        headers.append(name, value);
    }
}
