//! The name of a mesh's trust domain.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::NameError;
use crate::label::name_type;

fn check_trust_domain(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 125 {
        return Err("use a DNS name of 1 to 125 bytes");
    }
    for label in text.split('.') {
        let bytes = label.as_bytes();
        if bytes.is_empty() || bytes.len() > 63 {
            return Err("each label between dots has 1 to 63 characters");
        }
        if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
            return Err("use only a-z (lower case), 0-9, - and dots");
        }
        if bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
            return Err("a label may not begin or end with -");
        }
    }
    let last = text.rsplit('.').next().unwrap_or(text);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err("the last label may not be a number, or it reads as an IP address");
    }
    Ok(())
}

name_type!(
    /// The trust domain of a mesh, such as `prod.example.com` (SPIFFE-ID §2.1).
    TrustDomain, "trust domain", check_trust_domain
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_is_a_dns_name() {
        for good in ["example.com", "a", "3f0c.postern", "x-y.z"] {
            assert!(good.parse::<TrustDomain>().is_ok(), "{good}");
        }
        for bad in ["", "Example.com", "a..b", ".a", "a.", "1.2.3.4", "a_b", "a:80", "u@a", "%41", &"a".repeat(126)] {
            assert!(bad.parse::<TrustDomain>().is_err(), "{bad}");
        }
    }
}
