//! The proof of a renewed identity over a running tunnel: what a PROOF says, and what makes one good.
//!
//! It has the shape of CertificateVerify (RFC 8446 §4.4.3) and the purpose of exported authenticators (RFC 9261). The
//! signature binds the renewed leaf to one challenge, to the two leaves of this tunnel's handshake and to the role of the
//! signer in it: a proof is worth nothing on another tunnel, a second time, or sent back.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use postern_ca::{CertificateDer, Peer, Refusal, Serial, Svid, SvidVerifier, check_signature_by};
use rustls::SignatureScheme;

use super::{MOST_PROOF, Role};

/// The reason of a proof that is longer than a frame of it may be, in one word.
pub(crate) const PROOF_TOO_LONG: &str = "proof_too_long";

/// What a proof is good for: the answer to one challenge on one tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding<'a> {
    /// Which end signs: the dialler was the client of the handshake, the acceptor its server.
    pub signer: Role,
    /// The bytes of the CHALLENGE.
    pub challenge: &'a [u8; 32],
    /// The leaf that the client showed in the handshake.
    pub client_leaf: &'a CertificateDer<'a>,
    /// The leaf that the server showed in the handshake.
    pub server_leaf: &'a CertificateDer<'a>,
}

/// Why a proof is refused, or could not be made. [`ProofError::word`] is the reason that the metric and the log carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProofError {
    /// It is longer than a PROOF may be.
    #[error("the proof has {0} bytes, at most {MOST_PROOF} are allowed")]
    TooLong(usize),
    /// It cannot be read.
    #[error("the proof cannot be read")]
    Malformed,
    /// Its certificate is refused.
    #[error("{0}")]
    Refused(Refusal),
    /// Its certificate has another SPIFFE ID than the tunnel's peer.
    #[error("the proof is for {got}, the peer of this tunnel is {expected}")]
    OtherIdentity {
        /// The ID of the peer.
        expected: String,
        /// The ID of the proof.
        got: String,
    },
    /// Its certificate does not live longer than the one before.
    #[error("the proof's certificate does not expire later than the one that it should replace")]
    NotLater,
    /// The signature is not by the key of its certificate, or not for this challenge, tunnel and role.
    #[error("the proof's signature is not by the key of its certificate for this challenge on this tunnel")]
    BadSignature,
    /// Our own key did not sign.
    #[error("cannot sign with the key of the SVID: {0}")]
    CannotSign(String),
}

impl ProofError {
    /// The reason in one word, from a fixed list.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::TooLong(_) => PROOF_TOO_LONG,
            Self::Malformed => "malformed_proof",
            Self::Refused(refusal) => refusal.word(),
            Self::OtherIdentity { .. } => "other_identity",
            Self::NotLater => "not_later",
            Self::BadSignature => "bad_signature",
            Self::CannotSign(_) => "cannot_sign",
        }
    }
}

/// The bytes that the key of the new leaf signs.
pub(crate) fn signed_content(binding: &Binding<'_>, new_leaf: &CertificateDer<'_>) -> Vec<u8> {
    let context: &[u8] = match binding.signer {
        Role::Dialler => b"postern/1 proof, client",
        Role::Acceptor => b"postern/1 proof, server",
    };
    let mut content = vec![0x20; 64];
    content.extend_from_slice(context);
    content.push(0);
    let leaves = [binding.client_leaf, binding.server_leaf, new_leaf];
    for part in std::iter::once(&binding.challenge[..]).chain(leaves.map(|leaf| &leaf[..])) {
        content.extend_from_slice(digest(&SHA256, part).as_ref());
    }
    content
}

/// Makes the proof that we hold this SVID: its chain, leaf first, with 24-bit lengths (as in RFC 8446 §4.4.2, without
/// extensions), then signature scheme and signature with 16-bit length (§4.4.3).
///
/// # Errors
/// If the key does not sign, or the chain is too long.
pub(crate) fn prove(svid: &Svid, binding: &Binding<'_>) -> Result<Vec<u8>, ProofError> {
    let new_leaf = svid.chain().first().ok_or(ProofError::Malformed)?;
    let (scheme, signature) =
        svid.sign(&signed_content(binding, new_leaf)).map_err(|error| ProofError::CannotSign(error.to_string()))?;
    let mut proof = Vec::new();
    let chain: usize = svid.chain().iter().map(|certificate| 3 + certificate.len()).sum();
    put_u24(&mut proof, chain)?;
    for certificate in svid.chain() {
        put_u24(&mut proof, certificate.len())?;
        proof.extend_from_slice(certificate);
    }
    let length = u16::try_from(signature.len()).map_err(|_| ProofError::TooLong(signature.len()))?;
    proof.extend_from_slice(&u16::from(scheme).to_be_bytes());
    proof.extend_from_slice(&length.to_be_bytes());
    proof.extend_from_slice(&signature);
    if proof.len() > MOST_PROOF { Err(ProofError::TooLong(proof.len())) } else { Ok(proof) }
}

fn put_u24(out: &mut Vec<u8>, number: usize) -> Result<(), ProofError> {
    match u32::try_from(number).map(u32::to_be_bytes) {
        Ok([0, bytes @ ..]) => out.extend_from_slice(&bytes),
        _ => return Err(ProofError::TooLong(number)),
    }
    Ok(())
}

/// A proof that was read and not checked.
#[derive(Debug)]
pub(crate) struct Proof {
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    scheme: SignatureScheme,
    signature: Vec<u8>,
}

impl Proof {
    /// Reads what [`prove`] made.
    ///
    /// # Errors
    /// If it is too long, or not what [`prove`] makes to the last byte.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > MOST_PROOF {
            return Err(ProofError::TooLong(bytes.len()));
        }
        Self::read(bytes).ok_or(ProofError::Malformed)
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut chain = take_u24(&mut bytes)?;
        let leaf = take_certificate(&mut chain)?;
        let mut intermediates = Vec::new();
        while !chain.is_empty() {
            intermediates.push(take_certificate(&mut chain)?);
        }
        let scheme = SignatureScheme::from(u16::from_be_bytes(*bytes.split_off(..2)?.as_array()?));
        let length = u16::from_be_bytes(*bytes.split_off(..2)?.as_array()?);
        (usize::from(length) == bytes.len()).then(|| Self { leaf, intermediates, scheme, signature: bytes.to_vec() })
    }

    /// The serial of the certificate: the tunnel answers for it from before the check on, so that a revocation which comes
    /// meanwhile finds it.
    ///
    /// # Errors
    /// If the certificate cannot be read.
    pub(crate) fn serial(&self) -> Result<Serial, ProofError> {
        Serial::of(&self.leaf).map_err(ProofError::Refused)
    }

    /// Who the peer of this tunnel is from now on: the new leaf passes the whole verifier, has the ID of `current`, lives
    /// longer, and its key signed for this challenge, tunnel and role.
    ///
    /// # Errors
    /// The first that does not hold.
    pub(crate) fn check(
        &self,
        binding: &Binding<'_>,
        verifier: &SvidVerifier,
        current: &Peer,
        now: SystemTime,
    ) -> Result<Peer, ProofError> {
        let renewed = verifier.verify(&self.leaf, &self.intermediates, now).map_err(ProofError::Refused)?;
        if renewed.id != current.id {
            return Err(ProofError::OtherIdentity { expected: current.id.to_string(), got: renewed.id.to_string() });
        }
        if renewed.not_after <= current.not_after {
            return Err(ProofError::NotLater);
        }
        check_signature_by(&self.leaf, self.scheme, &signed_content(binding, &self.leaf), &self.signature)
            .map_err(|_| ProofError::BadSignature)?;
        Ok(renewed)
    }
}

/// Takes a vector with 24-bit length.
fn take_u24<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let &[high, middle, low] = bytes.split_off(..3)?.as_array()?;
    bytes.split_off(..usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?)
}

fn take_certificate(chain: &mut &[u8]) -> Option<CertificateDer<'static>> {
    let der = take_u24(chain)?;
    (!der.is_empty()).then(|| CertificateDer::from(der.to_vec()))
}

#[cfg(test)]
mod tests;
