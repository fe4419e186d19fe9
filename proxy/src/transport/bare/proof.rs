//! The proof of a renewed identity.

use std::time::SystemTime;

use postern_ca::{CertificateDer, Peer, Serial, Svid, SvidVerifier};

use super::End;
use crate::transport::tunnel::{Binding, Proof, prove as prove_bound};

/// What a proof is good for.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// The end that signs.
    pub signer: End,
    /// The bytes of the CHALLENGE.
    pub challenge: &'a [u8; 32],
    /// The leaf that the client showed in the handshake.
    pub client_leaf: &'a CertificateDer<'a>,
    /// The leaf that the server showed in the handshake.
    pub server_leaf: &'a CertificateDer<'a>,
}

impl<'a> Bound<'a> {
    fn binding(&self) -> Binding<'a> {
        let Self { signer, challenge, client_leaf, server_leaf } = *self;
        Binding { signer: signer.role(), challenge, client_leaf, server_leaf }
    }
}

/// The payload of the PROOF that this SVID is held.
///
/// # Errors
/// The reason in one word.
pub fn prove(svid: &Svid, bound: &Bound<'_>) -> Result<Vec<u8>, &'static str> {
    prove_bound(svid, &bound.binding()).map_err(|error| error.word())
}

/// A proof that was read and not checked.
#[derive(Debug)]
pub struct ReadProof(Proof);

impl ReadProof {
    /// Reads the payload of a PROOF.
    ///
    /// # Errors
    /// The reason in one word.
    pub fn parse(payload: &[u8]) -> Result<Self, &'static str> {
        Proof::parse(payload).map(Self).map_err(|error| error.word())
    }

    /// The serial of its leaf.
    ///
    /// # Errors
    /// The reason in one word.
    pub fn serial(&self) -> Result<Serial, &'static str> {
        self.0.serial().map_err(|error| error.word())
    }

    /// Who the peer, so far `current`, is from now on.
    ///
    /// # Errors
    /// The reason in one word.
    pub fn check(
        &self,
        bound: &Bound<'_>,
        verifier: &SvidVerifier,
        current: &Peer,
        now: SystemTime,
    ) -> Result<Peer, &'static str> {
        self.0.check(&bound.binding(), verifier, current, now).map_err(|error| error.word())
    }
}
