//! The verifier of the mesh, the same for both ends of a connection.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_names::ServiceName;
use rustls::DistinguishedName;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};

use crate::path::system;
use crate::peer::Verified;
use crate::tls_signatures::tls13_signatures;
use crate::{Peer, Refusal, SpiffeId, TrustSource};

/// Who a verifier lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Any service of our trust domain and datacenter: inbound connections, which intentions judge next.
    AnyService,
    /// One service: an outbound connection.
    Service(ServiceName),
    /// The control plane.
    ControlPlane,
    /// Any service, or nobody yet: the control plane's port, where an enrolment has no certificate.
    ServiceOrNone,
}

type Now = dyn Fn() -> SystemTime + Send + Sync;

/// Verifies the other end of every connection of the mesh, as server and as client. It reads the trust of the moment,
/// so one of these lives as long as its listener.
pub struct SvidVerifier {
    trust: TrustSource,
    expected: Expected,
    grace: Duration,
    now: Option<Arc<Now>>,
}

impl SvidVerifier {
    /// A verifier without grace.
    pub fn new(trust: TrustSource, expected: Expected) -> Arc<Self> {
        Arc::new(Self { trust, expected, grace: Duration::ZERO, now: None })
    }

    /// The same, which lets in a leaf that expired no longer than `grace` ago: for `Renew`, and only for it. The peer then
    /// says that it is expired (`Peer::is_expired`).
    pub fn with_grace(self: Arc<Self>, grace: Duration) -> Arc<Self> {
        Arc::new(Self { trust: self.trust.clone(), expected: self.expected.clone(), grace, now: self.now.clone() })
    }

    /// The same, which judges lifetimes by this clock and not by the host's.
    pub fn with_clock(self: Arc<Self>, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Arc<Self> {
        let now: Arc<Now> = Arc::new(now);
        Arc::new(Self { trust: self.trust.clone(), expected: self.expected.clone(), grace: self.grace, now: Some(now) })
    }

    /// Who a certificate belongs to, if it is let in at this time.
    ///
    /// # Errors
    /// The first reason against it, in the order: its ID, its trust domain, its profile, its chain, its datacenter,
    /// revocation, its lifetime, who was expected.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Peer, Refusal> {
        let trust = self.trust.load();
        let verified = Verified::of(leaf, intermediates, &trust, now)?;
        if now < verified.not_before {
            return Err(Refusal::NotYetValid { not_before: verified.not_before, now });
        }
        if now > verified.not_after + self.grace {
            return Err(Refusal::Expired { not_after: verified.not_after, now });
        }
        self.check_expected(&verified.peer, &trust)?;
        Ok(verified.peer)
    }

    fn check_expected(&self, peer: &Peer, trust: &crate::Trust) -> Result<(), Refusal> {
        let (domain, datacenter) = (&trust.bundle.trust_domain, &trust.datacenter);
        let expected = match &self.expected {
            Expected::AnyService | Expected::ServiceOrNone if peer.service.is_some() => return Ok(()),
            Expected::AnyService | Expected::ServiceOrNone => "a service".to_owned(),
            Expected::Service(name) if peer.service.as_ref() == Some(name) => return Ok(()),
            Expected::Service(name) => SpiffeId::service(domain, datacenter, name).to_string(),
            Expected::ControlPlane if peer.service.is_none() => return Ok(()),
            Expected::ControlPlane => SpiffeId::control_plane(domain, datacenter).to_string(),
        };
        Err(Refusal::UnexpectedPeer { expected, got: peer.id.to_string() })
    }

    fn judge(&self, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let now = self.now.as_ref().map_or_else(|| system(now), |clock| clock());
        Ok(self.verify(leaf, intermediates, now).map(drop)?)
    }
}

impl fmt::Debug for SvidVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SvidVerifier").field("expected", &self.expected).field("grace", &self.grace).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for SvidVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    tls13_signatures!();
}

impl ClientCertVerifier for SvidVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.expected != Expected::ServiceOrNone
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(leaf, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    tls13_signatures!();
}
