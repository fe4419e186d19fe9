//! What an authority issues, and what it never lets a requester decide.

mod common;

use std::time::SystemTime;

use common::*;
use postern_ca::{
    Authority, AuthorityError, Expected, IssueError, PinnedVerifier, PrivateKey, Request, Subject, Svid, TrustBundle,
    public_key_hash_of_csr,
};
use postern_names::PortName;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use x509_parser::prelude::GeneralName;

fn request<'a>(csr_der: &'a [u8], ports: &'a [PortName]) -> Request<'a> {
    Request { csr_der, id: Subject::Service(service("web")), ports, ttl: HOUR, now: now() }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
fn an_svid_has_the_documented_profile() {
    let mesh = Mesh::new();
    let svid = mesh.svid_of(Subject::Service(service("web")), &["grpc".parse().unwrap(), "admin".parse().unwrap()]);
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain()[0]).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    let expected = [
        GeneralName::URI(WEB),
        GeneralName::DNSName("web.example.com"),
        GeneralName::DNSName("grpc.web.example.com"),
        GeneralName::DNSName("admin.web.example.com"),
    ];
    assert_eq!(names.value.general_names, expected);
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.flags == 1, "digitalSignature alone");
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any && !purposes.code_signing);
    assert_eq!(leaf.raw_serial().len(), 16);
    let has = |oid: &str| leaf.extensions().iter().any(|extension| extension.oid.to_id_string() == oid);
    assert!(has("2.5.29.14") && has("2.5.29.35"), "subject and authority key identifiers");
    assert!(!has("2.5.29.30"), "no name constraints");
    assert!((seconds(now()) - 60 - leaf.validity().not_before.timestamp()).abs() <= 2);
    assert_eq!(svid.id().as_str(), WEB);
    assert_eq!(svid.ports(), ["grpc".parse::<PortName>().unwrap(), "admin".parse().unwrap()]);
    assert_eq!(svid.chain().len(), 2, "leaf and intermediate, never the root");
}

#[test]
fn the_authority_has_the_documented_profile() {
    let mesh = Mesh::new();
    let (_, root) = x509_parser::parse_x509_certificate(mesh.authority.root()).unwrap();
    let (_, intermediate) = x509_parser::parse_x509_certificate(mesh.authority.intermediate()).unwrap();
    for (certificate, length) in [(&root, None), (&intermediate, Some(0))] {
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, length);
        assert!(certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://example.com")]);
        assert!(certificate.name_constraints().unwrap().is_none());
    }
    let days = |certificate: &x509_parser::certificate::X509Certificate<'_>| {
        (certificate.validity().not_after.timestamp() - seconds(now())) / 86_400
    };
    assert!((3649..=3650).contains(&days(&root)) && (29..=30).contains(&days(&intermediate)));
    assert_eq!(root.public_key().subject_public_key.data.len(), 97, "P-384");
    assert_eq!(intermediate.public_key().subject_public_key.data.len(), 65, "P-256");
}

#[test]
fn a_hostile_request_gets_nothing_that_it_asks_for() {
    let mesh = Mesh::new();
    let key = KeyPair::generate().unwrap();
    let mut hostile = CertificateParams::default();
    hostile.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    hostile.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    hostile.subject_alt_names = vec![uri("spiffe://example.com/agent/server/dc/dc1"), dns("api.example.com")];
    hostile.not_before = rcgen::date_time_ymd(1975, 1, 1);
    hostile.not_after = rcgen::date_time_ymd(4096, 1, 1);
    hostile.distinguished_name.push(DnType::CommonName, "api");
    // An extension that the library does not know.
    hostile.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 54], vec![2, 1, 0])];
    let csr = hostile.serialize_request(&key).unwrap();
    let issued = mesh.authority.issue(request(csr.der(), &[])).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    assert!(!leaf.is_ca() && !leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI(WEB), GeneralName::DNSName("web.example.com")]);
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.validity().not_after.timestamp(), seconds(now() + HOUR));
    assert_eq!(mesh.judge(&issued.chain).unwrap().service, Some(service("web")));
}

#[test]
fn only_p256_p384_and_ed25519_keys_are_signed() {
    let mesh = Mesh::new();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let csr = CertificateParams::default().serialize_request(&KeyPair::generate_for(algorithm).unwrap()).unwrap();
        let issued = mesh.authority.issue(request(csr.der(), &[])).unwrap();
        assert!(mesh.judge(&issued.chain).is_ok(), "{algorithm:?}");
        assert_eq!(public_key_hash_of_csr(csr.der()).unwrap(), issued.public_key_hash);
    }
    let rsa = CertificateParams::default().serialize_request(&KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()).unwrap();
    let weak: [&[u8]; 3] = [rsa.der(), include_bytes!("data/rsa1024.csr.der"), include_bytes!("data/p521.csr.der")];
    for csr in weak {
        assert!(matches!(mesh.authority.issue(request(csr, &[])), Err(IssueError::WeakKey(_))));
    }
}

#[test]
fn a_request_that_is_not_signed_with_its_own_key_is_refused() {
    let mesh = Mesh::new();
    let csr = PrivateKey::generate().unwrap().csr_der();
    let mut swapped = csr.clone();
    let at = swapped.len() - 1;
    swapped[at] ^= 1;
    assert!(matches!(mesh.authority.issue(request(&swapped, &[])), Err(IssueError::NotSignedByItsKey)));
    for bytes in [&[][..], b"nonsense", &csr[..csr.len() - 1], &[&csr[..], &[0]].concat(), &vec![0x30; 20_000]] {
        assert!(matches!(mesh.authority.issue(request(bytes, &[])), Err(IssueError::BadRequest(_))));
    }
}

#[test]
fn an_svid_never_outlives_its_issuer() {
    let mesh = Mesh::new();
    let key = PrivateKey::generate().unwrap();
    let csr = key.csr_der();
    let issued = mesh.authority.issue(Request { ttl: HOUR * 24 * 365, ..request(&csr, &[]) }).unwrap();
    assert_eq!(issued.not_after, mesh.authority.intermediate_not_after());
    let late = Request { now: mesh.authority.intermediate_not_after() + HOUR, ..request(&csr, &[]) };
    assert!(matches!(mesh.authority.issue(late), Err(IssueError::AuthorityExpired(_))));
}

#[test]
fn svids_stay_valid_across_two_renewals_of_the_intermediate() {
    let mut authority = Authority::create(&trust_domain(), &datacenter(), now()).unwrap();
    let mesh = Mesh::of(authority.clone());
    let mut chains = vec![mesh.svid("web").chain().to_vec()];
    for _ in 0..2 {
        assert!(!authority.intermediate_due(now()));
        assert!(authority.intermediate_due(authority.intermediate_half_life()));
        authority.renew_intermediate(now()).unwrap();
        chains.push(Mesh::of(authority.clone()).svid("web").chain().to_vec());
    }
    for chain in &chains {
        assert!(mesh.judge(chain).is_ok());
    }
    assert_eq!(authority.pin(), mesh.authority.pin());
}

#[test]
fn an_authority_is_the_same_after_export_and_import() {
    let mesh = Mesh::new();
    let again = Authority::import(mesh.authority.export(), &trust_domain(), &datacenter()).unwrap();
    assert!(mesh.judge(Mesh::of(again).svid("web").chain()).is_ok());
    let mut keys = mesh.authority.export();
    keys.intermediate_key = Mesh::new().authority.export().intermediate_key;
    assert!(matches!(Authority::import(keys, &trust_domain(), &datacenter()), Err(AuthorityError::Key(_))));
    assert_eq!(format!("{:?}", mesh.authority.export()), "…");
}

#[test]
fn a_bundle_reads_as_it_was_written() {
    let bundle = Mesh::new().authority.bundle();
    let again = TrustBundle::from_pem(trust_domain(), &bundle.to_pem()).unwrap();
    assert_eq!((again.roots(), bundle.spki_pins().len()), (bundle.roots(), 1));
    assert!(TrustBundle::from_pem(trust_domain(), "nothing").is_err());
}

#[test]
fn a_key_that_is_not_the_leafs_makes_no_svid() {
    let mesh = Mesh::new();
    let svid = mesh.svid("web");
    assert!(Svid::new(svid.chain().to_vec(), PrivateKey::generate().unwrap()).is_err());
    assert!(Svid::new(vec![], PrivateKey::generate().unwrap()).is_err());
}

#[test]
fn first_contact_accepts_the_pinned_control_plane_and_nobody_else() {
    let mesh = Mesh::new();
    let pinned = PinnedVerifier::new(mesh.authority.pin());
    let control = mesh.svid_of(Subject::ControlPlane, &[]);
    let judge = |chain: &[postern_ca::CertificateDer<'_>]| pinned.verify(&chain[0], &chain[1..], now());
    assert!(judge(control.chain()).unwrap().service.is_none());
    assert_eq!(judge(&control.chain()[..2]).unwrap_err().word(), "unknown_authority", "without the root");
    let mut web = mesh.svid("web").chain().to_vec();
    web.push(mesh.authority.root().clone());
    assert_eq!(judge(&web).unwrap_err().word(), "unexpected_peer", "a service answers no enrolment");
    let other = Mesh::new();
    assert_eq!(judge(other.svid_of(Subject::ControlPlane, &[]).chain()).unwrap_err().word(), "unknown_authority");
    let mut mixed = other.svid_of(Subject::ControlPlane, &[]).chain().to_vec();
    mixed.push(mesh.authority.root().clone());
    assert_eq!(judge(&mixed).unwrap_err().word(), "unknown_authority", "the pinned root is shown but did not sign");
    let web_as_pin = PinnedVerifier::new(mesh.authority.pin());
    assert!(web_as_pin.verify(&control.chain()[0], &control.chain()[1..], now() + HOUR * 2).is_err(), "expired");
    assert!(mesh.judge_as(Expected::ControlPlane, control.chain()).is_ok());
}

fn brought_root(change: impl FnOnce(&mut CertificateParams)) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Acme & Söhne");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + HOUR * 1000).into();
    change(&mut params);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn bring(certificates: &str, key: &KeyPair) -> Result<Authority, AuthorityError> {
    Authority::from_pem(certificates, &key.serialize_pem(), &trust_domain(), &datacenter(), now())
}

#[test]
fn a_root_that_is_brought_signs_and_its_key_is_not_kept() {
    let root = brought_root(|_| {});
    let authority = bring(&root.pem(), root.key()).unwrap();
    let mesh = Mesh::of(authority.clone());
    assert!(mesh.judge(mesh.svid("web").chain()).is_ok());
    assert_eq!(authority.bundle().roots(), [root.der().clone()]);
    let again = Authority::import(authority.export(), &trust_domain(), &datacenter()).unwrap();
    assert!(again.clone().with_brought_key(&root.pem(), &root.key().serialize_pem()).is_ok());
    let other = brought_root(|_| {});
    assert!(again.with_brought_key(&other.pem(), &other.key().serialize_pem()).is_err());
}

#[test]
fn an_intermediate_that_is_brought_needs_its_chain_and_room_below() {
    let root = brought_root(|_| {});
    let intermediate = |length| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "brought");
        params.is_ca = IsCa::Ca(length);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (now() - HOUR).into();
        params.not_after = (now() + HOUR * 100).into();
        params.use_authority_key_identifier_extension = true;
        CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap()
    };
    for length in [BasicConstraints::Unconstrained, BasicConstraints::Constrained(1)] {
        let good = intermediate(length);
        let authority = bring(&(good.pem() + &root.pem()), good.key()).unwrap();
        let mesh = Mesh::of(authority);
        let svid = mesh.svid("web");
        assert_eq!(svid.chain().len(), 3);
        assert!(mesh.judge(svid.chain()).is_ok());
        assert!(matches!(bring(&good.pem(), good.key()), Err(AuthorityError::Chain(_))), "without its root");
    }
    let tight = intermediate(BasicConstraints::Constrained(0));
    let error = bring(&(tight.pem() + &root.pem()), tight.key()).unwrap_err();
    assert!(error.to_string().contains("pathlen"), "{error}");
}

#[test]
fn an_unfit_ca_is_refused_with_the_reason() {
    let reason = |root: &CertifiedIssuer<'static, KeyPair>| bring(&root.pem(), root.key()).unwrap_err().to_string();
    assert!(reason(&brought_root(|params| params.is_ca = IsCa::ExplicitNoCa)).contains("CA:TRUE"));
    assert!(reason(&brought_root(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign])).contains("keyCertSign"));
    assert!(reason(&brought_root(|params| params.not_after = (now() - HOUR / 2).into())).contains("valid from"));
    let root = brought_root(|_| {});
    assert!(matches!(bring(&root.pem(), &KeyPair::generate().unwrap()), Err(AuthorityError::Key(_))));
    assert!(bring("", root.key()).is_err());
    let nothing = Authority::from_pem(&root.pem(), "nothing", &trust_domain(), &datacenter(), now());
    assert!(matches!(nothing, Err(AuthorityError::Key(_))));
    let uri_constraint = brought_root(|params| {
        // nameConstraints { permittedSubtrees { URI ".example.com" } }: every verifier of this library refuses it.
        let content = [&[0x30, 0x12, 0xa0, 0x10, 0x30, 0x0e, 0x86, 0x0c][..], b".example.com"].concat();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 30], content)];
    });
    assert!(reason(&uri_constraint).contains("refused by every sidecar"), "{}", reason(&uri_constraint));
}
