//! Tokens, policies and roles of access control, as they are stored.

use std::collections::BTreeSet;
use std::time::SystemTime;

use postern_api::convert;
use postern_names::ServiceName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::as_millis;
use crate::acl::{NodeIdentity, ServiceIdentity};

/// A token; its key is the SHA-256 of its secret, which is nowhere stored, or `anonymous`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessTokenRecord {
    /// Names it in lists, logs and the API.
    pub accessor: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What it grants.
    #[serde(flatten)]
    pub links: Links,
    /// Told back, and of no effect: there is one datacenter.
    #[serde(default)]
    pub local: bool,
    /// Its end.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    pub expires_at: Option<SystemTime>,
    /// When it was made.
    #[serde(with = "as_millis")]
    pub created_at: SystemTime,
    /// Who made it.
    #[serde(default)]
    pub created_by: String,
    /// The revision that made it, where a later one changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_in: Option<u64>,
}

/// What a token or a role is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// Ids of policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Ids of roles; a role has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Services that it stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_identities: Vec<ServiceIdentity>,
    /// Nodes that it stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_identities: Vec<NodeIdentity>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessPolicyRecord {
    /// A UUID.
    pub id: String,
    /// Unique.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// As they were written.
    pub rules: String,
    /// The revision that made it, where a later one changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_in: Option<u64>,
}

/// A role: policies under one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessRoleRecord {
    /// A UUID.
    pub id: String,
    /// Unique.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What it grants.
    #[serde(flatten)]
    pub links: Links,
    /// Whose sidecars may read what it grants, for their service.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub services: BTreeSet<ServiceName>,
    /// The revision that made it, where a later one changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_in: Option<u64>,
}

mod optional_millis {
    use super::{Deserialize, Deserializer, Serializer, SystemTime, convert};

    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&convert::millis(*time)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(convert::time))
    }
}
