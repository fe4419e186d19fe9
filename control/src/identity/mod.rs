//! Enrolment tokens, the authority and its keys, enrolment, renewal, revocation.
//!
//! | module | what it holds |
//! |---|---|
//! | `authority` | the authority's keys, sealed in the store, and the control plane's own SVID |
//! | `tokens` | enrolment tokens: made, revoked |
//! | `enrolment`, `renewal`, `revocation` | the life of a lineage |
//! | `tries` | failed enrolments of one address |
//! | `server_certificate` | the certificate of the HTTP API, where nobody brought one |
//! | `upkeep` | what is renewed and removed as time passes |
//! | `service` | the calls of sidecars |

mod authority;
mod enrolment;
mod error;
mod renewal;
mod revocation;
mod server_certificate;
mod service;
mod settings;
mod tokens;
mod tries;
mod upkeep;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postern_ca::{Authority, Serial, SvidSlot, SvidSource, Trust, TrustBundle, TrustSource};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::authority::{check_brought, has_sealed_keys, opens};
pub use self::error::IdentityError;
use self::server_certificate::Server;
pub use self::settings::{BroughtCa, IdentitySettings};
pub use self::tokens::NewToken;
use self::tries::FailedTries;
use crate::audit::AuditEntry;
use crate::mirror::Mirror;
use crate::policy::Author;
use crate::seal::SealKey;
use crate::store::Store;

/// Changes of one token wait for each other in one of so many lines.
const LINES: usize = 64;
/// How often a change is tried again after another one came between.
const TRIES: usize = 16;

/// Who calls on the sidecars' port, as the handshake proved it.
#[derive(Debug, Clone)]
pub struct CallerInfo {
    /// From where.
    pub address: std::net::SocketAddr,
    /// Whose certificate was verified; none for an enrolment. It may be expired within the renewal grace.
    pub peer: Option<postern_ca::Peer>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdentityCounts {
    /// SVIDs issued, renewals included.
    pub issued: u64,
    /// Enrolments that were refused.
    pub refused_enrolments: u64,
    /// Of these, with a token that was spent before: a replay.
    pub replayed_tokens: u64,
    /// Renewals that were refused because two hold one SVID.
    pub forks: u64,
}

#[derive(Debug, Default)]
struct Counters {
    issued: AtomicU64,
    refused_enrolments: AtomicU64,
    replayed_tokens: AtomicU64,
    forks: AtomicU64,
}

/// Who becomes which service, and for how long.
pub struct IdentityService {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    seal: Arc<SealKey>,
    settings: IdentitySettings,
    authority: ArcSwap<Authority>,
    /// The store's revision of the sealed keys that `authority` is of.
    authority_revision: AtomicU64,
    trust: TrustSource,
    refreshing: Mutex<()>,
    /// The sequence of the bundle that `trust` holds.
    bundle_sequence: watch::Sender<u64>,
    svid: SvidSource,
    /// The HTTP API, where it shows a certificate of this authority.
    server: Mutex<Option<Server>>,
    tries: FailedTries,
    counters: Counters,
    /// Enrolments with one token take turns: of a hundred that came at once, ninety-nine would find the record changed.
    /// Held while the transaction is written, so not a `parking_lot` lock.
    lines: Vec<tokio::sync::Mutex<()>>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

impl IdentityService {
    /// Loads the authority from the store, or creates it (or takes the one that was brought) in a store that has none,
    /// issues the control plane's own SVID, and keeps all of it fresh until it is dropped.
    ///
    /// # Errors
    /// [`IdentityError`]: the keys cannot be opened with this seal key, the CA that was brought does not fit, the store fails.
    pub async fn new(
        store: Arc<dyn Store>,
        mirror: Arc<Mirror>,
        seal: Arc<SealKey>,
        settings: IdentitySettings,
    ) -> Result<Arc<Self>, IdentityError> {
        let now = SystemTime::now();
        let cluster = mirror.read(|view| view.cluster.clone());
        let loaded = authority::load_or_create(store.as_ref(), &cluster, &seal, &settings, now).await?;
        let trust = Trust { bundle: loaded.authority.bundle(), datacenter: cluster.datacenter, revoked: Default::default() };
        let service = Arc::new(Self {
            tries: FailedTries::new(settings.failed_tries),
            store,
            mirror,
            seal,
            settings,
            authority: ArcSwap::from_pointee(loaded.authority),
            authority_revision: AtomicU64::new(loaded.revision),
            trust: Arc::new(ArcSwap::from_pointee(trust)),
            refreshing: Mutex::new(()),
            bundle_sequence: watch::Sender::new(0),
            server: Mutex::new(None),
            svid: Arc::new(SvidSlot::empty()),
            counters: Counters::default(),
            lines: (0..LINES).map(|_| tokio::sync::Mutex::new(())).collect(),
            upkeep: Mutex::new(None),
        });
        service.refresh_trust();
        service.renew_intermediate_if_due(now).await?;
        service.renew_own_svid(now)?;
        *service.upkeep.lock() = Some(upkeep::start(&service));
        Ok(service)
    }

    /// What the certificates of sidecars are judged by.
    pub fn trust(&self) -> TrustSource {
        Arc::clone(&self.trust)
    }

    /// The control plane's own SVID; its chain ends in the root, which enrolments pin.
    pub fn svid(&self) -> SvidSource {
        Arc::clone(&self.svid)
    }

    /// The roots that sidecars trust.
    pub fn bundle(&self) -> TrustBundle {
        self.authority.load().bundle()
    }

    /// Tells of each new bundle, once `trust` holds it.
    pub fn bundle_changes(&self) -> watch::Receiver<u64> {
        self.bundle_sequence.subscribe()
    }

    /// Ends the upkeep. What is under way in the store is finished by the store.
    pub async fn shut_down(&self) {
        let task = self.upkeep.lock().take();
        if let Some(task) = task {
            task.abort();
            // Aborted is how it ends.
            let _ = task.await;
        }
    }

    /// What was counted since the start.
    pub fn counts(&self) -> IdentityCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IdentityCounts {
            issued: count(&self.counters.issued),
            refused_enrolments: count(&self.counters.refused_enrolments),
            replayed_tokens: count(&self.counters.replayed_tokens),
            forks: count(&self.counters.forks),
        }
    }

    /// What the push calls when a stream is opened with an SVID: notes its use, without making the stream wait.
    pub fn on_open(self: &Arc<Self>) -> Arc<dyn Fn(Serial) + Send + Sync> {
        let service = Arc::downgrade(self);
        Arc::new(move |serial| {
            let Some(service) = service.upgrade() else { return };
            tokio::spawn(async move {
                if let Err(error) = service.mark_used(&serial).await {
                    tracing::warn!(%serial, %error, "cannot note that an SVID is in use");
                }
            });
        })
    }

    /// Takes the revocations of the view into what certificates are judged by.
    fn refresh_trust(&self) {
        // Whoever read the view last stores last.
        let _refreshing = self.refreshing.lock();
        let revoked = self.mirror.read(|view| view.revoked.keys().copied().collect());
        let bundle = self.authority.load().bundle();
        let datacenter = self.trust.load().datacenter.clone();
        let sequence = bundle.sequence;
        self.trust.store(Arc::new(Trust { bundle, datacenter, revoked }));
        self.bundle_sequence.send_if_modified(|told| std::mem::replace(told, sequence) != sequence);
    }

    fn line(&self, name: &str) -> &tokio::sync::Mutex<()> {
        let sum = name.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        &self.lines[sum % LINES]
    }
}

impl Drop for IdentityService {
    fn drop(&mut self) {
        if let Some(task) = self.upkeep.get_mut().take() {
            task.abort();
        }
    }
}

fn audit(author: &Author, what: &str, details: serde_json::Value, now: SystemTime) -> AuditEntry {
    AuditEntry { at: now, who: author.who.clone(), from: author.from.clone(), what: what.into(), details, reason: None }
}
