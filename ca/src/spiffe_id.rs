//! SPIFFE IDs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use postern_names::{Datacenter, ServiceName, TrustDomain};

use crate::Refusal;

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID §2.3.
const MAX_BYTES: usize = 2048;
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// Any valid SPIFFE ID (SPIFFE-ID §2): a service, a control plane, or a whole trust domain.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins; the length of the text if there is none.
    path_at: usize,
}

impl SpiffeId {
    /// `spiffe://<td>/ns/default/dc/<dc>/svc/<service>`.
    pub fn service(trust_domain: &TrustDomain, datacenter: &Datacenter, service: &ServiceName) -> Self {
        Self::build(trust_domain, &format!("/ns/default/dc/{datacenter}/svc/{service}"))
    }

    /// `spiffe://<td>/agent/server/dc/<dc>`: no token and no intention can name it.
    pub fn control_plane(trust_domain: &TrustDomain, datacenter: &Datacenter) -> Self {
        Self::build(trust_domain, &format!("/agent/server/dc/{datacenter}"))
    }

    /// `spiffe://<td>`: what an authority carries (X509-SVID §4).
    pub fn trust_domain_id(trust_domain: &TrustDomain) -> Self {
        Self::build(trust_domain, "")
    }

    fn build(trust_domain: &TrustDomain, path: &str) -> Self {
        Self { text: format!("{SCHEME}{trust_domain}{path}").into(), path_at: SCHEME.len() + trust_domain.as_str().len() }
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path_at]
    }

    /// Its path with the leading slash; empty for a trust domain.
    pub fn path(&self) -> &str {
        &self.text[self.path_at..]
    }

    /// The service that this ID names in this trust domain and datacenter.
    ///
    /// # Errors
    /// `wrong_trust_domain`, `wrong_datacenter`, or `bad_spiffe_id` when it names no service.
    pub fn service_in(&self, trust_domain: &TrustDomain, datacenter: &Datacenter) -> Result<ServiceName, Refusal> {
        if self.trust_domain() != trust_domain.as_str() {
            return Err(Refusal::WrongTrustDomain);
        }
        let rest = self.path().strip_prefix("/ns/default/dc/").ok_or(Refusal::BadSpiffeId)?;
        let (its_datacenter, rest) = rest.split_once('/').ok_or(Refusal::BadSpiffeId)?;
        let name = rest.strip_prefix("svc/").ok_or(Refusal::BadSpiffeId)?;
        let service = name.parse().map_err(|_| Refusal::BadSpiffeId)?;
        if its_datacenter != datacenter.as_str() {
            return Err(Refusal::WrongDatacenter);
        }
        Ok(service)
    }

    /// True if this is the control plane of this trust domain and datacenter.
    pub(crate) fn is_control_plane_of(&self, trust_domain: &TrustDomain, datacenter: &Datacenter) -> bool {
        *self == Self::control_plane(trust_domain, datacenter)
    }
}

fn is_trust_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_TRUST_DOMAIN_BYTES
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl FromStr for SpiffeId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let rest = text.strip_prefix(SCHEME).ok_or(Refusal::BadSpiffeId)?;
        let path_at = text.len() - rest.len() + rest.find('/').unwrap_or(rest.len());
        let (trust_domain, path) = (&text[SCHEME.len()..path_at], &text[path_at..]);
        let path_is_good = path.is_empty() || path[1..].split('/').all(is_segment);
        if text.len() > MAX_BYTES || !is_trust_domain(trust_domain) || !path_is_good {
            return Err(Refusal::BadSpiffeId);
        }
        Ok(Self { text: text.into(), path_at })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl serde::Serialize for SpiffeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for SpiffeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a SPIFFE ID")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_the_spec() {
        let long = format!("spiffe://td/{}", "a".repeat(2036));
        assert_eq!(long.len(), 2048);
        for good in ["spiffe://td", "spiffe://1.2.3.4/a", "spiffe://td/a/B_c-d.e", "spiffe://a_b/x", &long] {
            let id: SpiffeId = good.parse().unwrap();
            assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), good);
        }
        for bad in [
            "",
            "spiffe://",
            "spiffe:///a",
            "Spiffe://td/a",
            "spiffe://TD/a",
            "https://td/a",
            "spiffe://td/",
            "spiffe://td//a",
            "spiffe://td/a/",
            "spiffe://td/./a",
            "spiffe://td/../a",
            "spiffe://td/%2e",
            "spiffe://td:80/a",
            "spiffe://u@td/a",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://td/a b",
            "spiffe://[::1]/a",
            "spiffe://td/ü",
            &format!("{long}a"),
            &format!("spiffe://{}/a", "a".repeat(256)),
        ] {
            assert_eq!(bad.parse::<SpiffeId>().unwrap_err(), Refusal::BadSpiffeId, "{bad}");
        }
    }

    #[test]
    fn only_the_exact_form_names_a_service() {
        let (td, dc) = ("example.com".parse().unwrap(), "dc1".parse().unwrap());
        let service = |text: &str| text.parse::<SpiffeId>().unwrap().service_in(&td, &dc);
        assert_eq!(service("spiffe://example.com/ns/default/dc/dc1/svc/web").unwrap().as_str(), "web");
        assert_eq!(service("spiffe://example.org/ns/default/dc/dc1/svc/web"), Err(Refusal::WrongTrustDomain));
        assert_eq!(service("spiffe://example.com/ns/default/dc/dc2/svc/web"), Err(Refusal::WrongDatacenter));
        for bad in [
            "spiffe://example.com",
            "spiffe://example.com/ns/other/dc/dc1/svc/web",
            "spiffe://example.com/ns/default/dc/dc1/svc/web/x",
            "spiffe://example.com/ns/default/dc/dc1/svc/Web",
            "spiffe://example.com/ns/default/dc/dc1/svc",
            "spiffe://example.com/ap/x/ns/default/dc/dc1/svc/web",
            "spiffe://example.com/agent/server/dc/dc1",
            "spiffe://example.com/x/ns/default/dc/dc1/svc/web",
        ] {
            assert_eq!(service(bad), Err(Refusal::BadSpiffeId), "{bad}");
        }
    }
}
