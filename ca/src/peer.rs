//! Who is at the other end.

use std::time::SystemTime;

use postern_names::ServiceName;
use rustls::pki_types::CertificateDer;

use crate::leaf::Leaf;
use crate::{Refusal, Serial, SpiffeId, Trust, path};

/// A peer whose certificate was verified. It travels with the connection, so nothing parses a certificate twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Its service; none for a control plane.
    pub service: Option<ServiceName>,
    /// The serial of its certificate.
    pub serial: Serial,
    /// SHA-256 of the SubjectPublicKeyInfo of the root that its chain leads to.
    pub root: [u8; 32],
    /// When the lifetime of its certificate began.
    pub not_before: SystemTime,
    /// When its certificate expires.
    pub not_after: SystemTime,
}

impl Peer {
    /// Who a chain (leaf first) belongs to, once a handshake has proved that the peer holds its key. Lifetimes were judged
    /// then; everything else is judged again. Cheap: signatures that were just verified are not verified again.
    ///
    /// # Errors
    /// Every refusal but `expired`, `not_yet_valid` of the leaf and `unexpected_peer`.
    pub fn of(chain: &[CertificateDer<'_>], trust: &Trust) -> Result<Self, Refusal> {
        let (leaf, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        Verified::of(leaf, intermediates, trust, SystemTime::now()).map(|verified| verified.peer)
    }

    /// Whether an open connection of this peer may stay after the trust has changed or time has passed.
    ///
    /// # Errors
    /// `revoked`, `unknown_authority`, `expired`.
    pub fn still_trusted(&self, trust: &Trust, now: SystemTime) -> Result<(), Refusal> {
        if trust.revoked.contains(&self.serial) {
            return Err(Refusal::Revoked);
        }
        if !trust.bundle.spki_pins().contains(&self.root) {
            return Err(Refusal::UnknownAuthority);
        }
        if self.is_expired(now) {
            return Err(Refusal::Expired { not_after: self.not_after, now });
        }
        Ok(())
    }

    /// True if its certificate's lifetime is over.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }
}

/// A peer, and the lifetime that its chain has.
pub(crate) struct Verified {
    pub peer: Peer,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Verified {
    /// All that a verifier requires but the lifetime and who is expected. The bundle is the one of the peer's own trust
    /// domain: there is one, ours.
    pub fn of(
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        trust: &Trust,
        now: SystemTime,
    ) -> Result<Self, Refusal> {
        let leaf = Leaf::parse(der)?;
        let bundle = &trust.bundle;
        if leaf.id.trust_domain() != bundle.trust_domain.as_str() {
            return Err(Refusal::WrongTrustDomain);
        }
        leaf.profile.clone()?;
        let path = path::find(der, &leaf, intermediates, bundle, now)?;
        let service = if leaf.id.is_control_plane_of(&bundle.trust_domain, &trust.datacenter) {
            None
        } else {
            Some(leaf.id.service_in(&bundle.trust_domain, &trust.datacenter)?)
        };
        if trust.revoked.contains(&leaf.serial) {
            return Err(Refusal::Revoked);
        }
        let peer = Peer {
            id: leaf.id,
            service,
            serial: leaf.serial,
            root: path.root,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        };
        Ok(Self { peer, not_before: path.not_before, not_after: path.not_after })
    }
}
