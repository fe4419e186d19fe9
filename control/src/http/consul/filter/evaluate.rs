//! The tree over an entry.

use serde_json::Value;

use super::{Expression, FilterError, Selector, Test};

/// Fields whose keys are free: one that is not there is absent, in any other place it is a mistake.
const MAPS: [&str; 6] = ["Meta", "NodeMeta", "ServiceMeta", "TaggedAddresses", "ServiceTaggedAddresses", "Proxy"];

pub(super) fn holds(expression: &Expression, entry: &Value) -> Result<bool, FilterError> {
    Ok(match expression {
        Expression::And(left, right) => holds(left, entry)? && holds(right, entry)?,
        Expression::Or(left, right) => holds(left, entry)? || holds(right, entry)?,
        Expression::Not(inner) => !holds(inner, entry)?,
        Expression::Match(selector, test) => passes(&selected(selector, entry)?, test),
    })
}

/// What a selector finds; several where it goes through a list, nothing where a map has no such key.
fn selected<'a>(selector: &Selector, entry: &'a Value) -> Result<Vec<&'a Value>, FilterError> {
    let mut found = vec![entry];
    let mut in_map = false;
    for segment in &selector.0 {
        let mut next = Vec::new();
        let mut is_known = found.is_empty();
        for value in found {
            let each = match value {
                Value::Array(values) => values.iter().collect(),
                value => vec![value],
            };
            // Through an empty list nothing can be known to be wrong.
            is_known |= each.is_empty();
            for value in each {
                match value.get(segment) {
                    Some(value) => {
                        is_known = true;
                        next.push(value);
                    }
                    None => is_known |= in_map || value.is_null(),
                }
            }
        }
        if !is_known {
            return Err(FilterError::Selector(selector.0.join(".")));
        }
        in_map |= MAPS.contains(&segment.as_str());
        found = next;
    }
    Ok(found)
}

fn passes(found: &[&Value], test: &Test) -> bool {
    match test {
        Test::IsEmpty => found.iter().all(|value| is_empty(value)),
        Test::Equals(wanted) => found.iter().any(|value| text_of(value).as_deref() == Some(wanted)),
        Test::Contains(wanted) => found.iter().any(|value| contains(value, wanted)),
        Test::Matches(pattern) => found.iter().any(|value| text_of(value).is_some_and(|text| pattern.is_match(&text))),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn contains(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| text_of(value).as_deref() == Some(wanted)),
        Value::Object(map) => map.contains_key(wanted),
        Value::String(text) => text.contains(wanted),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
