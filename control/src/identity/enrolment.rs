//! Enrolment: a token is spent and an SVID issued, in one transaction.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE64, HEXLOWER};
use postern_ca::{CertificateDer, EnrolmentToken, IssueError, Issued, Request, Subject};
use postern_names::{InstanceId, PortName, ServiceName};
use serde_json::json;

use super::{IdentityError, IdentityService, TRIES, audit};
use crate::policy::Author;
use crate::records::{self, IssuanceRecord, LineageRecord, TokenRecord};
use crate::store::{Compare, Kv, Op, Txn};

/// What a sidecar asks with.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub csr: Vec<u8>,
    pub instance: InstanceId,
    pub ports: Vec<PortName>,
    pub address: SocketAddr,
}

/// What a sidecar gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub chain: Vec<CertificateDer<'static>>,
    pub lineage: String,
}

/// Why no SVID was given.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotGranted {
    #[error("too many failed enrolments from this address; wait a minute")]
    TooManyTries,
    /// The caller gets one answer for all of these; the audit log tells them apart.
    #[error("the token is wrong, spent or expired")]
    Token(TokenFault),
    #[error("{0}")]
    Refused(String),
    #[error("the request is not valid: {0}")]
    Invalid(String),
    #[error(transparent)]
    Failed(IdentityError),
}

impl<E: Into<IdentityError>> From<E> for NotGranted {
    fn from(error: E) -> Self {
        match error.into() {
            IdentityError::Issue(
                error @ (IssueError::BadRequest(_) | IssueError::NotSignedByItsKey | IssueError::WeakKey(_)),
            ) => Self::Invalid(error.to_string()),
            IdentityError::Issue(error @ IssueError::Name(_)) => Self::Invalid(error.to_string()),
            other => Self::Failed(other),
        }
    }
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenFault {
    Malformed,
    Unknown,
    Spent,
    Expired,
    Revoked,
}

impl TokenFault {
    fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Spent => "spent",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    fn of(record: &TokenRecord, now: SystemTime) -> Option<Self> {
        match record {
            _ if record.revoked => Some(Self::Revoked),
            _ if record.uses_left == 0 => Some(Self::Spent),
            _ if record.not_after <= now => Some(Self::Expired),
            _ => None,
        }
    }
}

impl IdentityService {
    /// Spends a token and issues the first SVID of a lineage. The same key asking again with the same token gets the same
    /// certificate, so a lost answer burns nothing.
    pub(super) async fn enroll(&self, token: &str, wanted: &Wanted, now: SystemTime) -> Result<Granted, NotGranted> {
        if !self.tries.may_try(wanted.address.ip(), Instant::now()) {
            return Err(NotGranted::TooManyTries);
        }
        let granted = self.spend(token, wanted, now).await;
        if let Err(NotGranted::Token(fault)) = &granted {
            if !self.tries.failed(wanted.address.ip(), Instant::now()) {
                return Err(NotGranted::TooManyTries);
            }
            self.note_failed_try(token, *fault, wanted, now).await?;
        }
        granted
    }

    async fn spend(&self, token: &str, wanted: &Wanted, now: SystemTime) -> Result<Granted, NotGranted> {
        let token: EnrolmentToken = token.parse().map_err(|_| NotGranted::Token(TokenFault::Malformed))?;
        let hash = token.hash();
        let _turn = self.line(&hash).lock().await;
        for _ in 0..TRIES {
            let stored = self.store.get(&records::token_key(&hash)).await?;
            let stored = stored.ok_or(NotGranted::Token(TokenFault::Unknown))?;
            let key_hash = HEXLOWER.encode(&postern_ca::public_key_hash_of_csr(&wanted.csr).map_err(IdentityError::from)?);
            let lineage = lineage_of(&hash, &key_hash);
            if let Some(granted) = self.granted_before(&lineage, &key_hash, wanted, stored.mod_revision, now).await {
                return Ok(granted);
            }
            if let Some(granted) = self.spend_once(&stored, &lineage, key_hash, wanted, now).await? {
                return Ok(granted);
            }
        }
        Err(IdentityError::Contended("the token".into()).into())
    }

    /// What this key got with this token before, unless it was renewed, revoked or has expired since.
    async fn granted_before(
        &self,
        lineage: &str,
        key_hash: &str,
        wanted: &Wanted,
        revision: u64,
        now: SystemTime,
    ) -> Option<Granted> {
        self.mirror.reached(revision).await;
        self.mirror.read(|view| {
            let record = view.lineages.get(lineage).filter(|record| !record.revoked && record.instance == wanted.instance)?;
            let issuance = view.issuances.get(&record.newest)?;
            let is_same = issuance.key_hash == key_hash && issuance.not_after > now;
            is_same.then(|| granted(issuance)).flatten()
        })
    }

    /// `None`: somebody else changed the token's record in between.
    async fn spend_once(
        &self,
        stored: &Kv,
        lineage: &str,
        key_hash: String,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Result<Option<Granted>, NotGranted> {
        let mut record: TokenRecord = records::decode(&stored.key, &stored.value)?;
        if let Some(fault) = TokenFault::of(&record, now) {
            return Err(NotGranted::Token(fault));
        }
        let issued = self.issue(&record.service, wanted, now)?;
        record.uses_left -= 1;
        let issuance = issuance_record(&issued, &record.service, wanted, lineage, None, key_hash, self.id_of(&record.service));
        let lineage = LineageRecord {
            lineage: lineage.to_owned(),
            service: record.service.clone(),
            instance: wanted.instance.clone(),
            token_id: record.id.clone(),
            newest: issued.serial,
            revoked: false,
            forked: false,
        };
        let author = Author { who: format!("token:{}", record.id), from: wanted.address.to_string() };
        let details = json!({
            "service": record.service, "instance": wanted.instance, "serial": issued.serial, "lineage": lineage.lineage,
            "uses_left": record.uses_left,
        });
        let txn = Txn::new()
            .when(Compare::unchanged(stored.key.clone(), stored.mod_revision))
            .when(Compare::absent(records::lineage_key(&lineage.lineage)))
            .then(Op::put(stored.key.clone(), records::encode(&record).map_err(IdentityError::from)?))
            .then(Op::put(records::issuance_key(&issued.serial), records::encode(&issuance).map_err(IdentityError::from)?))
            .then(Op::put(records::lineage_key(&lineage.lineage), records::encode(&lineage).map_err(IdentityError::from)?))
            .then(audit(&author, "svid.issue", details, now).op());
        let written = self.store.txn(txn).await?;
        if !written.succeeded {
            // A lineage that exists with the token unchanged is one whose SVID was renewed, revoked or has expired.
            let exists = self.mirror.read(|view| view.lineages.contains_key(&lineage.lineage));
            return if exists { Err(NotGranted::Token(TokenFault::Spent)) } else { Ok(None) };
        }
        self.counters.issued.fetch_add(1, Ordering::Relaxed);
        self.mirror.reached(written.revision).await;
        Ok(Some(Granted { chain: issued.chain, lineage: lineage.lineage }))
    }

    /// Signs; every name comes from the service, the request gives its key alone.
    pub(super) fn issue(&self, service: &ServiceName, wanted: &Wanted, now: SystemTime) -> Result<Issued, IdentityError> {
        let request = Request {
            csr_der: &wanted.csr,
            id: Subject::Service(service.clone()),
            ports: &wanted.ports,
            ttl: self.settings.svid_ttl,
            now,
        };
        Ok(self.authority.load().issue(request)?)
    }

    pub(super) fn id_of(&self, service: &ServiceName) -> String {
        let trust = self.trust.load();
        postern_ca::SpiffeId::service(&trust.bundle.trust_domain, &trust.datacenter, service).to_string()
    }

    /// Counts it, and tells the audit log what the caller is not told.
    async fn note_failed_try(
        &self,
        token: &str,
        fault: TokenFault,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Result<(), IdentityError> {
        self.counters.refused_enrolments.fetch_add(1, Ordering::Relaxed);
        if fault == TokenFault::Spent {
            self.counters.replayed_tokens.fetch_add(1, Ordering::Relaxed);
        }
        let id = token.parse::<EnrolmentToken>().ok().map(|token| token.hash()[..8].to_owned());
        tracing::warn!(address = %wanted.address, instance = %wanted.instance, because = fault.word(), token = id, "an enrolment was refused");
        let author = Author { who: "nobody".into(), from: wanted.address.to_string() };
        let details = json!({ "because": fault.word(), "token": id, "instance": wanted.instance });
        self.store.txn(Txn::new().then(audit(&author, "token.refused", details, now).op())).await?;
        Ok(())
    }
}

/// One token and one key make one lineage: so the same key asking again is known without a search.
fn lineage_of(token_hash: &str, key_hash: &str) -> String {
    let name = digest(&SHA256, format!("{token_hash}/{key_hash}").as_bytes());
    HEXLOWER.encode(&name.as_ref()[..16])
}

pub(super) fn issuance_record(
    issued: &Issued,
    service: &ServiceName,
    wanted: &Wanted,
    lineage: &str,
    replaces: Option<postern_ca::Serial>,
    key_hash: String,
    id: String,
) -> IssuanceRecord {
    IssuanceRecord {
        serial: issued.serial,
        id,
        service: service.clone(),
        instance: wanted.instance.clone(),
        lineage: lineage.to_owned(),
        replaces,
        not_after: issued.not_after,
        key_hash,
        used: false,
        chain: issued.chain.iter().map(|der| BASE64.encode(der)).collect(),
    }
}

/// An SVID as it was handed out; nothing if the record is of a version that kept no chain.
pub(super) fn granted(issuance: &IssuanceRecord) -> Option<Granted> {
    let chain: Option<Vec<_>> =
        issuance.chain.iter().map(|text| BASE64.decode(text.as_bytes()).ok().map(CertificateDer::from)).collect();
    let chain = chain.filter(|chain| !chain.is_empty())?;
    Some(Granted { chain, lineage: issuance.lineage.clone() })
}
