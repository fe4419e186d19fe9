//! A peer's certificate, parsed once, and the profile of an SVID (X509-SVID §2, §4).

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::{Refusal, Serial, SpiffeId};

/// 1.2.840.10045.3.1.7, 1.3.132.0.34, 1.3.132.0.35.
const CURVES: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];
const ED25519: &str = "1.3.101.112";
const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

/// What counts of a leaf certificate.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub id: SpiffeId,
    pub serial: Serial,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub dns_names: Vec<String>,
    pub profile: Result<(), Refusal>,
}

impl Leaf {
    /// Parses a certificate and reads its one SPIFFE ID; whether it is an SVID otherwise is in `profile`, which is judged
    /// after the trust domain.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, Refusal> {
        let (rest, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| Refusal::UnknownAuthority)?;
        if !rest.is_empty() {
            return Err(Refusal::UnknownAuthority);
        }
        let names = Names::of(&certificate)?;
        Ok(Self {
            id: names.id,
            serial: Serial::from_bytes(certificate.raw_serial()).map_err(|_| Refusal::UnknownAuthority)?,
            not_before: moment(certificate.validity().not_before.timestamp()),
            not_after: moment(certificate.validity().not_after.timestamp()),
            dns_names: names.dns,
            profile: check_profile(&certificate),
        })
    }
}

/// Seconds since the epoch as a time; what lies before the epoch is the epoch.
pub(crate) fn moment(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}

struct Names {
    id: SpiffeId,
    dns: Vec<String>,
}

impl Names {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, Refusal> {
        let names = certificate.subject_alternative_name().map_err(|_| Refusal::ManyUriSans)?.ok_or(Refusal::NoUriSan)?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        // A name that is not even text may be a second URI.
        if names.value.general_names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
            return Err(Refusal::BadSpiffeId);
        }
        let uri = uris.next().ok_or(Refusal::NoUriSan)?;
        if uris.next().is_some() {
            return Err(Refusal::ManyUriSans);
        }
        let id: SpiffeId = uri.parse()?;
        let dns = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some((*dns).to_owned()),
            _ => None,
        });
        Ok(Self { id, dns: dns.collect() })
    }
}

fn check_profile(certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    let constraints = certificate.basic_constraints().map_err(|_| Refusal::NotALeaf)?;
    if constraints.is_some_and(|extension| extension.value.ca) {
        return Err(Refusal::NotALeaf);
    }
    let usage = certificate.key_usage().map_err(|_| Refusal::WrongUsage)?.ok_or(Refusal::WrongUsage)?;
    if !usage.critical || !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(Refusal::WrongUsage);
    }
    let extended = certificate.extended_key_usage().map_err(|_| Refusal::WrongUsage)?.ok_or(Refusal::WrongUsage)?;
    if !extended.value.server_auth || !extended.value.client_auth {
        return Err(Refusal::WrongUsage);
    }
    if key_is_strong(certificate) { Ok(()) } else { Err(Refusal::WeakKey) }
}

fn key_is_strong(certificate: &X509Certificate<'_>) -> bool {
    let info = certificate.public_key();
    if info.algorithm.algorithm.to_id_string() == ED25519 {
        return true;
    }
    match info.parsed() {
        Ok(PublicKey::EC(_)) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            curve.is_some_and(|oid| CURVES.contains(&oid.to_id_string().as_str()))
        }
        Ok(PublicKey::RSA(rsa)) => (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&rsa.key_size()),
        _ => false,
    }
}
