//! Proofs that hold, and each way in which one does not.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postern_ca::{Authority, Expected, PrivateKey, Request, Subject, Trust, TrustSource};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

struct World {
    authority: Authority,
    trust: TrustSource,
    verifier: Arc<SvidVerifier>,
    now: SystemTime,
}

impl World {
    fn new() -> Self {
        let (domain, datacenter) = ("mesh.example".parse().expect("domain"), "dc1".parse().expect("datacenter"));
        let now = SystemTime::now();
        let authority = Authority::create(&domain, &datacenter, now).expect("authority");
        let trust = Trust { bundle: authority.bundle(), datacenter, revoked: Default::default() };
        let trust = Arc::new(ArcSwap::from_pointee(trust));
        let verifier = SvidVerifier::new(trust.clone(), Expected::AnyService);
        Self { authority, trust, verifier, now }
    }

    fn svid(&self, service: &str, ttl: Duration) -> Svid {
        let key = PrivateKey::generate().expect("key");
        Svid::new(self.chain(service, ttl, &key), key).expect("svid")
    }

    fn chain(&self, service: &str, ttl: Duration, key: &PrivateKey) -> Vec<CertificateDer<'static>> {
        let id = Subject::Service(service.parse().expect("service"));
        let request = Request { csr_der: &key.csr_der(), id, ports: &[], ttl, now: self.now };
        self.authority.issue(request).expect("issue").chain
    }

    fn peer(&self, svid: &Svid) -> Peer {
        let (leaf, intermediates) = svid.chain().split_first().expect("chain");
        self.verifier.verify(leaf, intermediates, self.now).expect("a peer")
    }
}

/// A tunnel that `web` dialled to `api`, and the renewed SVID of `web`.
struct Tunnel {
    world: World,
    web: Svid,
    api: Svid,
    renewed: Svid,
}

impl Tunnel {
    fn new() -> Self {
        let world = World::new();
        let (web, api, renewed) = (world.svid("web", HOUR), world.svid("api", HOUR), world.svid("web", 2 * HOUR));
        Self { world, web, api, renewed }
    }

    fn binding<'a>(&'a self, challenge: &'a [u8; 32]) -> Binding<'a> {
        Binding { signer: Role::Dialler, challenge, client_leaf: &self.web.chain()[0], server_leaf: &self.api.chain()[0] }
    }

    /// What `api` says of a proof that should answer `challenge`.
    fn judged(&self, proof: &[u8], challenge: &[u8; 32]) -> Result<Peer, ProofError> {
        let current = self.world.peer(&self.web);
        Proof::parse(proof)?.check(&self.binding(challenge), &self.world.verifier, &current, self.world.now)
    }

    fn word(&self, proof: &[u8], challenge: &[u8; 32]) -> &'static str {
        self.judged(proof, challenge).expect_err("refused").word()
    }
}

#[test]
fn the_signed_content_is_what_the_specification_says() {
    let (client, server, new) = (CertificateDer::from(vec![1]), CertificateDer::from(vec![2]), CertificateDer::from(vec![3]));
    let binding = Binding { signer: Role::Acceptor, challenge: &[7; 32], client_leaf: &client, server_leaf: &server };
    let mut expected = b"                                                                postern/1 proof, server\0".to_vec();
    for part in [&[7; 32][..], &[1], &[2], &[3]] {
        expected.extend_from_slice(digest(&SHA256, part).as_ref());
    }
    assert_eq!(signed_content(&binding, &new), expected);
    assert_eq!(expected.len(), 64 + 23 + 1 + 4 * 32);
}

#[test]
fn a_renewed_identity_is_proved() {
    let tunnel = Tunnel::new();
    let proof = prove(&tunnel.renewed, &tunnel.binding(&[1; 32])).expect("proof");
    assert!(proof.len() < MOST_PROOF / 2);
    assert_eq!(Proof::parse(&proof).expect("proof").serial(), Ok(*tunnel.renewed.serial()));
    let peer = tunnel.judged(&proof, &[1; 32]).expect("a good proof");
    assert_eq!(peer, tunnel.world.peer(&tunnel.renewed));
}

#[test]
fn a_proof_for_another_identity_is_refused() {
    let tunnel = Tunnel::new();
    let other = tunnel.world.svid("payments", 2 * HOUR);
    let proof = prove(&other, &tunnel.binding(&[1; 32])).expect("proof");
    assert_eq!(tunnel.word(&proof, &[1; 32]), "other_identity");
}

#[test]
fn a_proof_for_an_earlier_challenge_is_refused() {
    let tunnel = Tunnel::new();
    let proof = prove(&tunnel.renewed, &tunnel.binding(&[1; 32])).expect("proof");
    assert_eq!(tunnel.word(&proof, &[2; 32]), "bad_signature");
}

#[test]
fn a_proof_from_another_tunnel_is_refused() {
    let tunnel = Tunnel::new();
    let other = tunnel.world.svid("web", HOUR);
    let elsewhere = Binding { client_leaf: &other.chain()[0], ..tunnel.binding(&[1; 32]) };
    let proof = prove(&tunnel.renewed, &elsewhere).expect("proof");
    assert_eq!(tunnel.word(&proof, &[1; 32]), "bad_signature");
    let elsewhere = Binding { server_leaf: &other.chain()[0], ..tunnel.binding(&[1; 32]) };
    let proof = prove(&tunnel.renewed, &elsewhere).expect("proof");
    assert_eq!(tunnel.word(&proof, &[1; 32]), "bad_signature");
}

#[test]
fn a_reflected_proof_is_refused() {
    let tunnel = Tunnel::new();
    let reflected = Binding { signer: Role::Acceptor, ..tunnel.binding(&[1; 32]) };
    let proof = prove(&tunnel.renewed, &reflected).expect("proof");
    assert_eq!(tunnel.word(&proof, &[1; 32]), "bad_signature");
}

#[test]
fn a_proof_with_another_key_is_refused() {
    let tunnel = Tunnel::new();
    let proof = prove(&tunnel.renewed, &tunnel.binding(&[1; 32])).expect("proof");
    let thief = tunnel.world.svid("web", 2 * HOUR);
    let leaf = &tunnel.renewed.chain()[0];
    let (_, signature) = thief.sign(&signed_content(&tunnel.binding(&[1; 32]), leaf)).expect("signature");
    let chain: usize = tunnel.renewed.chain().iter().map(|certificate| 3 + certificate.len()).sum();
    let mut forged = proof[..3 + chain + 2].to_vec();
    forged.extend_from_slice(&u16::try_from(signature.len()).expect("length").to_be_bytes());
    forged.extend_from_slice(&signature);
    assert_eq!(tunnel.word(&forged, &[1; 32]), "bad_signature");
}

#[test]
fn a_proof_with_another_signature_scheme_is_refused() {
    let tunnel = Tunnel::new();
    let proof = prove(&tunnel.renewed, &tunnel.binding(&[1; 32])).expect("proof");
    let chain: usize = tunnel.renewed.chain().iter().map(|certificate| 3 + certificate.len()).sum();
    for scheme in [SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519, SignatureScheme::RSA_PSS_SHA256] {
        let mut forged = proof.clone();
        forged[3 + chain..3 + chain + 2].copy_from_slice(&u16::from(scheme).to_be_bytes());
        assert_eq!(tunnel.word(&forged, &[1; 32]), "bad_signature", "{scheme:?}");
    }
}

#[test]
fn a_proof_by_a_revoked_certificate_is_refused() {
    let tunnel = Tunnel::new();
    let proof = prove(&tunnel.renewed, &tunnel.binding(&[1; 32])).expect("proof");
    let mut trust = Trust::clone(&tunnel.world.trust.load());
    trust.revoked.insert(*tunnel.renewed.serial());
    let current = tunnel.world.peer(&tunnel.web);
    tunnel.world.trust.store(Arc::new(trust));
    let proof = Proof::parse(&proof).expect("proof");
    let refused = proof.check(&tunnel.binding(&[1; 32]), &tunnel.world.verifier, &current, tunnel.world.now);
    assert_eq!(refused.expect_err("revoked").word(), "revoked");
}

#[test]
fn a_proof_by_an_expired_certificate_is_refused() {
    let tunnel = Tunnel::new();
    let proof = prove(&tunnel.renewed, &tunnel.binding(&[1; 32])).expect("proof");
    let (proof, current) = (Proof::parse(&proof).expect("proof"), tunnel.world.peer(&tunnel.web));
    let later = tunnel.world.now + 3 * HOUR;
    let refused = proof.check(&tunnel.binding(&[1; 32]), &tunnel.world.verifier, &current, later);
    assert_eq!(refused.expect_err("expired").word(), "expired");
}

#[test]
fn a_proof_by_a_stranger_is_refused() {
    let tunnel = Tunnel::new();
    let stranger = World::new().svid("web", 2 * HOUR);
    let proof = prove(&stranger, &tunnel.binding(&[1; 32])).expect("proof");
    assert_eq!(tunnel.word(&proof, &[1; 32]), "unknown_authority");
}

#[test]
fn the_same_leaf_again_and_one_that_expires_no_later_are_refused() {
    let tunnel = Tunnel::new();
    let proof = prove(&tunnel.web, &tunnel.binding(&[1; 32])).expect("proof");
    assert_eq!(tunnel.word(&proof, &[1; 32]), "not_later");
    let shorter = tunnel.world.svid("web", HOUR / 2);
    let proof = prove(&shorter, &tunnel.binding(&[1; 32])).expect("proof");
    assert_eq!(tunnel.word(&proof, &[1; 32]), "not_later");
}

#[test]
fn a_proof_with_bytes_too_many_or_too_few_is_refused() {
    let tunnel = Tunnel::new();
    let proof = prove(&tunnel.renewed, &tunnel.binding(&[1; 32])).expect("proof");
    let longer = [&proof[..], &[0]].concat();
    assert_eq!(tunnel.word(&longer, &[1; 32]), "malformed_proof");
    for length in 0..proof.len() {
        assert_eq!(tunnel.word(&proof[..length], &[1; 32]), "malformed_proof", "{length} bytes");
    }
    assert_eq!(tunnel.word(&[0; MOST_PROOF + 1], &[1; 32]), "proof_too_long");
    assert_eq!(tunnel.word(&[0; 7], &[1; 32]), "malformed_proof", "no certificate at all");
}
