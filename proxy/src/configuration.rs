//! Configuration that is pushed to this sidecar for the command beside it: keys and healthy instances of services.
//!
//! Whoever needs it holds the [`Asker`] and says what it wants; the stream to the control plane holds the [`Teller`]. None
//! of it is part of the snapshot, and none of it is written to disk here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
pub use postern_api::configuration::{Asked, Wanted};
use postern_names::ServiceName;
use tokio::sync::watch;

/// A value of the key-value store.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// As it was put.
    pub bytes: Bytes,
    /// Whatever the writer wants them to be.
    pub flags: u64,
}

/// Values may be secret: only how long it is shows.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyValue({} bytes)", self.bytes.len())
    }
}

/// A healthy instance of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceInstance {
    /// Unique among the instances of its service on its node.
    pub id: String,
    /// A host name or IP address.
    pub address: String,
    /// 0: none.
    pub port: u16,
    /// By which it can be found.
    pub tags: Vec<String>,
    /// Labels.
    pub meta: BTreeMap<String, String>,
    /// Its address is that of a sidecar, which speaks mutual TLS: call it by an upstream.
    pub has_sidecar: bool,
}

/// What the control plane told last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pushed {
    /// What was asked for and is answered here; what of it is not found below is not there.
    pub answers: Wanted,
    /// Values by key.
    pub values: BTreeMap<String, KeyValue>,
    /// Instances by service, in the order of their ids.
    pub instances: BTreeMap<ServiceName, BTreeMap<String, ServiceInstance>>,
    /// What is not told, and why.
    pub refused: BTreeMap<Asked, String>,
    /// Why nothing is told at all by this control plane.
    pub problem: Option<String>,
}

/// Says what is wanted, and hears of it.
#[derive(Debug)]
pub struct Asker {
    wanted: watch::Sender<Wanted>,
    pushed: watch::Receiver<Arc<Pushed>>,
}

/// Hears what is wanted, and tells it.
#[derive(Debug, Clone)]
pub struct Teller {
    wanted: watch::Receiver<Wanted>,
    pushed: watch::Sender<Arc<Pushed>>,
}

/// Both ends.
pub fn channel() -> (Asker, Teller) {
    let (wanted, hears) = watch::channel(Wanted::default());
    let (tells, pushed) = watch::channel(Arc::default());
    (Asker { wanted, pushed }, Teller { wanted: hears, pushed: tells })
}

/// One whom nobody asks.
impl Default for Teller {
    fn default() -> Self {
        channel().1
    }
}

impl Asker {
    /// Asks for this from here on, in place of what was asked for before.
    pub fn ask(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|before| {
            let is_other = *before != wanted;
            *before = wanted;
            is_other
        });
    }

    /// What is asked for.
    pub fn wanted(&self) -> Wanted {
        self.wanted.borrow().clone()
    }

    /// What was told last; [`Asker::changed`] is ready at what comes after it.
    pub fn pushed(&mut self) -> Arc<Pushed> {
        self.pushed.borrow_and_update().clone()
    }

    /// Ready when something else was told. Never where the sidecar has ended.
    pub async fn changed(&mut self) {
        if self.pushed.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Teller {
    /// What is wanted; [`Teller::changed`] is ready at what comes after it.
    pub(crate) fn wanted(&mut self) -> Wanted {
        self.wanted.borrow_and_update().clone()
    }

    /// Ready when something else is wanted. Never where nobody asks.
    pub(crate) async fn changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Tells it, where it is something else than before.
    pub(crate) fn tell(&self, pushed: Pushed) {
        self.pushed.send_if_modified(|before| {
            let is_other = **before != pushed;
            *before = Arc::new(pushed);
            is_other
        });
    }

    /// Tells why nothing is told; what was told before stays.
    pub(crate) fn tell_problem(&self, problem: Option<String>) {
        let before = self.pushed.borrow().clone();
        self.tell(Pushed { problem, ..Pushed::clone(&before) });
    }
}
