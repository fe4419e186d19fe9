//! The certificate of a server that is found by its address: good for HTTPS, an SVID for nobody.

mod common;

use common::*;
use postern_ca::{CertificateDer, Expected, IssueError, PinnedVerifier, PrivateKey, Request, ServerNames, Subject, Svid};
use rustls::pki_types::{ServerName, UnixTime};
use x509_parser::prelude::GeneralName;

fn names() -> ServerNames {
    ServerNames { dns: vec!["control.example.com".into(), "not a name".into()], ips: vec!["10.1.2.3".parse().unwrap()] }
}

fn certificate(mesh: &Mesh, key: &PrivateKey, names: ServerNames) -> Result<Vec<CertificateDer<'static>>, IssueError> {
    let request = Request { csr_der: &key.csr_der(), id: Subject::Server(names), ports: &[], ttl: HOUR, now: now() };
    mesh.authority.issue(request).map(|issued| issued.chain)
}

#[test]
fn it_names_where_the_server_is_found_and_nothing_of_the_mesh() {
    let mesh = Mesh::new();
    let chain = certificate(&mesh, &PrivateKey::generate().unwrap(), names()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let found = leaf.subject_alternative_name().unwrap().unwrap();
    let expected = [GeneralName::DNSName("control.example.com"), GeneralName::IPAddress(&[10, 1, 2, 3])];
    assert_eq!(found.value.general_names, expected, "what is no DNS name is left out");
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.client_auth && !purposes.any);
    assert!(!leaf.is_ca());
}

#[test]
fn a_client_that_trusts_the_bundle_accepts_its_names_alone() {
    let mesh = Mesh::new();
    let chain = certificate(&mesh, &PrivateKey::generate().unwrap(), names()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(mesh.authority.root().clone()).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), postern_ca::crypto_provider());
    let verifier = verifier.build().unwrap();
    let judge = |name: &str| {
        use rustls::client::danger::ServerCertVerifier;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).map(|_| ())
    };
    judge("control.example.com").unwrap();
    judge("10.1.2.3").unwrap();
    for other in ["web.example.com", "example.com", "10.1.2.4"] {
        judge(other).unwrap_err();
    }
}

#[test]
fn every_verifier_of_the_mesh_refuses_it() {
    let mesh = Mesh::new();
    // Even under the name that a service is dialled by.
    let of_a_service = ServerNames { dns: vec!["web.example.com".into()], ips: Vec::new() };
    for names in [names(), of_a_service] {
        let key = PrivateKey::generate().unwrap();
        let mut chain = certificate(&mesh, &key, names).unwrap();
        for expected in [Expected::AnyService, Expected::Service(service("web")), Expected::ServiceOrNone, Expected::ControlPlane]
        {
            assert_eq!(mesh.judge_as(expected, &chain).unwrap_err().word(), "no_uri_san");
        }
        assert!(Svid::new(chain.clone(), key).is_err(), "nobody can show it as an SVID");
        chain.push(mesh.authority.root().clone());
        let pinned = PinnedVerifier::new(mesh.authority.pin());
        assert_eq!(pinned.verify(&chain[0], &chain[1..], now()).unwrap_err().word(), "no_uri_san");
    }
}

#[test]
fn a_server_without_a_name_gets_none() {
    let mesh = Mesh::new();
    let key = PrivateKey::generate().unwrap();
    assert!(certificate(&mesh, &key, ServerNames { dns: vec!["a b".into()], ips: Vec::new() }).is_err());
}
