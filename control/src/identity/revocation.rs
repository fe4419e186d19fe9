//! Revocation acts on lineages: no renewal, and every unexpired serial is pushed.

use std::collections::HashMap;
use std::time::SystemTime;

use futures_util::StreamExt;
use postern_ca::Serial;
use postern_names::InstanceId;
use serde_json::json;

use super::{IdentityError, IdentityService, TRIES, audit};
use crate::policy::Author;
use crate::records::{self, LineageRecord, RevokedRecord};
use crate::store::{Compare, MAX_OPS, Op, Txn};

/// Lineages that are revoked at the same time; the store writes them in groups.
const AT_ONCE: usize = 64;

/// What a revocation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Revoked {
    pub svids: usize,
    pub revision: u64,
}

impl IdentityService {
    /// Revokes every lineage of an instance; gives the revision from which on it holds.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn revoke_instance(&self, instance: &InstanceId, author: &Author) -> Result<u64, IdentityError> {
        let lineages = self.mirror.read(|view| {
            let own = view.lineages.values().filter(|lineage| lineage.instance == *instance && !lineage.revoked);
            own.map(|lineage| lineage.lineage.clone()).collect()
        });
        Ok(self.revoke_lineages(lineages, author).await?.revision)
    }

    /// Revokes one lineage; gives the revision from which on it holds.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn revoke_lineage(&self, lineage: &str, author: &Author) -> Result<u64, IdentityError> {
        Ok(self.revoke_lineages(vec![lineage.to_owned()], author).await?.revision)
    }

    pub(super) async fn revoke_lineages(&self, lineages: Vec<String>, author: &Author) -> Result<Revoked, IdentityError> {
        let mut revoking = futures_util::stream::iter(lineages)
            .map(|lineage| async move { self.revoke_one(&lineage, author).await })
            .buffer_unordered(AT_ONCE);
        let mut whole = Revoked::default();
        while let Some(one) = revoking.next().await {
            let one = one?;
            whole = Revoked { svids: whole.svids + one.svids, revision: whole.revision.max(one.revision) };
        }
        self.mirror.reached(whole.revision).await;
        self.refresh_trust();
        Ok(whole)
    }

    async fn revoke_one(&self, lineage: &str, author: &Author) -> Result<Revoked, IdentityError> {
        let _turn = self.line(lineage).lock().await;
        let key = records::lineage_key(lineage);
        for _ in 0..TRIES {
            let Some(stored) = self.store.get(&key).await? else { return Ok(Revoked::default()) };
            self.mirror.reached(stored.mod_revision).await;
            let mut record: LineageRecord = records::decode(&stored.key, &stored.value)?;
            record.revoked = true;
            let now = SystemTime::now();
            let serials = self.unexpired_of(lineage, &record.newest, now);
            let details = json!({
                "service": record.service, "instance": record.instance, "lineage": lineage,
                "serials": serials.keys().collect::<Vec<_>>(),
            });
            let mut txn = Txn::new()
                .when(Compare::unchanged(key.clone(), stored.mod_revision))
                .then(Op::put(key.clone(), records::encode(&record)?))
                .then(audit(author, "svid.revoke", details, now).op());
            for (serial, not_after) in &serials {
                let revoked = RevokedRecord { lineage: lineage.to_owned(), not_after: *not_after };
                txn = txn.then(Op::put(records::revoked_key(serial), records::encode(&revoked)?));
            }
            let written = self.store.txn(txn).await?;
            if written.succeeded {
                return Ok(Revoked { svids: serials.len(), revision: written.revision });
            }
        }
        Err(IdentityError::Contended(format!("lineage {lineage}")))
    }

    /// The newest are taken first: a transaction has a limit, and renewals at half of the lifetime leave two or three.
    fn unexpired_of(&self, lineage: &str, newest: &Serial, now: SystemTime) -> HashMap<Serial, SystemTime> {
        self.mirror.read(|view| {
            let mut found = HashMap::new();
            let mut next = Some(*newest);
            while let Some(issuance) =
                next.and_then(|serial| view.issuances.get(&serial)).filter(|found| found.lineage == lineage)
            {
                if found.len() >= MAX_OPS - 2 {
                    break;
                }
                if issuance.not_after > now {
                    found.insert(issuance.serial, issuance.not_after);
                }
                next = issuance.replaces;
            }
            found
        })
    }
}
