//! `?filter=`: the expressions of Consul's lists (a subset of go-bexpr), over the JSON of each entry.
//!
//! ```text
//! Service.Meta.env == "prod" and not (Node == n1 or "canary" in ServiceTags) and Checks is not empty
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `parse` | the words as a tree |
//! | `evaluate` | the tree over an entry |

mod evaluate;
mod parse;
#[cfg(test)]
mod tests;

use postern_api::consul::words::{self, NoWords};
use regex::Regex;
use serde_json::Value;

use super::call::Call;
use super::error::ConsulError;

/// Bytes of an expression.
const LENGTH_LIMIT: usize = 8192;

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Filter(Expression);

#[derive(Debug)]
enum Expression {
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Match(Selector, Test),
}

/// A path into an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Selector(Vec<String>);

#[derive(Debug)]
enum Test {
    Equals(String),
    /// A list has it, a map has it as a key, a text has it in it.
    Contains(String),
    Matches(Regex),
    IsEmpty,
}

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is not one.
    #[error("Failed to create boolean expression evaluator: {0}")]
    Syntax(String),
    /// The entries have nothing of that name.
    #[error("Failed to evaluate the filter: selector {0:?} is not valid")]
    Selector(String),
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`FilterError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > LENGTH_LIMIT {
            return Err(FilterError::Syntax(format!("it is longer than {LENGTH_LIMIT} bytes")));
        }
        parse::parse(&words::words(text)?).map(Self)
    }

    /// Whether it holds for an entry.
    ///
    /// # Errors
    /// [`FilterError::Selector`] where entries have no such field.
    pub fn holds(&self, entry: &Value) -> Result<bool, FilterError> {
        evaluate::holds(&self.0, entry)
    }

    /// The expression of `?filter=`; empty is none.
    ///
    /// # Errors
    /// 400, as Consul words it.
    pub fn of(call: &Call) -> Result<Option<Self>, ConsulError> {
        let text = call.text("filter").map(str::trim).filter(|text| !text.is_empty());
        Ok(text.map(Self::parse).transpose()?)
    }
}

impl From<NoWords> for FilterError {
    fn from(error: NoWords) -> Self {
        Self::Syntax(error.to_string())
    }
}

impl From<FilterError> for ConsulError {
    fn from(error: FilterError) -> Self {
        Self::bad_request(error.to_string())
    }
}
