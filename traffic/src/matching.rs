//! Which requests are meant: the `match` of routes and of rate limits.

use std::borrow::Cow;

use http::header::{HeaderName, InvalidHeaderName};
use postern_intentions::{HeaderCriterion, QueryCriterion, TextMatch};
use regex::{Regex, RegexBuilder};

use crate::RequestHead;
use crate::settings::RequestMatch;

/// Bytes that a compiled regular expression may take.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// A [`RequestMatch`], ready to match. All that it says must hold; a repeated header or parameter must match in all of its
/// values, and one that is not UTF-8 matches nothing.
#[derive(Debug)]
pub struct RequestMatcher {
    methods: Box<[String]>,
    path: Option<PathRule>,
    headers: Box<[(HeaderName, TextRule, Invert)]>,
    query: Box<[(String, TextRule)]>,
}

/// Why a [`RequestMatch`] cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// More than one of `path_exact`, `path_prefix` and `path_regex`.
    #[error("a match has more than one of path_exact, path_prefix and path_regex; write one")]
    Paths,
    /// A path that does not begin with `/`.
    #[error("path {path:?} does not begin with /")]
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
    /// A regular expression that is not understood, or too large.
    #[error("regular expression {pattern:?}: {why}")]
    Regex {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Debug)]
pub(crate) enum PathRule {
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

#[derive(Debug)]
enum TextRule {
    Present,
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Invert(bool);

impl RequestMatcher {
    /// Compiles regular expressions and reads header names.
    ///
    /// # Errors
    /// The first criterion that is not valid.
    pub fn compile(matches: &RequestMatch) -> Result<Self, MatchError> {
        let header = |criterion: &HeaderCriterion| {
            let name = header_name(&criterion.name)?;
            Ok((name, TextRule::compile(&criterion.matches)?, Invert(criterion.invert)))
        };
        let parameter = |criterion: &QueryCriterion| Ok((criterion.name.clone(), TextRule::compile(&criterion.matches)?));
        Ok(Self {
            methods: matches.methods.as_slice().into(),
            path: PathRule::compile(matches)?,
            headers: matches.headers.iter().map(header).collect::<Result<_, MatchError>>()?,
            query: matches.query.iter().map(parameter).collect::<Result<_, MatchError>>()?,
        })
    }

    /// Whether the request is meant. The cheap criteria are asked first.
    pub fn matches(&self, request: &RequestHead<'_>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|method| method == request.method))
            && self.path.as_ref().is_none_or(|path| path.matches(request.path))
            && self.headers.iter().all(|(name, rule, invert)| rule.holds(*invert, header_values(request, name)))
            && self.query.iter().all(|(name, rule)| rule.holds(Invert(false), query_values(request, name)))
    }

    pub(crate) fn path(&self) -> Option<&PathRule> {
        self.path.as_ref()
    }
}

impl PathRule {
    fn compile(matches: &RequestMatch) -> Result<Option<Self>, MatchError> {
        let begins =
            |path: &String| path.starts_with('/').then(|| path.clone()).ok_or_else(|| MatchError::Path { path: path.clone() });
        match (&matches.path_exact, &matches.path_prefix, &matches.path_regex) {
            (None, None, None) => Ok(None),
            (Some(path), None, None) => begins(path).map(Self::Exact).map(Some),
            (None, Some(path), None) => begins(path).map(Self::Prefix).map(Some),
            (None, None, Some(pattern)) => anchored(pattern).map(Self::Regex).map(Some),
            _ => Err(MatchError::Paths),
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl TextRule {
    fn compile(matches: &TextMatch) -> Result<Self, MatchError> {
        Ok(match matches {
            TextMatch::Present => Self::Present,
            TextMatch::Exact(text) => Self::Exact(text.clone()),
            TextMatch::Prefix(text) => Self::Prefix(text.clone()),
            TextMatch::Suffix(text) => Self::Suffix(text.clone()),
            TextMatch::Contains(text) => Self::Contains(text.clone()),
            TextMatch::Regex(pattern) => Self::Regex(anchored(pattern)?),
        })
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::Suffix(text) => value.ends_with(text.as_str()),
            Self::Contains(text) => value.contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    /// Whether all values match; `None` stands for one that is not understood. Absence is false before it is inverted.
    fn holds<'v>(&self, invert: Invert, mut values: impl Iterator<Item = Option<Cow<'v, str>>>) -> bool {
        let Some(first) = values.next() else { return invert.0 };
        std::iter::once(first).chain(values).all(|value| value.is_some_and(|value| self.matches(&value) != invert.0))
    }
}

pub(crate) fn header_name(name: &str) -> Result<HeaderName, MatchError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_: InvalidHeaderName| MatchError::HeaderName { name: name.to_owned() })
}

fn anchored(pattern: &str) -> Result<Regex, MatchError> {
    let build = |text: &str| RegexBuilder::new(text).size_limit(REGEX_SIZE_LIMIT).dfa_size_limit(REGEX_SIZE_LIMIT).build();
    // Alone first: `a)|(b` must not become valid by what is put around it.
    build(pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z"))).map_err(|error| MatchError::Regex {
        pattern: pattern.chars().take(80).collect(),
        why: error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    })
}

fn header_values<'a>(request: &RequestHead<'a>, name: &HeaderName) -> impl Iterator<Item = Option<Cow<'a, str>>> {
    let values = request.headers.get_all(name).iter();
    values.map(|value| std::str::from_utf8(value.as_bytes()).ok().map(Cow::Borrowed))
}

/// Values as forms write them (WHATWG URL §5.1).
fn query_values<'a>(request: &RequestHead<'a>, name: &str) -> impl Iterator<Item = Option<Cow<'a, str>>> {
    request.query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
        match decoded(given) {
            None => Some(None),
            Some(given) => (given == name).then(|| decoded(value)),
        }
    })
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
