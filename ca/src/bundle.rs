//! Trust bundles.

use postern_names::TrustDomain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor};

use crate::IdentityError;
use crate::key::sha256;

/// The roots of one trust domain. Bundles of different domains are never merged (SPIFFE Trust Domain and Bundle §4).
///
/// Roots are parsed once, here: every connection asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// Whose roots these are.
    pub trust_domain: TrustDomain,
    /// Rises with every change of the content.
    pub sequence: u64,
    roots: Vec<CertificateDer<'static>>,
    pins: Vec<[u8; 32]>,
    anchors: Vec<TrustAnchor<'static>>,
}

impl TrustBundle {
    /// The bundle of these root certificates, DER. One that does not parse is kept, and nothing is trusted by it.
    pub fn new(trust_domain: TrustDomain, roots: Vec<CertificateDer<'static>>, sequence: u64) -> Self {
        let pins = roots.iter().filter_map(spki_hash).collect();
        let anchors = roots.iter().filter_map(|root| Some(webpki::anchor_from_trusted_cert(root).ok()?.to_owned())).collect();
        Self { trust_domain, sequence, roots, pins, anchors }
    }

    /// The root certificates.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as the path to them is looked for.
    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The roots as PEM text.
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(pem_of).collect()
    }

    /// Reads PEM text with one root or more; the sequence is 0.
    ///
    /// # Errors
    /// If it holds no certificate, or one that does not parse.
    pub fn from_pem(trust_domain: TrustDomain, text: &str) -> Result<Self, IdentityError> {
        let roots = certificates_in(text)?;
        for root in &roots {
            webpki::anchor_from_trusted_cert(root).map_err(|error| IdentityError::Certificate(error.to_string()))?;
        }
        Ok(Self::new(trust_domain, roots, 0))
    }

    /// SHA-256 of each root's SubjectPublicKeyInfo: what an enrolment token pins. A root that does not parse has none.
    pub fn spki_pins(&self) -> &[[u8; 32]] {
        &self.pins
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
pub(crate) fn spki_hash(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(sha256(parsed.public_key().raw))
}

/// Every certificate of a PEM text.
pub(crate) fn certificates_in(text: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|error| IdentityError::Pem(error.to_string()))?;
    if found.is_empty() {
        return Err(IdentityError::Pem("it holds no certificate (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(found)
}

/// One certificate as PEM text (RFC 7468 §5).
pub(crate) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let encoded = data_encoding::BASE64.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|b| char::from(*b)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}
