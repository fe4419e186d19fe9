use proptest::prelude::*;

use super::*;

fn faults(yaml: &str) -> Vec<String> {
    let json: serde_json::Value = serde_yaml::from_str(&format!("service: api\n{yaml}")).unwrap();
    let settings: ServiceSettings = serde_json::from_value(json).unwrap();
    settings.validate().err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn provider_faults(yaml: &str) -> Vec<String> {
    let json: serde_json::Value = serde_yaml::from_str(yaml).unwrap();
    let provider: JwtProvider = serde_json::from_value(json).unwrap();
    provider.validate().err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(ServiceSettings::of("api".parse().unwrap()).validate(), Ok(()));
}

#[test]
fn each_rule_names_its_place() {
    for (yaml, place, word) in [
        ("timeouts: {request: 1s, per_try: 2s}", "timeouts.per_try", "longer than request"),
        ("retries: {attempts: 11}", "retries.attempts", "0 to 10"),
        ("retries: {statuses: [200]}", "retries.statuses[0]", "400 to 599"),
        ("retries: {on: [per-try-timeout]}", "retries.on", "per_try"),
        ("retries: {methods: [get]}", "retries.methods[0]", "upper-case"),
        ("retries: {backoff: {base: 2s, max: 1s}}", "retries.backoff.base", "longer than max"),
        ("balancer: {policy: maglev}", "balancer.policy", "hash_on"),
        ("balancer: {hash_on: [{source: address}]}", "balancer.hash_on", "does not hash"),
        ("outlier_ejection: {interval: 0s}", "outlier_ejection.interval", "100ms"),
        ("outlier_ejection: {base_time: 10m}", "outlier_ejection.max_time", "shorter"),
        ("circuit_breakers: {connections: 0}", "circuit_breakers.connections", "at least 1"),
        ("faults: {abort: {percent: 1, status: 100}}", "faults.abort.status", "200 to 599"),
        ("faults: {delay: {percent: 1, delay: 0s}}", "faults.delay.delay", "1ms"),
        ("rate_limits: [{requests_per_second: 0}]", "rate_limits[0].requests_per_second", "0.001"),
        ("rate_limits: [{requests_per_second: 0.0015}]", "rate_limits[0].requests_per_second", "three decimals"),
        ("rate_limits: [{requests_per_second: 1, burst: 0}]", "rate_limits[0].burst", "1 to"),
        ("rate_limits: [{requests_per_second: 1, match: {path_regex: '('}}]", "rate_limits[0].match.path_regex", "regular"),
        ("routes: [{match: {path_exact: x}}]", "routes[0].match.path_exact", "begins with /"),
        ("routes: [{match: {path_exact: /x, path_prefix: /y}}]", "routes[0].match.path_prefix", "more than one"),
        ("routes: [{match: {path_regex: .*}, to: {rewrite: /}}]", "routes[0].to.rewrite", "path_prefix"),
        ("routes: [{to: {subset: v1}}]", "routes[0].to.subset", "no subset"),
        ("routes: [{to: {request_headers: {remove: [host]}}}]", "routes[0].to.request_headers.remove[0]", "cannot be changed"),
        ("routes: [{to: {request_headers: {set: {x-postern-source: a}}}}]", "request_headers.set.x-postern-source", "cannot"),
        ("routes: [{to: {response_headers: {add: {Transfer: a}}}}]", "response_headers.add.Transfer", "transfer"),
        ("routes: [{to: {response_headers: {add: {x-a: \"a\\r\\nb: c\"}}}}]", "response_headers.add.x-a", "not valid"),
        ("split: [{weight: 99.99}]", "split", "99.99"),
        ("split: [{weight: 60}, {weight: 60}]", "split", "120.00"),
        ("split: [{weight: 100, subset: v1}]", "split[0].subset", "no subset"),
        ("resolver: {subsets: {V1: {meta: {a: b}}}}", "resolver.subsets.V1", "not valid"),
        ("resolver: {subsets: {v1: {meta: {}}}}", "resolver.subsets.v1.meta", "empty"),
        ("resolver: {default_subset: v1}", "resolver.default_subset", "no subset"),
        ("resolver: {redirect: {service: web}, failover: [{service: log}]}", "resolver.failover", "redirect"),
        ("resolver: {redirect: {service: api}}", "resolver.redirect", "itself"),
        ("resolver: {failover: [{}]}", "resolver.failover[0]", "itself"),
        ("mirror: {service: log, percent: 0}", "mirror.percent", "0"),
        ("protocol: tcp\nroutes: [{}]", "routes", "protocol is tcp"),
    ] {
        let told = faults(yaml);
        assert_eq!(told.len(), 1, "{yaml}: {told:?}");
        assert!(told[0].contains(place) && told[0].contains(word), "{yaml}: {told:?}");
    }
}

#[test]
fn a_subset_of_another_service_is_its_own_affair() {
    assert!(faults("routes: [{to: {service: web, subset: v9}}]\nmirror: {service: web, subset: v9}").is_empty());
}

#[test]
fn settings_that_do_not_fit_into_a_message_are_refused() {
    let routes = (0..200).map(|number| format!("{{match: {{path_exact: /{number}{}}}}}", "x".repeat(1000)));
    let yaml = format!("routes: [{}]", routes.collect::<Vec<_>>().join(", "));
    assert!(faults(&yaml)[0].contains("128 KiB"));
}

#[test]
fn a_provider_has_an_issuer_and_keys_that_only_verify() {
    let with = |jwks: &str| provider_faults(&format!("{{name: corp, issuer: i, jwks: {jwks}}}"));
    for good in [
        "{url: {url: 'https://id.example.com/keys?v=1'}}",
        "{url: {url: 'http://127.0.0.1:8000/keys'}}",
        "{url: {url: 'http://localhost/keys'}}",
        "{url: {url: 'http://[::1]:80/keys'}}",
        "{file: /etc/keys.json}",
        r#"{inline: '{"keys":[{"kty":"RSA","n":"AA","e":"AQAB"},{"kty":"PQ-2031"}]}'}"#,
    ] {
        assert_eq!(with(good), Vec::<String>::new(), "{good}");
    }
    for (bad, word) in [
        ("{url: {url: 'http://id.example.com/keys'}}", "http, which only loopback"),
        ("{url: {url: 'http://127.0.0.1.example.com/'}}", "http, which only loopback"),
        ("{url: {url: 'ftp://x/'}}", "is not https"),
        ("{url: {url: 'https://'}}", "host"),
        ("{url: {url: 'https://user@x/'}}", "user"),
        ("{url: {url: 'https://x:0/'}}", "port"),
        ("{url: {url: 'https://x/ y'}}", "character"),
        ("{url: {url: 'https://x/', refresh: 0s}}", "1s to 1d"),
        ("{file: keys.json}", "begin with /"),
        ("{inline: '{}'}", "no list `keys`"),
        (r#"{inline: '{"keys":[]}'}"#, "no key"),
        (r#"{inline: '{"keys":[{"kty":"oct","k":"AA"}]}'}"#, "symmetric"),
        (r#"{inline: '{"keys":[{"kty":"RSA","n":"AA","e":"AQAB","d":"AA"}]}'}"#, "private"),
        ("{inline: 'not json'}", "not valid"),
    ] {
        let told = with(bad);
        assert!(told.len() == 1 && told[0].contains(word), "{bad}: {told:?}");
    }
    let told = provider_faults("{name: corp, issuer: '', jwks: {file: /x}, from: [{header: {name: Host}}], leeway: 2h}");
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn a_file_tells_all_of_its_faults() {
    let mut file = TrafficFile::default();
    for name in ["api", "web", "api"] {
        let mut settings = ServiceSettings::of(name.parse().unwrap());
        settings.retries.attempts = 99;
        file.services.push(settings);
    }
    let told = file.validate().unwrap_err();
    assert_eq!(told.len(), 4);
    let twice = told.last().unwrap();
    assert_eq!(twice.first.as_ref().unwrap().to_string(), "services[0].service");
    assert_eq!(twice.at.to_string(), "services[2].service");
}

proptest! {
    #[test]
    fn no_text_makes_the_check_of_keys_panic(text in ".{0,200}") {
        let _ = check_jwks(&text);
    }

    #[test]
    fn weights_are_valid_exactly_when_they_add_up_to_a_hundred(weights in prop::collection::vec(0_u16..=10_000, 1..6)) {
        let shares: Vec<String> = weights.iter().map(|weight| format!("{{weight: {}}}", f64::from(*weight) / 100.0)).collect();
        let sum: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
        prop_assert_eq!(faults(&format!("split: [{}]", shares.join(", "))).is_empty(), sum == 10_000);
    }
}
