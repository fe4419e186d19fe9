//! The request target (RFC 9112 §3.2).

use super::PathRefused;

/// A request target, taken apart. The query is not part of the path; `#` and what follows is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    received: &'a str,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> RequestTarget<'a> {
    /// Takes a target apart: a path, an absolute URL whose authority is `host` (in any case of letters), or `*` of
    /// OPTIONS. `host` is the value of Host, or of `:authority` in HTTP/2.
    ///
    /// # Errors
    /// [`PathRefused::Connect`], [`PathRefused::NoPath`] and [`PathRefused::OtherAuthority`].
    pub fn read(method: &str, target: &'a str, host: Option<&str>) -> Result<Self, PathRefused> {
        if method == "CONNECT" {
            return Err(PathRefused::Connect);
        }
        let whole = target.split_once('#').map_or(target, |(before, _)| before);
        let (start, query) = whole.split_once('?').map_or((whole, None), |(start, query)| (start, Some(query)));
        let path = if start.starts_with('/') {
            start
        } else if start == "*" {
            let is_asked_of_the_server = method == "OPTIONS" && query.is_none();
            is_asked_of_the_server.then_some(start).ok_or(PathRefused::NoPath)?
        } else {
            match path_of_absolute(start, host)? {
                // RFC 9112 §3.2.4
                "" if method == "OPTIONS" && query.is_none() => "*",
                "" => "/",
                path => path,
            }
        };
        Ok(Self { received: target, path, query })
    }

    /// The path as received, beginning with `/`, or `*`.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// What follows `?`, as received.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The target with this path instead, unless that is what was received.
    pub(super) fn with_path(&self, path: &str) -> Option<String> {
        let query_length = self.query.map_or(0, |query| query.len() + 1);
        let is_as_received = self.received.starts_with(path) && self.received.len() == path.len() + query_length;
        (!is_as_received).then(|| match self.query {
            Some(query) => [path, "?", query].concat(),
            None => path.to_owned(),
        })
    }
}

/// What follows the authority in `http://authority…`.
fn path_of_absolute<'a>(target: &'a str, host: Option<&str>) -> Result<&'a str, PathRefused> {
    let (scheme, rest) = target.split_once("://").ok_or(PathRefused::NoPath)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(PathRefused::NoPath);
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let is_host = !authority.is_empty() && host.is_some_and(|host| host.eq_ignore_ascii_case(authority));
    if is_host { Ok(path) } else { Err(PathRefused::OtherAuthority) }
}
