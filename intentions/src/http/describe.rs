//! Permissions and their criteria in words, for explanations.

use std::fmt::Write as _;

use super::claims;
use super::permissions::{CompiledPermission, Criterion, Facts};
use crate::{ClaimCriterion, ClaimMatch, JwtCriterion, PathCriterion, TextMatch};

impl CompiledPermission {
    /// `deny GET, HEAD, path_prefix /admin, header x-team exact "green"`.
    pub(super) fn says(&self) -> String {
        let permission = &self.permission;
        let mut parts = vec![permission.action.to_string()];
        if !permission.methods.is_empty() {
            parts.push(permission.methods.join(", "));
        }
        parts.extend(permission.path.as_ref().map(path));
        parts.extend(permission.headers.iter().map(|header| {
            let inverted = if header.invert { "not " } else { "" };
            format!("header {} {inverted}{}", header.name, text(&header.matches))
        }));
        parts.extend(permission.query.iter().map(|query| format!("query {} {}", query.name, text(&query.matches))));
        if !permission.ports.is_empty() {
            parts.push(format!("ports {}", ports(permission)));
        }
        parts.extend(permission.jwt.iter().map(jwt));
        parts.join(", ")
    }

    /// Why this criterion of it does not hold: `method POST is not GET`.
    pub(super) fn why_not(&self, criterion: Criterion, facts: &Facts<'_>) -> String {
        let permission = &self.permission;
        match criterion {
            Criterion::Method => format!("method {} is not {}", facts.method, permission.methods.join(" or ")),
            Criterion::Port => format!("port {} is not {}", facts.port, ports(permission)),
            Criterion::Path => {
                let wanted = permission.path.as_ref().map(path).unwrap_or_default();
                format!("path {} is not {wanted}", facts.path)
            }
            Criterion::Header(at) => permission.headers.get(at).map_or_else(String::new, |header| {
                let is_absent = !facts.headers.contains_key(header.name.as_str());
                let inverted = if header.invert { "not " } else { "" };
                told(&format!("header {}", header.name), is_absent, &format!("{inverted}{}", text(&header.matches)))
            }),
            Criterion::Query(at) => permission.query.get(at).map_or_else(String::new, |query| {
                let is_absent = facts.parameters_of(&query.name).next().is_none();
                told(&format!("query {}", query.name), is_absent, &text(&query.matches))
            }),
            Criterion::Jwt(at) => permission.jwt.get(at).map_or_else(String::new, |jwt| why_no_token(jwt, facts)),
        }
    }
}

fn told(what: &str, is_absent: bool, wanted: &str) -> String {
    let state = if is_absent { "is absent" } else { "has a value that does not hold" };
    format!("{what} {state}: wanted {wanted}")
}

fn ports(permission: &crate::Permission) -> String {
    permission.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn path(criterion: &PathCriterion) -> String {
    match criterion {
        PathCriterion::Exact(path) => format!("path_exact {path}"),
        PathCriterion::Prefix(path) => format!("path_prefix {path}"),
        PathCriterion::Regex(pattern) => format!("path_regex {pattern}"),
    }
}

fn text(matches: &TextMatch) -> String {
    match matches {
        TextMatch::Present => "present".to_owned(),
        TextMatch::Exact(text) => format!("exact {text:?}"),
        TextMatch::Prefix(text) => format!("prefix {text:?}"),
        TextMatch::Suffix(text) => format!("suffix {text:?}"),
        TextMatch::Contains(text) => format!("contains {text:?}"),
        TextMatch::Regex(pattern) => format!("regex {pattern}"),
    }
}

fn jwt(criterion: &JwtCriterion) -> String {
    let mut words = format!("jwt of {}", criterion.provider);
    for one in &criterion.claims {
        // Writing to a String does not fail.
        let _ = write!(words, " with {}", claim(one));
    }
    words
}

fn claim(criterion: &ClaimCriterion) -> String {
    match &criterion.matches {
        ClaimMatch::Equals(text) => format!("{} equals {text:?}", criterion.path),
        ClaimMatch::Contains(text) => format!("{} contains {text:?}", criterion.path),
    }
}

fn why_no_token(criterion: &JwtCriterion, facts: &Facts<'_>) -> String {
    let provider = &criterion.provider;
    let Some(claims) = facts.tokens.of(provider) else { return format!("there is no verified token of {provider}") };
    let failed = criterion.claims.iter().find(|one| !claims::claim_holds(one, claims));
    format!("the token of {provider} lacks {}", failed.map(claim).unwrap_or_default())
}
