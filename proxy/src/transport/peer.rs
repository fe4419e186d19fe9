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
    /// Held while the current one is judged or replaced, so that no certificate falls between.
    others: Mutex<Vec<Other>>,
}

/// A certificate that the peer answers for beside the newest.
struct Other {
    serial: Serial,
    /// When it expires: a revocation that comes later names it no more. `None` while its proof is being checked.
    until: Option<SystemTime>,
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

    /// Whether it may stay: its newest certificate is valid, and none that it ever had was revoked while it was.
    ///
    /// # Errors
    /// `revoked`, `unknown_authority`, `expired`.
    pub fn still_trusted(&self, trust: &Trust, now: SystemTime) -> Result<(), Refusal> {
        let others = self.0.others.lock();
        if others.iter().any(|other| trust.revoked.contains(&other.serial)) {
            return Err(Refusal::Revoked);
        }
        self.0.current.load().still_trusted(trust, now)
    }

    /// Makes the peer answer for `serial` too. Done before a proof by it is checked, so that no revocation falls between.
    pub(crate) fn answers_for(&self, serial: Serial) {
        self.0.others.lock().push(Other { serial, until: None });
    }

    /// The peer has proved that it holds this certificate now.
    pub(crate) fn renew(&self, peer: Peer, now: SystemTime) {
        let mut others = self.0.others.lock();
        let serial = peer.serial;
        let before = self.0.current.swap(Arc::new(peer));
        others.retain(|other| other.serial != serial && other.until.is_none_or(|until| until >= now));
        others.push(Other { serial: before.serial, until: Some(before.not_after) });
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.current.load().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postern_ca::{Authority, SpiffeId};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    struct World {
        trust: Trust,
        begun: SystemTime,
    }

    impl World {
        fn new() -> Self {
            let begun = SystemTime::now();
            let (domain, datacenter) = ("mesh.example".parse().expect("domain"), "dc1".parse().expect("datacenter"));
            let authority = Authority::create(&domain, &datacenter, begun).expect("authority");
            Self { trust: Trust { bundle: authority.bundle(), datacenter, revoked: Default::default() }, begun }
        }

        /// The certificate that is issued in the `hour`-th hour and lives for two.
        fn peer(&self, hour: u32) -> Peer {
            let service = "web".parse().expect("service");
            Peer {
                id: SpiffeId::service(&self.trust.bundle.trust_domain, &self.trust.datacenter, &service),
                service: Some(service),
                serial: Serial::random().expect("serial"),
                root: self.trust.bundle.spki_pins()[0],
                not_before: self.begun + hour * HOUR,
                not_after: self.begun + (hour + 2) * HOUR,
            }
        }

        fn revoking(&self, serial: Serial) -> Trust {
            Trust { revoked: [serial].into(), ..self.trust.clone() }
        }
    }

    #[test]
    fn a_renewed_peer_lives_as_long_as_its_newest_certificate() {
        let world = World::new();
        let identity = PeerIdentity::new(world.peer(0));
        let later = world.begun + 2 * HOUR + Duration::from_secs(1);
        assert_eq!(identity.still_trusted(&world.trust, later).expect_err("expired").word(), "expired");
        identity.renew(world.peer(1), world.begun + HOUR);
        assert_eq!(identity.still_trusted(&world.trust, later), Ok(()));
        assert_eq!(identity.not_after(), world.begun + 3 * HOUR);
    }

    #[test]
    fn a_peer_answers_for_every_certificate_that_it_had() {
        let world = World::new();
        let certificates: Vec<Peer> = (0..3).map(|_| world.peer(0)).collect();
        let serials: Vec<Serial> = certificates.iter().map(|peer| peer.serial).collect();
        let mut certificates = certificates.into_iter();
        let identity = PeerIdentity::new(certificates.next().expect("first"));
        for certificate in certificates {
            identity.answers_for(certificate.serial);
            identity.renew(certificate, world.begun);
        }
        assert_eq!(identity.still_trusted(&world.trust, world.begun), Ok(()));
        for serial in serials {
            assert_eq!(identity.still_trusted(&world.revoking(serial), world.begun), Err(Refusal::Revoked));
        }
    }

    #[test]
    fn a_peer_answers_for_a_certificate_whose_proof_is_being_checked() {
        let world = World::new();
        let identity = PeerIdentity::new(world.peer(0));
        let claimed = world.peer(1).serial;
        identity.answers_for(claimed);
        assert_eq!(identity.still_trusted(&world.revoking(claimed), world.begun), Err(Refusal::Revoked));
    }

    #[test]
    fn certificates_that_have_expired_are_not_kept() {
        let world = World::new();
        let identity = PeerIdentity::new(world.peer(0));
        for hour in 1..1_000 {
            let renewed = world.peer(hour);
            identity.answers_for(renewed.serial);
            identity.renew(renewed, world.begun + hour * HOUR);
        }
        assert!(identity.0.others.lock().len() <= 3, "{}", identity.0.others.lock().len());
    }
}
