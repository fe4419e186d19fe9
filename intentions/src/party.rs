//! The sides of an intention, and the precedence that follows from them.

use std::fmt;
use std::str::FromStr;

use postern_names::{NameError, ServiceName};
use serde::{Deserialize, Serialize};

/// One side of an intention: a service, or `*`, which means every service of our own trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// `*`
    Any,
    /// One service by name.
    Service(ServiceName),
}

/// Why a text is no side of an intention.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartyError {
    /// A `*` inside a longer text.
    #[error("{0:?} is not valid: `*` stands alone, for every service; name a service or use \"*\"")]
    PartialWildcard(String),
    /// `name.svc.trust-domain` and `*.*` are kept for callers of other meshes.
    #[error("{0:?} names a caller of another mesh, and federation is not built yet; name a service of this mesh or use \"*\"")]
    Federated(String),
    /// Not a service name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Party {
    /// The service, unless this is `*`.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Any => None,
            Self::Service(name) => Some(name),
        }
    }

    /// Whether the service is meant by this side.
    pub fn includes(&self, service: &ServiceName) -> bool {
        self.service().is_none_or(|name| name == service)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Any => "*",
            Self::Service(name) => name.as_str(),
        })
    }
}

impl FromStr for Party {
    type Err = PartyError;

    fn from_str(text: &str) -> Result<Self, PartyError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let shown = || text.chars().take(80).collect::<String>();
        if text == "*.*" || text.contains(".svc.") {
            return Err(PartyError::Federated(shown()));
        }
        if text.contains('*') {
            return Err(PartyError::PartialWildcard(shown()));
        }
        Ok(Self::Service(text.parse()?))
    }
}

impl From<ServiceName> for Party {
    fn from(name: ServiceName) -> Self {
        Self::Service(name)
    }
}

impl Serialize for Party {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Party {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How exact the sides of an intention are: of all that match, the highest governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Precedence {
    /// `* -> *`
    AnyToAny = 5,
    /// `web -> *`
    ServiceToAny = 6,
    /// `* -> api`
    AnyToService = 8,
    /// `web -> api`
    ServiceToService = 9,
}

impl Precedence {
    /// The precedence of an intention with these sides.
    pub fn of(source: &Party, destination: &Party) -> Self {
        match (source, destination) {
            (Party::Any, Party::Any) => Self::AnyToAny,
            (Party::Service(_), Party::Any) => Self::ServiceToAny,
            (Party::Any, Party::Service(_)) => Self::AnyToService,
            (Party::Service(_), Party::Service(_)) => Self::ServiceToService,
        }
    }

    /// 5, 6, 8 or 9: Consul's numbers.
    pub fn value(self) -> u8 {
        self as u8
    }
}

impl From<Precedence> for u8 {
    fn from(precedence: Precedence) -> u8 {
        precedence.value()
    }
}

impl fmt::Display for Precedence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// What an intention is stored under: a pair has one permanent and one temporary place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey {
    /// Who calls.
    pub source: Party,
    /// Who is called.
    pub destination: Party,
    /// Whether this is the place of the intention that expires.
    pub temporary: bool,
}

impl PairKey {
    /// The precedence of the pair.
    pub fn precedence(&self) -> Precedence {
        Precedence::of(&self.source, &self.destination)
    }
}

/// `web -> api`, for both places of the pair.
impl fmt::Display for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_alone() {
        assert_eq!("*".parse(), Ok(Party::Any));
        for bad in ["web*", "**", "*-api"] {
            assert!(matches!(bad.parse::<Party>(), Err(PartyError::PartialWildcard(_))), "{bad}");
        }
    }

    #[test]
    fn the_forms_of_federated_callers_are_refused_by_name() {
        for reserved in ["*.*", "web.svc.example.com"] {
            assert!(matches!(reserved.parse::<Party>(), Err(PartyError::Federated(_))), "{reserved}");
        }
    }

    #[test]
    fn the_agent_of_the_control_plane_can_not_be_named() {
        assert!("agent/server".parse::<Party>().is_err());
    }

    #[test]
    fn an_exact_destination_is_worth_more_than_an_exact_source() {
        let of =
            |source: &str, destination: &str| Precedence::of(&source.parse().unwrap(), &destination.parse().unwrap()).value();
        assert_eq!([of("web", "api"), of("*", "api"), of("web", "*"), of("*", "*")], [9, 8, 6, 5]);
    }
}
