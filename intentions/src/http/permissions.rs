//! The permissions of an intention, compiled.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;
use postern_names::PortName;

use super::path_rule::PathRule;
use super::text_rule::TextRule;
use super::{VerifiedTokens, claims, query};
use crate::error::{IntentionError, shown};
use crate::{Action, Intention, Permission};

/// The permissions of an intention, in their order, and what happens where none matches.
#[derive(Debug)]
pub(crate) struct Permissions {
    /// The intention that they are of.
    pub(crate) of: Arc<Intention>,
    pub(super) list: Box<[CompiledPermission]>,
    pub(super) otherwise: Action,
}

/// A permission, ready to match. The permission itself is kept for explanations.
#[derive(Debug)]
pub(super) struct CompiledPermission {
    pub(super) permission: Permission,
    path: Option<PathRule>,
    headers: Box<[(HeaderName, TextRule)]>,
    query: Box<[TextRule]>,
}

/// What of a request is judged, with one reading of its path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) port: &'a PortName,
    pub(super) headers: &'a HeaderMap,
    pub(super) tokens: &'a VerifiedTokens,
}

/// A criterion of a permission; of several of a kind, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Criterion {
    Method,
    Port,
    Path,
    Header(usize),
    Query(usize),
    Jwt(usize),
}

impl Permissions {
    /// # Errors
    /// The first criterion that is not valid.
    pub(crate) fn compile(of: &Arc<Intention>, list: &[Permission], otherwise: Action) -> Result<Self, IntentionError> {
        let list = list.iter().map(CompiledPermission::compile).collect::<Result<_, _>>()?;
        Ok(Self { of: Arc::clone(of), list, otherwise })
    }

    /// The first permission that matches, by its place.
    pub(super) fn first_match(&self, facts: &Facts<'_>) -> Option<(usize, Action)> {
        let first = self.list.iter().position(|permission| permission.first_failure(facts).is_none())?;
        Some((first, self.list[first].permission.action))
    }
}

impl CompiledPermission {
    pub(super) fn compile(permission: &Permission) -> Result<Self, IntentionError> {
        let header = |criterion: &crate::HeaderCriterion| {
            let name = HeaderName::from_bytes(criterion.name.as_bytes())
                .map_err(|_| IntentionError::HeaderName { given: shown(&criterion.name) })?;
            Ok((name, TextRule::compile(&criterion.matches)?))
        };
        Ok(Self {
            path: permission.path.as_ref().map(PathRule::compile).transpose()?,
            headers: permission.headers.iter().map(header).collect::<Result<_, IntentionError>>()?,
            query: permission.query.iter().map(|one| TextRule::compile(&one.matches)).collect::<Result<_, _>>()?,
            permission: permission.clone(),
        })
    }

    /// The first criterion that does not hold; none: the permission matches. The cheap ones are asked first.
    pub(super) fn first_failure(&self, facts: &Facts<'_>) -> Option<Criterion> {
        let Permission { action, methods, headers, query, ports, jwt, .. } = &self.permission;
        if !methods.is_empty() && !methods.iter().any(|method| is_method(*action, method, facts.method)) {
            return Some(Criterion::Method);
        }
        if !ports.is_empty() && !ports.contains(facts.port) {
            return Some(Criterion::Port);
        }
        if self.path.as_ref().is_some_and(|rule| !rule.matches(facts.path)) {
            return Some(Criterion::Path);
        }
        let header = |at: usize| self.headers.get(at).zip(headers.get(at));
        let fails = |at: &usize| {
            header(*at).is_none_or(|((name, rule), criterion)| !rule.holds(*action, criterion.invert, facts.values_of(name)))
        };
        if let Some(at) = (0..headers.len()).find(fails) {
            return Some(Criterion::Header(at));
        }
        let parameter = |at: usize| self.query.get(at).zip(query.get(at));
        let fails = |at: &usize| {
            parameter(*at).is_none_or(|(rule, criterion)| !rule.holds(*action, false, facts.parameters_of(&criterion.name)))
        };
        if let Some(at) = (0..query.len()).find(fails) {
            return Some(Criterion::Query(at));
        }
        jwt.iter().position(|criterion| !claims::holds(criterion, facts.tokens)).map(Criterion::Jwt)
    }
}

/// Methods depend on case (RFC 9110 §9.1); since a server may not know that, `get` is denied where GET is.
fn is_method(action: Action, wanted: &str, given: &str) -> bool {
    match action {
        Action::Allow => wanted == given,
        Action::Deny => wanted.eq_ignore_ascii_case(given),
    }
}

impl<'a> Facts<'a> {
    pub(super) fn values_of(&self, name: &HeaderName) -> impl Iterator<Item = Option<Cow<'a, str>>> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| std::str::from_utf8(value.as_bytes()).ok().map(Cow::Borrowed))
    }

    pub(super) fn parameters_of(&self, name: &str) -> impl Iterator<Item = Option<Cow<'a, str>>> {
        query::values(self.query, name)
    }
}
