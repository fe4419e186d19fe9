//! The authority's keys, sealed in the store, and the control plane's own SVID.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use data_encoding::{BASE32_NOPAD, BASE64};
use postern_api::http::{AuthorityStatus, CertificateStatus};
use postern_ca::{Authority, AuthorityKeys, CertificateDer, PrivateKey, Request, Subject, Svid};
use postern_names::{Datacenter, TrustDomain};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

use super::{BroughtCa, IdentityError, IdentityService, IdentitySettings, audit};
use crate::policy::Author;
use crate::records::ClusterRecord;
use crate::seal::SealKey;
use crate::store::{Compare, Kv, Op, Store, StoreError, Txn};

/// The sealed record. It is not mirrored.
const KEYS: &str = "authority/keys";

/// The record before it is sealed: DER in base64.
#[derive(Serialize, Deserialize)]
struct KeysRecord {
    root: String,
    between: Vec<String>,
    /// Absent when the CA was brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signing_key: Option<String>,
    intermediate: String,
    intermediate_key: String,
    sequence: u64,
}

impl Drop for KeysRecord {
    fn drop(&mut self) {
        self.signing_key.zeroize();
        self.intermediate_key.zeroize();
    }
}

impl KeysRecord {
    fn of(keys: &AuthorityKeys, is_brought: bool) -> Self {
        Self {
            root: BASE64.encode(&keys.root),
            between: keys.between.iter().map(|der| BASE64.encode(der)).collect(),
            signing_key: keys.signing_key.as_ref().filter(|_| !is_brought).map(|der| BASE64.encode(der)),
            intermediate: BASE64.encode(&keys.intermediate),
            intermediate_key: BASE64.encode(&keys.intermediate_key),
            sequence: keys.sequence,
        }
    }

    fn keys(&self) -> Result<AuthorityKeys, IdentityError> {
        let der = |text: &String| BASE64.decode(text.as_bytes()).map_err(|error| IdentityError::Damaged(error.to_string()));
        let between: Result<Vec<_>, _> = self.between.iter().map(|text| der(text).map(CertificateDer::from)).collect();
        Ok(AuthorityKeys {
            root: der(&self.root)?.into(),
            between: between?,
            signing_key: self.signing_key.as_ref().map(der).transpose()?.map(Zeroizing::new),
            intermediate: der(&self.intermediate)?.into(),
            intermediate_key: Zeroizing::new(der(&self.intermediate_key)?),
            sequence: self.sequence,
        })
    }
}

/// Whether a store holds sealed keys: then the seal key must be the one that they were sealed with, and none may be made.
///
/// # Errors
/// Those of the store.
pub async fn has_sealed_keys(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.get(KEYS.as_bytes()).await?.is_some())
}

/// Whether a seal key opens the authority's keys among these records of a cluster.
///
/// # Errors
/// Why it does not.
pub fn opens(kvs: &[Kv], cluster_id: &str, seal: &SealKey) -> Result<(), String> {
    let kv = kvs.iter().find(|kv| kv.key == KEYS.as_bytes()).ok_or("it holds no keys of an authority")?;
    seal.open(cluster_id, KEYS, &kv.value).map(drop).map_err(|error| error.to_string())
}

/// An authority as it is in the store.
pub(super) struct Loaded {
    pub authority: Authority,
    pub revision: u64,
}

pub(super) async fn load_or_create(
    store: &dyn Store,
    cluster: &ClusterRecord,
    seal: &SealKey,
    settings: &IdentitySettings,
    now: SystemTime,
) -> Result<Loaded, IdentityError> {
    if let Some(kv) = store.get(KEYS.as_bytes()).await? {
        let authority = open(&kv.value, cluster, seal, settings)?;
        return Ok(Loaded { authority, revision: kv.mod_revision });
    }
    let mut authority = create(cluster, settings, now)?.with_intermediate_lifetime(settings.intermediate_ttl);
    if settings.intermediate_ttl != postern_ca::INTERMEDIATE_LIFETIME {
        authority.renew_intermediate(now)?;
    }
    let details = json!({ "root": pin(&authority), "origin": origin(settings.ca.is_some()) });
    let author = Author { who: "control-plane".into(), from: "local".into() };
    let txn = Txn::new()
        .when(Compare::absent(KEYS))
        .then(Op::put(KEYS, sealed(&authority, cluster, seal, settings)?))
        .then(audit(&author, "authority.create", details, now).op());
    let written = store.txn(txn).await?;
    if written.succeeded {
        return Ok(Loaded { authority, revision: written.revision });
    }
    let kv = store.get(KEYS.as_bytes()).await?.ok_or_else(|| IdentityError::Contended(KEYS.into()))?;
    Ok(Loaded { authority: open(&kv.value, cluster, seal, settings)?, revision: kv.mod_revision })
}

fn create(cluster: &ClusterRecord, settings: &IdentitySettings, now: SystemTime) -> Result<Authority, IdentityError> {
    let (domain, datacenter) = (&cluster.trust_domain, &cluster.datacenter);
    let Some(ca) = &settings.ca else { return Ok(Authority::create(domain, datacenter, now)?) };
    let (certificates, key) = read_brought(ca)?;
    Authority::from_pem(&certificates, &key, domain, datacenter, now).map_err(|error| ca.refused(error))
}

/// Whether a CA that is brought can sign for a mesh of these names; nothing is written.
///
/// # Errors
/// The reason why it cannot, with the files.
pub fn check_brought(
    ca: &BroughtCa,
    trust_domain: &TrustDomain,
    datacenter: &Datacenter,
    now: SystemTime,
) -> Result<(), IdentityError> {
    let (certificates, key) = read_brought(ca)?;
    Authority::from_pem(&certificates, &key, trust_domain, datacenter, now).map(drop).map_err(|error| ca.refused(error))
}

fn open(value: &[u8], cluster: &ClusterRecord, seal: &SealKey, settings: &IdentitySettings) -> Result<Authority, IdentityError> {
    let plain = seal.open(&cluster.cluster_id, KEYS, value)?;
    let record: KeysRecord = serde_json::from_slice(&plain).map_err(|error| IdentityError::Damaged(error.to_string()))?;
    let authority = Authority::import(record.keys()?, &cluster.trust_domain, &cluster.datacenter)?;
    let authority = authority.with_intermediate_lifetime(settings.intermediate_ttl);
    match (&settings.ca, record.signing_key.is_some()) {
        (None, true) => Ok(authority),
        (Some(_), true) => Err(IdentityError::CaNotExpected),
        (None, false) => Err(IdentityError::CaMissing),
        (Some(ca), false) => {
            let (certificates, key) = read_brought(ca)?;
            authority.with_brought_key(&certificates, &key).map_err(|error| ca.refused(error))
        }
    }
}

fn read_brought(ca: &BroughtCa) -> Result<(String, Zeroizing<String>), IdentityError> {
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(|source| IdentityError::CaFile { path: path.to_owned(), source });
    Ok((read(&ca.certificates)?, Zeroizing::new(read(&ca.key)?)))
}

fn sealed(
    authority: &Authority,
    cluster: &ClusterRecord,
    seal: &SealKey,
    settings: &IdentitySettings,
) -> Result<Bytes, IdentityError> {
    let record = KeysRecord::of(&authority.export(), settings.ca.is_some());
    let plain = Zeroizing::new(serde_json::to_vec(&record)?);
    Ok(seal.seal(&cluster.cluster_id, KEYS, &plain).into())
}

fn origin(is_brought: bool) -> &'static str {
    if is_brought { "brought" } else { "built-in" }
}

fn pin(authority: &Authority) -> String {
    BASE32_NOPAD.encode(&authority.pin()).to_ascii_lowercase()
}

impl IdentityService {
    /// Makes a new intermediate once the current one has passed its half-life; it signs only after it is durable.
    ///
    /// # Errors
    /// Those of the store and of the authority; the old one stays in use.
    pub(super) async fn renew_intermediate_if_due(&self, now: SystemTime) -> Result<(), IdentityError> {
        let current = self.authority.load_full();
        if !current.intermediate_due(now) {
            return Ok(());
        }
        let mut renewed = Authority::clone(&current);
        renewed.renew_intermediate(now)?;
        let cluster = self.mirror.read(|view| view.cluster.clone());
        let revision = self.authority_revision.load(Ordering::Acquire);
        let author = Author { who: "control-plane".into(), from: "local".into() };
        let details = json!({ "not_after_ms": postern_api::convert::millis(renewed.intermediate_not_after()) });
        let txn = Txn::new()
            .when(Compare::unchanged(KEYS, revision))
            .then(Op::put(KEYS, sealed(&renewed, &cluster, &self.seal, &self.settings)?))
            .then(audit(&author, "authority.renew", details, now).op());
        let written = self.store.txn(txn).await?;
        if !written.succeeded {
            return Err(IdentityError::Contended(KEYS.into()));
        }
        self.authority_revision.store(written.revision, Ordering::Release);
        self.authority.store(Arc::new(renewed));
        tracing::info!("the intermediate certificate was renewed");
        self.renew_own_svid(now)
    }

    /// Issues the control plane's own SVID and shows it from now on.
    pub(super) fn renew_own_svid(&self, now: SystemTime) -> Result<(), IdentityError> {
        let authority = self.authority.load();
        let key = PrivateKey::generate()?;
        let request =
            Request { csr_der: &key.csr_der(), id: Subject::ControlPlane, ports: &[], ttl: self.settings.svid_ttl, now };
        let mut chain = authority.issue(request)?.chain;
        chain.push(authority.root().clone());
        self.svid.store(Arc::new(Svid::new(chain, key)?));
        Ok(())
    }

    /// Renews the own SVID once it has passed its half-life.
    pub(super) fn renew_own_svid_if_due(&self, now: SystemTime) -> Result<(), IdentityError> {
        let is_due = self.svid.load().is_none_or(|svid| {
            let whole = svid.not_after().duration_since(svid.not_before()).unwrap_or_default();
            now >= svid.not_before() + whole / 2
        });
        if is_due { self.renew_own_svid(now) } else { Ok(()) }
    }

    /// The authority, for `meshctl ca show`.
    pub fn authority_status(&self) -> AuthorityStatus {
        let authority = self.authority.load();
        let now = SystemTime::now();
        let origin = origin(self.settings.ca.is_some());
        let (active_svids, revoked_svids) = self.mirror.read(|view| {
            let unexpired = view.issuances.values().filter(|issuance| issuance.not_after > now).count();
            let revoked = view.revoked.values().filter(|(record, _)| record.not_after > now).count();
            (unexpired.saturating_sub(revoked), revoked)
        });
        AuthorityStatus {
            trust_domain: authority.bundle().trust_domain,
            roots: authority.bundle().roots().iter().map(|root| certificate_status(root, origin)).collect(),
            intermediate: certificate_status(authority.intermediate(), "built-in"),
            svid_ttl_s: self.settings.svid_ttl.as_secs(),
            active_svids,
            revoked_svids,
        }
    }
}

fn certificate_status(der: &CertificateDer<'_>, origin: &str) -> CertificateStatus {
    let (pin, not_before, not_after) = match x509_parser::parse_x509_certificate(der) {
        Ok((_, parsed)) => {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.public_key().raw);
            let validity = parsed.validity();
            (hash.as_ref().to_vec(), validity.not_before.to_datetime(), validity.not_after.to_datetime())
        }
        // It was parsed when it was loaded.
        Err(_) => (Vec::new(), time::OffsetDateTime::UNIX_EPOCH, time::OffsetDateTime::UNIX_EPOCH),
    };
    let show = |at: time::OffsetDateTime| at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    CertificateStatus {
        pin: BASE32_NOPAD.encode(&pin).to_ascii_lowercase(),
        not_before: show(not_before),
        not_after: show(not_after),
        origin: origin.into(),
    }
}
