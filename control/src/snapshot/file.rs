//! The form of a snapshot: a line that says what it is, a line of JSON that says of what, the records, and a checksum of
//! all that.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::http::rfc3339;
use crate::records::{self, ClusterRecord};
use crate::store::Kv;

const MAGIC: &[u8] = b"postern-snapshot 1\n";
const CHECKSUM: usize = 32;
/// Bytes of the line of JSON.
const LONGEST_HEADER: usize = 64 << 10;
/// Bytes of a record beside its key and value.
const FRAME: usize = 4 + 4 + 3 * 8;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no whole snapshot: {0}; nothing was changed")]
pub struct Damage(pub String);

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version that saved it.
    pub version: String,
    /// Which mesh.
    pub cluster_id: String,
    /// Its trust domain.
    pub trust_domain: String,
    /// Its datacenter.
    pub datacenter: String,
    /// The epoch that it was saved in.
    pub epoch: u64,
    /// The revision that it is of.
    pub revision: u64,
    /// When it was saved.
    pub saved_at: String,
    /// Records by kind.
    pub counts: BTreeMap<String, u64>,
}

/// A snapshot that was read whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What it is of.
    pub header: Header,
    /// All records.
    pub kvs: Vec<Kv>,
}

impl Header {
    /// Of these records.
    pub fn new(cluster: &ClusterRecord, revision: u64, kvs: &[Kv], now: SystemTime) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster_id: cluster.cluster_id.clone(),
            trust_domain: cluster.trust_domain.to_string(),
            datacenter: cluster.datacenter.to_string(),
            epoch: cluster.epoch,
            revision,
            saved_at: rfc3339(now),
            counts: counts(kvs),
        }
    }
}

impl Snapshot {
    /// Which mesh its records say that it is of.
    ///
    /// # Errors
    /// [`Damage`] where they do not say it, or differ from the header.
    pub fn cluster(&self) -> Result<ClusterRecord, Damage> {
        let key = records::cluster_key();
        let record = self.kvs.iter().find(|kv| kv.key == key).ok_or_else(|| Damage("it does not say of which mesh".into()))?;
        let cluster: ClusterRecord = records::decode(&key, &record.value).map_err(|error| Damage(error.to_string()))?;
        if cluster.cluster_id != self.header.cluster_id {
            return Err(Damage("its records are of another mesh than it says".into()));
        }
        Ok(cluster)
    }
}

fn counts(kvs: &[Kv]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for kv in kvs {
        let kind = kv.key.split(|byte| *byte == b'/').next().unwrap_or_default();
        *counts.entry(String::from_utf8_lossy(kind).into_owned()).or_default() += 1;
    }
    counts
}

/// The bytes of a snapshot.
///
/// # Errors
/// Where a record is longer than 4 GiB; none is.
pub fn encode(header: &Header, kvs: &[Kv]) -> Result<Vec<u8>, Damage> {
    let unwritable = |error: &dyn std::fmt::Display| Damage(format!("it cannot be written: {error}"));
    let header = serde_json::to_vec(header).map_err(|error| unwritable(&error))?;
    let records: usize = kvs.iter().map(|kv| FRAME + kv.key.len() + kv.value.len()).sum();
    let mut bytes = Vec::with_capacity(MAGIC.len() + header.len() + 1 + records + CHECKSUM);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&header);
    bytes.push(b'\n');
    for kv in kvs {
        bytes.put_u32(u32::try_from(kv.key.len()).map_err(|error| unwritable(&error))?);
        bytes.put_u32(u32::try_from(kv.value.len()).map_err(|error| unwritable(&error))?);
        for number in [kv.create_revision, kv.mod_revision, kv.version] {
            bytes.put_u64(number);
        }
        bytes.extend_from_slice(&kv.key);
        bytes.extend_from_slice(&kv.value);
    }
    let checksum = digest(&SHA256, &bytes);
    bytes.extend_from_slice(checksum.as_ref());
    Ok(bytes)
}

/// Reads a snapshot whole.
///
/// # Errors
/// [`Damage`] says what is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, Damage> {
    let damage = |why: &str| Damage(why.to_owned());
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| match bytes.starts_with(b"postern-snapshot ") {
        true => damage("its form is one of another version; use that version to restore it"),
        false => damage("it does not begin as one"),
    })?;
    let (content, checksum) =
        rest.split_at_checked(rest.len().saturating_sub(CHECKSUM)).ok_or_else(|| damage("it is cut off"))?;
    let signed = bytes.get(..MAGIC.len() + content.len()).unwrap_or_default();
    if digest(&SHA256, signed).as_ref() != checksum {
        return Err(damage("its checksum does not fit: it was cut off or changed"));
    }
    let line = content.iter().take(LONGEST_HEADER).position(|byte| *byte == b'\n').ok_or_else(|| damage("it has no header"))?;
    let (header, records) = content.split_at(line);
    let header: Header = serde_json::from_slice(header).map_err(|error| Damage(format!("its header cannot be read: {error}")))?;
    let kvs = read_records(records.get(1..).unwrap_or_default(), header.revision)?;
    if counts(&kvs) != header.counts {
        return Err(damage("its records are not those that it counts"));
    }
    Ok(Snapshot { header, kvs })
}

fn read_records(mut rest: &[u8], revision: u64) -> Result<Vec<Kv>, Damage> {
    let mut kvs: Vec<Kv> = Vec::new();
    while !rest.is_empty() {
        if rest.len() < FRAME {
            return Err(Damage("a record is cut off".into()));
        }
        let (key, value) = (rest.get_u32() as usize, rest.get_u32() as usize);
        let (create_revision, mod_revision, version) = (rest.get_u64(), rest.get_u64(), rest.get_u64());
        let whole = key.checked_add(value).and_then(|length| rest.split_at_checked(length));
        let Some((record, after)) = whole else { return Err(Damage("a record is longer than the file".into())) };
        let (key, value) = record.split_at(key);
        let is_ordered = kvs.last().is_none_or(|last| *last.key < *key);
        let is_valid =
            !key.is_empty() && create_revision <= mod_revision && mod_revision <= revision && version > 0 && create_revision > 0;
        if !is_ordered || !is_valid {
            return Err(Damage("a record is not as any store has it".into()));
        }
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        kvs.push(Kv { key, value, create_revision, mod_revision, version, lease: None });
        rest = after;
    }
    Ok(kvs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterRecord {
        ClusterRecord {
            cluster_id: "c".into(),
            trust_domain: "example.com".parse().unwrap(),
            datacenter: "dc1".parse().unwrap(),
            epoch: 3,
            created_at: SystemTime::UNIX_EPOCH,
        }
    }

    fn snapshot() -> (Header, Vec<Kv>) {
        let kv = |key: &str, value: &[u8], at: u64| Kv {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value),
            create_revision: 2,
            mod_revision: at,
            version: 1,
            lease: None,
        };
        let cluster_record = records::encode(&cluster()).unwrap();
        let kvs = vec![kv("intention/p/a/b", b"x", 7), kv("kv/\u{0}\n", b"\n\n", 9), kv("meta/cluster", &cluster_record, 2)];
        (Header::new(&cluster(), 9, &kvs, SystemTime::UNIX_EPOCH), kvs)
    }

    #[test]
    fn a_snapshot_reads_back_as_it_was_saved() {
        let (header, kvs) = snapshot();
        let read = decode(&encode(&header, &kvs).unwrap()).unwrap();
        assert_eq!(read, Snapshot { header, kvs });
        assert_eq!(read.cluster().unwrap(), cluster());
        assert_eq!(read.header.counts["intention"], 1);
    }

    #[test]
    fn no_byte_can_be_changed_or_missing() {
        let (header, kvs) = snapshot();
        let whole = encode(&header, &kvs).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(decode(&changed).is_err(), "byte {at} was changed");
            assert!(decode(&whole[..at]).is_err(), "cut at {at}");
        }
        assert!(decode(&[&whole[..], b"x"].concat()).is_err());
    }

    #[test]
    fn records_that_no_store_has_are_refused_with_a_good_checksum() {
        let (header, kvs) = snapshot();
        let broken: [fn(&mut Vec<Kv>); 4] =
            [|kvs| kvs.reverse(), |kvs| kvs[0].mod_revision = 10, |kvs| kvs[0].version = 0, |kvs| kvs[0].key = Bytes::new()];
        for break_it in broken {
            let mut kvs = kvs.clone();
            break_it(&mut kvs);
            let header = Header { counts: counts(&kvs), ..header.clone() };
            assert!(decode(&encode(&header, &kvs).unwrap()).is_err());
        }
        let (mut header, kvs) = snapshot();
        header.counts.insert("intention".into(), 2);
        assert!(decode(&encode(&header, &kvs).unwrap()).is_err());
    }
}
