//! Which requests are meant: the `match` of routes and of rate limits.

use http::header::HeaderName;
use postern_intentions::{IntentionError, PathCriterion, RequestCriteria};

use crate::RequestHead;
use crate::settings::RequestMatch;

/// A [`RequestMatch`], ready to match. All that it says must hold; a repeated header or parameter must match in all of its
/// values, and one that is not UTF-8 matches nothing.
///
/// Methods, headers, query and regular expressions are matched as in permissions. `path_exact` and `path_prefix` are
/// compared with the path as it was sent, byte for byte: what a rewrite replaces is what was matched.
#[derive(Debug)]
pub struct RequestMatcher {
    path: Option<PathRule>,
    criteria: RequestCriteria,
}

/// Why a [`RequestMatch`] cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// More than one of `path_exact`, `path_prefix` and `path_regex`.
    #[error("a match has more than one of path_exact, path_prefix and path_regex; write one")]
    Paths,
    /// A path that no request has.
    #[error("no request has the path {path:?}; it begins with / and has no ?, #, space or non-ASCII letter")]
    Path {
        /// The path.
        path: String,
    },
    /// A name that no header can have.
    #[error("{name:?} is no header name (RFC 9110 §5.1)")]
    HeaderName {
        /// The name.
        name: String,
    },
    /// A criterion that permissions could not have either.
    #[error(transparent)]
    Criterion(#[from] IntentionError),
}

/// A path to compare with.
#[derive(Debug)]
pub(crate) enum PathRule {
    /// The whole path.
    Exact(String),
    /// The path, or one above it.
    Prefix(String),
}

impl RequestMatcher {
    /// Compiles regular expressions and reads header names.
    ///
    /// # Errors
    /// The first criterion that is not valid.
    pub fn compile(matches: &RequestMatch) -> Result<Self, MatchError> {
        let RequestMatch { methods, path_exact, path_prefix, path_regex, headers, query } = matches.clone();
        let (path, regex) = match (path_exact, path_prefix, path_regex) {
            (None, None, None) => (None, None),
            (Some(path), None, None) => (Some(PathRule::Exact(checked(path)?)), None),
            (None, Some(path), None) => (Some(PathRule::Prefix(checked(path)?)), None),
            (None, None, Some(pattern)) => (None, Some(PathCriterion::Regex(pattern))),
            _ => return Err(MatchError::Paths),
        };
        Ok(Self { path, criteria: RequestCriteria::compile(methods, regex, headers, query)? })
    }

    /// Whether the request is meant. The path is asked first: it is cheap, and most rules are told apart by it.
    pub fn matches(&self, request: &RequestHead<'_>) -> bool {
        self.path.as_ref().is_none_or(|path| path.matches(request.path))
            && self.criteria.hold(request.method, request.path, request.query, request.headers)
    }

    pub(crate) fn path(&self) -> Option<&PathRule> {
        self.path.as_ref()
    }
}

impl PathRule {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')),
        }
    }
}

fn checked(path: String) -> Result<String, MatchError> {
    let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if is_path { Ok(path) } else { Err(MatchError::Path { path }) }
}

pub(crate) fn header_name(name: &str) -> Result<HeaderName, MatchError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| MatchError::HeaderName { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;

    fn matcher(yaml: &str) -> Result<RequestMatcher, MatchError> {
        RequestMatcher::compile(&serde_yaml::from_str(yaml).expect("a match"))
    }

    fn meant(yaml: &str, method: &str, target: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.append("x-team", "green".parse().expect("a value"));
        headers.append("x-team", "greenish".parse().expect("a value"));
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        matcher(yaml).expect("valid").matches(&RequestHead { method, path, query, headers: &headers })
    }

    #[test]
    fn everything_that_is_given_must_hold_in_all_values() {
        assert!(meant("{}", "GET", "/"));
        assert!(meant("{methods: [GET, PUT], path_prefix: /v1, headers: [{name: X-Team, prefix: green}]}", "PUT", "/v1"));
        assert!(!meant("{methods: [GET, PUT], path_prefix: /v1, headers: [{name: X-Team, exact: green}]}", "PUT", "/v1"));
        assert!(!meant("{methods: [GET]}", "get", "/"));
        assert!(meant("{query: [{name: a b, exact: '1&2'}]}", "GET", "/?x=7&a+b=1%262"));
        assert!(!meant("{query: [{name: a, exact: '1'}]}", "GET", "/?a=1&a=2"));
        assert!(meant("{path_regex: '/item/[0-9]+'}", "GET", "/item/12"));
        assert!(!meant("{path_regex: '/item/[0-9]+'}", "GET", "/item/12/x"));
    }

    #[test]
    fn a_path_is_compared_as_it_was_sent() {
        assert!(meant("{path_exact: '/caf%c3%a9'}", "GET", "/caf%c3%a9"));
        assert!(!meant("{path_exact: '/caf%c3%a9'}", "GET", "/caf%C3%A9"));
        assert!(!meant("{path_prefix: /a}", "GET", "/%61/b"));
        assert!(!meant("{path_prefix: /a/b}", "GET", "/a//b"));
    }

    #[test]
    fn what_no_request_has_is_refused() {
        for yaml in [
            "path_exact: a",
            "path_prefix: ''",
            "path_prefix: '/a?b'",
            "path_exact: '/a b'",
            "path_exact: /ä",
            "path_exact: '/#'",
        ] {
            assert!(matches!(matcher(&format!("{{{yaml}}}")), Err(MatchError::Path { .. })), "{yaml}");
        }
        assert!(matches!(matcher("{methods: [get]}"), Err(MatchError::Criterion(_))));
    }

    proptest! {
        #[test]
        fn a_prefix_is_a_path_and_all_below_it(prefix in "(/[ab]{0,2}){1,3}", path in "(/[ab]{0,2}){1,4}") {
            // The naive model: cut the path at every slash.
            let above: Vec<&str> = path.match_indices('/').flat_map(|(at, _)| [&path[..at], &path[..=at]]).chain([path.as_str()]).collect();
            prop_assert_eq!(PathRule::Prefix(prefix.clone()).matches(&path), above.contains(&prefix.as_str()));
        }
    }
}
