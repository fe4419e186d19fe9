//! What is renewed and removed as time passes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{IdentityError, IdentityService};
use crate::mirror::{Change, View};
use crate::records::{self, RecordKey};
use crate::store::{Op, Txn};

/// Records removed in one transaction.
const REMOVED_AT_ONCE: usize = 100;

/// Follows time and revocations until the service is dropped.
pub(super) fn start(service: &Arc<IdentityService>) -> JoinHandle<()> {
    let mut changes = service.mirror.subscribe();
    let every = service.settings.upkeep.min(service.settings.svid_ttl / 8);
    let service = Arc::downgrade(service);
    tokio::spawn(async move {
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let change = tokio::select! {
                change = changes.recv() => Some(change),
                _ = ticks.tick() => None,
            };
            let Some(service) = service.upgrade() else { return };
            match change {
                Some(Ok(change)) if !revokes(&change) => {}
                Some(Ok(_) | Err(RecvError::Lagged(_))) => service.refresh_trust(),
                Some(Err(RecvError::Closed)) => return,
                None => service.keep_up(SystemTime::now()).await,
            }
        }
    })
}

fn revokes(change: &Change) -> bool {
    change.everything || change.keys.iter().any(|key| matches!(key, RecordKey::Revoked(_)))
}

impl IdentityService {
    async fn keep_up(&self, now: SystemTime) {
        if let Err(error) = self.renew_intermediate_if_due(now).await {
            tracing::error!(%error, "the intermediate certificate was not renewed; trying again");
        }
        if let Err(error) = self.renew_own_svid_if_due(now) {
            tracing::error!(%error, "the control plane's own SVID was not renewed; trying again");
        }
        if let Err(error) = self.renew_server_certificate_if_due(now) {
            tracing::error!(%error, "the certificate of the HTTP API was not renewed; trying again");
        }
        if let Err(error) = self.remove_what_has_ended(now).await {
            tracing::warn!(%error, "records that have ended were not removed; trying again");
        }
    }

    /// Removes tokens whose time as tombstone is over, and SVIDs and lineages that nobody can renew any more.
    pub(super) async fn remove_what_has_ended(&self, now: SystemTime) -> Result<usize, IdentityError> {
        let keys = self.mirror.read(|view| self.ended(view, now));
        for some in keys.chunks(REMOVED_AT_ONCE) {
            let mut txn = Txn::new();
            txn.then = some.iter().cloned().map(Op::Delete).collect();
            self.store.txn(txn).await?;
        }
        Ok(keys.len())
    }

    fn ended(&self, view: &View, now: SystemTime) -> Vec<Bytes> {
        let grace = self.settings.renew_grace.max(self.settings.tombstone);
        let tokens = view.tokens.iter().filter(|(_, record)| record.not_after + self.settings.tombstone <= now);
        let revoked = view.revoked.iter().filter(|(_, (record, _))| record.not_after + grace <= now);
        let issuances = view.issuances.iter().filter(|(_, record)| record.not_after + grace <= now);
        let gone: HashSet<_> = issuances.clone().map(|(serial, _)| serial).collect();
        // The newest of a lineage is the last to end. One whose issuance is missing cannot be renewed either.
        let lineages =
            view.lineages.values().filter(|record| gone.contains(&record.newest) || !view.issuances.contains_key(&record.newest));
        let tokens = tokens.map(|(hash, _)| records::token_key(hash));
        let revoked = revoked.map(|(serial, _)| records::revoked_key(serial));
        let lineages = lineages.map(|record| records::lineage_key(&record.lineage));
        let issuances = issuances.map(|(serial, _)| records::issuance_key(serial));
        tokens.chain(revoked).chain(lineages).chain(issuances).collect()
    }
}
