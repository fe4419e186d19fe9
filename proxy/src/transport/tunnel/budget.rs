//! How many received bytes wait for slow readers, of one peer and of all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use postern_names::ServiceName;

/// The bytes that all tunnels of a sidecar may hold unread. Over it no peer is given new credit.
#[derive(Debug)]
pub(crate) struct Budgets {
    most: usize,
    most_of_peer: usize,
    held: Arc<AtomicUsize>,
    of_peers: Mutex<HashMap<ServiceName, Weak<AtomicUsize>>>,
}

/// What one tunnel holds of it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Budget {
    budgets: Arc<Budgets>,
    of_peer: Arc<AtomicUsize>,
    held: usize,
}

impl Budgets {
    /// At most `most` bytes in all, `most_of_peer` of the tunnels of one peer service.
    pub(crate) fn new(most: usize, most_of_peer: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_peer, held: Arc::default(), of_peers: Mutex::default() })
    }

    /// The budget of one more tunnel with `peer`.
    pub(crate) fn of(self: &Arc<Self>, peer: &ServiceName) -> Budget {
        let mut of_peers = self.of_peers.lock();
        let of_peer = of_peers.get(peer).and_then(Weak::upgrade).unwrap_or_default();
        of_peers.retain(|_, held| held.strong_count() > 0);
        of_peers.insert(peer.clone(), Arc::downgrade(&of_peer));
        Budget { budgets: self.clone(), of_peer, held: 0 }
    }

    /// What all of them hold.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Budget {
    /// Tells that the tunnel holds so many bytes now.
    pub(crate) fn hold(&mut self, bytes: usize) {
        if bytes == self.held {
            return;
        }
        for total in [&self.budgets.held, &self.of_peer] {
            if bytes > self.held {
                total.fetch_add(bytes - self.held, Ordering::Relaxed);
            } else {
                total.fetch_sub(self.held - bytes, Ordering::Relaxed);
            }
        }
        self.held = bytes;
    }

    /// Whether nobody on this tunnel may be given new credit now.
    pub(crate) fn is_spent(&self) -> bool {
        self.budgets.held.load(Ordering::Relaxed) >= self.budgets.most
            || self.of_peer.load(Ordering::Relaxed) >= self.budgets.most_of_peer
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_of_one_peer_share_a_budget_and_all_share_one() {
        let budgets = Budgets::new(100, 60);
        let [web, admin] = ["web", "admin"].map(|name| name.parse::<ServiceName>().expect("name"));
        let (mut first, mut second, mut other) = (budgets.of(&web), budgets.of(&web), budgets.of(&admin));
        first.hold(30);
        second.hold(30);
        assert!(first.is_spent() && second.is_spent() && !other.is_spent());
        other.hold(40);
        assert!(other.is_spent(), "all together hold 100");
        drop(second);
        assert!(!first.is_spent() && !other.is_spent());
        first.hold(0);
        assert_eq!(budgets.held.load(Ordering::Relaxed), 40);
    }
}
