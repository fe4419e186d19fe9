//! The checks that a sidecar runs of its own service, as flags and files give them.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::loose::{Unknown, from_value};
use crate::{CheckForm, Definition, InvalidCheck, Kind};

/// How often a check is run that does not say so.
const INTERVAL: &str = "10s";
/// Bytes of an id and of a name, which travel to the control plane.
const NAME_LIMIT: usize = 200;

/// A check that a sidecar can run: something that is asked, not something that is told or copied.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnCheck(Definition);

/// Why something is no check that a sidecar can run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOwn {
    /// It is not valid.
    #[error(transparent)]
    Check(#[from] InvalidCheck),
    /// Its form cannot be read.
    #[error("{0}")]
    Form(String),
    /// It is of a kind that only the control plane has.
    #[error("check {0:?}: a sidecar asks its service; ttl and alias checks are registered with the control plane")]
    NotAsked(String),
    /// It has a setting that only the control plane has.
    #[error(
        "check {0:?}: deregister_critical_service_after is for instances without a sidecar; one with a sidecar leaves the mesh with it"
    )]
    Deregisters(String),
}

impl OwnCheck {
    /// The check that a form describes.
    ///
    /// # Errors
    /// [`InvalidOwn`].
    pub fn of(mut form: CheckForm) -> Result<Self, InvalidOwn> {
        if form.interval.is_empty() {
            form.interval = INTERVAL.into();
        }
        let mut definition = form.validate()?;
        if definition.name.is_empty() {
            definition.name = definition.type_name().to_owned();
        }
        if definition.name.len() > NAME_LIMIT || definition.id.len() > NAME_LIMIT || definition.notes.len() > NAME_LIMIT {
            return Err(InvalidOwn::Form(format!("the id, the name or the notes of a check are longer than {NAME_LIMIT} bytes")));
        }
        match definition.kind {
            Kind::Probe(..) if definition.deregister_after.is_some() => Err(InvalidOwn::Deregisters(definition.name)),
            Kind::Probe(..) => Ok(Self(definition)),
            Kind::Ttl(_) | Kind::Alias { .. } => Err(InvalidOwn::NotAsked(definition.name)),
        }
    }

    /// What it does.
    pub fn into_definition(self) -> Definition {
        self.0
    }
}

impl FromStr for OwnCheck {
    type Err = InvalidOwn;

    /// `URL [KEY=VALUE…]`, such as `http://127.0.0.1:8080/health interval=5s`.
    fn from_str(text: &str) -> Result<Self, InvalidOwn> {
        let refuse = |why: String| InvalidOwn::Form(format!("{text:?} is no check: {why}"));
        let mut words = text.split_whitespace();
        let url = words.next().unwrap_or_default();
        let mut fields = Map::new();
        let (scheme, address) = url
            .split_once("://")
            .ok_or_else(|| refuse("it begins with a URL, such as http://127.0.0.1:8080/health or tcp://127.0.0.1:5432".into()))?;
        let (kind, uses_tls) = match scheme {
            "http" | "https" => ("http", None),
            "tcp" => ("tcp", None),
            "udp" => ("udp", None),
            "grpc" => ("grpc", None),
            "grpcs" => ("grpc", Some("grpc_use_tls")),
            "h2ping" => ("h2ping", None),
            other => return Err(refuse(format!("{other} is none of http, https, tcp, udp, grpc, grpcs, h2ping"))),
        };
        fields.insert(kind.into(), if kind == "http" { url.into() } else { address.into() });
        if let Some(flag) = uses_tls {
            fields.insert(flag.into(), true.into());
        }
        if kind == "h2ping" {
            fields.insert("h2ping_use_tls".into(), false.into());
        }
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| refuse(format!("{word:?} is not KEY=VALUE")))?;
            // Numbers and booleans are written bare, everything else is text.
            let value = match serde_json::from_str::<Value>(value) {
                Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
                _ => Value::String(value.into()),
            };
            fields.insert(key.into(), value);
        }
        Self::of(from_value(Value::Object(fields), Unknown::Refused).map_err(refuse)?)
    }
}

/// The checks of a YAML or JSON file: a list of check definitions, or one under `checks`.
///
/// # Errors
/// [`InvalidOwn`] names the check and what is wrong.
pub fn parse_file(text: &str) -> Result<Vec<OwnCheck>, InvalidOwn> {
    let refuse = |why: String| InvalidOwn::Form(why);
    // By way of a YAML value, which refuses a key given twice.
    let yaml: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| refuse(error.to_string()))?;
    let value = serde_json::to_value(yaml).map_err(|error| refuse(error.to_string()))?;
    let list = match value {
        Value::Object(mut map) if map.len() == 1 => map.remove("checks"),
        other => Some(other),
    };
    let Some(Value::Array(list)) = list else {
        return Err(refuse("it is not a list of checks, nor one under `checks`".into()));
    };
    let checks = list.into_iter().enumerate().map(|(at, value)| {
        let form = from_value(value, Unknown::Refused).map_err(|why| refuse(format!("check {}: {why}", at + 1)))?;
        OwnCheck::of(form)
    });
    checks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Probe;

    #[test]
    fn a_flag_says_what_is_asked_and_how() {
        let check: OwnCheck = "http://127.0.0.1:8080/health?x=y interval=5s failures_before_critical=2 name=web".parse().unwrap();
        let check = check.into_definition();
        assert_eq!((check.name.as_str(), check.thresholds.failures_before_critical), ("web", 2));
        let Kind::Probe(Probe::Http(http), schedule) = check.kind else { panic!() };
        assert_eq!((http.url.to_string().as_str(), schedule.interval.as_secs()), ("http://127.0.0.1:8080/health?x=y", 5));
        for (text, kind) in [
            ("https://h/ tls_skip_verify=true", "http"),
            ("tcp://127.0.0.1:80", "tcp"),
            ("udp://127.0.0.1:53", "udp"),
            ("grpc://127.0.0.1:1/pkg.Svc", "grpc"),
            ("grpcs://127.0.0.1:1 tls_server_name=x", "grpc"),
            ("h2ping://127.0.0.1:1", "h2ping"),
        ] {
            assert_eq!(text.parse::<OwnCheck>().unwrap().into_definition().type_name(), kind, "{text}");
        }
    }

    #[test]
    fn what_a_sidecar_cannot_run_is_refused_with_the_reason() {
        for (text, why) in [
            ("127.0.0.1:80", "begins with a URL"),
            ("", "begins with a URL"),
            ("redis://127.0.0.1:80", "none of http"),
            ("tcp://127.0.0.1", "HOST:PORT"),
            ("tcp://127.0.0.1:80 intervall=5s", "unknown field"),
            ("tcp://127.0.0.1:80 5s", "KEY=VALUE"),
            ("tcp://127.0.0.1:80 ttl=5s", "at once"),
            ("tcp://127.0.0.1:80 deregister_critical_service_after=5m", "leaves the mesh with it"),
        ] {
            let error = text.parse::<OwnCheck>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_is_a_list_of_definitions() {
        let checks = parse_file("checks:\n- {id: a, args: [/bin/true], interval: 5s}\n- {TCP: \"h:1\"}\n").unwrap();
        assert_eq!(checks.len(), 2);
        assert_eq!(parse_file("- {http: \"http://h/\", header: {x_a: [b]}}").unwrap().len(), 1);
        for (text, why) in [
            ("a: b", "not a list"),
            ("- {ttl: 5s}", "registered with the control plane"),
            ("- {tcp: \"h:1\"}\n- {tpc: \"h:1\"}", "check 2"),
            ("- {tcp: \"h:1\", tcp: \"h:2\"}", "duplicate"),
            ("- [", ""),
        ] {
            let error = parse_file(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
