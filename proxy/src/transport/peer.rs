//! Who is at the other end of a stream, for as long as it is open.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use postern_ca::{Peer, Refusal, Serial, Trust};

/// A verified peer. Over a tunnel its certificate is renewed while streams are open; over a direct connection it never
/// changes. All streams of one tunnel share one of these.
#[derive(Clone)]
pub struct PeerIdentity(Arc<Inner>);

struct Inner {
    current: ArcSwap<Peer>,
    /// Certificates that it had before, and any whose proof is being checked: the peer answers for each of them.
    others: Mutex<Vec<Serial>>,
}

impl PeerIdentity {
    /// The identity that a handshake verified.
    pub fn new(peer: Peer) -> Self {
        Self(Arc::new(Inner { current: ArcSwap::from_pointee(peer), others: Mutex::default() }))
    }

    /// Its newest certificate.
    pub fn current(&self) -> Arc<Peer> {
        self.0.current.load_full()
    }

    /// When its newest certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.0.current.load().not_after
    }

    /// Whether it may stay: its newest certificate is valid, and none that it ever had was revoked.
    ///
    /// # Errors
    /// `revoked`, `unknown_authority`, `expired`.
    pub fn still_trusted(&self, trust: &Trust, now: SystemTime) -> Result<(), Refusal> {
        if self.0.others.lock().iter().any(|serial| trust.revoked.contains(serial)) {
            return Err(Refusal::Revoked);
        }
        self.0.current.load().still_trusted(trust, now)
    }

    /// Makes the peer answer for `serial` too. Done before a proof by it is checked, so that no revocation falls between.
    pub(crate) fn answers_for(&self, serial: Serial) {
        self.0.others.lock().push(serial);
    }

    /// The peer has proved that it holds this certificate now.
    pub(crate) fn renew(&self, peer: Peer) {
        let before = self.0.current.swap(Arc::new(peer));
        let mut others = self.0.others.lock();
        if !others.contains(&before.serial) {
            others.push(before.serial);
        }
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.current.load().fmt(f)
    }
}
