//! The keys of resources on the push stream (see `Resource` in `mesh.proto`).

use std::fmt;
use std::str::FromStr;

use postern_ca::Serial;
use postern_intentions::{PairKey, Party};
use postern_names::{InstanceId, ServiceName};

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
        }
    }
}

impl FromStr for ResourceKey {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        parse(text).ok_or_else(|| UnknownKey(text.chars().take(200).collect()))
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
        for text in ["default", "bundle", "intention/web/*", "intention/*/api/temporary", "service/db", "endpoint/db/db-1"] {
            assert_eq!(text.parse::<ResourceKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        for text in ["", "intention/web", "intention/WEB/api", "intention/a/b/permanent", "endpoint/db/..", "jwt/x"] {
            assert!(text.parse::<ResourceKey>().is_err(), "{text}");
        }
    }
}
