//! From a leaf to a root of the bundle.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, RequiredEkuNotFoundContext};

use crate::key::sha256;
use crate::leaf::{Leaf, moment};
use crate::{Refusal, TrustBundle};

/// id-kp-serverAuth and id-kp-clientAuth (RFC 5280 §4.2.1.12).
const SERVER_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
const CLIENT_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);

/// A chain whose signatures were checked: which root it leads to, and while which time all of it is valid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// SHA-256 of the root's SubjectPublicKeyInfo.
    pub root: [u8; 32],
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Chains that were verified. Whether a chain's signatures hold never changes, so the answer may be kept: a peer that
/// connects a thousand times costs one verification. Only good chains get in; when it is full it starts anew.
static VERIFIED: LazyLock<Mutex<HashMap<[u8; 32], Path>>> = LazyLock::new(Mutex::default);
const MAX_VERIFIED: usize = 4096;

/// Finds the path from a leaf to a root of the bundle, at the moment within the leaf's lifetime that is nearest to `now`
/// (the leaf's own lifetime is judged by the caller).
pub(crate) fn find(
    der: &CertificateDer<'_>,
    leaf: &Leaf,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<Path, Refusal> {
    let at = now.min(leaf.not_after).max(leaf.not_before);
    let name = name_of_chain(der, intermediates);
    if let Some(path) = VERIFIED.lock().get(&name).copied()
        && (path.not_before..=path.not_after).contains(&at)
        && bundle.spki_pins().contains(&path.root)
    {
        return Ok(path);
    }
    let path = verify(der, leaf, intermediates, bundle, at)?;
    let mut verified = VERIFIED.lock();
    if verified.len() >= MAX_VERIFIED {
        verified.clear();
    }
    verified.insert(name, path);
    Ok(path)
}

fn verify(
    der: &CertificateDer<'_>,
    leaf: &Leaf,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    at: SystemTime,
) -> Result<Path, Refusal> {
    let end = EndEntityCert::try_from(der).map_err(|error| refusal_of(&error, at))?;
    let algorithms = crate::tls::provider().signature_verification_algorithms.all;
    let verified = end
        .verify_for_usage(algorithms, bundle.anchors(), intermediates, unix(at), BothPurposes, None, None)
        .map_err(|error| refusal_of(&error, at))?;
    let mut path = Path {
        root: sha256(&webpki::spki_for_anchor(verified.anchor())),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    };
    for issuer in verified.intermediate_certificates() {
        let der = issuer.der();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| Refusal::UnknownAuthority)?;
        path.not_before = path.not_before.max(moment(parsed.validity().not_before.timestamp()));
        path.not_after = path.not_after.min(moment(parsed.validity().not_after.timestamp()));
    }
    Ok(path)
}

fn refusal_of(error: &webpki::Error, now: SystemTime) -> Refusal {
    match error {
        webpki::Error::CertExpired { not_after, .. } => Refusal::Expired { not_after: system(*not_after), now },
        webpki::Error::CertNotValidYet { not_before, .. } => Refusal::NotYetValid { not_before: system(*not_before), now },
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => Refusal::WrongUsage,
        webpki::Error::CaUsedAsEndEntity => Refusal::NotALeaf,
        _ => Refusal::UnknownAuthority,
    }
}

/// One certificate serves both ends, so whoever narrows usages on the way must leave both.
#[derive(Debug)]
struct BothPurposes;

impl ExtendedKeyUsageValidator for BothPurposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let (mut any, mut server, mut client) = (false, false, false);
        for purpose in purposes {
            let purpose = purpose?;
            any = true;
            server |= purpose == SERVER_AUTH;
            client |= purpose == CLIENT_AUTH;
        }
        if !any || (server && client) {
            return Ok(());
        }
        let required = webpki::KeyUsage::client_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present: Vec::new() }))
    }
}

fn name_of_chain(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for certificate in std::iter::once(leaf).chain(intermediates) {
        context.update(&(certificate.len() as u64).to_be_bytes());
        context.update(certificate);
    }
    let mut name = [0; 32];
    name.copy_from_slice(context.finish().as_ref());
    name
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

pub(crate) fn system(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}
