//! Open connections by the SVID they were opened with, so that a revocation ends them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use postern_ca::Serial;
use tokio_util::sync::CancellationToken;

use crate::mirror::{Change, Observer, View};
use crate::records::RecordKey;

/// All open connections of peers with a certificate.
#[derive(Debug)]
pub(super) struct OpenConnections {
    by_serial: Mutex<HashMap<Serial, HashMap<u64, CancellationToken>>>,
    next: AtomicU64,
    this: Weak<Self>,
}

/// One connection's place in the table.
pub(super) struct OpenConnection {
    /// Cancelled when its SVID is revoked.
    pub(super) ended: CancellationToken,
    serial: Serial,
    number: u64,
    table: Arc<OpenConnections>,
}

struct Revocations(Weak<OpenConnections>);

impl OpenConnections {
    pub(super) fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self { by_serial: Mutex::default(), next: AtomicU64::new(0), this: this.clone() })
    }

    pub(super) fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(Revocations(self.this.clone()))
    }

    pub(super) fn enter(self: &Arc<Self>, serial: Serial) -> OpenConnection {
        let ended = CancellationToken::new();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.by_serial.lock().entry(serial).or_default().insert(number, ended.clone());
        OpenConnection { ended, serial, number, table: Arc::clone(self) }
    }

    fn end(&self, serial: &Serial) {
        for ended in self.by_serial.lock().get(serial).into_iter().flat_map(HashMap::values) {
            ended.cancel();
        }
    }

    fn end_revoked(&self, view: &View) {
        let revoked: Vec<Serial> = self.by_serial.lock().keys().filter(|serial| view.is_revoked(serial)).cloned().collect();
        for serial in &revoked {
            self.end(serial);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut by_serial = self.table.by_serial.lock();
        if let Some(connections) = by_serial.get_mut(&self.serial) {
            connections.remove(&self.number);
            if connections.is_empty() {
                by_serial.remove(&self.serial);
            }
        }
    }
}

impl Observer for Revocations {
    fn changed(&self, view: &View, change: &Change) {
        let Some(open) = self.0.upgrade() else { return };
        if change.everything {
            open.end_revoked(view);
        }
        for key in &change.keys {
            match key {
                RecordKey::Revoked(serial) if view.revoked.contains_key(serial) => open.end(serial),
                RecordKey::Lineage(id) if view.lineages.get(id).is_some_and(|lineage| lineage.revoked) => open.end_revoked(view),
                _ => {}
            }
        }
    }
}
