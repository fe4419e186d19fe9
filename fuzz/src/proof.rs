//! The proof of a renewed identity.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use postern_ca::{CertificateDer, Expected, Peer, Serial, SpiffeId, SvidVerifier, Trust, TrustBundle};
use postern_names::ServiceName;
use postern_proxy::transport::bare::{Bound, End, ReadProof};

use super::{NOW, ROOT, datacenter, trust_domain};

/// What the proofs of the corpus are bound to: handshake leaves go into a digest alone, so any bytes are as good.
pub const CHALLENGE: [u8; 32] = [7; 32];
/// See [`CHALLENGE`].
pub const CLIENT_LEAF: &[u8] = b"the leaf of the client";
/// See [`CHALLENGE`].
pub const SERVER_LEAF: &[u8] = b"the leaf of the server";

/// The payload of a PROOF.
pub fn proof(data: &[u8]) {
    match judge_proof(data) {
        // Nobody has a key of the root: only the proof that was made with the corpus can be good.
        Ok(peer) => assert_eq!(peer.service, Some(web()), "{} never proved itself", peer.id),
        Err(word) => assert!(!word.is_empty()),
    }
}

/// Who the peer is after this proof, or why not, in one word. It is good for at most one role and challenge.
///
/// # Errors
/// The reason in one word.
pub fn judge_proof(data: &[u8]) -> Result<Peer, &'static str> {
    static VERIFIER: LazyLock<Arc<SvidVerifier>> = LazyLock::new(|| {
        let bundle = TrustBundle::new(trust_domain(), vec![CertificateDer::from(ROOT)], 1);
        let trust = Trust { bundle, datacenter: datacenter(), revoked: HashSet::new() };
        SvidVerifier::new(Arc::new(Arc::new(trust).into()), Expected::AnyService)
    });
    let now = SystemTime::UNIX_EPOCH + NOW;
    let current = Peer {
        id: SpiffeId::service(&trust_domain(), &datacenter(), &web()),
        service: Some(web()),
        serial: Serial::from_bytes(&[0x11; 20]).expect("a serial"),
        root: [0; 32],
        not_before: now - Duration::from_secs(60),
        not_after: now + Duration::from_secs(60),
    };
    let (client_leaf, server_leaf) = (CertificateDer::from(CLIENT_LEAF), CertificateDer::from(SERVER_LEAF));
    let bound = Bound { signer: End::Dialler, challenge: &CHALLENGE, client_leaf: &client_leaf, server_leaf: &server_leaf };
    let proof = ReadProof::parse(data)?;
    let _ = proof.serial();
    let all = [bound, Bound { signer: End::Acceptor, ..bound }, Bound { challenge: &[8; 32], ..bound }];
    let good_for = all.iter().filter(|bound| proof.check(bound, &VERIFIER, &current, now).is_ok()).count();
    assert!(good_for <= 1, "a proof is good for one challenge of one role");
    let renewed = proof.check(&bound, &VERIFIER, &current, now)?;
    assert!(renewed.id == current.id && renewed.not_after > current.not_after);
    assert_eq!(proof.serial(), Ok(renewed.serial));
    Ok(renewed)
}

fn web() -> ServiceName {
    "web".parse().expect("a name of our own")
}
