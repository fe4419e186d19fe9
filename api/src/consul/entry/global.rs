//! `proxy-defaults`: there are no settings for every proxy, so the entry says what always holds, and nothing else can be
//! written into it.

use postern_intentions::Protocol;
use serde_json::{Value, json};

use super::super::NotCarried;
use super::reader::Reader;
use super::{Kind, NOTE};

/// The name of the one entry.
const NAME: &str = "global";
const PROTOCOL: &str = "a protocol belongs to its service: write service-defaults for each";

pub(super) fn read(name: &str, mut reader: Reader<'_>) -> Result<(), NotCarried> {
    if name != NAME {
        return Err(NotCarried(format!("Name {name:?} is not {NAME}: there is one entry of this kind")));
    }
    let mut meta = reader.labels("Meta")?;
    meta.remove(NOTE);
    if let Some((label, _)) = meta.first_key_value() {
        return Err(NotCarried(format!("Meta has no counterpart: leave out the label {label:?}")));
    }
    if let Some(mut config) = reader.object("Config")? {
        config.refuse_but("protocol", &["tcp"], PROTOCOL)?;
        config.refuse("local_connect_timeout_ms", "set timeouts of each service with `meshctl service config`")?;
        config.refuse("local_request_timeout_ms", "set timeouts of each service with `meshctl service config`")?;
        config.refuse("envoy_prometheus_bind_addr", "give sidecars --metrics ADDR")?;
        config.finish()?;
    }
    reader.refuse_but("Mode", &["direct"], "there is no transparent proxy: name upstreams with --upstream")?;
    reader.refuse_but("MutualTLSMode", &["strict"], "every connection of the mesh is mutual TLS")?;
    for (name, inner, same, cure) in [
        ("MeshGateway", "Mode", "none", "there are no gateways"),
        ("AccessLogs", "Type", "stdout", "give sidecars --access-log all"),
        ("FailoverPolicy", "Mode", "sequential", "targets are taken in their order"),
        ("PrioritizeByLocality", "Mode", "failover", "write it into the service-resolver of each service"),
    ] {
        if let Some(mut object) = reader.object(name)? {
            object.refuse_but(inner, &[same], cure)?;
            object.refuse("Enabled", cure)?;
            object.finish()?;
        }
    }
    reader.refuse("TransparentProxy", "there is no transparent proxy: name upstreams with --upstream")?;
    reader.refuse("Expose", "there are no paths past the mesh")?;
    reader.refuse("EnvoyExtensions", "there is no Envoy")?;
    reader.finish()
}

/// The entry as it is: it cannot be another one.
pub fn entry() -> Value {
    json!({
        "Kind": Kind::ProxyDefaults.word(), "Name": NAME, "Config": { "protocol": "tcp" }, "Mode": "direct",
        "PrioritizeByLocality": { "Mode": "failover" }, "CreateIndex": 1, "ModifyIndex": 1,
    })
}

/// The protocol that a Consul's entry gives to every service which does not say one, where that is all that it says: who
/// takes a Consul over gives it to each of them.
pub fn protocol_of_all(value: &Value) -> Option<Protocol> {
    let mut rest = value.clone();
    let config = rest.get_mut("Config")?.as_object_mut()?;
    let name = config.keys().find(|name| name.eq_ignore_ascii_case("protocol"))?.clone();
    let protocol = config.remove(&name)?.as_str()?.to_ascii_lowercase().parse().ok()?;
    Some(protocol)
}
