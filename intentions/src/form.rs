//! The flat form of intentions in files and in the HTTP API.
//!
//! Defaults are left out when written; unknown keys are refused when read.

use std::collections::BTreeMap;
use std::time::SystemTime;

use postern_names::PortName;
use serde::{Deserialize, Serialize};

use crate::error::{IntentionError, shown};
use crate::permission::{
    ClaimCriterion, ClaimMatch, HeaderCriterion, JwtCriterion, PathCriterion, Permission, QueryCriterion, TextMatch,
};
use crate::{Action, Intention, Mode, Party, Rule, timestamp};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IntentionForm {
    source: Party,
    destination: Party,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<Action>,
    #[serde(default, skip_serializing_if = "is_default")]
    mode: Mode,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::option")]
    expires_at: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<Permission>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    otherwise: Option<Action>,
}

impl TryFrom<IntentionForm> for Intention {
    type Error = IntentionError;

    fn try_from(form: IntentionForm) -> Result<Self, IntentionError> {
        let intention = Self {
            source: form.source,
            destination: form.destination,
            rule: rule(form.action, form.permissions, form.otherwise)?,
            mode: form.mode,
            expires_at: form.expires_at,
            description: form.description,
            meta: form.meta,
        };
        intention.validate()?;
        Ok(intention)
    }
}

/// `action` or `permissions`, and `otherwise` with the latter only.
pub(crate) fn rule(
    action: Option<Action>,
    permissions: Option<Vec<Permission>>,
    otherwise: Option<Action>,
) -> Result<Rule, IntentionError> {
    match (action, permissions, otherwise) {
        (Some(_), Some(_), _) => Err(IntentionError::ActionAndPermissions),
        (None, None, _) => Err(IntentionError::NeitherActionNorPermissions),
        (Some(_), None, Some(_)) => Err(IntentionError::OtherwiseWithoutPermissions),
        (Some(action), None, None) => Ok(Rule::Action(action)),
        (None, Some(permissions), _) if permissions.is_empty() => Err(IntentionError::NoPermissions),
        (None, Some(permissions), otherwise) => {
            Ok(Rule::Permissions { permissions, otherwise: otherwise.unwrap_or(Action::Deny) })
        }
    }
}

impl From<Intention> for IntentionForm {
    fn from(intention: Intention) -> Self {
        let (action, permissions, otherwise) = match intention.rule {
            Rule::Action(action) => (Some(action), None, None),
            Rule::Permissions { permissions, otherwise } => {
                (None, Some(permissions), (otherwise != Action::Deny).then_some(otherwise))
            }
        };
        Self {
            source: intention.source,
            destination: intention.destination,
            action,
            mode: intention.mode,
            expires_at: intention.expires_at,
            description: intention.description,
            meta: intention.meta,
            permissions,
            otherwise,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PermissionForm {
    action: Action,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_exact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_regex: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderCriterion>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    query: Vec<QueryCriterion>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    jwt: Vec<JwtCriterion>,
}

impl TryFrom<PermissionForm> for Permission {
    type Error = IntentionError;

    fn try_from(form: PermissionForm) -> Result<Self, IntentionError> {
        let permission = Self {
            action: form.action,
            methods: form.methods,
            path: path(form.path_exact, form.path_prefix, form.path_regex)?,
            headers: form.headers,
            query: form.query,
            ports: form.ports,
            jwt: form.jwt,
        };
        permission.validate()?;
        Ok(permission)
    }
}

/// At most one of the three.
pub(crate) fn path(
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
) -> Result<Option<PathCriterion>, IntentionError> {
    let mut given = [exact.map(PathCriterion::Exact), prefix.map(PathCriterion::Prefix), regex.map(PathCriterion::Regex)]
        .into_iter()
        .flatten();
    let path = given.next();
    if given.next().is_some() { Err(IntentionError::PathCriteria) } else { Ok(path) }
}

impl From<Permission> for PermissionForm {
    fn from(permission: Permission) -> Self {
        let (path_exact, path_prefix, path_regex) = match permission.path {
            None => (None, None, None),
            Some(PathCriterion::Exact(text)) => (Some(text), None, None),
            Some(PathCriterion::Prefix(text)) => (None, Some(text), None),
            Some(PathCriterion::Regex(text)) => (None, None, Some(text)),
        };
        Self {
            action: permission.action,
            methods: permission.methods,
            path_exact,
            path_prefix,
            path_regex,
            headers: permission.headers,
            query: permission.query,
            ports: permission.ports,
            jwt: permission.jwt,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderForm {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) present: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) suffix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) contains: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) regex: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) invert: bool,
}

impl HeaderForm {
    const WAYS: &'static str = "present, exact, prefix, suffix, contains and regex";
}

impl TryFrom<HeaderForm> for HeaderCriterion {
    type Error = IntentionError;

    fn try_from(form: HeaderForm) -> Result<Self, IntentionError> {
        // Header names do not depend on case (RFC 9110 §5.1); they are kept in the case in which they are looked up.
        let name = form.name.to_ascii_lowercase();
        let ways = [
            present(form.present)?,
            form.exact.map(TextMatch::Exact),
            form.prefix.map(TextMatch::Prefix),
            form.suffix.map(TextMatch::Suffix),
            form.contains.map(TextMatch::Contains),
            form.regex.map(TextMatch::Regex),
        ];
        let matches = only(ways)
            .ok_or_else(|| IntentionError::Matches { of: format!("header {}", shown(&name)), expected: HeaderForm::WAYS })?;
        let criterion = Self { name, matches, invert: form.invert };
        criterion.validate()?;
        Ok(criterion)
    }
}

impl From<HeaderCriterion> for HeaderForm {
    fn from(criterion: HeaderCriterion) -> Self {
        let mut form = Self { name: criterion.name, invert: criterion.invert, ..Self::default() };
        match criterion.matches {
            TextMatch::Present => form.present = Some(true),
            TextMatch::Exact(text) => form.exact = Some(text),
            TextMatch::Prefix(text) => form.prefix = Some(text),
            TextMatch::Suffix(text) => form.suffix = Some(text),
            TextMatch::Contains(text) => form.contains = Some(text),
            TextMatch::Regex(text) => form.regex = Some(text),
        }
        form
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryForm {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) present: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exact: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) regex: Option<String>,
}

impl QueryForm {
    pub(crate) const WAYS: &'static str = "present, exact and regex";
}

impl TryFrom<QueryForm> for QueryCriterion {
    type Error = IntentionError;

    fn try_from(form: QueryForm) -> Result<Self, IntentionError> {
        let ways = [present(form.present)?, form.exact.map(TextMatch::Exact), form.regex.map(TextMatch::Regex)];
        let matches = only(ways)
            .ok_or_else(|| IntentionError::Matches { of: format!("query {}", shown(&form.name)), expected: QueryForm::WAYS })?;
        let criterion = Self { name: form.name, matches };
        criterion.validate()?;
        Ok(criterion)
    }
}

impl From<QueryCriterion> for QueryForm {
    fn from(criterion: QueryCriterion) -> Self {
        let mut form = Self { name: criterion.name, ..Self::default() };
        match criterion.matches {
            TextMatch::Present => form.present = Some(true),
            TextMatch::Exact(text) => form.exact = Some(text),
            TextMatch::Regex(text) => form.regex = Some(text),
            // Never valid; written without a match, it is refused by whoever reads it.
            TextMatch::Prefix(_) | TextMatch::Suffix(_) | TextMatch::Contains(_) => {}
        }
        form
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimForm {
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) equals: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) contains: Option<String>,
}

impl TryFrom<ClaimForm> for ClaimCriterion {
    type Error = IntentionError;

    fn try_from(form: ClaimForm) -> Result<Self, IntentionError> {
        let ways = [form.equals.map(ClaimMatch::Equals), form.contains.map(ClaimMatch::Contains)];
        let matches = only(ways).ok_or_else(|| IntentionError::Matches {
            of: format!("claim {}", shown(&form.path)),
            expected: "equals and contains",
        })?;
        let criterion = Self { path: form.path, matches };
        criterion.validate()?;
        Ok(criterion)
    }
}

impl From<ClaimCriterion> for ClaimForm {
    fn from(criterion: ClaimCriterion) -> Self {
        let (equals, contains) = match criterion.matches {
            ClaimMatch::Equals(text) => (Some(text), None),
            ClaimMatch::Contains(text) => (None, Some(text)),
        };
        Self { path: criterion.path, equals, contains }
    }
}

fn present(given: Option<bool>) -> Result<Option<TextMatch>, IntentionError> {
    match given {
        None => Ok(None),
        Some(true) => Ok(Some(TextMatch::Present)),
        Some(false) => Err(IntentionError::NotPresent),
    }
}

/// The one that is given, if exactly one is.
fn only<T, const N: usize>(ways: [Option<T>; N]) -> Option<T> {
    let mut given = ways.into_iter().flatten();
    let first = given.next()?;
    given.next().is_none().then_some(first)
}
