//! Settings and JWT providers on the stream: who gets which, and what callers watch.

use postern_api::settings::{provider_from_bytes, settings_from_bytes};
use postern_api::understanding;
use postern_intentions::{JwtCriterion, Permission, Protocol};
use postern_traffic::ServiceSettings;
use postern_traffic::settings::{JwksSource, Split};

use super::*;
use crate::records::{JwksRecord, ProviderRecord, SettingsRecord};

const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#;

fn set(service: &str, edit: impl FnOnce(&mut ServiceSettings)) -> Op {
    let mut settings = ServiceSettings::of(service.parse().unwrap());
    edit(&mut settings);
    let key = records::settings_key(&settings.service);
    let record = SettingsRecord { settings, created_at: SystemTime::now(), created_by: "uid:0".into(), reason: None };
    Op::put(key, records::encode(&record).unwrap())
}

fn leads_to(service: &str, other: &str) -> Op {
    set(service, |settings| {
        settings.split =
            vec![Split { weight: postern_traffic::settings::Percent::ALL, service: Some(other.parse().unwrap()), subset: None }];
    })
}

fn provider(name: &str, jwks: JwksSource) -> Op {
    let json = serde_json::json!({ "name": name, "issuer": "https://id.example.com", "jwks": jwks });
    let provider = serde_json::from_value(json).unwrap();
    let record = ProviderRecord { provider, created_at: SystemTime::now(), created_by: "uid:0".into(), reason: None };
    Op::put(records::provider_key(&name.parse().unwrap()), records::encode(&record).unwrap())
}

fn needs_token(source: &str, destination: &str, provider: &str) -> Op {
    let permission = Permission {
        action: Action::Allow,
        methods: Vec::new(),
        path: None,
        headers: Vec::new(),
        query: Vec::new(),
        ports: Vec::new(),
        jwt: vec![JwtCriterion { provider: provider.into(), claims: Vec::new() }],
    };
    let rule = Rule::Permissions { permissions: vec![permission], otherwise: Action::Deny };
    let mut intention = Intention::new(source.parse().unwrap(), destination.parse().unwrap(), Action::Allow);
    intention.rule = rule;
    let key = records::intention_key(&intention.key());
    let record =
        IntentionRecord { intention, created_at: SystemTime::now(), created_by: "uid:0".into(), reason: None, changed_in: None };
    Op::put(key, records::encode(&record).unwrap())
}

impl Rig {
    /// A sidecar of this version.
    async fn newer(&self, service: &str, instance: &str, upstreams: &[&str]) -> TestSidecar {
        let svid = self.service_svid(service);
        self.record(&svid, service, instance, instance).await;
        let connection = self.connect(Some(Arc::clone(&svid))).await.unwrap();
        let hello = v1::Hello { understands: understanding::ALL.map(str::to_owned).to_vec(), ..hello(instance, upstreams) };
        let mut sidecar = open(connection, hello).await;
        sidecar.svid = Some(svid);
        assert!(matches!(sidecar.next().await, Some(Down::Welcome(_))));
        sidecar
    }
}

impl TestSidecar {
    fn body(&self, lane: v1::Lane, key: &str) -> Option<&Bytes> {
        self.known.get(&(lane.into(), key.to_owned()))
    }

    fn attempts(&self, lane: v1::Lane, service: &str) -> Option<u32> {
        self.body(lane, &format!("config/{service}")).map(|body| settings_from_bytes(body).unwrap().retries.attempts)
    }
}

#[tokio::test]
async fn a_service_gets_its_own_settings_and_its_callers_get_them_too() {
    let rig = rig().await;
    rig.write([set("api", |settings| settings.retries.attempts = 3)]).await;
    let mut api = rig.newer("api", "api-1", &[]).await;
    let mut web = rig.newer("web", "web-1", &["api"]).await;
    let mut db = rig.newer("db", "db-1", &[]).await;
    for sidecar in [&mut api, &mut web, &mut db] {
        sidecar.settle().await;
    }
    assert_eq!(api.attempts(v1::Lane::Authority, "api"), Some(3));
    assert_eq!(web.attempts(v1::Lane::Reachability, "api"), Some(3));
    assert_eq!(web.attempts(v1::Lane::Authority, "api"), None, "what the destination enforces is not told to callers");
    assert!(!db.knows("config/api"));

    rig.write([set("api", |settings| settings.retries.attempts = 4)]).await;
    api.until(|api| api.attempts(v1::Lane::Authority, "api") == Some(4)).await;
    web.until(|web| web.attempts(v1::Lane::Reachability, "api") == Some(4)).await;
    rig.write([Op::delete(records::settings_key(&"api".parse().unwrap()))]).await;
    api.until(|api| !api.knows("config/api")).await;
    web.until(|web| !web.knows("config/api")).await;
}

#[tokio::test]
async fn what_settings_lead_to_is_watched_at_once_and_forgotten_at_once() {
    let rig = rig().await;
    let _blue = rig.newer("blue", "blue-1", &[]).await;
    let _deep = rig.newer("deep", "deep-1", &[]).await;
    let mut web = rig.newer("web", "web-1", &["api"]).await;
    web.settle().await;
    assert!(!web.knows("endpoint/blue/blue-1"));

    rig.write([leads_to("blue", "deep")]).await;
    rig.write([leads_to("api", "blue")]).await;
    web.until(|web| web.knows("endpoint/blue/blue-1") && web.knows("endpoint/deep/deep-1")).await;
    for key in ["service/blue", "service/deep", "config/api", "config/blue"] {
        assert!(web.knows(key), "{key}");
    }

    let _more = rig.newer("deep", "deep-2", &[]).await;
    web.until(|web| web.knows("endpoint/deep/deep-2")).await;

    rig.write([set("api", |settings| settings.retries.attempts = 2)]).await;
    web.until(|web| !web.knows("endpoint/blue/blue-1")).await;
    for key in ["endpoint/deep/deep-1", "endpoint/deep/deep-2", "service/blue", "service/deep", "config/blue"] {
        assert!(!web.knows(key), "{key}");
    }
    assert!(web.knows("config/api") && web.knows("service/api"));
}

#[tokio::test]
async fn a_new_stream_begins_with_all_that_settings_lead_to_and_loops_end() {
    let rig = rig().await;
    let _blue = rig.newer("blue", "blue-1", &[]).await;
    rig.write([leads_to("api", "blue"), leads_to("blue", "api")]).await;
    let mut web = rig.newer("web", "web-1", &["api"]).await;
    web.settle().await;
    web.until(|web| web.knows("endpoint/blue/blue-1")).await;
}

#[tokio::test]
async fn settings_lead_through_eight_services_and_no_further() {
    let rig = rig().await;
    let chain: Vec<Op> = (0..12).map(|n| leads_to(&format!("s{n}"), &format!("s{}", n + 1))).collect();
    rig.write(chain).await;
    let mut web = rig.newer("web", "web-1", &["s0"]).await;
    web.settle().await;
    assert!(web.knows("service/s8") && !web.knows("service/s9"));
}

#[tokio::test]
async fn a_sidecar_of_the_first_version_gets_no_settings_and_is_not_led_elsewhere() {
    let rig = rig().await;
    let _blue = rig.newer("blue", "blue-1", &[]).await;
    rig.write([leads_to("api", "blue"), set("web", |_| {}), provider("corp", JwksSource::Inline(KEYS.into()))]).await;
    rig.write([needs_token("*", "web", "corp")]).await;
    let mut web = rig.sidecar("web", "web-1", &["api"]).await;
    web.settle().await;
    for key in ["config/api", "config/web", "service/blue", "endpoint/blue/blue-1", "jwt/corp"] {
        assert!(!web.knows(key), "{key}");
    }
    assert!(web.knows("service/api") && web.knows("intention/*/web"));
}

#[tokio::test]
async fn a_provider_goes_to_the_destinations_of_intentions_that_name_it() {
    let rig = rig().await;
    rig.write([provider("corp", JwksSource::Inline(KEYS.into()))]).await;
    let mut api = rig.newer("api", "api-1", &[]).await;
    let mut db = rig.newer("db", "db-1", &[]).await;
    api.settle().await;
    db.settle().await;
    assert!(!api.knows("jwt/corp"));

    rig.write([needs_token("web", "api", "corp")]).await;
    api.until(|api| api.knows("jwt/corp")).await;
    let (provider, keys) = provider_from_bytes(api.body(v1::Lane::Authority, "jwt/corp").unwrap()).unwrap();
    assert_eq!((provider.name.as_str(), keys.as_str()), ("corp", KEYS));

    rig.intend("web", "api", Action::Allow).await;
    api.until(|api| !api.knows("jwt/corp")).await;

    rig.write([needs_token("*", "*", "corp")]).await;
    api.until(|api| api.knows("jwt/corp")).await;
    db.until(|db| db.knows("jwt/corp")).await;
}

#[tokio::test]
async fn keys_from_elsewhere_are_sent_with_the_provider_that_they_belong_to() {
    let rig = rig().await;
    let file = JwksSource::File("/etc/keys.json".into());
    rig.write([provider("corp", file.clone()), needs_token("web", "api", "corp")]).await;
    let mut api = rig.newer("api", "api-1", &[]).await;
    api.until(|api| api.knows("jwt/corp")).await;
    let keys = |api: &TestSidecar| provider_from_bytes(api.body(v1::Lane::Authority, "jwt/corp").unwrap()).unwrap().1;
    assert_eq!(keys(&api), "", "none were read yet");

    let record = JwksRecord { source: file, jwks: KEYS.into(), changed_at: SystemTime::now() };
    rig.write([Op::put(records::jwks_key(&"corp".parse().unwrap()), records::encode(&record).unwrap())]).await;
    api.until(|api| keys(api) == KEYS).await;

    rig.write([provider("corp", JwksSource::File("/etc/others.json".into()))]).await;
    api.until(|api| keys(api).is_empty()).await;
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_sent_as_what_nobody_understands() {
    let rig = rig().await;
    let value = br#"{"settings":{"service":"api","hedging":true},"created_at":0,"created_by":"x"}"#;
    rig.write([Op::put(records::settings_key(&"api".parse().unwrap()), value.to_vec())]).await;
    let mut api = rig.newer("api", "api-1", &[]).await;
    api.settle().await;
    assert!(settings_from_bytes(api.body(v1::Lane::Authority, "config/api").unwrap()).is_err());
}

#[tokio::test]
async fn the_protocol_that_was_set_holds_for_all_whatever_they_declare() {
    let rig = rig().await;
    rig.write([set("api", |settings| settings.protocol = Some(Protocol::Grpc))]).await;
    let mut web = rig.newer("web", "web-1", &["api"]).await;
    web.until(|web| web.verdict("api").is_some()).await;
    assert_eq!(web.verdict("api").unwrap().protocol, "grpc");

    let mut open_ones = Vec::new();
    for (instance, declared) in [("api-1", "tcp"), ("api-2", "http2")] {
        let svid = rig.service_svid("api");
        rig.record(&svid, "api", instance, instance).await;
        let mut first = hello(instance, &[]);
        first.registration.as_mut().unwrap().protocol = declared.into();
        let connection = rig.connect(Some(svid)).await.unwrap();
        let mut api = open(connection, first).await;
        assert!(matches!(api.next().await, Some(Down::Welcome(_))), "what it declares does not count");
        open_ones.push(api);
    }
    web.until(|web| web.knows("endpoint/api/api-1")).await;
    assert_eq!(web.verdict("api").unwrap().protocol, "grpc");

    rig.write([Op::delete(records::settings_key(&"api".parse().unwrap()))]).await;
    web.until(|web| web.verdict("api").unwrap().protocol == "tcp").await;
}

#[tokio::test]
async fn settings_are_in_force_when_the_service_and_its_callers_acknowledged_them() {
    let rig = rig().await;
    let mut api = rig.newer("api", "api-1", &[]).await;
    let mut web = rig.newer("web", "web-1", &["api"]).await;
    let mut db = rig.newer("db", "db-1", &[]).await;
    for sidecar in [&mut api, &mut web, &mut db] {
        sidecar.settle().await;
    }
    let revision = rig.write([set("api", |settings| settings.retries.attempts = 3)]).await;
    let sidecars = rig.mesh.sidecars();
    let of_api = BTreeSet::from(["api".parse().unwrap()]);
    let before = sidecars.wait_settings(revision, &of_api, Duration::from_millis(50)).await;
    assert_eq!((before.concerned, before.acknowledged), (2, 0));
    let waiting = tokio::spawn(async move { sidecars.wait_settings(revision, &of_api, Duration::from_secs(10)).await });
    api.until(|api| api.attempts(v1::Lane::Authority, "api") == Some(3)).await;
    web.until(|web| web.attempts(v1::Lane::Reachability, "api") == Some(3)).await;
    let after = waiting.await.unwrap();
    assert_eq!((after.concerned, after.acknowledged), (2, 2));
}
