//! Claims of verified tokens (RFC 7519 §4).

use serde_json::{Map, Value};

use super::VerifiedTokens;
use crate::{ClaimCriterion, ClaimMatch, JwtCriterion};

/// Whether there is a verified token of the criterion's provider, with all of its claims.
pub(super) fn holds(criterion: &JwtCriterion, tokens: &VerifiedTokens) -> bool {
    tokens.of(&criterion.provider).is_some_and(|claims| criterion.claims.iter().all(|claim| claim_holds(claim, claims)))
}

/// `equals` compares strings, and numbers and booleans as JSON writes them (`42`, `true`); a list, an object and null equal
/// nothing. `contains` holds if a list has an element that equals the text, and for nothing but lists.
pub(super) fn claim_holds(criterion: &ClaimCriterion, claims: &Map<String, Value>) -> bool {
    match (&criterion.matches, find(claims, &criterion.path)) {
        (ClaimMatch::Equals(text), Some(value)) => equals(value, text),
        (ClaimMatch::Contains(text), Some(Value::Array(elements))) => elements.iter().any(|element| equals(element, text)),
        (ClaimMatch::Contains(_), Some(_)) | (_, None) => false,
    }
}

fn equals(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Number(number) => number.to_string() == text,
        Value::Bool(true) => text == "true",
        Value::Bool(false) => text == "false",
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The claim at a path of names with dots between them. A name may itself have dots (`https://example.com/roles`): the
/// longest name that is there is taken.
fn find<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(at, _)| match claims.get(&path[..at]) {
        Some(Value::Object(inner)) => find(inner, &path[at + 1..]),
        _ => None,
    })
}
