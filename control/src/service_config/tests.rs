use postern_api::http::ApplyServiceConfigRequest;
use postern_intentions::{Action, Intention, JwtCriterion, Permission, Rule};
use postern_traffic::settings::{Percent, Split, TrafficFile};

use super::*;
use crate::push::PushStats;
use crate::records::{ClusterRecord, IntentionRecord};
use crate::registry::EndpointSets;
use crate::store::MemoryStore;

/// Settings and providers over a store in memory.
pub(super) struct House {
    pub(super) store: Arc<dyn Store>,
    pub(super) mirror: Arc<Mirror>,
    configs: ServiceConfigs,
}

pub(super) const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#;

fn author() -> Author {
    Author { who: "uid:0".into(), from: "unix".into() }
}

pub(super) fn settings(service: &str, attempts: u32) -> ServiceSettings {
    let mut settings = ServiceSettings::of(service.parse().unwrap());
    settings.retries.attempts = attempts;
    settings
}

pub(super) fn provider(name: &str, source: JwksSource) -> JwtProvider {
    serde_json::from_value(json!({ "name": name, "issuer": "https://id.example.com", "jwks": source })).unwrap()
}

fn file(services: Vec<ServiceSettings>) -> ApplyServiceConfigRequest {
    ApplyServiceConfigRequest { file: TrafficFile { services, jwt_providers: Vec::new() }, ..Default::default() }
}

impl House {
    pub(super) async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let cluster = ClusterRecord {
            cluster_id: "c".into(),
            trust_domain: "test.postern".parse().unwrap(),
            datacenter: "dc1".parse().unwrap(),
            epoch: 1,
            created_at: SystemTime::UNIX_EPOCH,
        };
        store.txn(Txn::new().then(Op::put(records::cluster_key(), records::encode(&cluster).unwrap()))).await.unwrap();
        let mirror = Mirror::start(Arc::clone(&store)).await.unwrap();
        let sidecars = Sidecars::new(Arc::clone(&mirror), Arc::new(EndpointSets::default()), Arc::new(PushStats::default()));
        let configs = ServiceConfigs::new(Arc::clone(&store), Arc::clone(&mirror), sidecars);
        Self { store, mirror, configs }
    }

    pub(super) async fn apply(&self, request: ApplyServiceConfigRequest) -> Result<AppliedServiceConfig, ConfigError> {
        self.configs.apply(request, &author()).await
    }

    pub(super) async fn write(&self, op: Op) {
        let revision = self.store.txn(Txn::new().then(op)).await.unwrap().revision;
        self.mirror.reached(revision).await;
    }

    fn attempts(&self, service: &str) -> Option<u32> {
        self.mirror.read(|view| view.settings.of(&service.parse().unwrap()).map(|settings| settings.retries.attempts))
    }

    async fn audit(&self) -> Vec<String> {
        let entries = self.store.range(b"audit/", 0).await.unwrap();
        let entries = entries.kvs.iter().filter(|kv| kv.key.starts_with(b"audit/"));
        entries
            .filter_map(|kv| Some(serde_json::from_slice::<serde_json::Value>(&kv.value).ok()?["what"].as_str()?.to_owned()))
            .collect()
    }
}

#[tokio::test]
async fn an_apply_sets_what_is_in_the_file_and_leaves_the_rest() {
    let house = House::new().await;
    house.apply(file(vec![settings("api", 2), settings("web", 2)])).await.unwrap();
    let applied = house.apply(file(vec![settings("api", 3), settings("db", 1)])).await.unwrap();
    assert_eq!(applied.services.added, [settings("db", 1)]);
    assert_eq!(applied.services.changed, [(settings("api", 2), settings("api", 3))]);
    assert!(applied.services.removed.is_empty());
    assert_eq!(["api", "web", "db"].map(|name| house.attempts(name)), [Some(3), Some(2), Some(1)]);
    assert_eq!(house.audit().await, ["service_config.apply", "service_config.apply"]);
}

#[tokio::test]
async fn replace_deletes_what_is_not_in_the_file() {
    let house = House::new().await;
    let mut request = file(vec![settings("api", 2), settings("web", 2)]);
    request.file.jwt_providers = vec![provider("corp", JwksSource::Inline(KEYS.into()))];
    house.apply(request).await.unwrap();
    let applied = house.apply(ApplyServiceConfigRequest { replace: true, ..file(vec![settings("api", 2)]) }).await.unwrap();
    assert_eq!(applied.services.removed, [settings("web", 2)]);
    assert_eq!(applied.jwt_providers.removed.len(), 1);
    assert_eq!((house.attempts("web"), house.mirror.read(|view| view.settings.providers.len())), (None, 0));
}

#[tokio::test]
async fn a_dry_run_and_an_apply_of_what_is_stored_write_nothing() {
    let house = House::new().await;
    let dry = house.apply(ApplyServiceConfigRequest { dry_run: true, ..file(vec![settings("api", 2)]) }).await.unwrap();
    assert!(dry.written.is_none() && dry.services.added.len() == 1);
    assert_eq!(house.attempts("api"), None);
    house.apply(file(vec![settings("api", 2)])).await.unwrap();
    let revision = house.mirror.revision();
    let again = house.apply(ApplyServiceConfigRequest { replace: true, ..file(vec![settings("api", 2)]) }).await.unwrap();
    assert!(again.written.is_none() && again.is_empty());
    assert_eq!(house.mirror.revision(), revision);
}

#[tokio::test]
async fn a_change_that_came_between_the_plan_and_the_apply_is_not_overwritten() {
    let house = House::new().await;
    let planned = house.apply(ApplyServiceConfigRequest { dry_run: true, ..file(vec![settings("api", 2)]) }).await.unwrap();
    house.apply(file(vec![settings("api", 9)])).await.unwrap();
    let expected_revision = Some(planned.base_revision);
    let refused = house.apply(ApplyServiceConfigRequest { expected_revision, ..file(vec![settings("api", 2)]) }).await;
    assert!(matches!(refused, Err(ConfigError::Stale { .. })));
    assert_eq!(house.attempts("api"), Some(9));
}

#[tokio::test]
async fn a_fault_is_refused_whole_and_every_one_is_named() {
    let house = House::new().await;
    let mut bad = settings("web", 99);
    bad.split = vec![Split { weight: Percent::of(50), service: None, subset: None }];
    let error = house.apply(file(vec![settings("api", 2), bad])).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("services[1].retries.attempts") && text.contains("services[1].split"), "{text}");
    assert_eq!(house.attempts("api"), None);
}

#[tokio::test]
async fn services_that_would_send_each_other_round_in_circles_are_refused() {
    let house = House::new().await;
    let leading = |from: &str, to: &str| {
        let mut settings = settings(from, 1);
        settings.split = vec![Split { weight: Percent::ALL, service: Some(to.parse().unwrap()), subset: None }];
        settings
    };
    house.apply(file(vec![leading("web", "api")])).await.unwrap();
    let refused = house.apply(file(vec![leading("api", "web")])).await;
    assert!(matches!(refused, Err(ConfigError::Circle(_))), "{refused:?}");
    assert_eq!(house.attempts("api"), None);
}

#[tokio::test]
async fn deleted_settings_are_gone_and_what_never_was_is_not_found() {
    let house = House::new().await;
    house.apply(file(vec![settings("api", 2)])).await.unwrap();
    let written = house.configs.delete_settings("api".parse().unwrap(), None, 0, &author()).await.unwrap();
    assert_eq!((house.attempts("api"), written.revision), (None, house.mirror.revision()));
    let again = house.configs.delete_settings("api".parse().unwrap(), None, 0, &author()).await;
    assert!(matches!(again, Err(ConfigError::NoSettings(_))));
    assert_eq!(house.audit().await, ["service_config.apply", "service_config.delete"]);
}

#[tokio::test]
async fn a_provider_that_an_intention_names_stays() {
    let house = House::new().await;
    let mut request = file(Vec::new());
    request.file.jwt_providers = vec![provider("corp", JwksSource::Inline(KEYS.into()))];
    house.apply(request).await.unwrap();
    let permission = Permission {
        action: Action::Allow,
        methods: Vec::new(),
        path: None,
        headers: Vec::new(),
        query: Vec::new(),
        ports: Vec::new(),
        jwt: vec![JwtCriterion { provider: "corp".into(), claims: Vec::new() }],
    };
    let mut intention = Intention::new("web".parse().unwrap(), "api".parse().unwrap(), Action::Allow);
    intention.rule = Rule::Permissions { permissions: vec![permission], otherwise: Action::Deny };
    let key = records::intention_key(&intention.key());
    let record =
        IntentionRecord { intention, created_at: SystemTime::now(), created_by: String::new(), reason: None, changed_in: None };
    house.write(Op::put(key.clone(), records::encode(&record).unwrap())).await;

    let refused = house.configs.delete_provider("corp".parse().unwrap(), None, 0, &author()).await;
    assert!(matches!(refused, Err(ConfigError::Named { .. })));
    let refused = house.apply(ApplyServiceConfigRequest { replace: true, ..Default::default() }).await;
    assert!(refused.unwrap_err().to_string().contains("named by intentions for api"));

    house.write(Op::delete(key)).await;
    house.configs.delete_provider("corp".parse().unwrap(), None, 0, &author()).await.unwrap();
    assert!(house.mirror.read(|view| view.settings.providers.is_empty()));
}

#[tokio::test]
async fn what_one_transaction_does_not_hold_is_refused() {
    let house = House::new().await;
    let many = (0..101).map(|number| settings(&format!("s{number}"), 1)).collect();
    assert!(matches!(house.apply(file(many)).await, Err(ConfigError::TooMany { count: 101 })));
    let most = (0..100).map(|number| settings(&format!("s{number}"), 1)).collect();
    assert_eq!(house.apply(file(most)).await.unwrap().services.added.len(), 100);
}

#[tokio::test]
async fn large_settings_are_told_to_the_audit_log_by_name() {
    let house = House::new().await;
    let large = |service: &str| {
        let mut settings = settings(service, 1);
        settings.routes = (0..100)
            .map(|number| {
                let json = json!({ "match": { "path_exact": format!("/{number}{}", "x".repeat(1000)) } });
                serde_json::from_value(json).unwrap()
            })
            .collect();
        settings
    };
    house.apply(file((0..8).map(|number| large(&format!("s{number}"))).collect())).await.unwrap();
    assert_eq!(house.audit().await.len(), 1);
    assert!(house.attempts("s7").is_some());
}

#[tokio::test]
async fn what_leads_nowhere_is_noted() {
    let house = House::new().await;
    let mut api = settings("api", 1);
    api.split = vec![Split { weight: Percent::ALL, service: Some("blue".parse().unwrap()), subset: Some("v9".into()) }];
    let notes = house.apply(ApplyServiceConfigRequest { dry_run: true, ..file(vec![api]) }).await.unwrap().notes;
    assert_eq!(
        notes,
        [
            "api leads to blue, and no such service has enrolled yet",
            "api leads to subset \"v9\" of blue, which has none of that name",
            "no service api has enrolled yet",
        ]
    );
}

#[tokio::test]
async fn settings_of_a_later_version_are_replaced_and_not_kept_in_silence() {
    let house = House::new().await;
    let value = br#"{"settings":{"service":"api","hedging":true},"created_at":0,"created_by":"x"}"#;
    house.write(Op::put(records::settings_key(&"api".parse().unwrap()), value.to_vec())).await;
    assert_eq!(house.mirror.read(|view| view.settings.unreadable.len()), 1);
    let applied = house.apply(file(vec![settings("api", 2)])).await.unwrap();
    assert_eq!(applied.unreadable, ["api".parse().unwrap()]);
    assert_eq!((house.attempts("api"), house.mirror.read(|view| view.settings.unreadable.len())), (Some(2), 0));
}
