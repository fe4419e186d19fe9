//! Between the messages on the wire and the settings of services.
//!
//! Settings travel as the JSON of the operator's file, beside what the control plane adds. What the receiver does not know
//! it refuses as a whole (`deny_unknown_fields`): it takes the defaults of that service and says so.

use postern_traffic::settings::{Fault, check_jwks};
use postern_traffic::{JwtProvider, ServiceSettings};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::convert::{NotUnderstood, decode_exact};
use crate::v1;

/// The settings as they travel.
///
/// # Errors
/// Where they cannot be written as JSON; valid ones can.
pub fn settings_to_body(settings: &ServiceSettings) -> Result<v1::ServiceConfigBody, serde_json::Error> {
    Ok(v1::ServiceConfigBody { json: json(settings)? })
}

/// The settings in a resource's body.
///
/// # Errors
/// [`NotUnderstood`] where anything is unknown, malformed or not valid.
pub fn settings_from_bytes(body: &[u8]) -> Result<ServiceSettings, NotUnderstood> {
    let wire: v1::ServiceConfigBody = decode_exact(body)?;
    let settings: ServiceSettings = from_json(&wire.json)?;
    settings.validate().map_err(first)?;
    Ok(settings)
}

/// A provider as it travels, with its public keys as the control plane has them; empty: it has none yet.
///
/// # Errors
/// Where it cannot be written as JSON; a valid one can.
pub fn provider_to_body(provider: &JwtProvider, jwks: &str) -> Result<v1::JwtProviderBody, serde_json::Error> {
    Ok(v1::JwtProviderBody { json: json(provider)?, jwks: jwks.to_owned() })
}

/// The provider in a resource's body, and its keys.
///
/// # Errors
/// [`NotUnderstood`] where anything is unknown, malformed or not valid, a symmetric key included.
pub fn provider_from_bytes(body: &[u8]) -> Result<(JwtProvider, String), NotUnderstood> {
    let wire: v1::JwtProviderBody = decode_exact(body)?;
    let provider: JwtProvider = from_json(&wire.json)?;
    provider.validate().map_err(first)?;
    if !wire.jwks.is_empty() {
        check_jwks(&wire.jwks).map_err(|error| NotUnderstood(error.to_string()))?;
    }
    Ok((provider, wire.jwks))
}

fn json(value: &impl Serialize) -> Result<bytes::Bytes, serde_json::Error> {
    serde_json::to_vec(value).map(bytes::Bytes::from)
}

fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, NotUnderstood> {
    serde_json::from_slice(json).map_err(|error| NotUnderstood(error.to_string()))
}

fn first(faults: Vec<Fault>) -> NotUnderstood {
    NotUnderstood(faults.into_iter().next().map_or_else(|| "not valid".to_owned(), |fault| fault.to_string()))
}

#[cfg(test)]
mod tests {
    use postern_traffic::Period;
    use postern_traffic::settings::{Percent, Split, Subset};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn settings() -> ServiceSettings {
        let mut settings = ServiceSettings::of("api".parse().unwrap());
        settings.retries.attempts = 3;
        settings
    }

    fn provider() -> JwtProvider {
        serde_json::from_str(r#"{"name":"corp","issuer":"https://id.example.com","jwks":{"file":"/etc/keys.json"}}"#).unwrap()
    }

    const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#;

    proptest! {
        #[test]
        fn any_valid_settings_survive_the_wire(
            attempts in 0_u32..=10,
            share in 0_u16..=10_000,
            request in 1_u64..=1_000_000,
            thousandths in 1_u32..=1_000_000_000,
            label in "[a-z]{1,40}",
            value in "[^\\p{Cc}]{1,40}",
        ) {
            let weight = |hundredths: u16| Percent::try_from(f64::from(hundredths) / 100.0).unwrap();
            let split = |weight, service: &str| Split { weight, service: service.parse().ok(), subset: None };
            let mut settings = settings();
            settings.retries.attempts = attempts;
            settings.timeouts.request = Period::millis(request);
            settings.split = vec![split(weight(share), "web"), split(weight(10_000 - share), "api")];
            settings.resolver.subsets.insert("v1".into(), Subset { meta: [(label, value)].into() });
            let limit = serde_json::json!({ "requests_per_second": f64::from(thousandths) / 1000.0 });
            settings.rate_limits = vec![serde_json::from_value(limit).unwrap()];
            prop_assert_eq!(settings.validate(), Ok(()));
            let body = settings_to_body(&settings).unwrap().encode_to_vec();
            prop_assert_eq!(settings_from_bytes(&body), Ok(settings));
        }
    }

    #[test]
    fn settings_survive_the_wire() {
        let body = settings_to_body(&settings()).unwrap().encode_to_vec();
        assert_eq!(settings_from_bytes(&body), Ok(settings()));
        let body = provider_to_body(&provider(), KEYS).unwrap().encode_to_vec();
        assert_eq!(provider_from_bytes(&body), Ok((provider(), KEYS.to_owned())));
    }

    #[test]
    fn a_setting_of_a_later_version_is_not_understood() {
        let json = r#"{"service":"api","hedging":{"after":"10ms"}}"#.into();
        let error = settings_from_bytes(&v1::ServiceConfigBody { json }.encode_to_vec()).unwrap_err();
        assert!(error.0.contains("hedging"), "{error}");
        let mut body = settings_to_body(&settings()).unwrap().encode_to_vec();
        body.extend([0xF8, 0x06, 0x01]); // field 111, varint 1
        assert!(settings_from_bytes(&body).is_err());
        assert!(settings_from_bytes(&[]).is_err(), "an empty body says nothing");
    }

    #[test]
    fn settings_that_cannot_be_are_not_understood() {
        let json = r#"{"service":"api","split":[{"weight":90}]}"#.into();
        assert!(settings_from_bytes(&v1::ServiceConfigBody { json }.encode_to_vec()).unwrap_err().0.contains("add up"));
    }

    #[test]
    fn a_symmetric_key_is_not_understood() {
        let body = provider_to_body(&provider(), r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#).unwrap();
        assert!(provider_from_bytes(&body.encode_to_vec()).unwrap_err().0.contains("symmetric"));
        let body = provider_to_body(&provider(), "").unwrap();
        assert!(provider_from_bytes(&body.encode_to_vec()).is_ok(), "no keys yet");
    }
}
