use proptest::prelude::*;
use serde_json::json;

use super::*;

fn entry() -> Value {
    json!({
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": {"rack": "a"}},
        "Service": {"ID": "web-1", "Service": "web", "Tags": ["v1", "canary"], "Port": 8080, "Meta": {"env": "prod", "a.b": "x"},
                    "EnableTagOverride": false, "Connect": {}},
        "Checks": [{"CheckID": "a", "Status": "passing"}, {"CheckID": "b", "Status": "warning"}]
    })
}

#[track_caller]
fn holds(text: &str) -> bool {
    Filter::parse(text).and_then(|filter| filter.holds(&entry())).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_operator_says_what_it_means() {
    for text in [
        r#"Service.Meta.env == "prod""#,
        "Service.Meta.env == prod",
        "Service.Meta.env==prod",
        r#"Service.Meta["a.b"] == x"#,
        r#""/Service/Meta/a.b" == x"#,
        "Service.Meta.none != prod",
        "Service.Meta.none is empty",
        "Service.Port == 8080",
        "Service.EnableTagOverride == false",
        "Node.Address == 10.0.0.1",
        r#""canary" in Service.Tags"#,
        "canary in Service.Tags",
        "v2 not in Service.Tags",
        "Service.Tags contains v1",
        "Service.Tags not contains v2",
        "env in Service.Meta",
        "Service.Service contains e",
        r#"Service.ID matches "^web-[0-9]+$""#,
        "Service.ID matches `^web-\\d$`",
        "Service.ID not matches api",
        "Service.Tags is not empty",
        "Service.Connect is empty",
        "Checks.Status == warning",
        "not Checks.Status == critical",
        "Node.Node == n2 or Node.Node == n1 and Service.Port == 8080",
        "not (Node.Node == n1 and Service.Port == 1)",
        "((Node.Node == n1))",
    ] {
        assert!(holds(text), "{text}");
        assert!(!holds(&format!("not ({text})")), "not ({text})");
    }
    assert!(!holds("(Node.Node == n2 or Node.Node == n1) and Service.Port == 1"));
}

#[test]
fn what_entries_do_not_have_is_refused_by_name() {
    for text in ["Nope == 1", "Service.Nope == 1", "x in Service.Nope", "Checks.Nope is empty"] {
        let error = Filter::parse(text).unwrap().holds(&entry()).unwrap_err();
        assert!(matches!(error, FilterError::Selector(_)), "{text}: {error}");
    }
}

#[test]
fn what_is_no_expression_is_refused() {
    for text in [
        "",
        "a",
        "a ==",
        "== b",
        "a = b",
        "a == b c",
        "(a == b",
        "a == b)",
        "a is",
        "a matches \"(\"",
        "\"a",
        "not",
        "a in",
        "&",
        "a == b and",
        "a[\"b\"",
        "a contains",
    ] {
        assert!(Filter::parse(text).is_err(), "{text}");
    }
    assert!(Filter::parse(&format!("{}a == b", "not ".repeat(1000))).is_err());
    assert!(Filter::parse(&format!("a matches \"{}\"", "(a{100}){100}".repeat(3))).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "[ ()\\[\\]\"`.=!a-zA-Z0-9\\\\äand or not in is empty]{0,60}") {
        if let Ok(filter) = Filter::parse(&text) {
            let _ = filter.holds(&entry());
        }
    }
}
