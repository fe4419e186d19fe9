//! What of a Consul is carried, and what is not.

use std::collections::{BTreeMap, BTreeSet};

use postern_api::consul::entry::{Entry, Kind, Part, Surroundings, protocol_of_all, says_something};
use postern_api::consul::intentions;
use postern_intentions::{Action, Intention, Protocol};
use postern_names::ServiceName;
use postern_traffic::ServiceSettings;
use serde::Serialize;
use serde_json::{Value, json};

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
    /// Parts of settings that are not put together yet.
    parts: Vec<(ServiceName, Part)>,
    /// What proxy-defaults say.
    protocol_of_all: Option<Protocol>,
    /// Services of which there was a sidecar.
    proxied: Vec<String>,
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
            plan.entry(entry, otherwise);
        }
        for key in &source.keys {
            plan.key(key);
        }
        for instance in &source.instances {
            plan.instance(instance);
        }
        plan.note_checks();
        plan.join_settings();
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
                let says = |source: &Value| source.get("Permissions").is_some_and(says_something);
                let in_entries = source.entries.iter().filter_map(|entry| entry["Sources"].as_array()).flatten();
                let has_permissions = source.intentions.iter().chain(in_entries).any(says);
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
            Ok(intention) => self.add(what, intention),
            Err(why) => self.leave(what, why.0),
        }
    }

    fn add(&mut self, what: String, intention: Intention) {
        let is_there =
            self.intentions.iter().any(|known| known.source == intention.source && known.destination == intention.destination);
        if is_there {
            return self.leave(what, "there is another one for this pair before it");
        }
        self.intentions.push(intention);
    }

    /// Intentions go one by one, the parts of settings are put together in the end.
    fn entry(&mut self, entry: &Value, otherwise: Action) {
        let word = entry["Kind"].as_str().unwrap_or_default();
        let name = entry["Name"].as_str().unwrap_or_default();
        let what = format!("{word} {name}");
        let surroundings = Surroundings { otherwise, datacenter: None };
        let kind = match Kind::parse(word) {
            Ok(kind) => kind,
            Err(why) => return self.leave(what, why.to_string()),
        };
        let entry = match kind {
            Kind::ServiceIntentions => return self.sources(entry, surroundings),
            Kind::ProxyDefaults => {
                self.protocol_of_all = protocol_of_all(entry);
                without_protocol(entry)
            }
            Kind::ServiceDefaults => self.defaults_that_can_be(entry, surroundings),
            _ => entry.clone(),
        };
        match Entry::read(kind, &entry, surroundings) {
            Ok(Entry::Settings { service, part }) => self.parts.push((service, part)),
            Ok(_) => {}
            Err(why) => self.leave(what, why.0),
        }
    }

    /// Each source of an entry is an intention of its own: one that cannot be carried leaves the others.
    fn sources(&mut self, entry: &Value, surroundings: Surroundings<'_>) {
        let Some(object) = entry.as_object() else { return };
        let sources = field(object, "Sources").and_then(Value::as_array).cloned().unwrap_or_default();
        let destination = entry["Name"].as_str().unwrap_or("?");
        for source in sources {
            let what = format!("intention {} -> {destination}", source["Name"].as_str().unwrap_or("?"));
            let mut alone = object.clone();
            alone.retain(|name, _| !name.eq_ignore_ascii_case("Sources"));
            alone.insert("Sources".into(), Value::Array(vec![source]));
            match Entry::read(Kind::ServiceIntentions, &Value::Object(alone), surroundings) {
                Ok(Entry::Intentions { intentions, .. }) => {
                    for intention in intentions {
                        self.add(what.clone(), intention);
                    }
                }
                Ok(_) => {}
                Err(why) => self.leave(what, why.0),
            }
        }
    }

    /// The fields that can be carried: a protocol is worth having without the rest.
    fn defaults_that_can_be(&mut self, entry: &Value, surroundings: Surroundings<'_>) -> Value {
        let Some(object) = entry.as_object() else { return entry.clone() };
        let mut kept = object.clone();
        for (name, value) in object.iter().filter(|(name, _)| !matches!(name.as_str(), "Kind" | "Name")) {
            let mut alone = json!({ "Kind": entry["Kind"], "Name": entry["Name"] });
            alone[name] = value.clone();
            let is_named = entry["Name"].as_str().is_some_and(|name| name.parse::<ServiceName>().is_ok());
            if let (true, Err(why)) = (is_named, Entry::read(Kind::ServiceDefaults, &alone, surroundings)) {
                self.leave(format!("service-defaults {}: {name}", entry["Name"].as_str().unwrap_or_default()), why.0);
                kept.remove(name);
            }
        }
        Value::Object(kept)
    }

    /// Puts the parts of each service together. A part that cannot be with the others, such as a share for a subset that
    /// was not carried, is left.
    fn join_settings(&mut self) {
        let mut joined: BTreeMap<ServiceName, ServiceSettings> = BTreeMap::new();
        let mut parts = std::mem::take(&mut self.parts);
        // Subsets before those who name them.
        parts.sort_by_key(|(_, part)| match part.kind() {
            Kind::ServiceDefaults => 0,
            Kind::ServiceResolver => 1,
            _ => 2,
        });
        for (service, part) in parts {
            let kind = part.kind();
            let settings = joined.entry(service.clone()).or_insert_with(|| ServiceSettings::of(service.clone()));
            let mut with = settings.clone();
            part.set(&mut with);
            match with.validate() {
                Ok(()) => *settings = with,
                Err(faults) => {
                    let why = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    self.leave(format!("{kind} {service}"), why);
                }
            }
        }
        if let Some(protocol) = self.protocol_of_all {
            self.say_protocol(protocol, &mut joined);
        }
        let blank = |settings: &ServiceSettings| *settings == ServiceSettings::of(settings.service.clone());
        self.settings = joined.into_values().filter(|settings| !blank(settings)).collect();
    }

    /// Here a protocol belongs to its service: each that the Consul knows gets the one of proxy-defaults.
    fn say_protocol(&mut self, protocol: Protocol, joined: &mut BTreeMap<ServiceName, ServiceSettings>) {
        let registered = self.services.iter().filter_map(|registration| registration["Service"]["Service"].as_str());
        let called = self.intentions.iter().map(|intention| intention.destination.to_string());
        let names = registered.map(ToOwned::to_owned).chain(called).chain(self.proxied.iter().cloned());
        for service in names.filter_map(|name| name.parse::<ServiceName>().ok()) {
            joined.entry(service.clone()).or_insert_with(|| ServiceSettings::of(service));
        }
        for settings in joined.values_mut() {
            settings.protocol.get_or_insert(protocol);
        }
        self.notes.push(format!(
            "proxy-defaults say {protocol} for every service: it is written into the settings of each that is known; say --protocol for those that come later"
        ));
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
            self.proxied.extend(destination_of_proxy(value));
            let why = "it is a proxy: give the service a sidecar with `meshctl proxy` or `meshctl run`";
            return self.leave(format!("{what} ({kind})"), why);
        }
        if let Err(error) = name.parse::<ServiceName>() {
            return self.leave(what, error.to_string());
        }
        self.services.push(registration);
    }

    /// Checks are carried as they stand; whoever ran them does not tell them here.
    fn note_checks(&mut self) {
        let checks_of = |registration: &Value| registration["Checks"].as_array().map_or(0, Vec::len);
        let with_checks: Vec<&Value> = self.services.iter().filter(|registration| checks_of(registration) > 0).collect();
        let checks: usize = with_checks.iter().map(|registration| checks_of(registration)).sum();
        if checks == 0 {
            return;
        }
        let names: BTreeSet<&str> =
            with_checks.iter().filter_map(|registration| registration["Service"]["Service"].as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        self.notes.push(format!(
            "the checks of instances ({checks}, of {}) are carried with the status that they have now, and nobody runs them here: an instance that dies stays passing. Give the service a sidecar with --check (`meshctl proxy`, `meshctl run`), or register the instance anew with a check that the control plane runs (`meshctl service deregister ID --node NODE`, then `meshctl service register -f FILE`)",
            names.join(", ")
        ));
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

/// The rest of proxy-defaults, once their protocol was taken.
fn without_protocol(entry: &Value) -> Value {
    let mut rest = entry.clone();
    if let Some(config) = rest.get_mut("Config").and_then(Value::as_object_mut) {
        config.retain(|name, _| !name.eq_ignore_ascii_case("protocol"));
    }
    rest
}

/// The service that a proxy stands beside.
fn destination_of_proxy(instance: &Value) -> Option<String> {
    let proxy = ["/Service/Proxy/DestinationServiceName", "/ServiceProxy/DestinationServiceName"];
    proxy.iter().find_map(|path| instance.pointer(path)?.as_str()).map(ToOwned::to_owned)
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
                json!({ "Kind": "service-router", "Name": "api", "Routes": [{ "Destination": { "Service": "web", "IdleTimeout": "3s" } }] }),
                json!({ "Kind": "service-splitter", "Name": "api", "Splits": [{ "Weight": 90, "ServiceSubset": "v1" }, { "Weight": 10, "Service": "web" }] }),
                json!({ "Kind": "service-resolver", "Name": "api", "Subsets": { "v1": { "Filter": "Service.Meta.version == 1" } }, "ConnectTimeout": "3s" }),
                json!({ "Kind": "service-splitter", "Name": "shop", "Splits": [{ "Weight": 100, "ServiceSubset": "v9" }] }),
                json!({ "Kind": "proxy-defaults", "Name": "global", "Config": { "protocol": "http2" }, "Mode": "transparent" }),
                json!({ "Kind": "mesh", "Name": "mesh" }),
                json!({ "Kind": "service-intentions", "Name": "shop", "Sources": [
                    { "Name": "web", "Action": "allow" }, { "Name": "api", "Action": "allow", "Unknown": 1 },
                ] }),
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
        assert_eq!(plan.intentions.len(), 2);
        let intention = serde_json::to_value(&plan.intentions[0]).unwrap();
        assert_eq!(intention["otherwise"], "allow", "Consul's default policy");
        let of = |name: &str| plan.settings.iter().find(|settings| settings.service.as_str() == name).unwrap();
        let api = of("api");
        assert_eq!((api.protocol, api.split.len()), (Some(Protocol::Http), 2));
        assert_eq!(api.resolver.subsets["v1"].meta["version"], "1");
        assert_eq!((of("web").protocol, of("shop").protocol), (Some(Protocol::Http2), Some(Protocol::Http2)), "of every service");
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
            "service-splitter shop",
            "proxy-defaults global",
            "mesh mesh",
            "intention api -> shop",
            "instance web-1-sidecar-proxy of web (connect-proxy)",
        ] {
            assert!(left.contains(&what), "{what}: {left:?}");
        }
        assert_eq!(left.len(), 10, "{left:?}");
        let text = plan.text(true);
        assert!(text.contains("checks of instances (1, of web)") && text.contains("nobody runs them"), "{text}");
        assert!(plan.text(true).contains("nothing was changed") && plan.text(true).contains("intention default"));
    }
}
