//! A match on a text, ready to match; and what several values of one name amount to.

use std::borrow::Cow;

use regex::Regex;

use crate::error::IntentionError;
use crate::permission::compile_anchored;
use crate::{Action, TextMatch};

#[derive(Debug)]
pub(super) enum TextRule {
    Present,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(Regex),
}

impl TextRule {
    pub(super) fn compile(matches: &TextMatch) -> Result<Self, IntentionError> {
        Ok(match matches {
            TextMatch::Present => Self::Present,
            TextMatch::Exact(text) => Self::Exact(text.as_str().into()),
            TextMatch::Prefix(text) => Self::Prefix(text.as_str().into()),
            TextMatch::Suffix(text) => Self::Suffix(text.as_str().into()),
            TextMatch::Contains(text) => Self::Contains(text.as_str().into()),
            TextMatch::Regex(pattern) => Self::Regex(compile_anchored(pattern)?),
        })
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => value == &**text,
            Self::Prefix(text) => value.starts_with(&**text),
            Self::Suffix(text) => value.ends_with(&**text),
            Self::Contains(text) => value.contains(&**text),
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    /// Whether the criterion holds for all values of its name: an allow needs all of them, a deny any; one that is not
    /// understood (`None`) counts against the caller. `invert` turns each value around, and absence, which is false.
    pub(super) fn holds<'v>(&self, action: Action, invert: bool, values: impl Iterator<Item = Option<Cow<'v, str>>>) -> bool {
        let mut is_absent = true;
        for value in values {
            is_absent = false;
            let holds = value.map(|value| self.matches(&value) != invert);
            match action {
                Action::Allow if holds != Some(true) => return false,
                Action::Deny if holds != Some(false) => return true,
                Action::Allow | Action::Deny => {}
            }
        }
        if is_absent { invert } else { action == Action::Allow }
    }
}
