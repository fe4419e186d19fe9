//! HTTP requests before the evaluator.

mod criteria;
mod oracle;
mod spellings;
mod support;
mod worked;
