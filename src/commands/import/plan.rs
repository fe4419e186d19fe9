//! What of a Consul is carried, and what is not.

use std::collections::BTreeMap;

use postern_api::consul::intentions;
use postern_intentions::{Action, Intention, Protocol};
use postern_names::ServiceName;
use postern_traffic::ServiceSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::source::{Source, field};

/// A key with its value in base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub key: String,
    pub value: String,
    pub flags: u64,
}

/// What is brought over.
#[derive(Debug, Default)]
pub struct Plan {
    /// Who may call whom.
    pub intentions: Vec<Intention>,
    /// Settings of services.
    pub settings: Vec<ServiceSettings>,
    /// Keys and values.
    pub keys: Vec<Key>,
    /// Instances without a sidecar, as bodies of `/v1/catalog/register`.
    pub services: Vec<Value>,
    notes: Vec<String>,
    not_carried: Vec<NotCarried>,
}

/// Something that stays behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCarried {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Plan {
    /// Of everything that was read.
    pub fn of(source: &Source) -> Self {
        let mut plan = Self::default();
        for (what, why) in &source.unread {
            plan.leave(what.clone(), why.clone());
        }
        let otherwise = plan.default_policy(source);
        for intention in &source.intentions {
            plan.intention(intention, otherwise);
        }
        for entry in &source.entries {
            plan.entry(entry);
        }
        for key in &source.keys {
            plan.key(key);
        }
        for instance in &source.instances {
            plan.instance(instance);
        }
        plan
    }

    fn leave(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.not_carried.push(NotCarried { what: what.into(), why: why.into() });
    }

    /// Consul's default policy also decides on requests that no permission matches.
    fn default_policy(&mut self, source: &Source) -> Action {
        match source.default_policy.as_deref() {
            Some("allow") => {
                self.notes.push("Consul allows what no intention denies. That is not carried: here `meshctl intention default` says it, and deny is shipped. `meshctl intention default audit` shows what would be refused".into());
                Action::Allow
            }
            Some(_) => Action::Deny,
            None => {
                let has_permissions =
                    source.intentions.iter().any(|intention| intention.get("Permissions").is_some_and(|list| !list.is_null()));
                if has_permissions {
                    self.notes.push("Consul's default policy is not in the files: requests that no permission matches are denied; give --consul-default allow if it allows them".into());
                }
                Action::Deny
            }
        }
    }

    fn intention(&mut self, value: &Value, otherwise: Action) {
        let name = |field: &str| value[field].as_str().unwrap_or("?").to_owned();
        let what = format!("intention {} -> {}", name("SourceName"), name("DestinationName"));
        match intentions::read(value, otherwise) {
            Ok(intention) => {
                let is_there = self
                    .intentions
                    .iter()
                    .any(|known| known.source == intention.source && known.destination == intention.destination);
                if is_there {
                    return self.leave(what, "there is another one for this pair before it");
                }
                self.intentions.push(intention);
            }
            Err(why) => self.leave(what, why.0),
        }
    }

    fn entry(&mut self, entry: &Value) {
        let kind = entry["Kind"].as_str().unwrap_or_default();
        let name = entry["Name"].as_str().unwrap_or_default();
        let what = format!("{kind} {name}");
        match (kind, name.parse::<ServiceName>(), entry.as_object()) {
            ("service-defaults", Ok(service), Some(object)) => self.service_defaults(&what, service, object),
            ("service-defaults" | "service-router" | "service-splitter" | "service-resolver", Err(error), _) => {
                self.leave(what, error.to_string())
            }
            ("service-router" | "service-splitter" | "service-resolver", ..) => {
                self.leave(what, "routes, splits and resolvers are written anew, in a file for `meshctl service config apply`");
            }
            ("proxy-defaults", ..) => {
                self.leave(what, "there are no settings for every proxy; a protocol belongs to its service")
            }
            ("ingress-gateway" | "terminating-gateway" | "mesh-gateway", ..) => self.leave(what, "there are no gateways"),
            _ => self.leave(what, "it has no counterpart"),
        }
    }

    fn service_defaults(&mut self, what: &str, service: ServiceName, object: &Map<String, Value>) {
        let mut settings = ServiceSettings::of(service);
        let mut is_carried = false;
        if let Some(protocol) = field(object, "Protocol").and_then(Value::as_str).filter(|protocol| !protocol.is_empty()) {
            match protocol.parse::<Protocol>() {
                Ok(protocol) => {
                    settings.protocol = Some(protocol);
                    is_carried = true;
                }
                Err(_) => self.leave(format!("{what}: Protocol"), format!("{protocol:?} is none of tcp, http, http2, grpc")),
            }
        }
        for (name, value) in object {
            let is_known = ["Kind", "Name", "Protocol", "CreateIndex", "ModifyIndex", "Hash"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name));
            if !is_known && says_something(value) {
                self.leave(format!("{what}: {name}"), "it has no counterpart that means the same; see docs/service-config.md");
            }
        }
        if is_carried {
            self.settings.retain(|known| known.service != settings.service);
            self.settings.push(settings);
        }
    }

    fn key(&mut self, value: &Value) {
        let Some(object) = value.as_object() else { return };
        let Some(key) = field(object, "Key").and_then(Value::as_str) else { return };
        let encoded = field(object, "Value").and_then(Value::as_str).unwrap_or_default();
        let flags = field(object, "Flags").and_then(Value::as_u64).unwrap_or_default();
        if field(object, "Session").is_some_and(says_something) {
            self.notes.push(format!("{key} is locked by a session in Consul; its value is carried, its lock is not"));
        }
        // Base64 of at most 512 KiB.
        if encoded.len() > (512 << 10) / 3 * 4 + 4 {
            return self.leave(format!("key {key}"), "its value is longer than 512 KiB");
        }
        self.keys.push(Key { key: key.to_owned(), value: encoded.to_owned(), flags });
    }

    /// An instance of `/v1/health/service/NAME` or of `/v1/catalog/service/NAME`.
    fn instance(&mut self, value: &Value) {
        let Some(registration) = registration(value) else { return };
        let service = &registration["Service"];
        let (name, id) = (service["Service"].as_str().unwrap_or_default(), service["ID"].as_str().unwrap_or_default());
        let what = format!("instance {id} of {name}");
        let kind = service["Kind"].as_str().unwrap_or_default();
        if !kind.is_empty() {
            let why = "it is a proxy: give the service a sidecar with `meshctl proxy` or `meshctl run`";
            return self.leave(format!("{what} ({kind})"), why);
        }
        if let Err(error) = name.parse::<ServiceName>() {
            return self.leave(what, error.to_string());
        }
        self.services.push(registration);
    }

    /// What was done, or would be.
    pub fn report(&self, is_dry: bool) -> Value {
        json!({
            "dry_run": is_dry,
            "carried": {
                "intentions": self.intentions.len(), "settings": self.settings.len(), "keys": self.keys.len(), "instances": self.services.len(),
            },
            "not_carried": self.not_carried,
            "notes": self.notes,
        })
    }

    /// The same for people.
    pub fn text(&self, is_dry: bool) -> String {
        let verb = if is_dry { "would be carried" } else { "are carried" };
        let mut text = format!(
            "{} intentions, settings of {} services, {} keys and {} instances {verb}\n",
            self.intentions.len(),
            self.settings.len(),
            self.keys.len(),
            self.services.len()
        );
        for left in &self.not_carried {
            text.push_str(&format!("not carried: {}: {}\n", left.what, left.why));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        if is_dry {
            text.push_str("nothing was changed\n");
        }
        text
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(fields) => fields.values().any(says_something),
    }
}

/// The body that registers this instance again, with its checks as they stand.
fn registration(value: &Value) -> Option<Value> {
    let object = value.as_object()?;
    let checks = |checks: &Value| -> Vec<Value> {
        let checks = checks.as_array().cloned().unwrap_or_default();
        // Liveness of a node is Consul's gossip, which is not here.
        checks.into_iter().filter(|check| check["CheckID"] != "serfHealth").collect()
    };
    if let (Some(node), Some(service)) = (field(object, "Node").and_then(Value::as_object), field(object, "Service")) {
        let checks = checks(&value["Checks"]);
        return Some(json!({
            "Node": node.get("Node"), "Address": node.get("Address"), "NodeMeta": node.get("Meta"),
            "Service": trimmed(service), "Checks": checks,
        }));
    }
    let copied = |name: &str| field(object, name).cloned().unwrap_or(Value::Null);
    let mut service: BTreeMap<&str, Value> = BTreeMap::new();
    for (ours, theirs) in [
        ("ID", "ServiceID"),
        ("Service", "ServiceName"),
        ("Tags", "ServiceTags"),
        ("Address", "ServiceAddress"),
        ("Port", "ServicePort"),
        ("Meta", "ServiceMeta"),
        ("Weights", "ServiceWeights"),
        ("Kind", "ServiceKind"),
    ] {
        service.insert(ours, copied(theirs));
    }
    Some(json!({ "Node": copied("Node"), "Address": copied("Address"), "NodeMeta": copied("NodeMeta"), "Service": service }))
}

/// A service without what registering it anew decides.
fn trimmed(service: &Value) -> Value {
    let mut service = service.clone();
    if let Some(fields) = service.as_object_mut() {
        for name in ["CreateIndex", "ModifyIndex", "Proxy", "Connect", "PeerName"] {
            fields.remove(name);
        }
    }
    service
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        let instance = |kind: &str, id: &str| {
            json!({
                "Node": { "Node": "n1", "Address": "10.0.0.1" },
                "Service": { "Kind": kind, "ID": id, "Service": "web", "Tags": ["v1"], "Address": "", "Port": 80, "CreateIndex": 9 },
                "Checks": [{ "CheckID": "serfHealth", "Status": "passing" }, { "CheckID": "c", "Status": "passing" }],
            })
        };
        Source {
            default_policy: Some("allow".into()),
            intentions: vec![
                json!({ "SourceName": "web", "DestinationName": "api", "Permissions": [{ "Action": "deny", "HTTP": { "PathExact": "/x" } }] }),
                json!({ "SourceName": "web", "DestinationName": "api", "Action": "deny" }),
                json!({ "SourceName": "web", "DestinationName": "db", "Action": "allow", "SourcePeer": "other" }),
            ],
            entries: vec![
                json!({ "Kind": "service-defaults", "Name": "api", "Protocol": "http", "MaxInboundConnections": 7, "ModifyIndex": 3 }),
                json!({ "Kind": "service-router", "Name": "api", "Routes": [] }),
            ],
            keys: vec![json!({ "key": "a/b", "flags": 7, "value": "eA==" })],
            instances: vec![
                instance("", "web-1"),
                instance("connect-proxy", "web-1-sidecar-proxy"),
                json!({ "Node": "n2", "Address": "10.0.0.2", "ServiceName": "web", "ServiceID": "web-2", "ServicePort": 81 }),
            ],
            unread: vec![("/v1/kv".into(), "403".into())],
        }
    }

    #[test]
    fn what_is_carried_is_whole_and_what_is_not_is_named() {
        let plan = Plan::of(&source());
        assert_eq!(plan.intentions.len(), 1);
        let intention = serde_json::to_value(&plan.intentions[0]).unwrap();
        assert_eq!(intention["otherwise"], "allow", "Consul's default policy");
        assert_eq!(plan.settings[0].protocol, Some(Protocol::Http));
        assert_eq!(plan.keys, [Key { key: "a/b".into(), value: "eA==".into(), flags: 7 }]);
        assert_eq!(plan.services.len(), 2);
        assert_eq!(plan.services[0]["Checks"].as_array().unwrap().len(), 1);
        assert_eq!((&plan.services[1]["Node"], &plan.services[1]["Service"]["Port"]), (&json!("n2"), &json!(81)));
        let left: Vec<&str> = plan.not_carried.iter().map(|left| left.what.as_str()).collect();
        for what in [
            "/v1/kv",
            "intention web -> api",
            "intention web -> db",
            "service-defaults api: MaxInboundConnections",
            "service-router api",
            "instance web-1-sidecar-proxy of web (connect-proxy)",
        ] {
            assert!(left.contains(&what), "{what}: {left:?}");
        }
        assert_eq!(left.len(), 6, "{left:?}");
        assert!(plan.text(true).contains("nothing was changed") && plan.text(true).contains("intention default"));
    }
}
