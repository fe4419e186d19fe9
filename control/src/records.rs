//! What is in the store: the keys, and the JSON records behind them.
//!
//! | key | record |
//! |---|---|
//! | `meta/cluster` | [`ClusterRecord`] |
//! | `default` | [`DefaultRecord`] |
//! | `intention/p/SRC/DST`, `intention/t/SRC/DST` | [`IntentionRecord`], permanent and temporary |
//! | `token/HASH` | [`TokenRecord`] |
//! | `issuance/SERIAL` | [`IssuanceRecord`] |
//! | `lineage/ID` | [`LineageRecord`] |
//! | `revoked/SERIAL` | [`RevokedRecord`] |
//! | `instance/ID` | [`InstanceRecord`] |
//! | `service/NAME` | [`ServiceRecord`] |
//! | `traffic/NAME` | [`SettingsRecord`]: what an operator set for the service |
//! | `jwt/NAME` | [`ProviderRecord`] |
//! | `jwks/NAME` | [`JwksRecord`]: the keys of a provider whose source is a file or a URL |
//! | `kv/KEY` | [`StoredEntry`](crate::kv::StoredEntry): a sealed value, in a form of its own |
//! | `session/ID` | [`SessionRecord`](crate::sessions::SessionRecord) |
//! | `acl/token/HASH`, `acl/policy/ID`, `acl/role/ID` | [`AccessTokenRecord`], [`AccessPolicyRecord`], [`AccessRoleRecord`] |
//! | `node/NODE` | [`NodeRecord`]: a host that was registered |
//! | `registered/NODE/ID` | [`RegisteredRecord`]: an instance without a sidecar |
//! | `check/NODE/ID` | [`CheckRecord`] |
//! | `query/ID` | [`QueryRecord`]: a prepared query |
//! | `change-set`, `change-set/ID/…` | [`change_set`]: a change that is larger than a transaction |
//! | `history/…`, `history-part/…` | not mirrored: [`history`], what was changed in intentions and default |
//! | `authority/…`, `audit/…` | not mirrored: the sealed keys, and audit entries on their way to the log |

mod acl;
mod catalog;
pub mod change_set;
pub mod history;
mod query;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use postern_ca::Serial;
use postern_intentions::{DefaultPolicy, Intention, PairKey, Party, Protocol};
use postern_names::{Datacenter, InstanceId, PortName, ServiceName, TrustDomain};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::acl::{AccessPolicyRecord, AccessRoleRecord, AccessTokenRecord, Links};
pub use self::catalog::{
    CheckRecord, InstanceCheck, NODE_MAINTENANCE, NodeRecord, RegisteredRecord, TaggedAddress, Weights, service_maintenance,
};
pub use self::query::{QueriedService, QueryRecord, QueryTemplate};
pub use self::settings::{JwksRecord, ProviderRecord, SettingsRecord};
use crate::kv::{KV_PREFIX, kv_key};

/// Which mesh this store belongs to; written once, at the first start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// One id for the life of the store.
    pub cluster_id: String,
    /// Fixed at the first start.
    pub trust_domain: TrustDomain,
    /// Fixed at the first start.
    pub datacenter: Datacenter,
    /// Raised by every restore from a snapshot; begins at 1.
    pub epoch: u64,
    /// The first start.
    #[serde(with = "as_millis")]
    pub created_at: SystemTime,
}

/// The verdict where no intention matches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DefaultRecord {
    /// What it is.
    pub policy: DefaultPolicy,
}

/// An intention, and who set it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntentionRecord {
    /// What it says.
    pub intention: Intention,
    /// When it was last set.
    #[serde(with = "as_millis")]
    pub created_at: SystemTime,
    /// A token id or `uid:N`.
    pub created_by: String,
    /// In the words of who set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The revision that made it true, where a later one only moved it out of a change set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_in: Option<u64>,
}

/// An enrolment token; its key is the SHA-256 of its secret, which is nowhere stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Eight characters that name it in lists and logs.
    pub id: String,
    /// The service that its bearer becomes.
    pub service: ServiceName,
    /// How often it can still be spent.
    pub uses_left: u32,
    /// How often it was made to be spent.
    pub uses: u32,
    /// Its end; the record stays 24 hours longer, so that a replay is seen.
    #[serde(with = "as_millis")]
    pub not_after: SystemTime,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    #[serde(with = "as_millis")]
    pub created_at: SystemTime,
    /// The lineages that were begun with it.
    #[serde(default)]
    pub lineages: Vec<String>,
    /// Ended by `token revoke`.
    #[serde(default)]
    pub revoked: bool,
}

/// One SVID that was issued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IssuanceRecord {
    /// Its serial number.
    pub serial: Serial,
    /// The SPIFFE ID in it.
    pub id: String,
    /// The service of that ID.
    pub service: ServiceName,
    /// Who asked for it.
    pub instance: InstanceId,
    /// The enrolment that it goes back to.
    pub lineage: String,
    /// The SVID that it replaces; absent for the first of a lineage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Serial>,
    /// When it ends.
    #[serde(with = "as_millis")]
    pub not_after: SystemTime,
    /// Hex SHA-256 of its public key: the same key that asks again gets the same certificate.
    pub key_hash: String,
    /// Whether it was seen in use.
    #[serde(default)]
    pub used: bool,
    /// The chain as it was handed out (DER in base64, leaf first), for the same key asking again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
}

/// An enrolment and all SVIDs renewed from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineageRecord {
    /// Its id.
    pub lineage: String,
    /// The service of all its SVIDs.
    pub service: ServiceName,
    /// The instance that enrolled.
    pub instance: InstanceId,
    /// The token that was spent.
    pub token_id: String,
    /// The newest SVID.
    pub newest: Serial,
    /// No renewal any more, and every unexpired serial is pushed as revoked.
    #[serde(default)]
    pub revoked: bool,
    /// Two holders of one SVID were seen.
    #[serde(default)]
    pub forked: bool,
}

/// An SVID that no longer counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevokedRecord {
    /// The lineage that was revoked.
    pub lineage: String,
    /// When it would have ended; the record can go then.
    #[serde(with = "as_millis")]
    pub not_after: SystemTime,
}

/// One running copy of a service as it registered. Written only when something changes, never by a beat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Its id, unique in the mesh.
    pub id: InstanceId,
    /// The service in its SVID.
    pub service: ServiceName,
    /// HOST:PORT that others dial; absent when it only calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Ports that it serves, `main` included.
    #[serde(default)]
    pub ports: Vec<PortName>,
    /// Transports that its inbound listener accepts.
    #[serde(default)]
    pub transports: Vec<String>,
    /// `--meta`.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// REGION[/ZONE], or empty.
    #[serde(default)]
    pub locality: String,
    /// Host name.
    #[serde(default)]
    pub node: String,
    /// Where Prometheus may scrape it, HOST:PORT, or empty.
    #[serde(default)]
    pub metrics: String,
    /// The enrolment that its SVID goes back to.
    pub lineage: String,
    /// Whether it can be called: its local service answers and it was alive lately.
    pub healthy: bool,
    /// Since when it is healthy, critical or gone.
    #[serde(with = "as_millis")]
    pub state_since: SystemTime,
    /// It said goodbye or was deregistered: no endpoint any more.
    #[serde(default)]
    pub left: bool,
    /// It fell silent and was taken out of every list without a goodbye: nobody calls it, and its sidecar may still run with
    /// the rules that it had, until its SVID ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// `--tag`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// `--weight`
    #[serde(default, skip_serializing_if = "Weights::is_default")]
    pub weights: Weights,
    /// The checks that its sidecar runs; none: it sees whether the service accepts connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<InstanceCheck>,
}

impl InstanceRecord {
    /// The node that it is on: its host; one that told none is a node of its own.
    pub fn node_name(&self) -> &str {
        if self.node.is_empty() { self.id.as_str() } else { &self.node }
    }
}

/// What instances declared of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// As first declared by an instance; what an operator set goes before it.
    pub protocol: Protocol,
}

/// A key of the store that is mirrored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKey {
    /// `meta/cluster`
    Cluster,
    /// `default`
    Default,
    /// `intention/p/SRC/DST` or `intention/t/SRC/DST`
    Intention(PairKey),
    /// `token/HASH`
    Token(String),
    /// `issuance/SERIAL`
    Issuance(Serial),
    /// `lineage/ID`
    Lineage(String),
    /// `revoked/SERIAL`
    Revoked(Serial),
    /// `instance/ID`
    Instance(InstanceId),
    /// `service/NAME`
    Service(ServiceName),
    /// `traffic/NAME`
    Settings(ServiceName),
    /// `jwt/NAME`
    Provider(PortName),
    /// `jwks/NAME`
    Jwks(PortName),
    /// `kv/KEY`; a key may hold any bytes
    Kv(Bytes),
    /// `session/ID`
    Session(String),
    /// `acl/token/HASH`
    AccessToken(String),
    /// `acl/policy/ID`
    AccessPolicy(String),
    /// `acl/role/ID`
    AccessRole(String),
    /// `node/NODE`
    Node(String),
    /// `registered/NODE/ID`
    Registered(String, String),
    /// `check/NODE/ID`
    Check(String, String),
    /// `query/ID`
    Query(String),
}

impl RecordKey {
    /// The bytes of the key in the store.
    pub fn to_bytes(&self) -> Bytes {
        if let Self::Kv(key) = self {
            return kv_key(key);
        }
        Bytes::from(self.to_string().into_bytes())
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("meta/cluster"),
            Self::Default => f.write_str("default"),
            Self::Intention(pair) => {
                let kind = if pair.temporary { "t" } else { "p" };
                write!(f, "intention/{kind}/{}/{}", pair.source, pair.destination)
            }
            Self::Token(hash) => write!(f, "token/{hash}"),
            Self::Issuance(serial) => write!(f, "issuance/{serial}"),
            Self::Lineage(id) => write!(f, "lineage/{id}"),
            Self::Revoked(serial) => write!(f, "revoked/{serial}"),
            Self::Instance(id) => write!(f, "instance/{id}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Settings(name) => write!(f, "traffic/{name}"),
            Self::Provider(name) => write!(f, "jwt/{name}"),
            Self::Jwks(name) => write!(f, "jwks/{name}"),
            Self::Kv(key) => write!(f, "kv/{}", String::from_utf8_lossy(key)),
            Self::Session(id) => write!(f, "session/{id}"),
            Self::AccessToken(hash) => write!(f, "acl/token/{hash}"),
            Self::AccessPolicy(id) => write!(f, "acl/policy/{id}"),
            Self::AccessRole(id) => write!(f, "acl/role/{id}"),
            Self::Node(node) => write!(f, "node/{}", escaped(node)),
            Self::Registered(node, id) => write!(f, "registered/{}/{}", escaped(node), escaped(id)),
            Self::Query(id) => write!(f, "query/{id}"),
            Self::Check(node, id) => write!(f, "check/{}/{}", escaped(node), escaped(id)),
        }
    }
}

/// A key that is not mirrored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key of a mirrored record")]
pub struct NotMirrored(pub String);

impl FromStr for RecordKey {
    type Err = NotMirrored;

    fn from_str(text: &str) -> Result<Self, NotMirrored> {
        parse_key(text).ok_or_else(|| NotMirrored(text.chars().take(200).collect()))
    }
}

impl TryFrom<&[u8]> for RecordKey {
    type Error = NotMirrored;

    fn try_from(key: &[u8]) -> Result<Self, NotMirrored> {
        if let Some(key) = key.strip_prefix(KV_PREFIX) {
            return Ok(Self::Kv(Bytes::copy_from_slice(key)));
        }
        match std::str::from_utf8(key) {
            Ok(text) => text.parse(),
            Err(_) => Err(NotMirrored(String::from_utf8_lossy(key).chars().take(200).collect())),
        }
    }
}

fn parse_key(text: &str) -> Option<RecordKey> {
    if let Some(key) = text.strip_prefix("kv/") {
        return Some(RecordKey::Kv(Bytes::copy_from_slice(key.as_bytes())));
    }
    let parts: Vec<&str> = text.split('/').collect();
    Some(match parts.as_slice() {
        ["meta", "cluster"] => RecordKey::Cluster,
        ["default"] => RecordKey::Default,
        ["intention", kind, source, destination] => {
            let temporary = match *kind {
                "p" => false,
                "t" => true,
                _ => return None,
            };
            let source: Party = source.parse().ok()?;
            let destination: Party = destination.parse().ok()?;
            RecordKey::Intention(PairKey { source, destination, temporary })
        }
        ["token", hash] => RecordKey::Token((*hash).to_owned()),
        ["issuance", serial] => RecordKey::Issuance(serial.parse().ok()?),
        ["lineage", id] => RecordKey::Lineage((*id).to_owned()),
        ["revoked", serial] => RecordKey::Revoked(serial.parse().ok()?),
        ["instance", id] => RecordKey::Instance(id.parse().ok()?),
        ["service", name] => RecordKey::Service(name.parse().ok()?),
        ["traffic", name] => RecordKey::Settings(name.parse().ok()?),
        ["jwt", name] => RecordKey::Provider(name.parse().ok()?),
        ["jwks", name] => RecordKey::Jwks(name.parse().ok()?),
        ["session", id] if !id.is_empty() => RecordKey::Session((*id).to_owned()),
        ["acl", "token", hash] => RecordKey::AccessToken((*hash).to_owned()),
        ["acl", "policy", id] => RecordKey::AccessPolicy((*id).to_owned()),
        ["acl", "role", id] => RecordKey::AccessRole((*id).to_owned()),
        ["query", id] if !id.is_empty() => RecordKey::Query((*id).to_owned()),
        ["node", node] => RecordKey::Node(unescaped(node)?),
        ["registered", node, id] => RecordKey::Registered(unescaped(node)?, unescaped(id)?),
        ["check", node, id] => RecordKey::Check(unescaped(node)?, unescaped(id)?),
        _ => return None,
    })
}

/// What a segment of a key may hold as it is.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':');

/// A free text as a segment of a key.
fn escaped(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, &ESCAPED)
}

fn unescaped(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?.into_owned();
    (!text.is_empty()).then_some(text)
}

/// The key of the intention of a pair.
pub fn intention_key(pair: &PairKey) -> Bytes {
    RecordKey::Intention(pair.clone()).to_bytes()
}

/// The key of `meta/cluster`.
pub fn cluster_key() -> Bytes {
    RecordKey::Cluster.to_bytes()
}

/// The key of the default policy.
pub fn default_key() -> Bytes {
    RecordKey::Default.to_bytes()
}

/// The key of an enrolment token, by the hash of its secret.
pub fn token_key(hash: &str) -> Bytes {
    RecordKey::Token(hash.to_owned()).to_bytes()
}

/// The key of an issuance.
pub fn issuance_key(serial: &Serial) -> Bytes {
    RecordKey::Issuance(*serial).to_bytes()
}

/// The key of a lineage.
pub fn lineage_key(lineage: &str) -> Bytes {
    RecordKey::Lineage(lineage.to_owned()).to_bytes()
}

/// The key of a revoked serial.
pub fn revoked_key(serial: &Serial) -> Bytes {
    RecordKey::Revoked(*serial).to_bytes()
}

/// The key of an instance.
pub fn instance_key(id: &InstanceId) -> Bytes {
    RecordKey::Instance(id.clone()).to_bytes()
}

/// The key of what instances declared of a service.
pub fn service_key(name: &ServiceName) -> Bytes {
    RecordKey::Service(name.clone()).to_bytes()
}

/// The key of what an operator set for a service.
pub fn settings_key(name: &ServiceName) -> Bytes {
    RecordKey::Settings(name.clone()).to_bytes()
}

/// The key of a JWT provider.
pub fn provider_key(name: &PortName) -> Bytes {
    RecordKey::Provider(name.clone()).to_bytes()
}

/// The key of the keys of a JWT provider.
pub fn jwks_key(name: &PortName) -> Bytes {
    RecordKey::Jwks(name.clone()).to_bytes()
}

/// A record that the store holds and this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("record {key} cannot be read by this version ({why}); run a control plane at least as new as the one that wrote it")]
pub struct UnreadableRecord {
    /// Its key.
    pub key: String,
    /// What is wrong.
    pub why: String,
}

/// A record as it is stored.
///
/// # Errors
/// Where a time in it cannot be written; no record has one such.
pub fn encode<T: Serialize>(record: &T) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(record).map(Bytes::from)
}

/// The record in a stored value.
///
/// # Errors
/// [`UnreadableRecord`] names the key.
pub fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, UnreadableRecord> {
    serde_json::from_slice(value)
        .map_err(|error| UnreadableRecord { key: String::from_utf8_lossy(key).into_owned(), why: error.to_string() })
}

/// Times as milliseconds since the Unix epoch.
pub mod as_millis {
    use std::time::SystemTime;

    use postern_api::convert;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the milliseconds.
    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(convert::millis(*time))
    }

    /// Reads them back.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        u64::deserialize(deserializer).map(convert::time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        for text in [
            "meta/cluster",
            "default",
            "intention/p/web/*",
            "intention/t/*/api",
            "token/ab12",
            "lineage/x",
            "instance/web-1",
            "service/db",
            "traffic/db",
            "jwt/corp",
            "jwks/corp",
            "kv/app/a b",
            "session/5f0c1b5e",
            "acl/token/ab12",
            "acl/policy/x",
            "acl/role/y",
            "node/h",
            "registered/h/a%2Fb%20c%25",
            "check/h/service:web-1",
        ] {
            assert_eq!(text.parse::<RecordKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_key_of_another_kind_is_not_mirrored() {
        for text in ["authority/root", "audit/1", "intention/x/web/api", "instance/", "revoked/zz", ""] {
            assert!(text.parse::<RecordKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_record_keeps_its_times_to_the_millisecond() {
        let record = RevokedRecord { lineage: "l".into(), not_after: postern_api::convert::time(1_800_000_000_123) };
        let bytes = encode(&record).unwrap();
        assert_eq!(decode::<RevokedRecord>(b"revoked/x", &bytes).unwrap(), record);
    }

    #[test]
    fn an_unreadable_record_is_named() {
        let error = decode::<ServiceRecord>(b"service/db", b"{\"protocol\":7}").unwrap_err();
        assert!(error.to_string().contains("service/db"), "{error}");
    }
}
