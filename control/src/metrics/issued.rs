//! Counts the SVIDs that are issued, as the view sees them.

use std::sync::Arc;

use super::Metrics;
use crate::mirror::{Change, Observer, View};
use crate::records::RecordKey;

/// Observes issuances: one that is not in use yet was just made.
pub struct IssuedCounter {
    metrics: Arc<Metrics>,
}

impl IssuedCounter {
    /// Counts into `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl Observer for IssuedCounter {
    fn changed(&self, view: &View, change: &Change) {
        for key in &change.keys {
            let RecordKey::Issuance(serial) = key else { continue };
            if let Some(issuance) = view.issuances.get(serial).filter(|issuance| !issuance.used) {
                self.metrics.svid_issued(&issuance.service);
            }
        }
    }
}
