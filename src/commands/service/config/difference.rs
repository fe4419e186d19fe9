//! What an apply changes, one line a value.

use std::collections::BTreeMap;

use postern_api::http::{AppliedServiceConfig, Difference};
use postern_traffic::{JwtProvider, ServiceSettings};
use serde::Serialize;
use serde_json::Value;

/// Longer values are cut: the file has them whole.
const SHOWN: usize = 100;

/// The difference for people: `+` new, `~` changed with the values that differ, `-` gone.
pub fn difference_text(applied: &AppliedServiceConfig) -> String {
    let mut text = of_kind(&applied.services, |settings: &ServiceSettings| settings.service.to_string());
    text.push_str(&of_kind(&applied.jwt_providers, |provider: &JwtProvider| format!("jwt provider {}", provider.name)));
    for service in &applied.unreadable {
        text.push_str(&format!("! {service} has settings that this version cannot read; they go\n"));
    }
    text
}

/// «1 added, 2 changed, 0 removed»
pub fn counts(applied: &AppliedServiceConfig) -> String {
    let count = |services: usize, providers: usize| services + providers;
    let (services, providers) = (&applied.services, &applied.jwt_providers);
    format!(
        "{} added, {} changed, {} removed",
        count(services.added.len(), providers.added.len()),
        count(services.changed.len(), providers.changed.len()),
        count(services.removed.len(), providers.removed.len())
    )
}

/// The settings that are given, by their keys.
pub fn keys_of(settings: &ServiceSettings) -> Vec<String> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map.into_iter().map(|(key, _)| key).filter(|key| key != "service").collect(),
        _ => Vec::new(),
    }
}

fn of_kind<T: Serialize>(difference: &Difference<T>, name: impl Fn(&T) -> String) -> String {
    let mut text = String::new();
    for added in &difference.added {
        text.push_str(&format!("+ {}\n", name(added)));
        for (place, value) in values(added) {
            text.push_str(&format!("    {place}: {}\n", shown(&value)));
        }
    }
    for (before, after) in &difference.changed {
        text.push_str(&format!("~ {}\n", name(after)));
        let (before, after) = (values(before), values(after));
        let places: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for place in places {
            match (before.get(place), after.get(place)) {
                (before, after) if before == after => {}
                (Some(before), Some(after)) => text.push_str(&format!("    {place}: {} -> {}\n", shown(before), shown(after))),
                (None, Some(after)) => text.push_str(&format!("  + {place}: {}\n", shown(after))),
                (Some(before), None) => text.push_str(&format!("  - {place}: {}\n", shown(before))),
                (None, None) => {}
            }
        }
    }
    for removed in &difference.removed {
        text.push_str(&format!("- {}\n", name(removed)));
    }
    text
}

/// Every value by its place, as in `routes[0].to.service`; the name is in the line above.
fn values(of: &impl Serialize) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    if let Ok(Value::Object(map)) = serde_json::to_value(of) {
        for (key, value) in map.into_iter().filter(|(key, _)| key != "service" && key != "name") {
            flatten(key, value, &mut values);
        }
    }
    values
}

fn flatten(place: String, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.into_iter().for_each(|(key, value)| flatten(format!("{place}.{key}"), value, into));
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.into_iter().enumerate().for_each(|(number, item)| flatten(format!("{place}[{number}]"), item, into));
        }
        value => {
            into.insert(place, value);
        }
    }
}

fn shown(value: &Value) -> String {
    let text = if let Value::String(text) = value { text.clone() } else { value.to_string() };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> ServiceSettings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_differs_is_shown_by_its_place() {
        let applied = AppliedServiceConfig {
            services: Difference {
                added: vec![settings(r#"{"service":"new","protocol":"http"}"#)],
                changed: vec![(
                    settings(r#"{"service":"api","protocol":"http","split":[{"weight":90},{"weight":10,"service":"b"}]}"#),
                    settings(
                        r#"{"service":"api","split":[{"weight":80},{"weight":20,"service":"b"}],"mirror":{"service":"log"}}"#,
                    ),
                )],
                removed: vec![settings(r#"{"service":"old"}"#)],
            },
            jwt_providers: Difference::default(),
            unreadable: Vec::new(),
            base_revision: 1,
            not_understood_by: Vec::new(),
            notes: Vec::new(),
            written: None,
        };
        assert_eq!(
            difference_text(&applied),
            "+ new\n    protocol: http\n~ api\n  + mirror.percent: 100\n  + mirror.service: log\n  - protocol: http\n    split[0].weight: 90 -> 80\n    split[1].weight: 10 -> 20\n- old\n"
        );
        assert_eq!(counts(&applied), "1 added, 1 changed, 1 removed");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(shown(&Value::String("ü".repeat(200))).chars().count(), SHOWN + 1);
    }
}
