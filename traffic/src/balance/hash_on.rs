//! What of a request consistent hashing goes by.

use std::net::IpAddr;

use http::header::{COOKIE, HeaderName};

use super::hash;
use crate::RequestHead;
use crate::matching::{MatchError, header_name};
use crate::settings::HashOn;

/// The `hash_on` of a balancer, ready to ask.
#[derive(Debug, Clone, Default)]
pub struct HashKeys(Box<[HashKey]>);

#[derive(Debug, Clone)]
enum HashKey {
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    Source,
}

impl HashKeys {
    /// Reads header names.
    ///
    /// # Errors
    /// [`MatchError::HeaderName`].
    pub fn compile(hash_on: &[HashOn]) -> Result<Self, MatchError> {
        let key = |on: &HashOn| {
            Ok(match on {
                HashOn::Header(name) => HashKey::Header(header_name(name)?),
                HashOn::Cookie(name) => HashKey::Cookie(name.as_str().into()),
                HashOn::Query(name) => HashKey::Query(name.as_str().into()),
                HashOn::Source(_) => HashKey::Source,
            })
        };
        hash_on.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// The hash of the first key that the request has; none: any instance will do. Values are hashed as they were sent,
    /// without decoding, and of several of one name the first. `source` is the process that called.
    ///
    /// The hash is XXH64 with seed 0, for an address of its 4 or 16 bytes: the same in every process and version.
    pub fn hash(&self, request: &RequestHead<'_>, source: IpAddr) -> Option<u64> {
        self.0.iter().find_map(|key| match key {
            HashKey::Header(name) => request.headers.get(name).map(|value| hash::of_key(value.as_bytes())),
            HashKey::Cookie(name) => cookie(request, name).map(hash::of_key),
            HashKey::Query(name) => parameter(request.query?, name).map(|value| hash::of_key(value.as_bytes())),
            HashKey::Source => Some(match source {
                IpAddr::V4(address) => hash::of_key(&address.octets()),
                IpAddr::V6(address) => hash::of_key(&address.octets()),
            }),
        })
    }
}

/// RFC 6265 §4.2.1; HTTP/2 may send several `cookie` lines (RFC 9113 §8.2.3).
fn cookie<'r>(request: &RequestHead<'r>, name: &str) -> Option<&'r [u8]> {
    let lines = request.headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
        (given == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SourceAddress;
    use http::{HeaderMap, HeaderValue};
    use std::net::Ipv4Addr;

    fn hash_on(keys: &[HashOn], headers: &HeaderMap, query: Option<&str>) -> Option<u64> {
        let keys = HashKeys::compile(keys).expect("keys");
        keys.hash(&RequestHead { method: "GET", path: "/", query, headers }, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)))
    }

    #[test]
    fn the_first_key_that_the_request_has_counts() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1; session=from-cookie"));
        headers.append("cookie", HeaderValue::from_static("b=2"));
        let keys = [
            HashOn::Header("X-User".to_owned()),
            HashOn::Cookie("session".to_owned()),
            HashOn::Query("id".to_owned()),
            HashOn::Source(SourceAddress::Address),
        ];
        let of = |key: &[u8]| Some(hash::of_key(key));
        assert_eq!(hash_on(&keys, &headers, Some("id=7")), of(b"from-cookie"));
        assert_eq!(hash_on(&keys[2..], &headers, Some("x=1&id=7&id=8")), of(b"7"));
        assert_eq!(hash_on(&keys[2..], &headers, Some("id")), of(b""));
        assert_eq!(hash_on(&keys[2..], &headers, Some("idea=7")), of(&[10, 0, 0, 7]));
        assert_eq!(hash_on(&keys[2..], &headers, None), of(&[10, 0, 0, 7]));
        assert_eq!(hash_on(&keys[2..3], &headers, None), None);
        assert_eq!(hash_on(&[HashOn::Cookie("b".to_owned())], &headers, None), of(b"2"));
        headers.insert("x-user", HeaderValue::from_static("anna"));
        assert_eq!(hash_on(&keys, &headers, None), of(b"anna"));
    }

    #[test]
    fn a_header_that_no_request_can_have_is_refused() {
        assert!(HashKeys::compile(&[HashOn::Header("x y".to_owned())]).is_err());
    }
}
