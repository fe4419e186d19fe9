//! Issuing SVIDs, and the certificate of the HTTP API.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use postern_names::{PortName, ServiceName};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::authority::{backdate, is_accepted};
use crate::error::show;
use crate::key::sha256;
use crate::{Authority, IssueError, Serial, SpiffeId};

/// A certificate request longer than this is refused unread.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// Who a certificate is for. It comes from a token's record or from the peer's own SVID, never from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A service.
    Service(ServiceName),
    /// The control plane itself.
    ControlPlane,
    /// A server that is found by its address: no SVID, and refused wherever one is asked for.
    Server(ServerNames),
}

/// Under which names and addresses a server is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerNames {
    /// DNS names. What is none is left out of the certificate.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
}

/// What an SVID is issued from.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// PKCS#10, DER. Only its public key and its self-signature count.
    pub csr_der: &'a [u8],
    /// Who it is for.
    pub id: Subject,
    /// Named ports: each becomes a DNS SAN.
    pub ports: &'a [PortName],
    /// How long it should live; never past its issuer.
    pub ttl: Duration,
    /// The time of the issuance.
    pub now: SystemTime,
}

/// An SVID that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf, intermediate, and what lies between it and the root; never the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's serial.
    pub serial: Serial,
    /// The beginning of its lifetime.
    pub not_before: SystemTime,
    /// The end of its lifetime.
    pub not_after: SystemTime,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub public_key_hash: [u8; 32],
}

impl Authority {
    /// Issues an SVID: every name, usage and date is ours.
    ///
    /// # Errors
    /// If the request is not signed with its own key, the key is not P-256, P-384 or Ed25519, or a server has no name.
    pub fn issue(&self, request: Request<'_>) -> Result<Issued, IssueError> {
        let key = requested_key(request.csr_der)?;
        let not_before = (request.now - backdate(request.ttl)).max(self.lifetime.not_before);
        let not_after = whole_seconds((request.now + request.ttl).min(self.lifetime.not_after));
        if not_after <= request.now {
            return Err(IssueError::AuthorityExpired(show(self.lifetime.not_after)));
        }
        let serial = Serial::random().map_err(|error| IssueError::Crypto(error.to_string()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = self.names(&request)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages(&request.id);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        params.not_before = OffsetDateTime::from(not_before);
        params.not_after = OffsetDateTime::from(not_after);
        let leaf = params.signed_by(&key, &Issuer::from_ca_cert_der(&self.intermediate, self.intermediate_key.as_ref())?)?;
        let mut chain = vec![leaf.der().clone(), self.intermediate.clone()];
        chain.extend(self.between.iter().cloned());
        Ok(Issued {
            chain,
            serial,
            not_before: whole_seconds(not_before),
            not_after,
            public_key_hash: sha256(&key.subject_public_key_info()),
        })
    }

    /// The SPIFFE ID, then a DNS name for the service and for each of its named ports; of a server its names alone.
    fn names(&self, request: &Request<'_>) -> Result<Vec<SanType>, IssueError> {
        let text = |text: String| text.as_str().try_into().map_err(|_| IssueError::Name(text.clone()));
        let (id, service) = match &request.id {
            Subject::Service(name) => (SpiffeId::service(&self.trust_domain, &self.datacenter, name), Some(name)),
            Subject::ControlPlane => (SpiffeId::control_plane(&self.trust_domain, &self.datacenter), None),
            Subject::Server(names) => return server_names(names),
        };
        let mut names = vec![SanType::URI(text(id.to_string())?)];
        let Some(service) = service else { return Ok(names) };
        names.push(SanType::DnsName(text(format!("{service}.{}", self.trust_domain))?));
        for port in request.ports {
            names.push(SanType::DnsName(text(format!("{port}.{service}.{}", self.trust_domain))?));
        }
        Ok(names)
    }
}

/// An SVID serves both ends; a server never calls with its certificate.
fn usages(subject: &Subject) -> Vec<ExtendedKeyUsagePurpose> {
    match subject {
        Subject::Server(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Subject::Service(_) | Subject::ControlPlane => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
    }
}

/// No URI among them, so that it is an SVID for nobody (X509-SVID §2).
fn server_names(names: &ServerNames) -> Result<Vec<SanType>, IssueError> {
    let valid = names.dns.iter().filter(|name| DnsName::try_from(name.as_str()).is_ok());
    let dns = valid.filter_map(|name| Some(SanType::DnsName(name.as_str().try_into().ok()?)));
    let all: Vec<_> = dns.chain(names.ips.iter().copied().map(SanType::IpAddress)).collect();
    if all.is_empty() {
        return Err(IssueError::Name("(none)".into()));
    }
    Ok(all)
}

/// SHA-256 of the SubjectPublicKeyInfo that a request carries, once its self-signature is verified: by it the same key
/// that asks again is known.
///
/// # Errors
/// As `Authority::issue`.
pub fn public_key_hash_of_csr(csr_der: &[u8]) -> Result<[u8; 32], IssueError> {
    Ok(sha256(&requested_key(csr_der)?.subject_public_key_info()))
}

/// The public key of a request, and nothing else of it.
fn requested_key(der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    if der.len() > MAX_CSR_BYTES {
        return Err(IssueError::BadRequest(format!("it is longer than {MAX_CSR_BYTES} bytes")));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|_| IssueError::BadRequest("it is not PKCS#10 in DER".into()))?;
    if !rest.is_empty() {
        return Err(IssueError::BadRequest("there are bytes after its end".into()));
    }
    let info = &request.certification_request_info.subject_pki;
    let kind = info.algorithm.algorithm.to_id_string();
    let key = SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| IssueError::WeakKey(kind.clone()))?;
    if !is_accepted(key.algorithm()) {
        return Err(IssueError::WeakKey(kind));
    }
    request.verify_signature().map_err(|_| IssueError::NotSignedByItsKey)?;
    Ok(key)
}

/// Certificates have no fractions of a second (RFC 5280 §4.1.2.5).
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
