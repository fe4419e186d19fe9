//! Sessions made, renewed and ended.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::deadlines::Deadlines;
use super::record::{Behaviour, ServiceCheck, SessionRecord, session_key};
use super::witness::{self, Missing};
use crate::kv::{KeyValues, KvError};
use crate::mirror::Mirror;
use crate::records;
use crate::registry::Home;
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// How many sessions there may be.
const MAX_SESSIONS: usize = 50_000;
/// How long a lock-delay may be.
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);
/// How long a session may live without a renewal.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a name or id that a session carries, and how many checks.
const MAX_TEXT: usize = 256;
const MAX_CHECKS: usize = 64;
/// Pause before sessions that could not be ended are ended again.
const RETRY: Duration = Duration::from_secs(1);

/// Settings of sessions.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// How short a time to live may be.
    pub min_ttl: Duration,
    /// The node of the control plane, which is always there.
    pub home: Home,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { min_ttl: Duration::from_secs(10), home: Home { node: "localhost".into(), address: "127.0.0.1".into() } }
    }
}

/// What a session is to be.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// For people.
    pub name: String,
    /// The node that it lives on.
    pub node: String,
    /// How long its keys cannot be locked after it ended.
    pub lock_delay: Duration,
    /// What becomes of its keys.
    pub behaviour: Behaviour,
    /// How long it lives without a renewal, as written and as meant; `None`: until it is destroyed.
    pub ttl: Option<(String, Duration)>,
    /// Checks of its node.
    pub node_checks: Vec<String>,
    /// Checks of services.
    pub service_checks: Vec<ServiceCheck>,
}

/// Why a session was not made, renewed or ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Something in it is not valid.
    #[error("{0}")]
    Invalid(String),
    /// What it is to live with is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// There is no such session, or it has ended.
    #[error("Session id '{0}' not found")]
    NotFound(String),
    /// There are too many.
    #[error("there are {MAX_SESSIONS} sessions already; destroy some, or give sessions a TTL")]
    TooMany,
    /// The keys that it holds cannot be given up.
    #[error(transparent)]
    Keys(#[from] KvError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record cannot be written as JSON.
    #[error("the session cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// All sessions of one control plane.
pub struct Sessions {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    keys: Arc<KeyValues>,
    settings: SessionSettings,
    deadlines: Mutex<Deadlines>,
    look_now: Arc<Notify>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Sessions {
    /// The sessions of this store: each with a time to live gets all of it from now.
    pub fn start(store: Arc<dyn Store>, mirror: Arc<Mirror>, keys: Arc<KeyValues>, settings: SessionSettings) -> Arc<Self> {
        let changes = mirror.subscribe();
        let mut deadlines = Deadlines::default();
        let now = Instant::now();
        mirror.read(|view| {
            for (id, (record, _)) in view.sessions.iter() {
                if let Some(ttl) = record.time_to_live() {
                    deadlines.set(id, ttl, now);
                }
            }
        });
        let sessions = Arc::new(Self {
            store,
            mirror,
            keys,
            settings,
            deadlines: Mutex::new(deadlines),
            look_now: Arc::default(),
            tasks: Mutex::default(),
        });
        let sweeper = tokio::spawn(sweep(Arc::downgrade(&sessions)));
        let witness = tokio::spawn(witness::watch(Arc::downgrade(&sessions), changes));
        sessions.tasks.lock().extend([sweeper, witness]);
        sessions
    }

    /// Makes a session and gives its id.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn create(&self, new: NewSession) -> Result<String, SessionError> {
        self.check(&new)?;
        if self.mirror.read(|view| view.sessions.len()) >= MAX_SESSIONS {
            return Err(SessionError::TooMany);
        }
        let id = uuid::Uuid::new_v4().to_string();
        let (ttl, lasts) = new.ttl.unwrap_or_default();
        let record = SessionRecord {
            name: new.name,
            node: new.node,
            lock_delay: new.lock_delay.min(MAX_LOCK_DELAY),
            behaviour: new.behaviour,
            ttl,
            ttl_ms: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
            node_checks: new.node_checks,
            service_checks: new.service_checks,
            created_at: SystemTime::now(),
        };
        self.mirror.read(|view| witness::look(view, &self.settings.home, &record))?;
        let key = session_key(&id);
        let txn = Txn::new().when(Compare::absent(key.clone())).then(Op::put(key, records::encode(&record)?));
        // Its time begins before it can be seen, or a caller that is gone would leave one without an end.
        if let Some(ttl) = record.time_to_live() {
            self.deadlines.lock().set(&id, ttl + RETRY, Instant::now());
        }
        let written = self.store.txn(txn).await?;
        self.mirror.reached(written.revision).await;
        if let Some(ttl) = record.time_to_live() {
            self.deadlines.lock().set(&id, ttl, Instant::now());
            self.look_now.notify_one();
        }
        // What it lives with may have been lost while it was made, before the watch could see it.
        if let Err(missing) = self.mirror.read(|view| witness::look(view, &self.settings.home, &record)) {
            self.end(vec![id]).await?;
            return Err(missing.into());
        }
        Ok(id)
    }

    /// Begins the time of a session anew.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn renew(&self, id: &str) -> Result<(), SessionError> {
        let not_found = || SessionError::NotFound(id.chars().take(MAX_TEXT).collect());
        let ttl = self.mirror.read(|view| view.sessions.get(id).map(|(record, _)| record.time_to_live()));
        match ttl.ok_or_else(not_found)? {
            Some(ttl) if !self.deadlines.lock().renew(id, ttl, Instant::now()) => Err(not_found()),
            _ => Ok(()),
        }
    }

    /// Ends a session. One that does not exist has ended.
    ///
    /// # Errors
    /// [`SessionError::Keys`].
    pub async fn destroy(&self, id: &str) -> Result<(), SessionError> {
        if self.mirror.read(|view| view.sessions.get(id).is_some()) {
            self.end(vec![id.to_owned()]).await?;
        }
        Ok(())
    }

    /// Ends the sessions whose node or check is not there any more.
    pub(super) async fn end_lost(&self) -> Result<(), SessionError> {
        let ids: Vec<String> = self.mirror.read(|view| {
            let lost = view.sessions.iter().filter(|(_, (record, _))| witness::look(view, &self.settings.home, record).is_err());
            lost.map(|(id, _)| id.clone()).collect()
        });
        if ids.is_empty() { Ok(()) } else { self.end(ids).await }
    }

    async fn end(&self, ids: Vec<String>) -> Result<(), SessionError> {
        self.keys.end_sessions(ids.clone()).await?;
        let mut deadlines = self.deadlines.lock();
        for id in &ids {
            deadlines.forget(id);
        }
        Ok(())
    }

    fn check(&self, new: &NewSession) -> Result<(), SessionError> {
        let invalid = |what: String| Err(SessionError::Invalid(what));
        if new.node.is_empty() {
            return invalid("Must provide Node".into());
        }
        let checks = new.node_checks.iter().chain(new.service_checks.iter().map(|check| &check.id));
        if [&new.name, &new.node].into_iter().chain(checks).any(|text| text.len() > MAX_TEXT) {
            return invalid(format!("a name, node or check of a session has at most {MAX_TEXT} bytes"));
        }
        if new.node_checks.len() + new.service_checks.len() > MAX_CHECKS {
            return invalid(format!("a session has at most {MAX_CHECKS} checks"));
        }
        match &new.ttl {
            Some((text, ttl)) if *ttl < self.settings.min_ttl || *ttl > MAX_TTL => {
                let (min, max) = (self.settings.min_ttl.as_secs(), MAX_TTL.as_secs() / 3600);
                let text: String = text.chars().take(40).collect();
                invalid(format!("Invalid Session TTL '{text}', must be between [{min}s={max}h0m0s]"))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().drain(..) {
            task.abort();
        }
    }
}

/// Ends each session when its time is over.
async fn sweep(sessions: Weak<Sessions>) {
    let mut failed: Vec<String> = Vec::new();
    loop {
        let Some(strong) = sessions.upgrade() else { return };
        let mut ended = strong.deadlines.lock().ended(Instant::now());
        ended.append(&mut failed);
        if !ended.is_empty() {
            tracing::info!(sessions = ended.len(), "sessions were not renewed in time and end");
            if let Err(error) = strong.end(ended.clone()).await {
                tracing::error!(%error, "sessions cannot be ended; trying again");
                failed = ended;
            }
        }
        let next = strong.deadlines.lock().first();
        let next = if failed.is_empty() { next } else { Some(Instant::now() + RETRY) };
        let look_now = Arc::clone(&strong.look_now);
        drop(strong);
        match next {
            Some(next) => tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = look_now.notified() => {}
            },
            None => look_now.notified().await,
        }
    }
}
