//! Whom a request may be addressed to, and which web page it may come from.
//!
//! A page in a browser of this machine can send requests to loopback. DNS rebinding shows in the Host header, which then
//! is the name of the page; a cross-site request shows in Origin.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};

use super::error::ApiError;

/// The names that this control plane answers to, beside loopback names and IP literals.
#[derive(Debug, Clone, Default)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// `names` may begin with `*.`, as in a certificate.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| canonical(&name)).filter(|name| !name.is_empty()).collect())
    }

    fn accepts(&self, host: &str) -> bool {
        let host = canonical(host);
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
        if host == "localhost" || literal.parse::<IpAddr>().is_ok() {
            return true;
        }
        self.0.iter().any(|name| match name.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == domain),
            None => *name == host,
        })
    }

    /// Refuses a request that is addressed to somebody else, or sent by a page of somebody else.
    ///
    /// # Errors
    /// 400 without exactly one valid Host, 403 for a foreign Host or Origin.
    pub fn check(&self, parts: &Parts) -> Result<(), ApiError> {
        let host = addressed_to(&parts.uri, &parts.headers)?;
        if !self.accepts(host.host()) {
            let error = format!("Host {:?} is not a name of this control plane", shown(host.as_str()));
            return Err(ApiError::new(StatusCode::FORBIDDEN, error)
                .hint("address it by IP, as localhost, by its host name, or by a name in --http-cert"));
        }
        check_origin(&parts.headers, Some(&host))
    }
}

/// Refuses a page of somebody else; for a UNIX socket, where Host means nothing, every page.
pub fn check_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), ApiError> {
    for origin in headers.get_all(header::ORIGIN) {
        let own =
            origin.to_str().ok().and_then(authority_of_origin).is_some_and(|origin| host.is_some_and(|host| same(&origin, host)));
        if !own {
            let error =
                format!("requests from the page {:?} are not accepted", shown(&String::from_utf8_lossy(origin.as_bytes())));
            return Err(ApiError::new(StatusCode::FORBIDDEN, error)
                .hint("the API is for meshctl and for programs, not for other web pages"));
        }
    }
    Ok(())
}

fn addressed_to(uri: &Uri, headers: &HeaderMap) -> Result<Authority, ApiError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(ApiError::bad_request("a request has exactly one Host header"));
    };
    let host = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    let host = host.filter(|host| !host.as_str().contains('@'));
    let host = host.ok_or_else(|| ApiError::bad_request("the Host header is not HOST or HOST:PORT"))?;
    if uri.authority().is_some_and(|authority| !same(authority, &host)) {
        return Err(ApiError::bad_request("the request line and the Host header name different hosts"));
    }
    Ok(host)
}

fn authority_of_origin(origin: &str) -> Option<Authority> {
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))?;
    rest.parse().ok()
}

fn same(a: &Authority, b: &Authority) -> bool {
    canonical(a.host()) == canonical(b.host()) && a.port_u16() == b.port_u16()
}

fn canonical(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn check(uri: &str, headers: &[(&str, &str)]) -> Result<(), StatusCode> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let names = HostNames::new(["Mesh-1".to_owned(), "*.example.com".to_owned()]);
        names.check(&parts).map_err(|error| error.status())
    }

    #[test]
    fn loopback_names_literals_and_own_names_are_accepted() {
        for host in
            ["localhost:8500", "127.0.0.1:8500", "[::1]:8500", "10.1.2.3", "mesh-1:8500", "MESH-1.", "a.example.com", "localhost"]
        {
            assert_eq!(check("/v1/mesh", &[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_foreign_host_is_refused() {
        for host in
            ["evil.test", "localhost.evil.test", "example.com", "a.b.example.com", "mesh-1.evil.test", "127.0.0.1.evil.test"]
        {
            assert_eq!(check("/", &[("host", host)]), Err(StatusCode::FORBIDDEN), "{host}");
        }
    }

    #[test]
    fn exactly_one_valid_host_is_needed() {
        let refused = Err(StatusCode::BAD_REQUEST);
        assert_eq!(check("/", &[]), refused);
        assert_eq!(check("/", &[("host", "localhost"), ("host", "localhost")]), refused);
        assert_eq!(check("/", &[("host", "a@localhost")]), refused);
        assert_eq!(check("http://evil.test/", &[("host", "localhost")]), refused);
    }

    #[test]
    fn only_an_own_page_may_send() {
        let from = |origin| check("/", &[("host", "localhost:8500"), ("origin", origin)]);
        assert_eq!(from("http://localhost:8500"), Ok(()));
        for origin in [
            "http://evil.test",
            "null",
            "http://localhost:3000",
            "http://localhost",
            "file://",
            "http://localhost:8500.evil.test",
        ] {
            assert_eq!(from(origin), Err(StatusCode::FORBIDDEN), "{origin}");
        }
    }
}
