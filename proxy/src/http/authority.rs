//! Whom a request is for, as each version of HTTP says it: checked when it comes, written when it goes.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version as HttpVersion};
use postern_names::ServiceName;

use super::body::Body;
use super::pool::Version;

/// HTTP/2 says the host in `:authority`; a `host` beside it must say the same, and neither names a user (RFC 9113 §8.3.1).
pub(crate) fn check_authority(head: &Parts) -> Result<(), &'static str> {
    if head.version != HttpVersion::HTTP_2 {
        // The reader of framing has seen to it.
        return Ok(());
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, authority) = (hosts.next(), head.uri.authority());
    if hosts.next().is_some() {
        return Err("there is more than one host");
    }
    let is_user_named = |text: &[u8]| text.contains(&b'@');
    if authority.is_some_and(|authority| is_user_named(authority.as_str().as_bytes()))
        || host.is_some_and(|host| is_user_named(host.as_bytes()))
    {
        return Err("the authority names a user");
    }
    match (authority, host) {
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err(":authority and host differ")
        }
        _ => Ok(()),
    }
}

/// What a request says of the host that it is for.
pub(crate) fn authority_of(head: &Parts) -> Option<HeaderValue> {
    let host = head.headers.get(header::HOST).cloned();
    host.or_else(|| head.uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok()))
}

/// Turns a request into one of the version of HTTP that is spoken next.
pub(crate) fn speak(request: &mut Request<Body>, version: Version, service: &ServiceName) -> Result<(), &'static str> {
    let (mut head, body) = std::mem::replace(request, Request::new(Body::empty())).into_parts();
    let host = authority_of(&head);
    let target = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    address(&mut head, version, target, host, service)?;
    *request = Request::from_parts(head, body);
    Ok(())
}

/// Writes target and host as the version of HTTP has them that is spoken next. A request without a host, which HTTP/1.0
/// knows, is for the service that is called.
pub(crate) fn address(
    head: &mut Parts,
    version: Version,
    target: PathAndQuery,
    host: Option<HeaderValue>,
    service: &ServiceName,
) -> Result<(), &'static str> {
    let host = host.or_else(|| HeaderValue::try_from(service.as_str()).ok());
    match version {
        Version::Http1 => {
            head.version = HttpVersion::HTTP_11;
            head.uri = Uri::from(target);
            if let Some(host) = host {
                head.headers.insert(header::HOST, host);
            }
        }
        Version::Http2 => {
            head.version = HttpVersion::HTTP_2;
            head.headers.remove(header::HOST);
            let authority = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(authority.ok_or("the host cannot be sent over HTTP/2")?);
            parts.path_and_query = Some(target);
            head.uri = Uri::from_parts(parts).map_err(|_| "the target cannot be sent over HTTP/2")?;
        }
    }
    Ok(())
}
