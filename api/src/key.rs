//! The keys of resources on the push stream (see `Resource` in `mesh.proto`).

use std::fmt;
use std::str::FromStr;

use postern_ca::Serial;
use postern_intentions::{PairKey, Party};
use postern_names::{InstanceId, PortName, ServiceName};

/// What a resource is about. Its text form is the key on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKey {
    /// `intention/SRC/DST` or `intention/SRC/DST/temporary`
    Intention(PairKey),
    /// `default`
    Default,
    /// `revoked/SERIAL`
    Revoked(Serial),
    /// `bundle`
    Bundle,
    /// `service/NAME`
    Service(ServiceName),
    /// `endpoint/SERVICE/INSTANCE`
    Endpoint(ServiceName, InstanceId),
    /// `config/SERVICE`
    Config(ServiceName),
    /// `jwt/NAME`
    Jwt(PortName),
}

/// A key that names no resource this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resource key {0:?} is not known to this version")]
pub struct UnknownKey(pub String);

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intention(pair) => {
                write!(f, "intention/{}/{}", pair.source, pair.destination)?;
                if pair.temporary { f.write_str("/temporary") } else { Ok(()) }
            }
            Self::Default => f.write_str("default"),
            Self::Revoked(serial) => write!(f, "revoked/{serial}"),
            Self::Bundle => f.write_str("bundle"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Endpoint(service, instance) => write!(f, "endpoint/{service}/{instance}"),
            Self::Config(service) => write!(f, "config/{service}"),
            Self::Jwt(provider) => write!(f, "jwt/{provider}"),
        }
    }
}

impl FromStr for ResourceKey {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        parse(text).ok_or_else(|| UnknownKey(text.chars().take(200).collect()))
    }
}

/// What a sidecar does about a resource that it does not understand, by its key.
pub fn when_not_understood(key: &str) -> &'static str {
    match key.split_once('/').map_or(key, |(kind, _)| kind) {
        "intention" => "its pair is denied",
        "default" => "the default is deny",
        "config" => "this service has the default settings here",
        "jwt" => "no token of this provider is good here",
        _ => "it does not count here",
    }
}

fn parse(text: &str) -> Option<ResourceKey> {
    let parts: Vec<&str> = text.split('/').collect();
    Some(match parts.as_slice() {
        ["default"] => ResourceKey::Default,
        ["bundle"] => ResourceKey::Bundle,
        ["intention", source, destination] => ResourceKey::Intention(pair(source, destination, false)?),
        ["intention", source, destination, "temporary"] => ResourceKey::Intention(pair(source, destination, true)?),
        ["revoked", serial] => ResourceKey::Revoked(serial.parse().ok()?),
        ["service", name] => ResourceKey::Service(name.parse().ok()?),
        ["endpoint", service, instance] => ResourceKey::Endpoint(service.parse().ok()?, instance.parse().ok()?),
        ["config", service] => ResourceKey::Config(service.parse().ok()?),
        ["jwt", provider] => ResourceKey::Jwt(provider.parse().ok()?),
        _ => return None,
    })
}

fn pair(source: &str, destination: &str, temporary: bool) -> Option<PairKey> {
    let source: Party = source.parse().ok()?;
    let destination: Party = destination.parse().ok()?;
    Some(PairKey { source, destination, temporary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        for text in [
            "default",
            "bundle",
            "intention/web/*",
            "intention/*/api/temporary",
            "service/db",
            "endpoint/db/db-1",
            "config/db",
            "jwt/corp",
        ] {
            assert_eq!(text.parse::<ResourceKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        for text in ["", "intention/web", "intention/WEB/api", "intention/a/b/permanent", "endpoint/db/..", "jwt/", "config/*"] {
            assert!(text.parse::<ResourceKey>().is_err(), "{text}");
        }
    }
}
