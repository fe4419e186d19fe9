//! Another path in place of the one that was matched.

use http::uri::PathAndQuery;

use super::RoutingError;
use crate::matching::PathRule;

/// A rewrite, ready to apply: to the prefix that was matched, or to the whole path.
#[derive(Debug, Clone)]
pub(crate) struct Rewrite {
    replaced: Replaced,
    by: String,
}

#[derive(Debug, Clone)]
enum Replaced {
    All,
    Prefix(String),
}

impl Rewrite {
    /// # Errors
    /// A rewrite of a path that was not matched by `path_prefix` or `path_exact`, and one that no path can be.
    pub(crate) fn compile(by: &str, matched: Option<&PathRule>) -> Result<Self, RoutingError> {
        let replaced = match matched {
            Some(PathRule::Exact(_)) => Replaced::All,
            Some(PathRule::Prefix(prefix)) => Replaced::Prefix(prefix.clone()),
            None => return Err(RoutingError::RewriteOfWhat { rewrite: by.to_owned() }),
        };
        let is_path = by.starts_with('/') && !by.contains("//") && !by.contains(['?', '#', '\\']);
        let is_resolved = !by.split('/').any(|segment| segment == "." || segment == "..");
        if is_path && is_resolved && by.is_ascii() && by.parse::<PathAndQuery>().is_ok() {
            Ok(Self { replaced, by: by.to_owned() })
        } else {
            Err(RoutingError::Rewrite { rewrite: by.to_owned() })
        }
    }

    /// The path and query to send. Where the new prefix and the rest of the path meet there is one slash, whatever either
    /// has there; the rest and the query stay as they were sent.
    ///
    /// # Errors
    /// What was received is not a path and query; that of an [`http::Uri`] always is.
    pub(crate) fn apply(&self, path: &str, query: Option<&str>) -> Result<PathAndQuery, RoutingError> {
        let rest = match &self.replaced {
            Replaced::All => "",
            // Only paths that have the prefix are rewritten.
            Replaced::Prefix(prefix) => path.strip_prefix(prefix.as_str()).unwrap_or_default(),
        };
        let mut target = String::with_capacity(self.by.len() + 1 + rest.len() + query.map_or(0, |query| query.len() + 1));
        target.push_str(&self.by);
        let below = rest.trim_start_matches('/');
        if !below.is_empty() || !rest.is_empty() {
            target.truncate(target.trim_end_matches('/').len());
            target.push('/');
            target.push_str(below);
        }
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        PathAndQuery::try_from(target).map_err(|_| RoutingError::Target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::RequestMatcher;
    use crate::settings::RequestMatch;
    use proptest::prelude::*;

    fn rewrite(prefix: &str, by: &str) -> Result<Rewrite, RoutingError> {
        let matches = RequestMatch { path_prefix: Some(prefix.to_owned()), ..RequestMatch::default() };
        Rewrite::compile(by, RequestMatcher::compile(&matches).expect("a match").path())
    }

    fn applied(prefix: &str, by: &str, path: &str, query: Option<&str>) -> String {
        rewrite(prefix, by).expect("a rewrite").apply(path, query).expect("a target").to_string()
    }

    #[test]
    fn the_new_prefix_and_the_rest_meet_with_one_slash() {
        for (prefix, by, path, expected) in [
            ("/v1", "/v2", "/v1", "/v2"),
            ("/v1", "/v2", "/v1/x", "/v2/x"),
            ("/v1", "/v2/", "/v1/x", "/v2/x"),
            ("/v1", "/v2/", "/v1", "/v2/"),
            ("/v1", "/v2", "/v1/", "/v2/"),
            ("/v1", "/", "/v1", "/"),
            ("/v1", "/", "/v1/x", "/x"),
            ("/v1", "/", "/v1/", "/"),
            ("/v1", "/", "/v1//evil.example/x", "/evil.example/x"),
            ("/v1/", "/", "/v1/x", "/x"),
            ("/v1/", "/v2", "/v1/x", "/v2/x"),
            ("/", "/v2", "/x", "/v2/x"),
            ("/", "/v2", "/", "/v2"),
            ("/v1", "/v2", "/v1/a//b%2F", "/v2/a//b%2F"),
        ] {
            assert_eq!(applied(prefix, by, path, None), expected, "{prefix} to {by} of {path}");
        }
    }

    #[test]
    fn what_no_path_can_be_is_refused() {
        for by in ["", "v2", "/a?b", "/a#b", "/a//b", "/a/../b", "/.", "/a b", "/ä", "//host/x", "/a\\b"] {
            assert!(matches!(rewrite("/v1", by), Err(RoutingError::Rewrite { .. })), "{by}");
        }
    }

    proptest! {
        #[test]
        fn no_slash_is_doubled_and_no_query_is_lost(
            prefix in "(/[a-z]{1,3}){1,2}/?", by in "/|(/[a-z]{1,3}){1,2}/?", below in "([a-z]{1,3}(/[a-z]{1,3}){0,2}/?)?", query in prop::option::of("[a-z=&/?]{0,9}"),
        ) {
            let path = if below.is_empty() { prefix.clone() } else { format!("{}/{below}", prefix.trim_end_matches('/')) };
            let target = applied(&prefix, &by, &path, query.as_deref());
            let (path, kept) = target.split_once('?').map_or((target.as_str(), None), |(path, kept)| (path, Some(kept)));
            prop_assert_eq!(kept, query.as_deref());
            prop_assert!(!path.contains("//"), "{}", path);
            prop_assert!(path.starts_with(by.trim_end_matches('/')) && path.ends_with(&below), "{}", path);
        }
    }
}
