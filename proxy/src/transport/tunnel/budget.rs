//! How many received bytes wait for slow readers, of one peer and of all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use postern_names::ServiceName;

/// The bytes that all tunnels of a sidecar may hold unread. Over it no peer is given new credit.
#[derive(Debug)]
pub(crate) struct Budgets {
    most: usize,
    most_of_peer: usize,
    all: Arc<Held>,
    of_peers: Mutex<HashMap<ServiceName, Weak<Held>>>,
}

/// What some tunnels hold together.
#[derive(Debug, Default)]
struct Held {
    /// Received and not read.
    unread: AtomicUsize,
    /// The parts of windows that are over what every stream may have.
    over: AtomicUsize,
}

/// What one tunnel holds of it; given back when dropped.
#[derive(Debug)]
pub(crate) struct Budget {
    budgets: Arc<Budgets>,
    of_peer: Arc<Held>,
    unread: usize,
    over: usize,
}

impl Budgets {
    /// At most `most` bytes in all, `most_of_peer` of the tunnels of one peer service.
    pub(crate) fn new(most: usize, most_of_peer: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_peer, all: Arc::default(), of_peers: Mutex::default() })
    }

    /// The budget of one more tunnel with `peer`.
    pub(crate) fn of(self: &Arc<Self>, peer: &ServiceName) -> Budget {
        let mut of_peers = self.of_peers.lock();
        let of_peer = of_peers.get(peer).and_then(Weak::upgrade).unwrap_or_default();
        of_peers.retain(|_, held| held.strong_count() > 0);
        of_peers.insert(peer.clone(), Arc::downgrade(&of_peer));
        Budget { budgets: self.clone(), of_peer, unread: 0, over: 0 }
    }

    /// What all of them hold.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.all.unread.load(Relaxed)
    }
}

impl Budget {
    /// Tells that the tunnel holds so many bytes unread now, and that so many bytes of its windows are over what every
    /// stream may have.
    pub(crate) fn hold(&mut self, unread: usize, over: usize) {
        for held in [&self.budgets.all, &self.of_peer] {
            change(&held.unread, self.unread, unread);
            change(&held.over, self.over, over);
        }
        (self.unread, self.over) = (unread, over);
    }

    /// How many bytes of this tunnel's windows may be over what every stream may have. Half of each budget is for such
    /// windows, so that streams whose readers stop after they were fast leave the others the other half.
    pub(crate) fn most_over(&self) -> usize {
        let left = |most: usize, held: &Held| (most / 2).saturating_sub(held.over.load(Relaxed));
        self.over + left(self.budgets.most, &self.budgets.all).min(left(self.budgets.most_of_peer, &self.of_peer))
    }

    /// Whether nobody on this tunnel may be given new credit now.
    pub(crate) fn is_spent(&self) -> bool {
        self.budgets.all.unread.load(Relaxed) >= self.budgets.most
            || self.of_peer.unread.load(Relaxed) >= self.budgets.most_of_peer
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.hold(0, 0);
    }
}

fn change(total: &AtomicUsize, before: usize, now: usize) {
    if now > before {
        total.fetch_add(now - before, Relaxed);
    } else if now < before {
        total.fetch_sub(before - now, Relaxed);
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
        first.hold(30, 0);
        second.hold(30, 0);
        assert!(first.is_spent() && second.is_spent() && !other.is_spent());
        other.hold(40, 0);
        assert!(other.is_spent(), "all together hold 100");
        drop(second);
        assert!(!first.is_spent() && !other.is_spent());
        first.hold(0, 0);
        assert_eq!(budgets.held(), 40);
    }

    #[test]
    fn half_of_a_budget_is_for_windows_that_are_large() {
        let budgets = Budgets::new(100, 60);
        let [web, admin] = ["web", "admin"].map(|name| name.parse::<ServiceName>().expect("name"));
        let (mut first, mut second, other) = (budgets.of(&web), budgets.of(&web), budgets.of(&admin));
        assert_eq!((first.most_over(), other.most_over()), (30, 30));
        first.hold(0, 25);
        assert_eq!((first.most_over(), second.most_over(), other.most_over()), (30, 5, 25));
        second.hold(0, 5);
        assert_eq!((first.most_over(), second.most_over(), other.most_over()), (25, 5, 20));
        drop(first);
        assert_eq!((second.most_over(), other.most_over()), (30, 30));
    }
}
