//! Settings of services: the file, and the bodies that are pushed.

use postern_api::settings::{provider_from_bytes, provider_to_body, settings_from_bytes, settings_to_body};
use postern_traffic::settings::file::{parse, render};
use postern_traffic::settings::{TrafficFile, check_jwks};
use prost::Message;

/// A file of settings, YAML and JSON: `meshctl service config apply`.
pub fn settings_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for file_name in ["settings.yaml", "settings.json"] {
        match parse(text, file_name) {
            Ok(read) => {
                let written = render(&read).expect("what was read can be written");
                let mut again = parse(&written, "rendered.yaml").expect("what we write, we read");
                assert_eq!(again, read);
                let json = serde_json::to_string(&read).expect("what was read can be written");
                again = parse(&json, "rendered.json").expect("what we write, we read");
                assert_eq!(again, read);
                survives_the_wire(&read);
            }
            Err(errors) => {
                assert!(!errors.is_empty(), "a refusal says why");
                assert!(errors.iter().all(|error| error.line > 0 && error.column > 0), "and where: {errors:?}");
            }
        }
    }
}

/// Settings or a provider as they are pushed to a sidecar.
pub fn settings_wire(data: &[u8]) {
    if let Ok(settings) = settings_from_bytes(data) {
        settings.validate().expect("what was understood is valid");
        let _ = settings.other_services().count();
        let written = settings_to_body(&settings).expect("written").encode_to_vec();
        assert_eq!(settings_from_bytes(&written), Ok(settings));
    }
    if let Ok((provider, keys)) = provider_from_bytes(data) {
        assert!(keys.is_empty() || check_jwks(&keys).is_ok(), "no key that could sign is understood");
        let written = provider_to_body(&provider, &keys).expect("written").encode_to_vec();
        assert_eq!(provider_from_bytes(&written), Ok((provider, keys)));
    }
}

fn survives_the_wire(file: &TrafficFile) {
    for settings in &file.services {
        let body = settings_to_body(settings).expect("written").encode_to_vec();
        assert_eq!(settings_from_bytes(&body).as_ref(), Ok(settings));
    }
    for provider in &file.jwt_providers {
        let body = provider_to_body(provider, "").expect("written").encode_to_vec();
        assert_eq!(provider_from_bytes(&body), Ok((provider.clone(), String::new())));
    }
}
