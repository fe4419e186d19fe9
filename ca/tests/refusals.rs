//! Every reason for which a certificate is refused, with a real certificate that has it.

mod common;

use std::time::Duration;

use common::*;
use postern_ca::{Expected, Peer, Refusal, Subject, Trust};
use rcgen::{
    BasicConstraints, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
    RsaKeySize,
};

#[test]
fn a_right_svid_is_let_in_with_its_name_serial_and_root() {
    let mesh = Mesh::new();
    let svid = mesh.svid("web");
    let peer = mesh.judge(svid.chain()).unwrap();
    assert_eq!(peer.service, Some(service("web")));
    assert_eq!(peer.serial, *svid.serial());
    assert_eq!(peer.not_after, svid.not_after());
    assert_eq!(peer.root, mesh.authority.pin());
    assert_eq!(mesh.word(|_| {}), "accepted");
    assert_eq!(Peer::of(svid.chain(), &mesh.trust.load()).unwrap(), peer);
}

#[test]
fn an_expired_certificate_is_refused_with_both_times() {
    let mesh = Mesh::new();
    let not_after = now() - Duration::from_secs(10);
    let chain = mesh.forge(|params| params.not_after = not_after.into());
    let refusal = mesh.judge(&chain).unwrap_err();
    assert_eq!(refusal.word(), "expired");
    assert!(matches!(refusal, Refusal::Expired { not_after: end, .. } if end == not_after));
    assert_eq!(refusal.to_string().matches("Z").count(), 2, "{refusal}");
}

#[test]
fn a_certificate_of_tomorrow_is_refused_with_both_times() {
    let mesh = Mesh::new();
    let chain = mesh.forge(|params| params.not_before = (now() + Duration::from_secs(60)).into());
    let refusal = mesh.judge(&chain).unwrap_err();
    assert_eq!(refusal.word(), "not_yet_valid");
    assert_eq!(refusal.to_string().matches("Z").count(), 2, "{refusal}");
}

#[test]
fn grace_lets_in_what_expired_a_short_while_ago_and_says_so() {
    let mesh = Mesh::new();
    let verifier = mesh.verifier(Expected::AnyService).with_grace(Duration::from_secs(100));
    let chain = mesh.forge(|params| params.not_after = (now() - Duration::from_secs(10)).into());
    assert!(verifier.verify(&chain[0], &chain[1..], now()).unwrap().is_expired(now()));
    let late = now() + Duration::from_secs(100);
    assert_eq!(verifier.verify(&chain[0], &chain[1..], late).unwrap_err().word(), "expired");
}

#[test]
fn another_mesh_with_the_same_name_is_an_unknown_authority() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    assert_eq!(mesh.judge(other.svid("web").chain()).unwrap_err(), Refusal::UnknownAuthority);
    let svid = mesh.svid("web");
    assert_eq!(mesh.judge(&svid.chain()[..1]).unwrap_err(), Refusal::UnknownAuthority, "without the intermediate");
}

#[test]
fn a_verified_chain_is_refused_once_its_root_has_left_the_bundle() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let svid = mesh.svid("web");
    let peer = mesh.judge(svid.chain()).unwrap();
    let mut trust = Trust::clone(&mesh.trust.load());
    trust.bundle = other.authority.bundle();
    mesh.trust.store(std::sync::Arc::new(trust));
    assert_eq!(mesh.judge(svid.chain()).unwrap_err(), Refusal::UnknownAuthority);
    assert_eq!(peer.still_trusted(&mesh.trust.load(), now()).unwrap_err(), Refusal::UnknownAuthority);
}

#[test]
fn a_chain_that_was_verified_does_not_outlive_its_leaf() {
    let mesh = Mesh::new();
    let svid = mesh.svid("web");
    let verifier = mesh.verifier(Expected::AnyService);
    let peer = verifier.verify(&svid.chain()[0], &svid.chain()[1..], now()).unwrap();
    let later = svid.not_after() + Duration::from_secs(1);
    assert_eq!(verifier.verify(&svid.chain()[0], &svid.chain()[1..], later).unwrap_err().word(), "expired");
    assert_eq!(peer.still_trusted(&mesh.trust.load(), later).unwrap_err().word(), "expired");
    assert!(peer.still_trusted(&mesh.trust.load(), now()).is_ok());
}

#[test]
fn another_trust_domain_datacenter_or_namespace_is_refused() {
    let mesh = Mesh::new();
    let word = |id: &str| mesh.word(|params| params.subject_alt_names = vec![uri(id)]);
    assert_eq!(word("spiffe://example.org/ns/default/dc/dc1/svc/web"), "wrong_trust_domain");
    assert_eq!(word("spiffe://example.com.evil.org/ns/default/dc/dc1/svc/web"), "wrong_trust_domain");
    assert_eq!(word("spiffe://example.com/ns/default/dc/dc2/svc/web"), "wrong_datacenter");
    assert_eq!(word("spiffe://example.com/ns/other/dc/dc1/svc/web"), "bad_spiffe_id");
    assert_eq!(word("spiffe://example.com/agent/server/dc/dc2"), "bad_spiffe_id");
}

#[test]
fn a_uri_that_is_no_spiffe_id_is_refused() {
    let mesh = Mesh::new();
    for bad in [
        "spiffe://example.com",
        "spiffe://example.com/",
        "spiffe://EXAMPLE.com/ns/default/dc/dc1/svc/web",
        "spiffe://example.com//ns/default/dc/dc1/svc/web",
        "spiffe://example.com/ns/default/dc/dc1/svc/%77eb",
        "spiffe://example.com:443/ns/default/dc/dc1/svc/web",
        "spiffe://u@example.com/ns/default/dc/dc1/svc/web",
        "spiffe://example.com/ns/default/dc/dc1/svc/web?x",
        "https://example.com/ns/default/dc/dc1/svc/web",
        &format!("spiffe://example.com/ns/default/dc/dc1/svc/{}", "w".repeat(2048)),
    ] {
        assert_eq!(mesh.word(|params| params.subject_alt_names = vec![uri(bad)]), "bad_spiffe_id", "{bad}");
    }
}

#[test]
fn a_certificate_without_a_uri_is_refused() {
    let mesh = Mesh::new();
    assert_eq!(mesh.word(|params| params.subject_alt_names = vec![dns("web.example.com")]), "no_uri_san");
    let common_name_only = mesh.word(|params| {
        params.subject_alt_names = vec![];
        params.distinguished_name.push(DnType::CommonName, WEB);
    });
    assert_eq!(common_name_only, "no_uri_san");
}

#[test]
fn two_uris_are_refused_in_both_orders() {
    let mesh = Mesh::new();
    let other = "spiffe://example.com/ns/default/dc/dc1/svc/api";
    for pair in [[WEB, other], [other, WEB], [WEB, "https://example.com"], ["https://example.com", WEB], [WEB, WEB]] {
        let names = pair.map(uri).to_vec();
        assert_eq!(mesh.word(|params| params.subject_alt_names = names), "many_uri_sans", "{pair:?}");
    }
    let with_dns = vec![dns("a.example.com"), uri(WEB), dns("b.example.com")];
    assert_eq!(mesh.word(|params| params.subject_alt_names = with_dns), "accepted", "DNS names may stand beside it");
}

#[test]
fn a_uri_that_is_not_text_does_not_hide_beside_a_good_one() {
    let mesh = Mesh::new();
    let good = [&[0x86, WEB.len() as u8][..], WEB.as_bytes()].concat();
    let bad = [0x86, 3, 0xff, 0xfe, 0xfd];
    for names in [[&good[..], &bad].concat(), [&bad[..], &good].concat(), bad.to_vec()] {
        let content = [&[0x30, names.len() as u8][..], &names].concat();
        let word = mesh.word(|params| {
            params.subject_alt_names = vec![];
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
        });
        assert_eq!(word, "bad_spiffe_id");
    }
}

#[test]
fn an_authority_is_no_peer() {
    let mesh = Mesh::new();
    assert_eq!(mesh.word(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "not_a_leaf");
    let intermediate = mesh.authority.intermediate().clone();
    assert_eq!(mesh.judge(&[intermediate]).unwrap_err(), Refusal::NotALeaf);
    assert_eq!(mesh.judge(&[mesh.authority.root().clone()]).unwrap_err(), Refusal::NotALeaf);
}

#[test]
fn a_leaf_signed_by_a_leaf_is_refused() {
    let mesh = Mesh::new();
    let signer = KeyPair::generate().unwrap();
    let middle = mesh.forge_for(&signer, |_| {});
    let leaf = svid_params().signed_by(&KeyPair::generate().unwrap(), &Issuer::new(svid_params(), &signer)).unwrap();
    let chain = [leaf.der().clone(), middle[0].clone(), middle[1].clone()];
    assert_eq!(mesh.judge(&chain).unwrap_err(), Refusal::UnknownAuthority);
    // Even if the leaf in the middle may sign: the intermediate's pathlen is 0.
    let middle = mesh.forge_for(&signer, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "middle");
    });
    let mut issuer = svid_params();
    issuer.distinguished_name.push(DnType::CommonName, "middle");
    let leaf = svid_params().signed_by(&KeyPair::generate().unwrap(), &Issuer::new(issuer, &signer)).unwrap();
    let chain = [leaf.der().clone(), middle[0].clone(), middle[1].clone()];
    assert_eq!(mesh.judge(&chain).unwrap_err(), Refusal::UnknownAuthority);
}

#[test]
fn wrong_usages_are_refused() {
    let mesh = Mesh::new();
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};
    for usages in [vec![], vec![KeyEncipherment], vec![DigitalSignature, KeyCertSign], vec![DigitalSignature, CrlSign]] {
        assert_eq!(mesh.word(|params| params.key_usages = usages.clone()), "wrong_usage", "{usages:?}");
    }
    for purposes in [vec![], vec![ServerAuth], vec![ClientAuth], vec![Any]] {
        assert_eq!(mesh.word(|params| params.extended_key_usages = purposes.clone()), "wrong_usage", "{purposes:?}");
    }
    assert_eq!(mesh.word(|params| params.key_usages.push(KeyEncipherment)), "accepted", "X509-SVID §4.3 allows it");
}

#[test]
fn a_weak_or_unknown_key_is_refused() {
    let mesh = Mesh::new();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    assert!(mesh.judge(&mesh.forge_for(&rsa, |_| {})).is_ok());
    let weak = rsa_1024();
    let keys = mesh.authority.export();
    let signer = KeyPair::try_from(keys.intermediate_key.as_slice()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&keys.intermediate, signer).unwrap();
    let leaf = svid_params().signed_by(&weak, &issuer).unwrap();
    assert_eq!(mesh.judge(&[leaf.der().clone(), keys.intermediate]).unwrap_err(), Refusal::WeakKey);
}

/// The public half of an RSA key of 1,024 bits, which no library of ours would make.
fn rsa_1024() -> rcgen::SubjectPublicKeyInfo {
    rcgen::SubjectPublicKeyInfo::from_pem(include_str!("data/rsa1024.pub.pem")).unwrap()
}

#[test]
fn a_revoked_certificate_is_refused_and_its_connections_end() {
    let mesh = Mesh::new();
    let (svid, other) = (mesh.svid("web"), mesh.svid("web"));
    let peer = mesh.judge(svid.chain()).unwrap();
    mesh.revoke(*svid.serial());
    assert_eq!(mesh.judge(svid.chain()).unwrap_err(), Refusal::Revoked);
    assert_eq!(peer.still_trusted(&mesh.trust.load(), now()).unwrap_err(), Refusal::Revoked);
    assert_eq!(Peer::of(svid.chain(), &mesh.trust.load()).unwrap_err(), Refusal::Revoked);
    assert!(mesh.judge(other.chain()).is_ok());
}

#[test]
fn only_the_expected_peer_is_let_in() {
    let mesh = Mesh::new();
    let web = || Expected::Service(service("web"));
    assert!(mesh.judge_as(web(), mesh.svid("web").chain()).is_ok());
    for other in ["web2", "xweb", "we", "api"] {
        let refusal = mesh.judge_as(web(), mesh.svid(other).chain()).unwrap_err();
        assert_eq!(refusal.word(), "unexpected_peer", "{other}");
    }
    let control = mesh.svid_of(Subject::ControlPlane, &[]);
    assert!(mesh.judge_as(Expected::ControlPlane, control.chain()).is_ok());
    for expected in [web(), Expected::AnyService, Expected::ServiceOrNone] {
        assert_eq!(mesh.judge_as(expected, control.chain()).unwrap_err().word(), "unexpected_peer");
    }
    let refusal = mesh.judge_as(Expected::ControlPlane, mesh.svid("web").chain()).unwrap_err();
    assert_eq!(refusal.word(), "unexpected_peer");
    assert!(refusal.to_string().contains(WEB) && refusal.to_string().contains("/agent/server/dc/dc1"), "{refusal}");
}

#[test]
fn no_certificate_and_garbage_are_refused() {
    let mesh = Mesh::new();
    assert_eq!(Peer::of(&[], &mesh.trust.load()).unwrap_err(), Refusal::NoCertificate);
    let svid = mesh.svid("web");
    let der = svid.chain()[0].to_vec();
    let garbage = [vec![], vec![0x30], b"GET / HTTP/1.1".to_vec(), der[..der.len() - 1].to_vec(), [&der[..], &[0]].concat()];
    for bytes in garbage {
        let refusal = mesh.judge(&[bytes.into(), svid.chain()[1].clone()]).unwrap_err();
        assert_eq!(refusal, Refusal::UnknownAuthority);
    }
}

#[test]
fn a_changed_byte_anywhere_in_a_certificate_is_refused() {
    let mesh = Mesh::new();
    let svid = mesh.svid("web");
    let der = svid.chain()[0].to_vec();
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1;
        assert!(mesh.judge(&[changed.into(), svid.chain()[1].clone()]).is_err(), "byte {at}");
    }
}

#[test]
fn every_word_is_the_documented_one() {
    let at = now();
    let words = [
        (Refusal::Expired { not_after: at, now: at }, "expired"),
        (Refusal::NotYetValid { not_before: at, now: at }, "not_yet_valid"),
        (Refusal::UnknownAuthority, "unknown_authority"),
        (Refusal::WrongTrustDomain, "wrong_trust_domain"),
        (Refusal::WrongDatacenter, "wrong_datacenter"),
        (Refusal::BadSpiffeId, "bad_spiffe_id"),
        (Refusal::NoUriSan, "no_uri_san"),
        (Refusal::ManyUriSans, "many_uri_sans"),
        (Refusal::NotALeaf, "not_a_leaf"),
        (Refusal::WrongUsage, "wrong_usage"),
        (Refusal::WeakKey, "weak_key"),
        (Refusal::Revoked, "revoked"),
        (Refusal::UnexpectedPeer { expected: String::new(), got: String::new() }, "unexpected_peer"),
        (Refusal::NoCertificate, "no_certificate"),
    ];
    for (refusal, word) in words {
        assert_eq!(refusal.word(), word);
        let carried = rustls::Error::from(refusal.clone());
        assert_eq!(Refusal::of(&carried), Some(&refusal));
        let io = std::io::Error::new(std::io::ErrorKind::InvalidData, carried);
        assert_eq!(Refusal::of_io(&io), Some(&refusal));
    }
}
