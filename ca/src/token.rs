//! What an enrolment and an operator show.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::sha256;

const ENROLMENT_PREFIX: &str = "postern1.";
const OPERATOR_PREFIX: &str = "postern-op1.";

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// An operator's token where an enrolment token is needed.
    #[error(
        "this is an operator's token (postern-op1.…), not an enrolment token; get one with `meshctl token create --service NAME`"
    )]
    IsOperatorToken,
    /// An enrolment token where an operator's is needed.
    #[error(
        "this is an enrolment token (postern1.…), not an operator's token; the control plane wrote it to <data-dir>/operator.token"
    )]
    IsEnrolmentToken,
    /// Neither.
    #[error("this is not {expected}: {why}; copy the whole line that was printed")]
    Malformed {
        /// The token that is needed, with its form.
        expected: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system gives no random bytes.
    #[error("cannot make a token: the system gives no random bytes")]
    NoRandomness,
}

/// Spent once to become a service: `postern1.<base32 of the root's pin>.<base64url of 32 random bytes>`. It prints as `…`
/// except through `reveal`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct EnrolmentToken {
    /// SHA-256 of a published root's SubjectPublicKeyInfo: who the control plane must be.
    pub pin: [u8; 32],
    /// What the control plane knows only the hash of.
    pub secret: [u8; 32],
}

impl EnrolmentToken {
    /// A new one for a mesh with this root.
    ///
    /// # Errors
    /// Only if the system gives no random bytes.
    pub fn generate(pin: [u8; 32]) -> Result<Self, TokenError> {
        Ok(Self { pin, secret: random()? })
    }

    /// The text that is printed once.
    pub fn reveal(&self) -> String {
        let pin = BASE32_NOPAD.encode(&self.pin).to_ascii_lowercase();
        format!("{ENROLMENT_PREFIX}{pin}.{}", BASE64URL_NOPAD.encode(&self.secret))
    }

    /// Under which name the store keeps it: SHA-256 of the secret, in hexadecimal.
    pub fn hash(&self) -> String {
        HEXLOWER.encode(&sha256(&self.secret))
    }
}

impl FromStr for EnrolmentToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let malformed = |why| TokenError::Malformed { expected: "an enrolment token (postern1.<pin>.<secret>)", why };
        let text = text.trim();
        if text.starts_with(OPERATOR_PREFIX) {
            return Err(TokenError::IsOperatorToken);
        }
        let rest = text.strip_prefix(ENROLMENT_PREFIX).ok_or(malformed("it does not begin with postern1."))?;
        let (pin, secret) = rest.split_once('.').ok_or(malformed("its second dot is missing"))?;
        let pin = BASE32_NOPAD.decode(pin.to_ascii_uppercase().as_bytes()).map_err(|_| malformed("its pin is damaged"))?;
        let mut secret = BASE64URL_NOPAD.decode(secret.as_bytes()).map_err(|_| malformed("its secret is damaged"))?;
        let token = Self {
            pin: pin.try_into().map_err(|_| malformed("its pin is not 32 bytes long"))?,
            secret: secret.as_slice().try_into().map_err(|_| malformed("its secret is not 32 bytes long"))?,
        };
        secret.zeroize();
        Ok(token)
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What an operator's calls carry: `postern-op1.<base64url of 32 random bytes>`. It prints as `…` except through `reveal`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct OperatorToken([u8; 32]);

impl OperatorToken {
    /// A new one.
    ///
    /// # Errors
    /// Only if the system gives no random bytes.
    pub fn generate() -> Result<Self, TokenError> {
        Ok(Self(random()?))
    }

    /// The text that is written to the operator's file.
    pub fn reveal(&self) -> String {
        format!("{OPERATOR_PREFIX}{}", BASE64URL_NOPAD.encode(&self.0))
    }

    /// SHA-256 of the secret, in hexadecimal: comparing hashes tells nothing of how much was right.
    pub fn hash(&self) -> String {
        HEXLOWER.encode(&sha256(&self.0))
    }
}

impl FromStr for OperatorToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let malformed = |why| TokenError::Malformed { expected: "an operator's token (postern-op1.<secret>)", why };
        let text = text.trim();
        if text.starts_with(ENROLMENT_PREFIX) {
            return Err(TokenError::IsEnrolmentToken);
        }
        let secret = text.strip_prefix(OPERATOR_PREFIX).ok_or(malformed("it does not begin with postern-op1."))?;
        let secret = BASE64URL_NOPAD.decode(secret.as_bytes()).map_err(|_| malformed("its secret is damaged"))?;
        Ok(Self(secret.try_into().map_err(|_| malformed("its secret is not 32 bytes long"))?))
    }
}

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

fn random() -> Result<[u8; 32], TokenError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_was_printed_and_prints_nothing_else() {
        let token = EnrolmentToken::generate([7; 32]).unwrap();
        let text = token.reveal();
        assert_eq!(text.parse::<EnrolmentToken>().unwrap(), token);
        assert_eq!(format!(" {text}\n").parse::<EnrolmentToken>().unwrap(), token);
        assert_eq!(text.split('.').nth(1).unwrap().len(), 52);
        assert!(!text.contains(&token.hash()));
        assert_eq!(format!("{token:?}"), "…");
        let operator = OperatorToken::generate().unwrap();
        assert_eq!(operator.reveal().parse::<OperatorToken>().unwrap(), operator);
    }

    #[test]
    fn a_wrong_text_is_refused_with_the_reason() {
        let (enrolment, operator) =
            (EnrolmentToken::generate([7; 32]).unwrap().reveal(), OperatorToken::generate().unwrap().reveal());
        assert_eq!(operator.parse::<EnrolmentToken>().unwrap_err(), TokenError::IsOperatorToken);
        assert_eq!(enrolment.parse::<OperatorToken>().unwrap_err(), TokenError::IsEnrolmentToken);
        for bad in ["", "postern1", "postern1.", "postern1.aa.bb", &enrolment[..enrolment.len() - 2], "SWMTKN-1-a-b"] {
            let error = bad.parse::<EnrolmentToken>().unwrap_err();
            assert!(matches!(error, TokenError::Malformed { .. }), "{bad}");
            assert!(bad.len() < 12 || !error.to_string().contains(bad), "an error never shows the token");
        }
    }
}
