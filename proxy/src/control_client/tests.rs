//! Deltas, one at a time, against what is held afterwards.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use postern_api::settings::{provider_to_body, settings_to_body};
use postern_api::{convert, v1};
use postern_intentions::{Action, Because, Call, DefaultPolicy, Intention, Mode, Protocol, Rule, decide};
use postern_names::{PortName, ServiceName};
use postern_traffic::{JwtProvider, ServiceSettings};
use prost::Message;

use super::resources::{Applied, DeltaRefused, Lane, Resources};
use crate::snapshot::{Position, Upstream};

fn at(epoch: u64, revision: u64) -> v1::Position {
    v1::Position { epoch, revision }
}

fn intention(source: &str, destination: &str, action: Action) -> v1::Resource {
    let intention = Intention {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        rule: Rule::Action(action),
        mode: Mode::Enforce,
        expires_at: None,
        description: String::new(),
        meta: Default::default(),
    };
    let body = convert::intention_to_body(&intention).encode_to_vec().into();
    v1::Resource { key: format!("intention/{source}/{destination}"), revision: 7, body }
}

fn default(policy: DefaultPolicy) -> v1::Resource {
    v1::Resource { key: "default".into(), revision: 1, body: convert::default_to_body(policy).encode_to_vec().into() }
}

fn delta(lane: v1::Lane, to: v1::Position, upserts: Vec<v1::Resource>) -> v1::Delta {
    v1::Delta { lane: lane.into(), to: Some(to), complete: false, upserts, deletes: Vec::new(), last: true, watch: 0 }
}

fn authority(to: v1::Position, upserts: Vec<v1::Resource>) -> v1::Delta {
    delta(v1::Lane::Authority, to, upserts)
}

fn upstreams(resources: &Resources) -> HashMap<ServiceName, Upstream> {
    resources.upstreams(&HashMap::new())
}

fn judged(resources: &Resources, source: &str) -> (bool, Because) {
    let (source, destination, port) = (source.parse().unwrap(), "api".parse().unwrap(), PortName::main());
    let call = Call { source: &source, destination: &destination, port: &port, protocol: Protocol::Tcp, request: None };
    let decision = decide(&resources.rules(), &call, SystemTime::UNIX_EPOCH);
    (decision.allowed(), decision.because)
}

fn allows(resources: &Resources, source: &str) -> bool {
    judged(resources, source).0
}

#[test]
fn nothing_received_denies_everything() {
    assert!(!allows(&Resources::new("c"), "web"));
}

#[test]
fn a_delta_adds_replaces_and_deletes() {
    let mut resources = Resources::new("c");
    resources.apply(authority(at(1, 5), vec![default(DefaultPolicy::Deny), intention("web", "api", Action::Allow)])).unwrap();
    assert!(allows(&resources, "web") && !allows(&resources, "cron"));

    resources
        .apply(authority(at(1, 6), vec![intention("web", "api", Action::Deny), intention("cron", "api", Action::Allow)]))
        .unwrap();
    assert!(!allows(&resources, "web") && allows(&resources, "cron"));

    let mut gone = authority(at(1, 7), Vec::new());
    gone.deletes = vec!["intention/cron/api".into()];
    let applied = resources.apply(gone).unwrap();
    assert!(!allows(&resources, "cron"));
    assert_eq!(applied, Applied::Whole(Lane::Authority, Position { epoch: 1, revision: 7 }));
}

#[test]
fn a_complete_delta_forgets_what_was_held_on_its_lane_alone() {
    let mut resources = Resources::new("c");
    let service = v1::ServiceBody { protocol: "http".into(), allowed: true, ..Default::default() };
    let service = v1::Resource { key: "service/db".into(), revision: 2, body: service.encode_to_vec().into() };
    resources.apply(delta(v1::Lane::Reachability, at(1, 5), vec![service])).unwrap();
    resources.apply(authority(at(1, 5), vec![intention("web", "api", Action::Allow)])).unwrap();

    let mut complete = authority(at(1, 6), vec![intention("cron", "api", Action::Allow)]);
    complete.complete = true;
    resources.apply(complete).unwrap();

    assert!(!allows(&resources, "web") && allows(&resources, "cron"));
    assert_eq!(upstreams(&resources)["db"].protocol, Protocol::Http);
}

#[test]
fn chunks_count_when_the_last_has_come() {
    let mut resources = Resources::new("c");
    let mut first = authority(at(1, 5), vec![intention("web", "api", Action::Allow)]);
    first.last = false;
    assert_eq!(resources.apply(first).unwrap(), Applied::Gathering);
    assert!(!allows(&resources, "web"));
    assert_eq!(resources.positions().authority, Position::default());

    resources.apply(authority(at(1, 5), vec![intention("cron", "api", Action::Allow)])).unwrap();

    assert!(allows(&resources, "web") && allows(&resources, "cron"));
}

#[test]
fn chunks_of_an_ended_stream_are_forgotten() {
    let mut resources = Resources::new("c");
    let mut first = authority(at(1, 5), vec![intention("web", "api", Action::Allow)]);
    first.last = false;
    resources.apply(first).unwrap();

    resources.forget_unfinished();
    resources.apply(authority(at(1, 6), Vec::new())).unwrap();

    assert!(!allows(&resources, "web"));
}

#[test]
fn an_older_position_is_refused_and_changes_nothing() {
    let mut resources = Resources::new("c");
    resources.apply(authority(at(2, 5), vec![intention("web", "api", Action::Deny)])).unwrap();
    for older in [at(2, 4), at(1, 9)] {
        let mut delta = authority(older, vec![intention("web", "api", Action::Allow)]);
        delta.complete = true;
        assert!(matches!(resources.apply(delta), Err(DeltaRefused::Older { .. })), "{older:?}");
    }
    assert!(!allows(&resources, "web"));
    assert_eq!(resources.positions().authority, Position { epoch: 2, revision: 5 });

    resources.apply(authority(at(3, 1), vec![intention("web", "api", Action::Allow)])).unwrap();
    assert!(allows(&resources, "web"), "a restore raises the epoch");
}

#[test]
fn an_intention_that_is_not_understood_denies_its_pair_and_the_rest_applies() {
    let mut resources = Resources::new("c");
    let mut strange = intention("web", "api", Action::Allow);
    // Field 99, length-delimited, one byte: something that a later version says.
    strange.body = [&strange.body[..], &[0x9a, 0x06, 0x01, 0x00]].concat().into();
    let known = intention("cron", "api", Action::Allow);
    resources.apply(authority(at(1, 5), vec![default(DefaultPolicy::Allow), strange, known])).unwrap();

    let (allowed, because) = judged(&resources, "web");
    assert!(!allowed && matches!(because, Because::NotUnderstood { .. }), "{because:?}");
    assert!(allows(&resources, "cron") && allows(&resources, "other"));
    let nacks = resources.not_understood(Lane::Authority);
    assert_eq!(nacks.iter().map(|nack| nack.key.as_str()).collect::<Vec<_>>(), ["intention/web/api"]);
}

#[test]
fn an_unknown_kind_of_intention_denies_its_pair_beside_one_that_is_understood() {
    let mut resources = Resources::new("c");
    let mut strange = intention("web", "api", Action::Allow);
    strange.key = "intention/web/api/weekends".into();
    resources.apply(authority(at(1, 5), vec![intention("web", "api", Action::Allow), strange])).unwrap();

    assert!(!allows(&resources, "web"));
}

#[test]
fn a_body_under_the_key_of_another_pair_is_not_understood() {
    let mut resources = Resources::new("c");
    let mut moved = intention("cron", "api", Action::Allow);
    moved.key = "intention/web/api".into();
    resources.apply(authority(at(1, 5), vec![moved])).unwrap();

    assert!(!allows(&resources, "web") && !allows(&resources, "cron"));
    assert_eq!(resources.not_understood(Lane::Authority).len(), 1);
}

#[test]
fn a_default_that_is_not_understood_denies() {
    let mut resources = Resources::new("c");
    let strange = v1::Resource { key: "default".into(), revision: 1, body: vec![0x08, 0x63].into() };
    resources.apply(authority(at(1, 5), vec![strange])).unwrap();

    assert!(!allows(&resources, "web"));
}

#[test]
fn what_is_kept_on_disk_reads_back_with_what_was_not_understood() {
    let mut resources = Resources::new("c");
    let mut strange = intention("web", "api", Action::Allow);
    strange.key = "intention/web/api/weekends".into();
    let endpoint = v1::EndpointBody { address: "10.0.0.1:21000".into(), ports: vec!["main".into()], ..Default::default() };
    let endpoint = v1::Resource { key: "endpoint/db/db-1".into(), revision: 3, body: endpoint.encode_to_vec().into() };
    resources.apply(authority(at(1, 5), vec![intention("cron", "api", Action::Allow), strange])).unwrap();
    resources.apply(delta(v1::Lane::Reachability, at(1, 6), vec![endpoint])).unwrap();

    let bytes = resources.to_stored(99).encode_to_vec();
    let again = Resources::from_stored(Message::decode(bytes.as_slice()).unwrap());

    assert_eq!(again.positions(), resources.positions());
    assert_eq!(again.cluster_id(), "c");
    assert!(allows(&again, "cron") && !allows(&again, "web"));
    assert_eq!(again.not_understood(Lane::Authority).len(), 1);
    assert_eq!(upstreams(&again)["db"].endpoints[0].address, "10.0.0.1:21000");
}

fn config(service: &str, edit: impl FnOnce(&mut ServiceSettings)) -> v1::Resource {
    let mut settings = ServiceSettings::of(service.parse().unwrap());
    edit(&mut settings);
    let body = settings_to_body(&settings).unwrap().encode_to_vec().into();
    v1::Resource { key: format!("config/{service}"), revision: 9, body }
}

fn endpoint(service: &str, instance: &str, version: &str) -> v1::Resource {
    let body = v1::EndpointBody {
        address: "10.0.0.1:21000".into(),
        meta: vec![v1::Label { key: "version".into(), value: version.into() }],
        ..Default::default()
    };
    v1::Resource { key: format!("endpoint/{service}/{instance}"), revision: 3, body: body.encode_to_vec().into() }
}

fn reachability(to: v1::Position, upserts: Vec<v1::Resource>) -> v1::Delta {
    delta(v1::Lane::Reachability, to, upserts)
}

#[test]
fn an_upstream_has_its_settings_and_the_protocol_that_they_say() {
    let mut resources = Resources::new("c");
    let service = v1::ServiceBody { protocol: "http".into(), ..Default::default() };
    let service = v1::Resource { key: "service/db".into(), revision: 2, body: service.encode_to_vec().into() };
    let settings = config("db", |settings| {
        settings.protocol = Some(Protocol::Grpc);
        settings.retries.attempts = 4;
    });
    resources.apply(reachability(at(1, 5), vec![service, settings, endpoint("db", "db-1", "2")])).unwrap();

    let db = upstreams(&resources).remove("db").unwrap();

    assert_eq!((db.protocol, db.settings.retries.attempts), (Protocol::Grpc, 4));
    assert_eq!(db.endpoints[0].meta.get("version").map(String::as_str), Some("2"));
}

#[test]
fn what_did_not_change_keeps_its_place_in_memory() {
    let mut resources = Resources::new("c");
    let all = || {
        vec![config("db", |settings| settings.retries.attempts = 4), endpoint("db", "db-1", "2"), endpoint("log", "log-1", "1")]
    };
    resources.apply(reachability(at(1, 5), all())).unwrap();
    let before = upstreams(&resources);

    let mut again = reachability(at(1, 6), all());
    again.complete = true;
    again.upserts.push(endpoint("db", "db-2", "2"));
    resources.apply(again).unwrap();
    let after = resources.upstreams(&before);

    assert!(Arc::ptr_eq(&before["db"].settings, &after["db"].settings));
    assert!(Arc::ptr_eq(&before["log"].settings, &after["log"].settings), "defaults stay, too");
    assert!(Arc::ptr_eq(&before["log"].endpoints, &after["log"].endpoints));
    assert!(Arc::ptr_eq(&before["db"].endpoints[0].meta, &after["db"].endpoints[0].meta));
    assert_eq!(after["db"].endpoints.len(), 2);

    resources.apply(reachability(at(1, 7), vec![config("db", |settings| settings.retries.attempts = 5)])).unwrap();
    let changed = resources.upstreams(&after);
    assert!(!Arc::ptr_eq(&after["db"].settings, &changed["db"].settings));
    assert_eq!(changed["db"].settings.retries.attempts, 5);
    assert!(Arc::ptr_eq(&after["db"].endpoints, &changed["db"].endpoints));
}

#[test]
fn settings_that_are_not_understood_leave_the_defaults_and_deny_nobody() {
    let mut resources = Resources::new("c");
    let mut strange = config("db", |settings| settings.retries.attempts = 4);
    strange.body = v1::ServiceConfigBody { json: r#"{"service":"db","hedging":true}"#.into() }.encode_to_vec().into();
    resources.apply(reachability(at(1, 5), vec![strange, endpoint("db", "db-1", "2")])).unwrap();
    let mut own = config("api", |settings| settings.retries.attempts = 4);
    own.key = "config/other".into();
    resources.apply(authority(at(1, 5), vec![own, default(DefaultPolicy::Allow)])).unwrap();

    assert_eq!(*upstreams(&resources)["db"].settings, ServiceSettings::of("db".parse().unwrap()));
    assert_eq!(*resources.own_settings(&"api".parse().unwrap(), None), ServiceSettings::of("api".parse().unwrap()));
    assert!(allows(&resources, "web"));
    let nacks = [Lane::Authority, Lane::Reachability].map(|lane| resources.not_understood(lane).remove(0));
    assert_eq!(nacks.each_ref().map(|nack| nack.key.as_str()), ["config/other", "config/db"]);
    assert!(nacks[1].why.contains("hedging"), "{}", nacks[1].why);
}

#[test]
fn jwt_providers_come_with_their_keys_and_one_that_is_not_understood_is_none() {
    let provider: JwtProvider =
        serde_json::from_str(r#"{"name":"corp","issuer":"https://id.example.com","jwks":{"file":"/etc/keys.json"}}"#).unwrap();
    let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#;
    let resource = |name: &str, jwks: &str| v1::Resource {
        key: format!("jwt/{name}"),
        revision: 9,
        body: provider_to_body(&provider, jwks).unwrap().encode_to_vec().into(),
    };
    let mut resources = Resources::new("c");
    resources.apply(authority(at(1, 5), vec![resource("corp", keys), resource("other", keys)])).unwrap();

    let jwt = resources.jwt(None);
    assert_eq!(jwt.iter().map(|one| (one.provider.name.as_str(), one.jwks.as_str())).collect::<Vec<_>>(), [("corp", keys)]);
    assert_eq!(resources.not_understood(Lane::Authority)[0].key, "jwt/other");

    resources.apply(authority(at(1, 6), vec![default(DefaultPolicy::Allow)])).unwrap();
    assert!(Arc::ptr_eq(&jwt, &resources.jwt(Some(&jwt))));
}
