//! Configuration that is pushed: what a sidecar asks for, and the keys of what it is told on the configuration lane.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use postern_names::ServiceName;

use crate::key::UnknownKey;
use crate::v1;

/// Keys and prefixes that one sidecar may ask for.
pub const MAX_KEYS: usize = 64;
/// Services that one sidecar may ask for.
pub const MAX_SERVICES: usize = 64;
/// Bytes of a key or a prefix.
pub const MAX_KEY_BYTES: usize = 4096;
/// Values and instances that one sidecar is told.
pub const MAX_VALUES: usize = 1000;
/// Bytes of all values and instances that one sidecar is told, with their keys.
pub const MAX_BYTES: usize = 4 << 20;

/// What a sidecar asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Keys of the key-value store.
    pub keys: BTreeSet<String>,
    /// All keys that begin so.
    pub prefixes: BTreeSet<String>,
    /// The healthy instances of these.
    pub services: BTreeSet<ServiceName>,
}

/// A Watch that is not answered. The text is for the one who wrote the templates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// More keys and prefixes than [`MAX_KEYS`].
    #[error("{0} keys and prefixes are asked for, at most {MAX_KEYS} are allowed; ask for a prefix in place of its keys")]
    Keys(usize),
    /// More services than [`MAX_SERVICES`].
    #[error("{0} services are asked for, at most {MAX_SERVICES} are allowed")]
    Services(usize),
    /// A key that cannot be.
    #[error("the key {0:?}… is longer than {MAX_KEY_BYTES} bytes, or empty")]
    Key(String),
    /// A name that no service has.
    #[error("{0}")]
    Service(String),
}

impl Wanted {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty() && self.services.is_empty()
    }

    /// Takes in what another asks for.
    pub fn extend(&mut self, other: &Self) {
        self.keys.extend(other.keys.iter().cloned());
        self.prefixes.extend(other.prefixes.iter().cloned());
        self.services.extend(other.services.iter().cloned());
    }

    /// Whether one sidecar may ask for so much.
    ///
    /// # Errors
    /// [`WantedError`] names what is too much, or cannot be.
    pub fn check(&self) -> Result<(), WantedError> {
        let keys = self.keys.len() + self.prefixes.len();
        if keys > MAX_KEYS {
            return Err(WantedError::Keys(keys));
        }
        if self.services.len() > MAX_SERVICES {
            return Err(WantedError::Services(self.services.len()));
        }
        match self.keys.iter().chain(&self.prefixes).find(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
            Some(key) => Err(WantedError::Key(key.chars().take(80).collect())),
            None => Ok(()),
        }
    }

    /// As it goes over the wire.
    pub fn to_wire(&self, number: u64) -> v1::Watch {
        v1::Watch {
            number,
            keys: self.keys.iter().cloned().collect(),
            prefixes: self.prefixes.iter().cloned().collect(),
            services: self.services.iter().map(ToString::to_string).collect(),
        }
    }

    /// Checks what a sidecar sent.
    ///
    /// # Errors
    /// [`WantedError`] names what cannot be.
    pub fn from_wire(wire: v1::Watch) -> Result<Self, WantedError> {
        let services = wire.services.iter().map(|name| name.parse::<ServiceName>()).collect::<Result<_, _>>();
        let services = services.map_err(|error| WantedError::Service(error.to_string()))?;
        let (keys, prefixes) = (wire.keys.into_iter().collect(), wire.prefixes.into_iter().collect());
        let wanted = Self { keys, prefixes, services };
        wanted.check()?;
        Ok(wanted)
    }
}

/// Something that a sidecar asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// A key.
    Key(String),
    /// All keys that begin so.
    Prefix(String),
    /// The instances of a service.
    Service(ServiceName),
    /// All of it.
    Everything,
}

/// What a resource of the configuration lane is about. Its text form is the key on the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigurationKey {
    /// `kv/KEY`
    Value(String),
    /// `instance/SERVICE/ID`; the id has the node before it where there is no sidecar.
    Instance(ServiceName, String),
    /// `refused/…`
    Refused(Asked),
}

impl fmt::Display for ConfigurationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(key) => write!(f, "kv/{key}"),
            Self::Instance(service, id) => write!(f, "instance/{service}/{id}"),
            Self::Refused(Asked::Key(key)) => write!(f, "refused/key/{key}"),
            Self::Refused(Asked::Prefix(prefix)) => write!(f, "refused/prefix/{prefix}"),
            Self::Refused(Asked::Service(service)) => write!(f, "refused/service/{service}"),
            Self::Refused(Asked::Everything) => f.write_str("refused/watch"),
        }
    }
}

impl FromStr for ConfigurationKey {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        parse(text).ok_or_else(|| UnknownKey(text.chars().take(200).collect()))
    }
}

fn parse(text: &str) -> Option<ConfigurationKey> {
    let (kind, rest) = text.split_once('/')?;
    Some(match kind {
        "kv" if !rest.is_empty() => ConfigurationKey::Value(rest.to_owned()),
        "instance" => {
            let (service, id) = rest.split_once('/').filter(|(_, id)| !id.is_empty())?;
            ConfigurationKey::Instance(service.parse().ok()?, id.to_owned())
        }
        "refused" => ConfigurationKey::Refused(match rest.split_once('/') {
            None if rest == "watch" => Asked::Everything,
            Some(("key", key)) => Asked::Key(key.to_owned()),
            Some(("prefix", prefix)) => Asked::Prefix(prefix.to_owned()),
            Some(("service", service)) => Asked::Service(service.parse().ok()?),
            _ => return None,
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        for text in [
            "kv/app/config/db_url",
            "kv//",
            "instance/db/db-1",
            "instance/db/node-1/db-1",
            "refused/key/a/b",
            "refused/prefix/a/",
            "refused/service/db",
            "refused/watch",
        ] {
            assert_eq!(text.parse::<ConfigurationKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        for text in ["", "kv", "kv/", "instance/db", "instance/db/", "instance/DB/a", "refused/all", "refused/service/..", "x/y"]
        {
            assert!(text.parse::<ConfigurationKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_asked_for_reads_back_and_has_limits() {
        let text = |text: &str| BTreeSet::from([text.to_owned()]);
        let wanted = Wanted { keys: text("a"), prefixes: text("b/"), services: BTreeSet::from(["db".parse().unwrap()]) };
        assert_eq!(Wanted::from_wire(wanted.to_wire(1)).unwrap(), wanted);

        let many = |count: usize| (0..count).map(|n| format!("k{n}")).collect::<Vec<_>>();
        let keys = |keys: Vec<String>| Wanted::from_wire(v1::Watch { keys, ..Default::default() });
        assert!(keys(many(MAX_KEYS)).is_ok());
        assert_eq!(keys(many(MAX_KEYS + 1)), Err(WantedError::Keys(MAX_KEYS + 1)));
        assert!(matches!(keys(vec![String::new()]), Err(WantedError::Key(_))));
        assert!(matches!(keys(vec!["x".repeat(MAX_KEY_BYTES + 1)]), Err(WantedError::Key(_))));
        let services = |services: Vec<String>| Wanted::from_wire(v1::Watch { services, ..Default::default() });
        assert!(services(many(MAX_SERVICES)).is_ok());
        assert_eq!(services(many(MAX_SERVICES + 1)), Err(WantedError::Services(MAX_SERVICES + 1)));
        assert!(matches!(services(vec!["NO".into()]), Err(WantedError::Service(_))));
    }
}
