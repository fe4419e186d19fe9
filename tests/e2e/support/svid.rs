//! The SVID of a service in files that clients of other makers read, and a TLS client of our own with it.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use postern_proxy::state::StateDir;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::mesh::Mesh;
use super::traffic::connect;

/// The SVID of a service, as files that others read.
pub struct SvidFiles {
    pub leaf: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
    pub bundle: PathBuf,
    /// Under which the service that is called goes.
    pub name: String,
}

impl SvidFiles {
    /// Of an instance of `service` that enrolled and runs no more, for calls of `api`.
    pub fn of(mesh: &Mesh, service: &str) -> Self {
        let mut sidecar = mesh.sidecar(service, &format!("{service}-direct"), &["--upstream", "api=127.0.0.1:0"]);
        sidecar.kill_hard();
        let state = StateDir::open(&mesh.path(&format!("state-{}", sidecar.id)), &sidecar.id.parse().unwrap()).unwrap();
        let enrolment = state.enrolment().unwrap().expect("it has enrolled");
        let pem = |command: &str, der: &[u8]| {
            let file = mesh.path("one.der");
            std::fs::write(&file, der).unwrap();
            let output = Command::new("openssl").args([command, "-inform", "der", "-in"]).arg(&file).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let certificates: Vec<_> = enrolment.svid.chain().iter().map(|certificate| pem("x509", certificate)).collect();
        let write = |name: &str, text: String| {
            let path = mesh.path(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            leaf: write("leaf.pem", certificates[0].clone()),
            chain: write("chain.pem", certificates.concat()),
            key: write("key.pem", pem("pkey", &enrolment.svid.key().to_pkcs8())),
            bundle: write("bundle.pem", enrolment.bundle.to_pem()),
            name: format!("api.{}", enrolment.svid.id().trust_domain()),
        }
    }

    /// A TLS connection that offers no protocol of ours: what is written to it is what the destination's sidecar reads.
    pub fn dial(&self, inbound: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_file_iter(&self.bundle).unwrap().map(Result::unwrap));
        let chain = CertificateDer::pem_file_iter(&self.chain).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let name = ServerName::try_from(self.name.clone()).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(inbound))
    }
}
