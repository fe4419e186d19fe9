//! Instances without a sidecar: registered, deregistered; and maintenance of any instance.

use std::path::Path;

use hyper::Method;
use postern_checks::loose::{Unknown, from_value};
use postern_control::http::consul::agent::definition::ServiceForm;
use serde_json::{Value, json};

use crate::client::{Client, encode};
use crate::commands::input_file::text_of;
use crate::outcome::Failure;
use crate::output::Output;

/// Bytes of a file.
const LIMIT: u64 = 4 << 20;

/// Registers what the file describes.
///
/// # Errors
/// The file or the control plane, with what is wrong.
pub async fn register(output: &Output, path: &Path) -> Result<(), Failure> {
    let (text, name) = text_of(path, LIMIT)?;
    let definitions = definitions(&text, &name)?;
    let mut client = Client::find().await?;
    let mut registered = Vec::new();
    for (definition, service) in &definitions {
        client.send(Method::PUT, "/v1/agent/service/register?replace-existing-checks=true", Some(definition)).await?;
        registered.push(json!({ "service": service.name(), "id": service.id() }));
    }
    output.show(&registered, |_| {
        let lines = definitions.iter().map(|(_, service)| format!("{} of {} is registered", service.id(), service.name()));
        lines.collect::<Vec<_>>().join("\n")
    })
}

/// The definitions in a file, in the form of Consul's service definitions. All of them can be read before any is sent.
fn definitions(text: &str, name: &str) -> Result<Vec<(Value, ServiceForm)>, Failure> {
    let refuse = |why: String| Failure::new(format!("{name}: {why}"));
    // By way of a YAML value, which refuses a key given twice.
    let yaml: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| refuse(error.to_string()))?;
    let value = serde_json::to_value(yaml).map_err(|error| refuse(error.to_string()))?;
    let list = match value {
        Value::Array(list) => list,
        Value::Object(mut map) if map.len() == 1 && map.contains_key("service") => map.remove("service").into_iter().collect(),
        Value::Object(mut map) if map.len() == 1 && map.contains_key("services") => match map.remove("services") {
            Some(Value::Array(list)) => list,
            _ => return Err(refuse("`services` is not a list".into())),
        },
        Value::Object(map) => vec![Value::Object(map)],
        _ => return Err(refuse("it holds no service definition".into())),
    };
    if list.is_empty() {
        return Err(refuse("it holds no service definition".into()));
    }
    let read = list.into_iter().enumerate().map(|(at, value)| {
        let form: ServiceForm =
            from_value(value.clone(), Unknown::Refused).map_err(|why| refuse(format!("service {}: {why}", at + 1)))?;
        form.validate("here").map_err(|error| refuse(format!("service {}: {}", at + 1, error.text())))?;
        Ok((value, form))
    });
    read.collect()
}

/// Takes out an instance without a sidecar.
///
/// # Errors
/// The control plane, with what is wrong.
pub async fn deregister(output: &Output, client: &mut Client, id: &str, node: Option<&str>) -> Result<(), Failure> {
    let is_there = match node {
        None => client.send(Method::PUT, &format!("/v1/agent/service/deregister/{}", encode(id)), None::<&()>).await?,
        Some(node) => {
            let body = json!({ "Node": node, "ServiceID": id });
            client.send(Method::PUT, "/v1/catalog/deregister", Some(&body)).await?
        }
    };
    if !is_there {
        return Err(Failure::new(format!("no instance {id} is registered"))
            .cure("`meshctl status` shows those that have a sidecar, `meshctl service show NAME` all of a service"));
    }
    output.show(&json!({ "id": id, "node": node }), |_| format!("{id} is deregistered"))
}

/// Begins maintenance for this reason, or ends it.
///
/// # Errors
/// The control plane, with what is wrong; there is no such instance or node.
pub async fn maintenance(
    output: &Output,
    id: Option<String>,
    node: Option<String>,
    reason: Option<String>,
) -> Result<(), Failure> {
    let mut query = format!("?enable={}", reason.is_some());
    for (name, value) in [("reason", &reason), ("node", &node)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    let path = match &id {
        Some(id) => format!("/v1/agent/service/maintenance/{}{query}", encode(id)),
        None => format!("/v1/agent/maintenance{query}"),
    };
    let what = id.as_deref().or(node.as_deref()).unwrap_or_default();
    if !Client::find().await?.send(Method::PUT, &path, None::<&()>).await? {
        return Err(
            Failure::new(format!("there is no {what}")).cure("`meshctl service show NAME` shows the instances of a service")
        );
    }
    let word = if reason.is_some() { "is in maintenance: nobody is sent to it" } else { "is back" };
    output.show(&json!({ "id": id, "node": node, "maintenance": reason.is_some() }), |_| format!("{what} {word}"))
}
