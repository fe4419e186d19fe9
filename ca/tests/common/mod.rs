//! A mesh to test against, and certificates that no authority of ours would issue.
#![allow(dead_code, missing_docs)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use postern_ca::{
    Authority, CertificateDer, Expected, Peer, PrivateKey, Refusal, Request, Serial, Subject, Svid, SvidVerifier, Trust,
    TrustSource,
};
use postern_names::{Datacenter, PortName, ServiceName, TrustDomain};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

pub const WEB: &str = "spiffe://example.com/ns/default/dc/dc1/svc/web";
pub const HOUR: Duration = Duration::from_secs(3600);

pub fn trust_domain() -> TrustDomain {
    "example.com".parse().unwrap()
}

pub fn datacenter() -> Datacenter {
    "dc1".parse().unwrap()
}

pub fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// Now in whole seconds, as certificates have it.
pub fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

pub struct Mesh {
    pub authority: Authority,
    pub trust: TrustSource,
}

impl Mesh {
    pub fn new() -> Self {
        Self::of(Authority::create(&trust_domain(), &datacenter(), now()).unwrap())
    }

    pub fn of(authority: Authority) -> Self {
        let trust = Trust { bundle: authority.bundle(), datacenter: datacenter(), revoked: HashSet::new() };
        Self { authority, trust: Arc::new(ArcSwap::from_pointee(trust)) }
    }

    pub fn verifier(&self, expected: Expected) -> Arc<SvidVerifier> {
        SvidVerifier::new(self.trust.clone(), expected)
    }

    pub fn revoke(&self, serial: Serial) {
        let mut trust = Trust::clone(&self.trust.load());
        trust.revoked.insert(serial);
        self.trust.store(Arc::new(trust));
    }

    pub fn svid_of(&self, subject: Subject, ports: &[PortName]) -> Svid {
        let key = PrivateKey::generate().unwrap();
        let request = Request { csr_der: &key.csr_der(), id: subject.clone(), ports, ttl: HOUR, now: now() };
        let mut chain = self.authority.issue(request).unwrap().chain;
        if subject == Subject::ControlPlane {
            chain.push(self.authority.root().clone());
        }
        Svid::new(chain, key).unwrap()
    }

    pub fn svid(&self, name: &str) -> Svid {
        self.svid_of(Subject::Service(service(name)), &[])
    }

    /// A certificate of any kind, signed by the real intermediate.
    pub fn forge(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        self.forge_for(&KeyPair::generate().unwrap(), change)
    }

    pub fn forge_for(&self, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let mut params = svid_params();
        change(&mut params);
        let keys = self.authority.export();
        let signer = KeyPair::try_from(keys.intermediate_key.as_slice()).unwrap();
        let issuer = Issuer::from_ca_cert_der(&keys.intermediate, signer).unwrap();
        vec![params.signed_by(key, &issuer).unwrap().der().clone(), keys.intermediate.clone()]
    }

    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, Refusal> {
        self.judge_as(Expected::AnyService, chain)
    }

    pub fn judge_as(&self, expected: Expected, chain: &[CertificateDer<'_>]) -> Result<Peer, Refusal> {
        self.verifier(expected).verify(&chain[0], &chain[1..], now())
    }

    /// The reason word for a forged certificate.
    pub fn word(&self, change: impl FnOnce(&mut CertificateParams)) -> &'static str {
        self.judge(&self.forge(change)).map_or_else(|refusal| refusal.word(), |_| "accepted")
    }
}

/// What a right SVID of `web` has.
pub fn svid_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(WEB)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(Serial::random().unwrap().as_bytes()));
    params.not_before = (now() - Duration::from_secs(60)).into();
    params.not_after = (now() + HOUR).into();
    params
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}
