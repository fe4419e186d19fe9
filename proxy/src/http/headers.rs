//! Headers that a sidecar takes away and writes.
//!
//! Hop-by-hop headers go first (RFC 9110 §7.6.1), those that carry identity afterwards: or `Connection:
//! x-forwarded-client-cert` would take ours away further on.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use postern_ca::SpiffeId;
use smallvec::SmallVec;

/// What Envoy calls it, in Envoy's format: `By=<SPIFFE ID of the called service>;URI=<SPIFFE ID of the caller>`.
pub(crate) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// What decided, on answers of a destination's sidecar to its peer. It never leaves the mesh.
pub(crate) const DENIED: HeaderName = HeaderName::from_static("x-postern-denied");

/// On answers of the caller's own sidecar: a circuit breaker is open, and nothing was sent.
pub(crate) const OVERLOADED: HeaderName = HeaderName::from_static("x-postern-overloaded");

/// What becomes of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    HopByHop,
    Identity,
}

fn fate(name: &str) -> Fate {
    match name {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te"
        | "transfer-encoding"
        | "upgrade"
        | "http2-settings" => Fate::HopByHop,
        _ if is_identity(name) => Fate::Identity,
        _ => Fate::Stays,
    }
}

/// Whether a service would take this header for the mesh's word: some frameworks read `_` as `-`.
pub(crate) fn is_identity(name: &str) -> bool {
    let bytes = name.as_bytes();
    if !matches!(bytes, [b'x', b'-' | b'_', ..]) {
        return false;
    }
    let is_like = |ours: &str| {
        bytes.len() >= ours.len() && ours.bytes().zip(bytes).all(|(our, its)| our == *its || (our == b'-' && *its == b'_'))
    };
    (bytes.len() == "x-forwarded-client-cert".len() && is_like("x-forwarded-client-cert")) || is_like("x-postern-")
}

/// What the hop-by-hop headers of a message have said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The protocol that it wants to go on with, or has gone on with (RFC 9110 §7.8).
    pub(crate) upgrade: Option<HeaderValue>,
    /// Whether trailers are welcome (RFC 9110 §10.1.4).
    pub(crate) trailers: bool,
}

/// Takes hop-by-hop headers and those that carry identity away.
pub(crate) fn strip(headers: &mut HeaderMap) -> Said {
    let mut said = Said::default();
    let mut gone: SmallVec<[HeaderName; 4]> = SmallVec::new();
    for (name, value) in headers.iter() {
        match fate(name.as_str()) {
            Fate::Stays => continue,
            Fate::Identity => {}
            Fate::HopByHop if name == header::CONNECTION => {
                let Ok(options) = value.to_str() else { continue };
                for option in options.split(',').map(str::trim) {
                    if option.eq_ignore_ascii_case("upgrade") {
                        said.upgrade = headers.get(header::UPGRADE).cloned();
                    } else if let Ok(named) = option.parse::<HeaderName>()
                        && may_be_named(&named)
                    {
                        gone.push(named);
                    }
                }
            }
            Fate::HopByHop if name == header::TE => {
                said.trailers |=
                    value.to_str().is_ok_and(|te| te.split(',').any(|one| one.trim().eq_ignore_ascii_case("trailers")));
            }
            Fate::HopByHop => {}
        }
        if gone.last() != Some(name) {
            gone.push(name.clone());
        }
    }
    for name in gone {
        headers.remove(name);
    }
    said
}

/// `Connection` may not take away what a message cannot do without; hyper writes those anew.
fn may_be_named(name: &HeaderName) -> bool {
    !matches!(*name, header::HOST | header::CONTENT_LENGTH | header::CONTENT_TYPE | header::AUTHORIZATION)
}

/// Takes away what the service may not say in the mesh's name.
pub(crate) fn strip_identity(headers: &mut HeaderMap) {
    let gone: SmallVec<[HeaderName; 2]> = headers.keys().filter(|name| is_identity(name.as_str())).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// The value of [`CLIENT_CERT`].
pub(crate) fn client_cert(called: &SpiffeId, caller: &SpiffeId) -> Option<HeaderValue> {
    // A SPIFFE ID has no character that a header cannot hold.
    HeaderValue::try_from(format!("By={};URI={}", called.as_str(), caller.as_str())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().expect("name"), value.parse().expect("value"));
        }
        headers
    }

    #[test]
    fn headers_that_carry_identity_are_removed_however_they_are_spelled() {
        for name in [
            "x-forwarded-client-cert",
            "X-Forwarded-Client-Cert",
            "x_forwarded_client_cert",
            "x-forwarded_client-cert",
            "x-postern-denied",
            "x_postern_anything",
            "X-Postern_Source",
        ] {
            let mut headers = map(&[(name, "spoof"), ("accept", "*/*"), (name, "again")]);
            strip(&mut headers);
            assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"], "{name}");
        }
    }

    #[test]
    fn names_that_only_look_alike_stay() {
        for name in ["x-forwarded-client-certs", "x-forwarded-for", "x-postern", "xpostern-a", "my-x-postern-a"] {
            let mut headers = map(&[(name, "1")]);
            strip(&mut headers);
            assert_eq!(headers.len(), 1, "{name}");
        }
    }

    #[test]
    fn what_connection_names_goes_but_not_what_a_message_needs() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-mine, host, content-length"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("host", "api"),
            ("content-length", "3"),
            ("te", "trailers, deflate"),
        ]);
        let said = strip(&mut headers);
        assert_eq!(headers, map(&[("host", "api"), ("content-length", "3")]));
        assert_eq!(said, Said { upgrade: None, trailers: true });
    }

    #[test]
    fn an_upgrade_is_told() {
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("host", "api")]);
        assert_eq!(strip(&mut headers).upgrade.as_ref().map(HeaderValue::as_bytes), Some(&b"websocket"[..]));
        let mut alone = map(&[("upgrade", "websocket"), ("host", "api")]);
        assert_eq!(strip(&mut alone).upgrade, None, "without Connection: upgrade it means nothing");
    }
}
