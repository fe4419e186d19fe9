//! First contact: the control plane, known by the pin of an enrolment token and nothing else.

use std::collections::HashSet;
use std::time::SystemTime;

use postern_names::{Datacenter, TrustDomain};
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::bundle::spki_hash;
use crate::leaf::Leaf;
use crate::path::system;
use crate::peer::Verified;
use crate::tls_signatures::tls13_signatures;
use crate::{Peer, Refusal, Trust, TrustBundle};

/// Requires that one certificate of the chain has the pinned public key, that the chain ends in it, and that the leaf is
/// a control plane's (`…/agent/server/dc/…`): the SVID of a service answers no enrolment.
#[derive(Debug)]
pub struct PinnedVerifier {
    pin: [u8; 32],
}

impl PinnedVerifier {
    /// Trusts the root with this SHA-256 of its SubjectPublicKeyInfo.
    pub fn new(pin: [u8; 32]) -> Self {
        Self { pin }
    }

    /// The control plane that this chain belongs to.
    ///
    /// # Errors
    /// Any refusal; `unknown_authority` if no certificate has the pinned key or the chain does not end in it.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Peer, Refusal> {
        let root = intermediates.iter().find(|certificate| spki_hash(certificate) == Some(self.pin));
        let root = root.ok_or(Refusal::UnknownAuthority)?.clone().into_owned();
        let trust = trust_of_leaf(leaf, root)?;
        let verified = Verified::of(leaf, intermediates, &trust, now)?;
        if now < verified.not_before {
            return Err(Refusal::NotYetValid { not_before: verified.not_before, now });
        }
        if now > verified.not_after {
            return Err(Refusal::Expired { not_after: verified.not_after, now });
        }
        if verified.peer.root != self.pin {
            return Err(Refusal::UnknownAuthority);
        }
        Ok(verified.peer)
    }
}

/// What to trust: the pinned root, for the control plane that the leaf says it is.
fn trust_of_leaf(leaf: &CertificateDer<'_>, root: CertificateDer<'static>) -> Result<Trust, Refusal> {
    let id = Leaf::parse(leaf)?.id;
    let trust_domain: TrustDomain = id.trust_domain().parse().map_err(|_| Refusal::BadSpiffeId)?;
    let datacenter: Option<Datacenter> = id.path().strip_prefix("/agent/server/dc/").and_then(|name| name.parse().ok());
    let datacenter = datacenter.ok_or_else(|| Refusal::UnexpectedPeer {
        expected: "a control plane (spiffe://<trust-domain>/agent/server/dc/<dc>)".into(),
        got: id.to_string(),
    })?;
    let bundle = TrustBundle::new(trust_domain, vec![root], 0);
    Ok(Trust { bundle, datacenter, revoked: HashSet::new() })
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, system(now))?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!();
}
