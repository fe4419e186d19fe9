//! A store whose commits are measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;

use super::Metrics;
use crate::store::{Batch, Kv, LeaseId, Range, Store, StoreError, Txn, TxnResult};

/// Measures how long the transactions of another store take.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl MeteredStore {
    /// Measures `inner`.
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl Store for MeteredStore {
    fn range(&self, prefix: &[u8], limit: usize) -> BoxFuture<'static, Result<Range, StoreError>> {
        self.inner.range(prefix, limit)
    }

    fn get(&self, key: &[u8]) -> BoxFuture<'static, Result<Option<Kv>, StoreError>> {
        self.inner.get(key)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'static, Result<TxnResult, StoreError>> {
        let began = Instant::now();
        let metrics = Arc::clone(&self.metrics);
        let result = self.inner.txn(txn);
        async move {
            let result = result.await;
            if result.is_ok() {
                metrics.committed(began.elapsed());
            }
            result
        }
        .boxed()
    }

    fn watch(&self, prefix: &[u8], from: u64) -> BoxStream<'static, Result<Batch, StoreError>> {
        self.inner.watch(prefix, from)
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'static, Result<LeaseId, StoreError>> {
        self.inner.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'static, Result<Duration, StoreError>> {
        self.inner.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.inner.revoke(lease)
    }

    fn compact(&self, revision: u64) -> BoxFuture<'static, Result<(), StoreError>> {
        self.inner.compact(revision)
    }

    fn revision(&self) -> u64 {
        self.inner.revision()
    }
}
