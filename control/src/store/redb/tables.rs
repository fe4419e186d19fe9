//! How the file is laid out: tables and encodings of schema version 1. Numbers are big-endian.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redb::TableDefinition;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::super::error::StoreError;
use super::super::types::{Batch, Event, Kv, LeaseId};

/// What this version writes and reads.
pub(super) const SCHEMA: u64 = 1;

/// key → create revision, modification revision, version, lease (0 = none), value.
pub(super) const KV: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("kv");
/// revision → milliseconds since 1970, then for each event: create revision (0 = deleted), key and value with lengths.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// lease → its time to live in milliseconds.
pub(super) const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
/// The keys of each lease.
pub(super) const LEASE_KEYS: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("lease_keys");
/// Numbers by name.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

pub(super) const SCHEMA_VERSION: &str = "schema";
pub(super) const REVISION: &str = "revision";
pub(super) const OLDEST: &str = "oldest";
pub(super) const LAST_LEASE: &str = "last_lease";
/// Bytes of all rows of the log.
pub(super) const LOG_BYTES: &str = "log_bytes";

/// A read that failed on an open file.
pub(super) fn damaged(error: impl Into<::redb::Error>) -> StoreError {
    super::open::read_error(error.into())
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} is damaged; restore a backup of the store"))
}

pub(super) fn encode_kv(kv: &Kv) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 + kv.value.len());
    bytes.put_u64(kv.create_revision);
    bytes.put_u64(kv.mod_revision);
    bytes.put_u64(kv.version);
    bytes.put_u64(kv.lease.map_or(0, |lease| lease.0));
    bytes.put_slice(&kv.value);
    bytes
}

/// Where a key stands in the store's history; its value is not looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub create_revision: u64,
    pub mod_revision: u64,
    pub version: u64,
    pub lease: Option<LeaseId>,
}

/// The head of a stored key, and its value.
pub(super) fn decode_head(mut bytes: &[u8]) -> Result<(Head, &[u8]), StoreError> {
    let mut number = || bytes.try_get_u64().map_err(|_| corrupt("a key"));
    let (create_revision, mod_revision, version, lease) = (number()?, number()?, number()?, number()?);
    let lease = (lease != 0).then_some(LeaseId(lease));
    Ok((Head { create_revision, mod_revision, version, lease }, bytes))
}

pub(super) fn decode_kv(key: &[u8], bytes: &[u8]) -> Result<Kv, StoreError> {
    let (head, value) = decode_head(bytes)?;
    Ok(Kv {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        create_revision: head.create_revision,
        mod_revision: head.mod_revision,
        version: head.version,
        lease: head.lease,
    })
}

pub(super) fn encode_row(batch: &Batch, at: SystemTime) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u64(millis(at));
    for event in &batch.events {
        // A revision that creates is at least 2, so 0 can stand for a deletion.
        bytes.put_u64(event.value.as_ref().map_or(0, |_| event.create_revision));
        put_slice(&mut bytes, &event.key);
        put_slice(&mut bytes, event.value.as_deref().unwrap_or_default());
    }
    bytes
}

/// When the row was written.
pub(super) fn row_time(mut row: &[u8]) -> Result<SystemTime, StoreError> {
    let millis = row.try_get_u64().map_err(|_| corrupt("the log"))?;
    Ok(UNIX_EPOCH + Duration::from_millis(millis))
}

pub(super) fn decode_row(revision: u64, row: &[u8]) -> Result<Batch, StoreError> {
    row_time(row)?;
    let mut rest = Bytes::from(BytesMut::from(&row[8..]));
    let mut events = Vec::new();
    while rest.has_remaining() {
        let create_revision = rest.try_get_u64().map_err(|_| corrupt("the log"))?;
        let key = take_slice(&mut rest)?;
        let value = take_slice(&mut rest)?;
        let value = (create_revision != 0).then_some(value);
        events.push(Event { key, value, mod_revision: revision, create_revision });
    }
    Ok(Batch { revision, events })
}

fn put_slice(bytes: &mut Vec<u8>, slice: &[u8]) {
    // A transaction's limit keeps every key and value far below 4 GiB.
    bytes.put_u32(slice.len() as u32);
    bytes.put_slice(slice);
}

fn take_slice(rest: &mut Bytes) -> Result<Bytes, StoreError> {
    let length = rest.try_get_u32().map_err(|_| corrupt("the log"))? as usize;
    if length > rest.len() {
        return Err(corrupt("the log"));
    }
    Ok(rest.split_to(length))
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
