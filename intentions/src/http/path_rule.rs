//! A path criterion, ready to match.

use regex::Regex;

use super::spelling::{canonical_escapes, collapsed, with_visible};
use crate::error::IntentionError;
use crate::permission::compile_anchored;
use crate::{EncodedSlash, PathCriterion};

/// A path criterion as it is compared with readings. A text is compared in each of its spellings, so that what is written
/// in a criterion as it is sent matches what is sent: `/a//b` matches `/a/b` too, and `/%61` is `/a`.
#[derive(Debug)]
pub(super) enum PathRule {
    Exact(Box<[Box<str>]>),
    Prefix(Box<[Box<str>]>),
    Regex(Regex),
}

impl PathRule {
    pub(super) fn compile(criterion: &PathCriterion) -> Result<Self, IntentionError> {
        Ok(match criterion {
            PathCriterion::Exact(path) => Self::Exact(spellings(path)),
            PathCriterion::Prefix(path) => Self::Prefix(spellings(path)),
            PathCriterion::Regex(pattern) => Self::Regex(compile_anchored(pattern)?),
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(spellings) => spellings.iter().any(|exact| **exact == *path),
            Self::Prefix(spellings) => spellings.iter().any(|prefix| is_below(path, prefix)),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// Whether the path is the prefix or below it; with a `/` at its end, only below.
fn is_below(path: &str, prefix: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else { return false };
    rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
}

fn spellings(path: &str) -> Box<[Box<str>]> {
    // Valid ones have canonical escapes; a text without them would match nothing.
    let canonical = canonical_escapes(path, EncodedSlash::Keep).unwrap_or_else(|_| path.to_owned());
    let mut spellings = vec![canonical];
    for view in [with_visible, collapsed] {
        let viewed: Vec<String> = spellings.iter().filter_map(|spelling| view(spelling)).collect();
        spellings.extend(viewed);
    }
    spellings.into_iter().map(String::into_boxed_str).collect()
}

/// Whether every path that `narrow` matches is matched by `wide`. Of regular expressions only the same one is known to.
pub(crate) fn path_covers(wide: &PathCriterion, narrow: &PathCriterion) -> bool {
    match (wide, narrow) {
        (PathCriterion::Regex(wide), PathCriterion::Regex(narrow)) => wide == narrow,
        (PathCriterion::Exact(wide), PathCriterion::Exact(narrow)) => {
            let wide = spellings(wide);
            spellings(narrow).iter().all(|path| wide.contains(path))
        }
        (PathCriterion::Prefix(wide), PathCriterion::Exact(narrow) | PathCriterion::Prefix(narrow)) => {
            let wide = spellings(wide);
            spellings(narrow).iter().all(|path| wide.iter().any(|prefix| is_below(path, prefix)))
        }
        _ => false,
    }
}
