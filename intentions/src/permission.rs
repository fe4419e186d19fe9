//! Permissions: the rules on single HTTP requests inside an intention.

use postern_names::PortName;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::Action;
use crate::error::{IntentionError, shown};
use crate::form::{ClaimForm, HeaderForm, PermissionForm, QueryForm};
use crate::http::never_in_a_path;

/// Bytes that a compiled regular expression may take.
const REGEX_SIZE_LIMIT: usize = 1 << 20;
/// Bytes of a regular expression as text.
const REGEX_LENGTH_LIMIT: usize = 4096;
/// Bytes of a path or a value to match.
const TEXT_LIMIT: usize = 8192;
/// Criteria of one kind in a permission.
const CRITERIA_LIMIT: usize = 256;

/// One rule on requests. All criteria that are given must hold; one without criteria matches every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PermissionForm", into = "PermissionForm")]
pub struct Permission {
    /// What happens to a request that matches.
    pub action: Action,
    /// Upper-case tokens (RFC 9110 §9.1); empty: every method.
    pub methods: Vec<String>,
    /// The path without its query.
    pub path: Option<PathCriterion>,
    /// On headers.
    pub headers: Vec<HeaderCriterion>,
    /// On parameters of the query.
    pub query: Vec<QueryCriterion>,
    /// Ports of the destination; empty: every port.
    pub ports: Vec<PortName>,
    /// On tokens that the request carries.
    pub jwt: Vec<JwtCriterion>,
}

/// What the path must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathCriterion {
    /// The whole path.
    Exact(String),
    /// `/v1` is `/v1` and all below it, not `/v1x`; with a `/` at its end only what is below.
    Prefix(String),
    /// A regular expression for the whole path, matched in linear time.
    Regex(String),
}

/// What a header must be. A header name is lower case here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HeaderForm", into = "HeaderForm")]
pub struct HeaderCriterion {
    /// Lower case (RFC 9110 §5.1: names do not depend on case).
    pub name: String,
    /// How its values are matched.
    pub matches: TextMatch,
    /// Turns the result around, for each value and for absence.
    pub invert: bool,
}

/// What a parameter of the query must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "QueryForm", into = "QueryForm")]
pub struct QueryCriterion {
    /// Name of the parameter.
    pub name: String,
    /// `Present`, `Exact` or `Regex`.
    pub matches: TextMatch,
}

/// How a value is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// It is there, whatever it says.
    Present,
    /// It is this text.
    Exact(String),
    /// It begins with this text.
    Prefix(String),
    /// It ends with this text.
    Suffix(String),
    /// This text is in it.
    Contains(String),
    /// The whole value matches this regular expression.
    Regex(String),
}

/// A verified JSON Web Token (RFC 7519) of a provider, with these claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtCriterion {
    /// Name of the provider: a label.
    pub provider: String,
    /// All of them must hold; none: any token of the provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimCriterion>,
}

/// What a claim must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ClaimForm", into = "ClaimForm")]
pub struct ClaimCriterion {
    /// Names from the outside in, with dots between them.
    pub path: String,
    /// How it is matched.
    pub matches: ClaimMatch,
}

/// How a claim is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimMatch {
    /// The claim is this text.
    Equals(String),
    /// The claim is a list, and this text is in it.
    Contains(String),
}

impl Permission {
    /// # Errors
    /// The first criterion that is not valid.
    pub(crate) fn validate(&self) -> Result<(), IntentionError> {
        for (what, number) in [
            ("methods in a permission", self.methods.len()),
            ("headers in a permission", self.headers.len()),
            ("query criteria in a permission", self.query.len()),
            ("ports in a permission", self.ports.len()),
            ("jwt criteria in a permission", self.jwt.len()),
        ] {
            check_number(what, number)?;
        }
        self.methods.iter().try_for_each(|method| check_method(method))?;
        self.path.iter().try_for_each(PathCriterion::validate)?;
        self.headers.iter().try_for_each(HeaderCriterion::validate)?;
        self.query.iter().try_for_each(QueryCriterion::validate)?;
        self.jwt.iter().try_for_each(JwtCriterion::validate)
    }
}

impl PathCriterion {
    pub(crate) fn validate(&self) -> Result<(), IntentionError> {
        match self {
            Self::Exact(path) | Self::Prefix(path) => check_path(path),
            Self::Regex(pattern) => check_regex(pattern),
        }
    }
}

impl HeaderCriterion {
    /// # Errors
    /// The name is no header name, or the match cannot be.
    pub fn validate(&self) -> Result<(), IntentionError> {
        check_header_name(&self.name)?;
        self.matches.validate()
    }
}

impl QueryCriterion {
    /// # Errors
    /// The name is empty, or the match is none that a query knows.
    pub fn validate(&self) -> Result<(), IntentionError> {
        check_text("the name of a query criterion", &self.name, TEXT_LIMIT)?;
        match self.matches {
            TextMatch::Present | TextMatch::Exact(_) | TextMatch::Regex(_) => self.matches.validate(),
            TextMatch::Prefix(_) | TextMatch::Suffix(_) | TextMatch::Contains(_) => {
                Err(IntentionError::Matches { of: format!("query {}", shown(&self.name)), expected: QueryForm::WAYS })
            }
        }
    }
}

impl TextMatch {
    pub(crate) fn validate(&self) -> Result<(), IntentionError> {
        match self {
            Self::Present => Ok(()),
            Self::Exact(text) if text.is_empty() => Ok(()),
            Self::Exact(text) => check_text("a value to match", text, TEXT_LIMIT),
            Self::Prefix(text) | Self::Suffix(text) | Self::Contains(text) => check_text("a value to match", text, TEXT_LIMIT),
            Self::Regex(pattern) => check_regex(pattern),
        }
    }
}

impl JwtCriterion {
    pub(crate) fn validate(&self) -> Result<(), IntentionError> {
        check_provider(&self.provider)?;
        check_number("claims in a jwt criterion", self.claims.len())?;
        self.claims.iter().try_for_each(ClaimCriterion::validate)
    }
}

impl ClaimCriterion {
    pub(crate) fn validate(&self) -> Result<(), IntentionError> {
        check_text("the path of a claim", &self.path, TEXT_LIMIT)?;
        match &self.matches {
            ClaimMatch::Equals(text) | ClaimMatch::Contains(text) => check_text("a value to match", text, TEXT_LIMIT),
        }
    }
}

/// A provider is named as services and ports are.
pub(crate) fn check_provider(name: &str) -> Result<(), IntentionError> {
    name.parse::<PortName>().map(|_| ()).map_err(|error| postern_names::NameError { kind: "jwt provider", ..error }.into())
}

pub(crate) fn check_number(what: &'static str, number: usize) -> Result<(), IntentionError> {
    if number > CRITERIA_LIMIT { Err(IntentionError::TooMany { what, limit: CRITERIA_LIMIT }) } else { Ok(()) }
}

/// Not empty, not too long, no control character.
///
/// # Errors
/// Which of these it is.
pub fn check_text(what: &'static str, text: &str, limit: usize) -> Result<(), IntentionError> {
    if text.is_empty() {
        return Err(IntentionError::Empty { what });
    }
    if text.len() > limit {
        return Err(IntentionError::TooLong { what, limit });
    }
    if text.chars().any(char::is_control) {
        return Err(IntentionError::ControlCharacter { what });
    }
    Ok(())
}

/// `token` of RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A method that a request can have: a token in upper case (RFC 9110 §9.1).
///
/// # Errors
/// [`IntentionError::Method`].
pub fn check_method(method: &str) -> Result<(), IntentionError> {
    if is_token(method) && method.len() <= 64 && !method.bytes().any(|b| b.is_ascii_lowercase()) {
        Ok(())
    } else {
        Err(IntentionError::Method { given: shown(method) })
    }
}

/// A header name in lower case (RFC 9110 §5.1).
///
/// # Errors
/// [`IntentionError::HeaderName`].
pub fn check_header_name(name: &str) -> Result<(), IntentionError> {
    if is_token(name) && name.len() <= 256 && !name.bytes().any(|b| b.is_ascii_uppercase()) {
        Ok(())
    } else {
        Err(IntentionError::HeaderName { given: shown(name) })
    }
}

/// A criterion that could never match is refused: a deny that silently does nothing opens a door.
///
/// # Errors
/// [`IntentionError::Path`] names the rule that it breaks.
pub fn check_path(path: &str) -> Result<(), IntentionError> {
    let why = if !path.starts_with('/') {
        "a path begins with /"
    } else if path.len() > TEXT_LIMIT {
        "it is longer than 8192 bytes"
    } else if path.contains('?') {
        "the query is not part of the path; use query"
    } else if path.contains('#') {
        "# and what follows is dropped before a request is judged"
    } else if path.bytes().any(|b| b <= b' ' || b == b'\\' || b == 0x7f) {
        "no request that is let through has a space, a control character or \\ in its path"
    } else if !path.is_ascii() {
        "requests are judged with percent-encoded paths; write it percent-encoded"
    } else if let Some(why) = never_in_a_path(path) {
        why
    } else {
        return Ok(());
    };
    Err(IntentionError::Path { given: shown(path), why })
}

/// A regular expression that compiles within its limits.
///
/// # Errors
/// [`IntentionError::Regex`] with the compiler's words, or what it is too long for.
pub fn check_regex(pattern: &str) -> Result<(), IntentionError> {
    if pattern.is_empty() {
        return Err(IntentionError::Empty { what: "a regular expression" });
    }
    if pattern.len() > REGEX_LENGTH_LIMIT {
        return Err(IntentionError::TooLong { what: "a regular expression", limit: REGEX_LENGTH_LIMIT });
    }
    compile_anchored(pattern).map(|_| ())
}

/// The expression compiles, alone and as it is applied: to whole values, in linear time, with a program of at most 1 MiB.
pub(crate) fn compile_anchored(pattern: &str) -> Result<Regex, IntentionError> {
    // Alone first: `a)|(b` must not become valid by what is put around it.
    build(pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z"))).map_err(|error| {
        let why = match error {
            regex::Error::CompiledTooBig(_) => "it is too large when compiled; make it simpler".to_owned(),
            error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        IntentionError::Regex { given: shown(pattern), why }
    })
}

fn build(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(REGEX_SIZE_LIMIT).dfa_size_limit(REGEX_SIZE_LIMIT).build()
}
