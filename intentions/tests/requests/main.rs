//! HTTP requests before the evaluator.

mod criteria;
mod support;
mod worked;
