//! One root for every peer, and below it an intermediate and P-256 leaves of the shape of Postern's SVIDs.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Of every identity.
pub const TRUST_DOMAIN: &str = "mesh.bench";

/// The service that may call.
pub const CLIENT: &str = "web";

/// A service that no rule allows.
pub const STRANGER: &str = "other";

/// The SPIFFE ID of a service.
pub fn spiffe_id(service: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/{service}")
}

/// The DNS name in the certificate of a service.
pub fn dns_name(service: &str) -> String {
    format!("{service}.{TRUST_DOMAIN}")
}

/// The name of the service behind the server-side proxy of this number.
pub fn server(number: usize) -> String {
    format!("api-{number}")
}

/// Files in PEM.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes all that a run needs: the caller, the stranger, and `servers` services.
    pub fn make(directory: &Path, servers: usize) -> anyhow::Result<Self> {
        let made = Self { directory: directory.to_owned() };
        std::fs::create_dir_all(directory)?;
        let root_key = KeyPair::generate()?;
        let root_params = authority("Root of the benchmark");
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_params, root_key);
        let key = KeyPair::generate()?;
        let params = authority("Intermediate of the benchmark");
        let intermediate = params.signed_by(&key, &root_issuer)?;
        let issuer = Issuer::new(params, key);
        write(&made.root(), &root.pem())?;
        write(&made.root_key(), &root_issuer.key().serialize_pem())?;
        for service in [CLIENT, STRANGER].map(str::to_owned).into_iter().chain((0..servers).map(server)) {
            let key = KeyPair::generate()?;
            let leaf = leaf(&service)?.signed_by(&key, &issuer)?;
            let chain = leaf.pem() + &intermediate.pem();
            write(&made.chain(&service), &chain)?;
            write(&made.key(&service), &key.serialize_pem())?;
            write(&made.chain_and_key(&service), &(chain + &key.serialize_pem()))?;
        }
        Ok(made)
    }

    /// The root's certificate.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root.pem")
    }

    /// The root's key: Postern's control plane signs its own intermediate with it.
    pub fn root_key(&self) -> PathBuf {
        self.directory.join("root.key")
    }

    /// Leaf and intermediate.
    pub fn chain(&self, service: &str) -> PathBuf {
        self.directory.join(format!("{service}.pem"))
    }

    /// The leaf's key.
    pub fn key(&self, service: &str) -> PathBuf {
        self.directory.join(format!("{service}.key"))
    }

    /// Leaf, intermediate and the leaf's key in one file, as HAProxy wants them.
    pub fn chain_and_key(&self, service: &str) -> PathBuf {
        self.directory.join(format!("{service}.both"))
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What Postern issues, and the SPIFFE ID as common name too, for peers that cannot read a URI.
fn leaf(service: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&spiffe_id(service));
    params.subject_alt_names =
        vec![SanType::URI(spiffe_id(service).as_str().try_into()?), SanType::DnsName(dns_name(service).as_str().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
