//! The certificate of the HTTP API, where nobody brought one: issued by the authority, renewed while it is served.

use std::sync::Arc;
use std::time::SystemTime;

use postern_ca::{PrivateKey, Request, Subject};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::{IdentityError, IdentityService};
use crate::http::certificate::{CertificateSlot, Reachable};

/// A server that shows certificates of this authority.
pub(super) struct Server {
    reachable: Reachable,
    slot: Arc<CertificateSlot>,
    /// When to renew; half of the lifetime is left then.
    due: SystemTime,
}

impl IdentityService {
    /// Puts a certificate for a server into its slot, and a new one well before the end of each.
    ///
    /// # Errors
    /// Those of the authority.
    pub fn certify(&self, reachable: Reachable, slot: Arc<CertificateSlot>) -> Result<(), IdentityError> {
        let due = self.issue_server_certificate(&reachable, &slot, SystemTime::now())?;
        *self.server.lock() = Some(Server { reachable, slot, due });
        Ok(())
    }

    /// Renews the server's certificate once it has passed its half-life.
    pub(super) fn renew_server_certificate_if_due(&self, now: SystemTime) -> Result<(), IdentityError> {
        let mut server = self.server.lock();
        let Some(server) = server.as_mut().filter(|server| now >= server.due) else { return Ok(()) };
        server.due = self.issue_server_certificate(&server.reachable, &server.slot, now)?;
        tracing::info!("the certificate of the HTTP API was renewed");
        Ok(())
    }

    fn issue_server_certificate(
        &self,
        reachable: &Reachable,
        slot: &CertificateSlot,
        now: SystemTime,
    ) -> Result<SystemTime, IdentityError> {
        let key = PrivateKey::generate()?;
        let names = reachable.names();
        let request =
            Request { csr_der: &key.csr_der(), id: Subject::Server(names.clone()), ports: &[], ttl: self.settings.svid_ttl, now };
        let issued = self.authority.load().issue(request)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec()));
        let signing = postern_ca::crypto_provider().key_provider.load_private_key(key);
        let signing = signing.map_err(|error| IdentityError::Damaged(error.to_string()))?;
        slot.store(Arc::new(CertifiedKey::new(issued.chain, signing)));
        tracing::info!(dns = ?names.dns, ips = ?names.ips, "the HTTP API shows a certificate of the mesh's authority");
        Ok(now + issued.not_after.duration_since(now).unwrap_or_default() / 2)
    }
}
