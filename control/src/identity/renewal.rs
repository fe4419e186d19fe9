//! Renewal over mTLS, and forks: one SVID in two hands.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use postern_ca::{Peer, Serial};
use serde_json::json;

use super::enrolment::{Granted, NotGranted, Wanted, granted, issuance_record};
use super::{IdentityError, IdentityService, TRIES, audit};
use crate::mirror::View;
use crate::policy::Author;
use crate::records::{self, IssuanceRecord, LineageRecord};
use crate::store::{Compare, Kv, Op, Txn};

const ENROL_ANEW: &str = "enrol with a new token";

/// What is to be done with a renewal.
enum Verdict {
    Issue(IssuanceRecord),
    /// The same key asks again: the answer was lost.
    Again(Granted),
    Forked,
    Refuse(String),
}

impl IdentityService {
    /// Issues the successor of the peer's SVID: same identity, new key.
    pub(super) async fn renew(&self, peer: &Peer, wanted: &Wanted, now: SystemTime) -> Result<Granted, NotGranted> {
        let key_hash = HEXLOWER.encode(&postern_ca::public_key_hash_of_csr(&wanted.csr).map_err(IdentityError::from)?);
        let lineage = self.mirror.read(|view| view.issuances.get(&peer.serial).map(|issuance| issuance.lineage.clone()));
        let lineage = lineage.ok_or_else(|| NotGranted::Refused(format!("this SVID is not known here; {ENROL_ANEW}")))?;
        let _turn = self.line(&lineage).lock().await;
        for _ in 0..TRIES {
            let stored = self.store.get(&records::lineage_key(&lineage)).await?;
            let stored = stored.ok_or_else(|| NotGranted::Refused(format!("its lineage is not known here; {ENROL_ANEW}")))?;
            self.mirror.reached(stored.mod_revision).await;
            let record: LineageRecord = records::decode(&stored.key, &stored.value)?;
            let verdict = self.mirror.read(|view| self.judge(view, &record, peer, wanted, &key_hash, now));
            match verdict {
                Verdict::Again(granted) => return Ok(granted),
                Verdict::Refuse(why) => return Err(NotGranted::Refused(why)),
                Verdict::Forked => {
                    self.note_fork(&stored, record, peer, wanted, now).await?;
                    return Err(NotGranted::Refused(format!(
                        "this SVID was renewed before, and its successor is in use: was the state directory copied? {ENROL_ANEW}"
                    )));
                }
                Verdict::Issue(current) => {
                    if let Some(granted) = self.succeed(&stored, record, &current, key_hash.clone(), wanted, now).await? {
                        return Ok(granted);
                    }
                }
            }
        }
        Err(IdentityError::Contended("the lineage".into()).into())
    }

    fn judge(
        &self,
        view: &View,
        lineage: &LineageRecord,
        peer: &Peer,
        wanted: &Wanted,
        key_hash: &str,
        now: SystemTime,
    ) -> Verdict {
        let refuse = |why: &str| Verdict::Refuse(format!("{why}; {ENROL_ANEW}"));
        let Some(current) = view.issuances.get(&peer.serial) else { return refuse("this SVID is not known here") };
        if lineage.revoked || view.revoked.contains_key(&peer.serial) {
            return refuse("this SVID was revoked");
        }
        if peer.service.as_ref() != Some(&current.service) || wanted.instance != current.instance {
            return Verdict::Refuse(format!(
                "this SVID is that of instance {} of {}; an instance renews its own",
                current.instance, current.service
            ));
        }
        if now > peer.not_after + self.settings.renew_grace {
            return refuse("this SVID expired too long ago");
        }
        if lineage.newest == peer.serial {
            return Verdict::Issue(current.clone());
        }
        let newest = view.issuances.get(&lineage.newest);
        let is_lost_answer = newest.is_some_and(|newest| newest.key_hash == key_hash && newest.not_after > now);
        match newest.filter(|_| is_lost_answer).and_then(granted) {
            Some(granted) => Verdict::Again(granted),
            None if has_successor_in_use(view, lineage, &peer.serial) => Verdict::Forked,
            None if peer.is_expired(now) => refuse("this SVID expired and was replaced"),
            None => Verdict::Issue(current.clone()),
        }
    }

    /// `None`: the lineage changed in between.
    async fn succeed(
        &self,
        stored: &Kv,
        mut lineage: LineageRecord,
        current: &IssuanceRecord,
        key_hash: String,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Result<Option<Granted>, NotGranted> {
        let issued = self.issue(&current.service, wanted, now)?;
        let id = self.id_of(&current.service);
        let issuance = issuance_record(&issued, &current.service, wanted, &lineage.lineage, Some(current.serial), key_hash, id);
        lineage.newest = issued.serial;
        let author = Author { who: format!("instance:{}", wanted.instance), from: wanted.address.to_string() };
        let details = json!({
            "service": current.service, "instance": wanted.instance, "serial": issued.serial,
            "replaces": current.serial, "lineage": lineage.lineage,
        });
        let txn = Txn::new()
            .when(Compare::unchanged(stored.key.clone(), stored.mod_revision))
            .then(Op::put(stored.key.clone(), records::encode(&lineage).map_err(IdentityError::from)?))
            .then(Op::put(records::issuance_key(&issued.serial), records::encode(&issuance).map_err(IdentityError::from)?))
            .then(audit(&author, "svid.renew", details, now).op());
        let written = self.store.txn(txn).await?;
        self.mirror.reached(written.revision).await;
        if !written.succeeded {
            return Ok(None);
        }
        self.counters.issued.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Granted { chain: issued.chain, lineage: lineage.lineage }))
    }

    /// Marks the lineage; the first time it is an audit event.
    async fn note_fork(
        &self,
        stored: &Kv,
        mut lineage: LineageRecord,
        peer: &Peer,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Result<(), IdentityError> {
        self.counters.forks.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(instance = %wanted.instance, address = %wanted.address, serial = %peer.serial, "two hold one SVID: a renewal was refused");
        if lineage.forked {
            return Ok(());
        }
        lineage.forked = true;
        let author = Author { who: format!("instance:{}", wanted.instance), from: wanted.address.to_string() };
        let details = json!({
            "service": lineage.service, "instance": lineage.instance, "lineage": lineage.lineage,
            "serial": peer.serial, "newest": lineage.newest,
        });
        let txn = Txn::new()
            .when(Compare::unchanged(stored.key.clone(), stored.mod_revision))
            .then(Op::put(stored.key.clone(), records::encode(&lineage)?))
            .then(audit(&author, "forked", details, now).op());
        let written = self.store.txn(txn).await?;
        self.mirror.reached(written.revision).await;
        Ok(())
    }

    /// Notes that an SVID is in use: a stream was opened with it. Costs one write in an SVID's life.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn mark_used(&self, serial: &Serial) -> Result<(), IdentityError> {
        let is_new = self.mirror.read(|view| view.issuances.get(serial).is_some_and(|issuance| !issuance.used));
        if !is_new {
            return Ok(());
        }
        let key = records::issuance_key(serial);
        for _ in 0..TRIES {
            let Some(stored) = self.store.get(&key).await? else { return Ok(()) };
            let mut record: IssuanceRecord = records::decode(&stored.key, &stored.value)?;
            if record.used {
                return Ok(());
            }
            record.used = true;
            let txn = Txn::new()
                .when(Compare::unchanged(key.clone(), stored.mod_revision))
                .then(Op::put(key.clone(), records::encode(&record)?));
            let written = self.store.txn(txn).await?;
            if written.succeeded {
                self.mirror.reached(written.revision).await;
                return Ok(());
            }
        }
        Err(IdentityError::Contended(format!("issuance {serial}")))
    }
}

/// Whether an SVID that was issued after this one, in its place, was seen in use.
fn has_successor_in_use(view: &View, lineage: &LineageRecord, serial: &Serial) -> bool {
    let mut next = Some(lineage.newest);
    while let Some(issuance) = next.filter(|next| next != serial).and_then(|next| view.issuances.get(&next)) {
        if issuance.used {
            return true;
        }
        next = issuance.replaces;
    }
    false
}
