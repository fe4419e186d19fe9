//! What a group of requests does to the tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::redb::{ReadableTable, Table, WriteTransaction};
use bytes::Bytes;

use super::super::error::StoreError;
use super::super::types::{Batch, Compare, Event, Kv, LeaseId, Op, Stored, Txn, TxnResult};
use super::tables::{
    Head, KV, LAST_LEASE, LEASE_KEYS, LEASES, LOG, LOG_BYTES, META, OLDEST, REVISION, damaged, decode_head, encode_kv,
    encode_row, row_time,
};
use super::writer::{Answer, Pending, Request, Writer};

/// How many revisions are forgotten at a time, so that a change never waits long behind them.
const FORGET_AT_ONCE: u64 = 10_000;

/// One group on its way into the file.
pub(super) struct Work<'a> {
    writer: &'a mut Writer,
    answers: &'a mut Vec<Pending>,
    batches: &'a mut Vec<Arc<Batch>>,
    kv: Table<'a, &'static [u8], &'static [u8]>,
    log: Table<'a, u64, &'static [u8]>,
    leases: Table<'a, u64, u64>,
    lease_keys: Table<'a, (u64, &'static [u8]), ()>,
    meta: Table<'a, &'static str, u64>,
    at: SystemTime,
    changed: bool,
}

impl<'a> Work<'a> {
    pub fn open(
        writer: &'a mut Writer,
        txn: &'a WriteTransaction,
        answers: &'a mut Vec<Pending>,
        batches: &'a mut Vec<Arc<Batch>>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            writer,
            answers,
            batches,
            kv: txn.open_table(KV).map_err(damaged)?,
            log: txn.open_table(LOG).map_err(damaged)?,
            leases: txn.open_table(LEASES).map_err(damaged)?,
            lease_keys: txn.open_table(LEASE_KEYS).map_err(damaged)?,
            meta: txn.open_table(META).map_err(damaged)?,
            at: SystemTime::now(),
            changed: false,
        })
    }

    /// Records where the store is now; says whether there is anything to commit.
    pub fn finish(mut self) -> Result<bool, StoreError> {
        if self.changed {
            let state = &self.writer.state;
            let numbers = [
                (REVISION, state.revision),
                (OLDEST, state.oldest),
                (LAST_LEASE, state.last_lease),
                (LOG_BYTES, state.log_bytes),
            ];
            for (name, number) in numbers {
                self.meta.insert(name, number).map_err(damaged)?;
            }
        }
        Ok(self.changed)
    }

    /// Carries a request out; an error is one of the file, and ends the group.
    pub fn handle(&mut self, request: Request) -> Result<(), StoreError> {
        match request {
            Request::Txn(txn, answer) => {
                let outcome = self.txn(txn);
                self.settle(answer, outcome)
            }
            Request::Grant(ttl, answer) => {
                let outcome = self.grant(ttl).map(Ok);
                self.settle(answer, outcome)
            }
            Request::KeepAlive(lease, answer) => {
                let outcome = Ok(self.keep_alive(lease));
                self.settle(answer, outcome)
            }
            Request::Revoke(lease, answer) => {
                let outcome = self.end_lease(lease);
                self.settle(answer, outcome)
            }
            Request::Compact(revision, answer) => {
                let outcome = self.compact(revision);
                self.settle(answer, outcome)
            }
            Request::Expire(answer) => {
                let outcome = Ok(Ok(self.writer.state.revision));
                self.settle(answer, outcome)
            }
            Request::Retain(answer) => {
                self.writer.next_retention = Instant::now();
                self.settle(answer, Ok(Ok(())))
            }
            Request::Stop => Ok(()),
        }
    }

    /// Keeps the answer until the commit. The outer error is one of the file, the inner one of the request.
    fn settle<T: 'static>(
        &mut self,
        answer: Answer<T>,
        outcome: Result<Result<T, StoreError>, StoreError>,
    ) -> Result<(), StoreError> {
        let (result, goes_on) = match outcome {
            Ok(result) => (result, Ok(())),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        self.answers.push(Box::new(move |committed| answer.send(committed.and(result))));
        goes_on
    }

    /// The outer error is one of the file, the inner one of the transaction.
    fn txn(&mut self, txn: Txn) -> Result<Result<TxnResult, StoreError>, StoreError> {
        let succeeded = self.all_hold(&txn.compares)?;
        let ops = if succeeded { txn.then } else { txn.otherwise };
        for op in &ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.writer.deadlines.contains_key(&lease.0)
            {
                return Ok(Err(StoreError::LeaseNotFound(*lease)));
            }
        }
        let revision = self.writer.state.revision + 1;
        let mut events = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => {
                    let event = self.put(revision, key, value, lease)?;
                    events.insert(event.key.clone(), event);
                }
                Op::Delete(key) => self.delete(revision, key, &mut events)?,
                Op::DeletePrefix(prefix) => {
                    for key in self.keys_under(&prefix)? {
                        self.delete(revision, key, &mut events)?;
                    }
                }
            }
        }
        self.record(revision, events)?;
        Ok(Ok(TxnResult { succeeded, revision: self.writer.state.revision, committed_at: self.at }))
    }

    fn all_hold(&self, compares: &[Compare]) -> Result<bool, StoreError> {
        for compare in compares {
            let stored = self.kv.get(&**compare.key()).map_err(damaged)?;
            let stored = stored.as_ref().map(|stored| decode_head(stored.value())).transpose()?;
            let stored = stored.map(|(head, value)| Stored { mod_revision: head.mod_revision, version: head.version, value });
            if !compare.holds(stored) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>, StoreError> {
        let stored = self.kv.get(key).map_err(damaged)?;
        stored.map(|value| decode_head(value.value()).map(|(head, _)| head)).transpose()
    }

    fn keys_under(&self, prefix: &[u8]) -> Result<Vec<Bytes>, StoreError> {
        let mut keys = Vec::new();
        for entry in self.kv.range(prefix..).map_err(damaged)? {
            let (key, _) = entry.map_err(damaged)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            keys.push(Bytes::copy_from_slice(key.value()));
        }
        Ok(keys)
    }

    fn put(&mut self, revision: u64, key: Bytes, value: Bytes, lease: Option<LeaseId>) -> Result<Event, StoreError> {
        let before = self.head(&key)?;
        let old_lease = before.as_ref().and_then(|kv| kv.lease);
        if old_lease != lease {
            if let Some(old) = old_lease {
                self.lease_keys.remove((old.0, &*key)).map_err(damaged)?;
            }
            if let Some(new) = lease {
                self.lease_keys.insert((new.0, &*key), ()).map_err(damaged)?;
            }
        }
        let kv = Kv {
            create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: before.as_ref().map_or(0, |kv| kv.version) + 1,
            lease,
            key,
            value,
        };
        self.kv.insert(&*kv.key, &*encode_kv(&kv)).map_err(damaged)?;
        Ok(Event { key: kv.key, value: Some(kv.value), mod_revision: revision, create_revision: kv.create_revision })
    }

    fn delete(&mut self, revision: u64, key: Bytes, events: &mut BTreeMap<Bytes, Event>) -> Result<(), StoreError> {
        let Some(before) = self.head(&key)? else { return Ok(()) };
        self.kv.remove(&*key).map_err(damaged)?;
        if let Some(lease) = before.lease {
            self.lease_keys.remove((lease.0, &*key)).map_err(damaged)?;
        }
        let event = Event { key: key.clone(), value: None, mod_revision: revision, create_revision: 0 };
        events.insert(key, event);
        Ok(())
    }

    /// Makes the events, if there are any, the next revision.
    fn record(&mut self, revision: u64, events: BTreeMap<Bytes, Event>) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let batch = Batch { revision, events: events.into_values().collect() };
        let row = encode_row(&batch, self.at);
        self.log.insert(revision, &*row).map_err(damaged)?;
        self.writer.state.log_bytes += row.len() as u64;
        self.writer.state.revision = revision;
        self.batches.push(Arc::new(batch));
        self.changed = true;
        Ok(())
    }

    fn grant(&mut self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.writer.state.last_lease += 1;
        let lease = self.writer.state.last_lease;
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.leases.insert(lease, millis).map_err(damaged)?;
        self.writer.state.lease_ttls.insert(lease, ttl);
        self.writer.deadlines.insert(lease, self.writer.settings.clock.now() + ttl);
        self.changed = true;
        Ok(LeaseId(lease))
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Result<Duration, StoreError> {
        let ttl = *self.writer.state.lease_ttls.get(&lease.0).ok_or(StoreError::LeaseNotFound(lease))?;
        self.writer.deadlines.insert(lease.0, self.writer.settings.clock.now() + ttl);
        Ok(ttl)
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<Result<u64, StoreError>, StoreError> {
        if self.writer.deadlines.remove(&lease.0).is_none() {
            return Ok(Err(StoreError::LeaseNotFound(lease)));
        }
        self.writer.state.lease_ttls.remove(&lease.0);
        self.leases.remove(lease.0).map_err(damaged)?;
        self.changed = true;
        let revision = self.writer.state.revision + 1;
        let mut events = BTreeMap::new();
        for key in self.keys_of(lease)? {
            self.delete(revision, key, &mut events)?;
        }
        self.record(revision, events)?;
        Ok(Ok(self.writer.state.revision))
    }

    fn keys_of(&self, lease: LeaseId) -> Result<Vec<Bytes>, StoreError> {
        let first: (u64, &[u8]) = (lease.0, &[]);
        let mut keys = Vec::new();
        for entry in self.lease_keys.range(first..).map_err(damaged)? {
            let (entry, _) = entry.map_err(damaged)?;
            let (of, key) = entry.value();
            if of != lease.0 {
                break;
            }
            keys.push(Bytes::copy_from_slice(key));
        }
        Ok(keys)
    }

    /// Ends the leases whose time is over, the one that ended first first.
    pub fn expire(&mut self) -> Result<(), StoreError> {
        let now = self.writer.settings.clock.now();
        let due = self.writer.deadlines.iter().filter(|(_, deadline)| **deadline <= now);
        let mut due: Vec<_> = due.map(|(lease, deadline)| (*deadline, *lease)).collect();
        due.sort_unstable();
        for (_, lease) in due {
            // It is there: its deadline was.
            let _ = self.end_lease(LeaseId(lease))?;
        }
        Ok(())
    }

    fn compact(&mut self, revision: u64) -> Result<Result<(), StoreError>, StoreError> {
        let state = &self.writer.state;
        if revision > state.revision {
            return Ok(Err(StoreError::FutureRevision { asked: revision, revision: state.revision }));
        }
        self.forget_before(revision)?;
        Ok(Ok(()))
    }

    fn forget_before(&mut self, revision: u64) -> Result<(), StoreError> {
        if revision <= self.writer.state.oldest {
            return Ok(());
        }
        let mut bytes = 0;
        self.log
            .retain_in(..revision, |_, row| {
                bytes += row.len() as u64;
                false
            })
            .map_err(damaged)?;
        self.writer.state.log_bytes = self.writer.state.log_bytes.saturating_sub(bytes);
        self.writer.state.oldest = revision;
        self.changed = true;
        Ok(())
    }

    /// Forgets, from time to time, what the settings say need not be kept.
    pub fn retain_if_due(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if now < self.writer.next_retention {
            return Ok(());
        }
        let keep_from = self.keep_from()?;
        let at_most = self.writer.state.oldest.saturating_add(FORGET_AT_ONCE);
        self.forget_before(keep_from.min(at_most))?;
        let pause = if keep_from > at_most { Duration::ZERO } else { self.writer.settings.compact_every };
        self.writer.next_retention = now + pause;
        Ok(())
    }

    /// The oldest revision that is within the retention; the newest always is.
    fn keep_from(&self) -> Result<u64, StoreError> {
        let state = &self.writer.state;
        let retention = &self.writer.settings.retention;
        let by_count = (state.revision + 1).saturating_sub(retention.revisions.max(1));
        let oldest_time = self.at.checked_sub(retention.age);
        let mut bytes = state.log_bytes;
        let mut keep_from = by_count.max(state.oldest);
        for row in self.log.range(state.oldest..state.revision).map_err(damaged)? {
            let (revision, row) = row.map_err(damaged)?;
            let too_old = match oldest_time {
                Some(oldest) => row_time(row.value())? < oldest,
                None => false,
            };
            if revision.value() >= by_count && !too_old && bytes <= retention.bytes {
                break;
            }
            bytes = bytes.saturating_sub(row.value().len() as u64);
            keep_from = revision.value() + 1;
        }
        Ok(keep_from)
    }
}
