//! An authority that the operator brings: a root, or an intermediate with its whole chain.

use std::time::SystemTime;

use postern_names::{Datacenter, TrustDomain};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::X509Certificate;

use crate::authority::{check_key, lifetime_of};
use crate::bundle::certificates_in;
use crate::error::show;
use crate::{Authority, AuthorityError, Expected, PrivateKey, Request, Subject, SvidVerifier, Trust};

impl Authority {
    /// An authority under a CA that was brought. `certificates` holds the CA first, then its issuers up to a self-signed
    /// root; `key` is the CA's. Our own intermediate is signed with it; the key is not exported.
    ///
    /// # Errors
    /// With the reason, if it cannot sign for a mesh.
    pub fn from_pem(
        certificates: &str,
        key: &str,
        trust_domain: &TrustDomain,
        datacenter: &Datacenter,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let mut chain = certificates_in(certificates).map_err(|error| AuthorityError::Unfit(error.to_string()))?;
        let key = key_in(key)?;
        check_chain(&chain, now)?;
        check_key(&chain[0], &key)?;
        let root = chain.pop().ok_or_else(|| AuthorityError::Chain("there is no certificate".into()))?;
        let authority = Self::under(trust_domain, datacenter, root, chain, key, now)?;
        authority.check_that_it_works(now)?;
        Ok(authority)
    }

    /// Puts the key of a CA that was brought back in place after `import`, from the same files.
    ///
    /// # Errors
    /// If it is another CA than the one that this authority was made under.
    pub fn with_brought_key(mut self, certificates: &str, key: &str) -> Result<Self, AuthorityError> {
        let chain = certificates_in(certificates).map_err(|error| AuthorityError::Unfit(error.to_string()))?;
        let ours: Vec<_> = self.between.iter().chain([&self.root]).cloned().collect();
        if chain != ours {
            return Err(AuthorityError::Unfit(
                "it is another CA than the one that this mesh was created with; a change of the root is `meshctl ca rotate`"
                    .into(),
            ));
        }
        let key = key_in(key)?;
        check_key(&chain[0], &key)?;
        self.signing_key = Some(std::sync::Arc::new(key));
        Ok(self)
    }

    /// True if the CA has this certificate first: it is the root, or the intermediate that was brought.
    pub fn is_under(&self, certificates: &str) -> bool {
        let first = certificates_in(certificates).ok().and_then(|chain| chain.into_iter().next());
        first.is_some_and(|first| first == *self.between.first().unwrap_or(&self.root))
    }

    /// Issues one SVID and verifies it as a sidecar would: a CA with a profile that no verifier accepts is refused here
    /// and not at the first connection.
    fn check_that_it_works(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let key = PrivateKey::generate().map_err(|error| AuthorityError::Crypto(error.to_string()))?;
        let request = Request {
            csr_der: &key.csr_der(),
            id: Subject::ControlPlane,
            ports: &[],
            ttl: std::time::Duration::from_secs(300),
            now,
        };
        let issued = self.issue(request).map_err(|error| AuthorityError::Unfit(error.to_string()))?;
        let trust =
            Trust { bundle: self.bundle(), datacenter: self.datacenter.clone(), revoked: std::collections::HashSet::new() };
        let verifier = SvidVerifier::new(std::sync::Arc::new(arc_swap::ArcSwap::from_pointee(trust)), Expected::ControlPlane);
        verifier.verify(&issued.chain[0], &issued.chain[1..], now).map(drop).map_err(|refusal| {
            let why = "what it signs would be refused by every sidecar";
            AuthorityError::Unfit(format!("{why} ({}); name constraints on URIs and SHA-1 are common causes", refusal.word()))
        })
    }
}

/// The first private key of a PEM text; what else is in it, such as the curve's parameters that `openssl ecparam -genkey`
/// writes before the key, is passed over.
fn key_in(text: &str) -> Result<KeyPair, AuthorityError> {
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(AuthorityError::Key("it is encrypted; give it unencrypted, readable by its owner alone".into()));
    }
    let unreadable = |why: String| AuthorityError::Key(format!("it is not a private key in PEM, unencrypted ({why})"));
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
    KeyPair::try_from(&der).map_err(|error| unreadable(error.to_string()))
}

/// Every certificate is a CA, valid now, and signed by the next; the last by itself.
fn check_chain(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), AuthorityError> {
    let parsed: Result<Vec<_>, _> = chain.iter().map(|der| x509_parser::parse_x509_certificate(der)).collect();
    let parsed = parsed.map_err(|_| AuthorityError::Unfit("it does not parse as X.509".into()))?;
    let last = parsed.len() - 1;
    for (depth, (_, certificate)) in parsed.iter().enumerate() {
        let (_, issuer) = &parsed[(depth + 1).min(last)];
        check_ca(certificate, depth)?;
        if certificate.issuer() != issuer.subject() || certificate.verify_signature(Some(issuer.public_key())).is_err() {
            let why = format!("certificate {} ({}) is not signed by the one after it", depth + 1, certificate.subject());
            return Err(AuthorityError::Chain(if depth == last { "the last one is not self-signed".into() } else { why }));
        }
        check_valid_now(&chain[depth], now)?;
    }
    Ok(())
}

/// `below` is how many CAs of the chain lie below this one; our own intermediate is one more.
fn check_ca(certificate: &X509Certificate<'_>, below: usize) -> Result<(), AuthorityError> {
    let unfit = |why: String| AuthorityError::Unfit(format!("{} {why}", certificate.subject()));
    let constraints = certificate.basic_constraints().ok().flatten().map(|extension| extension.value);
    let Some(constraints) = constraints.filter(|constraints| constraints.ca) else {
        return Err(unfit("is not a CA (basicConstraints CA:TRUE is missing)".into()));
    };
    if let Ok(Some(usage)) = certificate.key_usage()
        && !usage.value.key_cert_sign()
    {
        return Err(unfit("may not sign certificates (keyUsage lacks keyCertSign)".into()));
    }
    let needed = below as u32 + 1;
    if constraints.path_len_constraint.is_some_and(|length| length < needed) {
        return Err(unfit(format!("has a pathlen below {needed}; the control plane signs with an intermediate of its own")));
    }
    Ok(())
}

fn check_valid_now(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<(), AuthorityError> {
    let lifetime = lifetime_of(certificate).ok_or_else(|| AuthorityError::Unfit("it does not parse".into()))?;
    if (lifetime.not_before..lifetime.not_after).contains(&now) {
        return Ok(());
    }
    Err(AuthorityError::NotValidNow {
        not_before: show(lifetime.not_before),
        not_after: show(lifetime.not_after),
        now: show(now),
    })
}
