//! An SVID of our own: certificate chain and key.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use postern_names::PortName;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::leaf::Leaf;
use crate::{IdentityError, PrivateKey, Serial, SpiffeId};

/// A certificate chain with the key that belongs to it (X509-SVID).
#[derive(Debug)]
pub struct Svid {
    leaf: Leaf,
    key: PrivateKey,
    certified: Arc<CertifiedKey>,
}

impl Svid {
    /// Puts a chain (leaf first) and a key together.
    ///
    /// # Errors
    /// If the leaf is not an SVID or the key is not its own. Lifetime and issuer are not judged.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, IdentityError> {
        let leaf = Leaf::parse(chain.first().ok_or(IdentityError::EmptyChain)?)
            .map_err(|refusal| IdentityError::Certificate(refusal.to_string()))?;
        leaf.profile.clone().map_err(|refusal| IdentityError::Certificate(refusal.to_string()))?;
        let certified = CertifiedKey::new(chain, key.signing_key()?);
        certified.keys_match().map_err(|_| IdentityError::KeyDiffers)?;
        Ok(Self { leaf, key, certified: Arc::new(certified) })
    }

    /// Its SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// Its serial number.
    pub fn serial(&self) -> &Serial {
        &self.leaf.serial
    }

    /// The beginning of its lifetime.
    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    /// The end of its lifetime.
    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// The named ports that its DNS SANs name (`<port>.<service>.<trust-domain>`), in order; `main` is in none.
    pub fn ports(&self) -> Vec<PortName> {
        let service = self.leaf.id.path().rsplit('/').next().unwrap_or_default();
        let own = format!(".{service}.{}", self.leaf.id.trust_domain());
        self.leaf.dns_names.iter().filter_map(|name| name.strip_suffix(&own)?.parse().ok()).collect()
    }

    /// Its certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Its key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Both, as rustls shows them.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// Where TLS configurations read the current SVID: a renewal is one swap, and no configuration is built anew.
#[derive(Debug, Default)]
pub struct SvidSlot(ArcSwapOption<Svid>);

/// A shared slot.
pub type SvidSource = Arc<SvidSlot>;

impl SvidSlot {
    /// A slot that holds this SVID.
    pub fn new(svid: impl Into<Option<Arc<Svid>>>) -> Self {
        Self(ArcSwapOption::new(svid.into()))
    }

    /// A slot without an SVID: as server every handshake fails, as client none is shown.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The SVID of the moment.
    pub fn load(&self) -> Option<Arc<Svid>> {
        self.0.load_full()
    }

    /// Puts a new one in place; handshakes that begin now show it.
    pub fn store(&self, svid: impl Into<Option<Arc<Svid>>>) {
        self.0.store(svid.into());
    }
}

impl ResolvesServerCert for SvidSlot {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|svid| svid.certified_key())
    }
}

impl ResolvesClientCert for SvidSlot {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|svid| svid.certified_key())
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}
