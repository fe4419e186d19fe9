//! Serial numbers of certificates.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use rustls::pki_types::CertificateDer;

use crate::leaf::Leaf;
use crate::{IdentityError, Refusal};

/// RFC 5280 §4.1.2.2.
const MAX_BYTES: usize = 20;

/// The serial number of a certificate: 16 random bytes in ours, up to 20 in those of an authority that was brought.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial {
    len: u8,
    bytes: [u8; MAX_BYTES],
}

impl Serial {
    /// A new one of 16 random bytes; the first is 0x40–0x7f so that its DER form has always the same length.
    pub fn random() -> Result<Self, IdentityError> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IdentityError::Key("the system gives no random bytes".into()))?;
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Self::from_bytes(&bytes)
    }

    /// From its big-endian bytes; leading zeroes do not count.
    ///
    /// # Errors
    /// If there are none or more than 20.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        let significant = &bytes[first..];
        if significant.is_empty() || significant.len() > MAX_BYTES {
            return Err(IdentityError::Certificate("its serial number is not 1 to 20 bytes long".into()));
        }
        let mut serial = Self { len: significant.len() as u8, bytes: [0; MAX_BYTES] };
        serial.bytes[..significant.len()].copy_from_slice(significant);
        Ok(serial)
    }

    /// That of a certificate of an SVID, which nothing has verified.
    ///
    /// # Errors
    /// If the certificate cannot be read, or names no SPIFFE ID.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Refusal> {
        Leaf::parse(certificate).map(|leaf| leaf.serial)
    }

    /// Its big-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER_PERMISSIVE.encode(self.as_bytes()))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            IdentityError::Certificate(format!("{shown:?} is not a serial number in hexadecimal"))
        })?;
        Self::from_bytes(&bytes)
    }
}

impl serde::Serialize for Serial {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Serial {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_reads_as_it_was_written() {
        let serial = Serial::random().unwrap();
        assert_eq!(serial.as_bytes().len(), 16);
        assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        assert_eq!(Serial::from_bytes(&[0, 1, 2]).unwrap(), "0102".parse().unwrap());
        assert!("".parse::<Serial>().is_err() && "00".parse::<Serial>().is_err() && "zz".parse::<Serial>().is_err());
        assert!("ab".repeat(21).parse::<Serial>().is_err());
    }
}
