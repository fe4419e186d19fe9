//! The authority of a mesh: a root, and the intermediate that signs SVIDs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_names::{Datacenter, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::key::{load_pair, sha256};
use crate::leaf::moment;
use crate::{AuthorityError, Serial, SpiffeId, TrustBundle};

/// How long a root that we make lives: 10 years.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// How long an intermediate lives: 30 days.
pub const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Certificates begin a minute before now, for clocks that differ. Those that live less than five minutes, which only
/// tests have, begin a fifth of their lifetime before, or half of it would always be over.
pub(crate) fn backdate(lifetime: Duration) -> Duration {
    Duration::from_secs(60).min(lifetime / 5)
}

/// Root and intermediate of one control plane. Immutable but for `renew_intermediate`; a clone shares the keys.
#[derive(Clone)]
pub struct Authority {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) datacenter: Datacenter,
    pub(crate) sequence: u64,
    pub(crate) intermediate_lifetime: Duration,
    pub(crate) root: CertificateDer<'static>,
    /// Between the root and our intermediate, nearest to the intermediate first: only with a CA that was brought.
    pub(crate) between: Vec<CertificateDer<'static>>,
    /// Signs intermediates: the key of the first of `between`, or the root's.
    pub(crate) signing_key: Option<Arc<KeyPair>>,
    pub(crate) intermediate: CertificateDer<'static>,
    pub(crate) intermediate_key: Arc<KeyPair>,
    pub(crate) lifetime: Lifetime,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// All of an authority, for the store, which seals it.
#[derive(Clone)]
pub struct AuthorityKeys {
    /// The root, DER.
    pub root: CertificateDer<'static>,
    /// Between the root and our intermediate, nearest to the intermediate first.
    pub between: Vec<CertificateDer<'static>>,
    /// PKCS#8 of the key that signs intermediates; none if it was brought, since its owner keeps it.
    pub signing_key: Option<Zeroizing<Vec<u8>>>,
    /// The intermediate, DER.
    pub intermediate: CertificateDer<'static>,
    /// PKCS#8 of its key.
    pub intermediate_key: Zeroizing<Vec<u8>>,
    /// The sequence of the bundle.
    pub sequence: u64,
}

impl Authority {
    /// A new authority: root P-384 for 10 years, intermediate P-256 for 30 days with pathlen 0.
    ///
    /// # Errors
    /// Only if the crypto library fails.
    pub fn create(trust_domain: &TrustDomain, datacenter: &Datacenter, now: SystemTime) -> Result<Self, AuthorityError> {
        let root_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
        let serial = Serial::random().map_err(|error| AuthorityError::Crypto(error.to_string()))?;
        let lifetime = Lifetime { not_before: now - backdate(ROOT_LIFETIME), not_after: now + ROOT_LIFETIME };
        let name = format!("Postern root {}", &serial.to_string()[..8]);
        let params = ca_params(trust_domain, &name, BasicConstraints::Unconstrained, serial, lifetime)?;
        let root = params.self_signed(&root_key)?.der().clone();
        Self::under(trust_domain, datacenter, root, Vec::new(), root_key, now)
    }

    /// An authority whose intermediate is signed by this key, which belongs to the first of `between`, or to the root.
    pub(crate) fn under(
        trust_domain: &TrustDomain,
        datacenter: &Datacenter,
        root: CertificateDer<'static>,
        between: Vec<CertificateDer<'static>>,
        signing_key: KeyPair,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let mut authority = Self {
            trust_domain: trust_domain.clone(),
            datacenter: datacenter.clone(),
            sequence: 1,
            intermediate_lifetime: INTERMEDIATE_LIFETIME,
            intermediate: root.clone(),
            root,
            between,
            intermediate_key: Arc::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?),
            signing_key: Some(Arc::new(signing_key)),
            lifetime: Lifetime { not_before: now, not_after: now },
        };
        authority.renew_intermediate(now)?;
        Ok(authority)
    }

    /// The same with another lifetime of its intermediates, from the next one on; only tests of rotation need it.
    pub fn with_intermediate_lifetime(mut self, lifetime: Duration) -> Self {
        self.intermediate_lifetime = lifetime;
        self
    }

    /// Makes a new intermediate with a new key. SVIDs of the old one stay valid: their chain carries it.
    ///
    /// # Errors
    /// If the key that signs intermediates is not loaded, or its certificate has expired.
    pub fn renew_intermediate(&mut self, now: SystemTime) -> Result<(), AuthorityError> {
        let signing_key = self.signing_key.as_deref().ok_or(AuthorityError::NoSigningKey)?;
        let signer = self.between.first().unwrap_or(&self.root);
        let upper = lifetime_of(signer).ok_or_else(|| AuthorityError::Unfit("it does not parse".into()))?;
        if !(upper.not_before..upper.not_after).contains(&now) {
            return Err(AuthorityError::NotValidNow {
                not_before: crate::error::show(upper.not_before),
                not_after: crate::error::show(upper.not_after),
                now: crate::error::show(now),
            });
        }
        let lifetime = Lifetime {
            not_before: (now - backdate(self.intermediate_lifetime)).max(upper.not_before),
            not_after: (now + self.intermediate_lifetime).min(upper.not_after),
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let serial = Serial::random().map_err(|error| AuthorityError::Crypto(error.to_string()))?;
        let name = format!("Postern intermediate {}", &serial.to_string()[..8]);
        let mut params = ca_params(&self.trust_domain, &name, BasicConstraints::Constrained(0), serial, lifetime)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &Issuer::from_ca_cert_der(signer, signing_key)?)?;
        self.intermediate = certificate.der().clone();
        self.intermediate_key = Arc::new(key);
        self.lifetime = lifetime_of(&self.intermediate).unwrap_or(lifetime);
        Ok(())
    }

    /// When the intermediate expires.
    pub fn intermediate_not_after(&self) -> SystemTime {
        self.lifetime.not_after
    }

    /// When the intermediate was made (a minute before).
    pub fn intermediate_not_before(&self) -> SystemTime {
        self.lifetime.not_before
    }

    /// Half of the intermediate's lifetime, counted from when it was made: the moment to renew it.
    pub fn intermediate_half_life(&self) -> SystemTime {
        let whole = self.lifetime.not_after.duration_since(self.lifetime.not_before).unwrap_or_default();
        // The inverse of `backdate`: a sixth of what was made a fifth longer.
        let made = self.lifetime.not_before + Duration::from_secs(60).min(whole / 6);
        made + self.lifetime.not_after.duration_since(made).unwrap_or_default() / 2
    }

    /// True if the intermediate has passed its half-life.
    pub fn intermediate_due(&self, now: SystemTime) -> bool {
        now >= self.intermediate_half_life()
    }

    /// The intermediate, DER.
    pub fn intermediate(&self) -> &CertificateDer<'static> {
        &self.intermediate
    }

    /// The roots that sidecars trust.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::new(self.trust_domain.clone(), vec![self.root.clone()], self.sequence)
    }

    /// SHA-256 of the root's SubjectPublicKeyInfo, which enrolment tokens pin.
    pub fn pin(&self) -> [u8; 32] {
        crate::bundle::spki_hash(&self.root).unwrap_or_default()
    }

    /// The root, DER. The control plane's own chain ends in it, so that a pinned sidecar can find it.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// All of it, to be sealed. A signing key that was brought stays out.
    pub fn export(&self) -> AuthorityKeys {
        let der = |key: &KeyPair| Zeroizing::new(key.serialized_der().to_vec());
        AuthorityKeys {
            root: self.root.clone(),
            between: self.between.clone(),
            signing_key: self.signing_key.as_deref().map(der),
            intermediate: self.intermediate.clone(),
            intermediate_key: der(&self.intermediate_key),
            sequence: self.sequence,
        }
    }

    /// What `export` gave.
    ///
    /// # Errors
    /// If a key does not parse or does not belong to its certificate.
    pub fn import(keys: AuthorityKeys, trust_domain: &TrustDomain, datacenter: &Datacenter) -> Result<Self, AuthorityError> {
        let intermediate_key = load_pair(&keys.intermediate_key).map_err(AuthorityError::Key)?;
        check_key(&keys.intermediate, &intermediate_key)?;
        let signer = keys.between.first().unwrap_or(&keys.root);
        let signing_key = match &keys.signing_key {
            Some(der) => {
                let key = load_pair(der).map_err(AuthorityError::Key)?;
                check_key(signer, &key)?;
                Some(Arc::new(key))
            }
            None => None,
        };
        let lifetime = lifetime_of(&keys.intermediate).ok_or_else(|| AuthorityError::Unfit("it does not parse".into()))?;
        Ok(Self {
            trust_domain: trust_domain.clone(),
            datacenter: datacenter.clone(),
            sequence: keys.sequence,
            intermediate_lifetime: INTERMEDIATE_LIFETIME,
            root: keys.root,
            between: keys.between,
            signing_key,
            intermediate: keys.intermediate,
            intermediate_key: Arc::new(intermediate_key),
            lifetime,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthorityKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

fn ca_params(
    trust_domain: &TrustDomain,
    name: &str,
    constraints: BasicConstraints,
    serial: Serial,
    lifetime: Lifetime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(SpiffeId::trust_domain_id(trust_domain).as_str().try_into()?)];
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.not_before = OffsetDateTime::from(lifetime.not_before);
    params.not_after = OffsetDateTime::from(lifetime.not_after);
    Ok(params)
}

pub(crate) fn lifetime_of(certificate: &CertificateDer<'_>) -> Option<Lifetime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    Some(Lifetime { not_before: moment(validity.not_before.timestamp()), not_after: moment(validity.not_after.timestamp()) })
}

/// A key must be the one that its certificate names.
pub(crate) fn check_key(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), AuthorityError> {
    let named = crate::bundle::spki_hash(certificate).ok_or_else(|| AuthorityError::Unfit("it does not parse".into()))?;
    if named != sha256(&key.subject_public_key_info()) {
        return Err(AuthorityError::Key("it does not belong to the certificate".into()));
    }
    Ok(())
}

/// Signature algorithms whose keys an SVID may have.
pub(crate) fn is_accepted(algorithm: &'static SignatureAlgorithm) -> bool {
    [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519].contains(&algorithm)
}
