//! A session as stored.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::records::as_millis;

/// What becomes of the keys that a session holds when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Behaviour {
    /// They stay, without a holder.
    #[default]
    Release,
    /// They are deleted.
    Delete,
}

/// A check of a service that a session lives with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCheck {
    /// The id of the check.
    pub id: String,
}

/// One session. It is written once and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// The node that it lives on, and with.
    pub node: String,
    /// How long its keys cannot be locked after it ended, 0 to 60 s.
    #[serde(with = "millis")]
    pub lock_delay: Duration,
    /// What becomes of its keys.
    pub behaviour: Behaviour,
    /// How long it lives without a renewal, as it was given; empty: until it is destroyed.
    #[serde(default)]
    pub ttl: String,
    /// The same, in milliseconds; 0: until it is destroyed.
    #[serde(default)]
    pub ttl_ms: u64,
    /// Checks of its node that it lives with.
    #[serde(default)]
    pub node_checks: Vec<String>,
    /// Checks of services that it lives with.
    #[serde(default)]
    pub service_checks: Vec<ServiceCheck>,
    /// When it was made.
    #[serde(with = "as_millis")]
    pub created_at: SystemTime,
}

impl SessionRecord {
    /// How long it lives without a renewal.
    pub fn time_to_live(&self) -> Option<Duration> {
        (self.ttl_ms != 0).then(|| Duration::from_millis(self.ttl_ms))
    }

    /// The ids of all checks that it lives with.
    pub fn checks(&self) -> impl Iterator<Item = &String> {
        self.node_checks.iter().chain(self.service_checks.iter().map(|check| &check.id))
    }
}

/// The key of a session in the store.
pub fn session_key(id: &str) -> Bytes {
    format!("session/{id}").into()
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
