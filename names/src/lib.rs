//! The names of the mesh as types that only hold valid values. They are parsed at the edge; inside, nothing checks again.
//!
//! A service or port name is an RFC 1123 label in lower case, 1–63 characters. A trust domain is a DNS name of at most
//! 125 bytes whose last label is not a number (SPIFFE-ID §2.1, narrowed so that every SVID can carry DNS SANs below it).

mod address;
mod label;
mod setting;
mod trust_domain;

pub use address::Address;
pub use label::{Datacenter, InstanceId, PortName, ServiceName};
pub use setting::SettingError;
pub use trust_domain::TrustDomain;

/// Why a name was refused: what it is, what was given, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not valid: {why}")]
pub struct NameError {
    /// What was being named, such as `service name`.
    pub kind: &'static str,
    /// The refused text, cut to 80 characters.
    pub given: String,
    /// The rule that it breaks, with the form that is expected.
    pub why: &'static str,
}

impl NameError {
    fn new(kind: &'static str, given: &str, why: &'static str) -> Self {
        Self { kind, given: given.chars().take(80).collect(), why }
    }
}
