//! `GET /v1/openapi.json`: the description of our own routes (OpenAPI 3.0.3). Consul's are described by Consul.

use axum::http::header;
use axum::response::IntoResponse;

/// The document.
const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /v1/openapi.json`
pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// The routes as `mod.rs` names them: `get /v1/mesh`.
    fn routed() -> BTreeSet<String> {
        let mut routes = BTreeSet::new();
        for line in include_str!("mod.rs").lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let Some((path, handlers)) = line.split_once("\", ") else { continue };
            for method in ["get", "put", "post", "delete"] {
                if handlers.starts_with(&format!("{method}(")) || handlers.contains(&format!(".{method}(")) {
                    routes.insert(format!("{method} {path}"));
                }
            }
        }
        routes
    }

    fn described(document: &Value) -> BTreeSet<String> {
        let paths = document["paths"].as_object().expect("paths");
        let methods = |(path, item): (&String, &Value)| -> Vec<String> {
            item.as_object().expect("methods").keys().map(|method| format!("{method} {path}")).collect()
        };
        paths.iter().flat_map(methods).collect()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        let (routed, described) = (routed(), described(&document));
        assert!(routed.len() > 25, "{routed:?}");
        assert_eq!(routed, described);
    }

    #[test]
    fn what_is_referred_to_is_there() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        for reference in DOCUMENT.split("\"$ref\": \"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
