//! An authority, and what it issues.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use postern_ca::{Authority, PrivateKey, Request, Subject, Svid, SvidSlot, SvidSource, Trust, TrustSource};
use postern_names::{Datacenter, TrustDomain};

pub struct Mesh {
    authority: Authority,
    pub trust: TrustSource,
}

impl Mesh {
    pub fn new() -> Self {
        let trust_domain: TrustDomain = "example.com".parse().expect("a trust domain");
        let datacenter: Datacenter = "dc1".parse().expect("a datacenter");
        let authority = Authority::create(&trust_domain, &datacenter, SystemTime::now()).expect("an authority");
        let trust = Trust { bundle: authority.bundle(), datacenter, revoked: HashSet::new() };
        Self { authority, trust: Arc::new(ArcSwap::from_pointee(trust)) }
    }

    /// A fresh SVID with a fresh key.
    pub fn svid(&self, service: &str) -> Svid {
        let key = PrivateKey::generate().expect("a key");
        let id = Subject::Service(service.parse().expect("a service name"));
        let request =
            Request { csr_der: &key.csr_der(), id, ports: &[], ttl: Duration::from_secs(3_600), now: SystemTime::now() };
        let chain = self.authority.issue(request).expect("a certificate").chain;
        Svid::new(chain, key).expect("an SVID")
    }

    pub fn source(&self, service: &str) -> SvidSource {
        Arc::new(SvidSlot::new(Arc::new(self.svid(service))))
    }
}
