//! consulrs: keys, sessions, the catalog, and the agent's services and checks.

use std::collections::HashMap;
use std::time::Duration;

use consulrs::api::Features;
use consulrs::api::catalog::requests as catalog_requests;
use consulrs::api::check::common::{AgentCheck, AgentServiceCheckBuilder};
use consulrs::api::check::requests as check_requests;
use consulrs::api::features::{Blocking, ConsistencyMode};
use consulrs::api::kv::requests as kv_requests;
use consulrs::api::service::common::AgentServiceBuilder;
use consulrs::api::service::requests as service_requests;
use consulrs::api::session::requests as session_requests;
use consulrs::client::{ConsulClient, ConsulClientSettingsBuilder};
use consulrs::error::ClientError;
use consulrs::{catalog, check, kv, service, session};

pub async fn make_all(address: &str, token: &str) {
    let settings = ConsulClientSettingsBuilder::default().address(address).token(token).build().unwrap();
    let client = ConsulClient::new(settings).unwrap();
    keys(&client).await;
    watch(&client).await;
    sessions_and_locks(&client).await;
    catalog_of_others(&client).await;
    services_of_the_agent(&client).await;
    checks_of_the_agent(&client).await;
}

fn text(pair: &consulrs::api::kv::common::KVPair) -> String {
    pair.value.clone().unwrap().try_into().unwrap()
}

fn blocking(index: u64, wait: &str) -> Features {
    Features { blocking: Some(Blocking { index, wait: Some(wait.into()) }), ..Features::default() }
}

fn is_status<T: std::fmt::Debug>(result: Result<T, ClientError>, wanted: u16) {
    match result {
        Err(ClientError::APIError { code, .. }) => assert_eq!(code, wanted),
        other => panic!("not the status {wanted}: {other:?}"),
    }
}

async fn keys(client: &ConsulClient) {
    is_status(kv::read(client, "app/none", None).await, 404);
    assert!(kv::set(client, "app/a", b"one", Some(kv_requests::SetKeyRequest::builder().flags(7_u64))).await.unwrap().response);
    let read = kv::read(client, "app/a", None).await.unwrap();
    assert_eq!((read.known_leader.as_deref(), read.last_contact.as_deref()), (Some("true"), Some("0")));
    let [pair] = &read.response[..] else { panic!("{read:?}") };
    assert_eq!((pair.key.as_str(), pair.flags, pair.lock_index, text(pair).as_str()), ("app/a", 7, 0, "one"));
    assert_eq!((pair.create_index, &pair.session), (pair.modify_index, &None));
    assert_eq!(read.index, Some(pair.modify_index.to_string()));
    let cas = |index: u64| kv_requests::SetKeyRequest::builder().cas(index).clone();
    assert!(!kv::set(client, "app/a", b"two", Some(&mut cas(1))).await.unwrap().response);
    assert!(kv::set(client, "app/a", b"two", Some(&mut cas(pair.modify_index))).await.unwrap().response);
    assert_eq!(kv::raw(client, "app/a", None).await.unwrap().response, b"two");
    kv::set(client, "app/empty", b"", None).await.unwrap();
    kv::set(client, "app/deep/b", b"\xff\x00", None).await.unwrap();
    let all = kv::read(client, "app/", Some(kv_requests::ReadKeyRequest::builder().recurse(true))).await.unwrap();
    let names: Vec<&str> = all.response.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(names, ["app/a", "app/deep/b", "app/empty"]);
    assert!(all.response[2].value.is_none(), "an empty value is null");
    let bytes: Vec<u8> = all.response[1].value.clone().unwrap().try_into().unwrap();
    assert_eq!(bytes, b"\xff\x00");
    let listed = kv::keys(client, "app/", Some(kv_requests::ReadKeysRequest::builder().separator("/"))).await.unwrap();
    assert_eq!(listed.response, ["app/a", "app/deep/", "app/empty"]);
    kv::set_json(client, "app/json", &HashMap::from([("field", 1)]), None).await.unwrap();
    let json = kv::read_json::<HashMap<String, u64>, _>(client, "app/json", None).await.unwrap();
    assert_eq!(json.response.value["field"], 1);
    let stale = Features { mode: Some(ConsistencyMode::STALE), ..Features::default() };
    kv::read(client, "app/a", Some(kv_requests::ReadKeyRequest::builder().features(stale))).await.unwrap();
    let cas = kv_requests::DeleteKeyRequest::builder().cas(1_u64).clone();
    assert!(!kv::delete(client, "app/a", Some(&mut cas.clone())).await.unwrap().response);
    assert!(kv::delete(client, "app/a", None).await.unwrap().response);
    is_status(kv::read(client, "app/a", None).await, 404);
    assert!(kv::delete(client, "app/", Some(kv_requests::DeleteKeyRequest::builder().recurse(true))).await.unwrap().response);
    is_status(kv::keys(client, "app/", None).await, 404);
}

/// A blocking query answers at the change and not before.
async fn watch(client: &ConsulClient) {
    kv::set(client, "watched", b"before", None).await.unwrap();
    let index = kv::read(client, "watched", None).await.unwrap().index.unwrap().parse().unwrap();
    let mut waiting = kv_requests::ReadKeyRequest::builder();
    waiting.features(blocking(index, "60s"));
    let change = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        kv::set(client, "watched", b"after", None).await.unwrap();
    };
    let (seen, ()) = tokio::join!(kv::read(client, "watched", Some(&mut waiting)), change);
    let seen = seen.unwrap();
    assert_eq!(text(&seen.response[0]), "after");
    assert!(seen.index.unwrap().parse::<u64>().unwrap() > index);
}

async fn sessions_and_locks(client: &ConsulClient) {
    let mut wanted = session_requests::CreateSessionRequest::builder();
    wanted.name("worker").ttl("30s").lock_delay("0s").behavior("delete");
    let id = session::create(client, Some(&mut wanted)).await.unwrap().response.id;
    let other = session::create(client, None).await.unwrap().response.id;
    let found = session::read(client, &id, None).await.unwrap().response.remove(0);
    assert_eq!((found.id.as_deref(), found.name.as_deref(), found.ttl.as_deref()), (Some(&*id), Some("worker"), Some("30s")));
    assert_eq!((found.behavior.as_deref(), found.lock_delay), (Some("delete"), Some(0)));
    let node = found.node.unwrap();
    for sessions in [session::list(client, None).await.unwrap(), session::list_by_node(client, &node, None).await.unwrap()] {
        assert_eq!(sessions.response.len(), 2, "{sessions:?}");
    }
    assert_eq!(session::renew(client, &id, None).await.unwrap().response.len(), 1);
    let acquire = |id: &str| kv_requests::SetKeyRequest::builder().acquire(id).clone();
    assert!(kv::set(client, "lock", b"mine", Some(&mut acquire(&id))).await.unwrap().response);
    assert!(!kv::set(client, "lock", b"yours", Some(&mut acquire(&other))).await.unwrap().response);
    let held = kv::read(client, "lock", None).await.unwrap().response.remove(0);
    assert_eq!((held.session.as_deref(), held.lock_index, text(&held).as_str()), (Some(&*id), 1, "mine"));
    assert!(kv::set(client, "lock", b"free", Some(kv_requests::SetKeyRequest::builder().release(&*id))).await.unwrap().response);
    assert!(kv::set(client, "lock", b"mine", Some(&mut acquire(&id))).await.unwrap().response);
    session::delete(client, &id, None).await.unwrap();
    is_status(kv::read(client, "lock", None).await, 404);
    assert!(session::read(client, &id, None).await.unwrap().response.is_empty());
    is_status(session::renew(client, &id, None).await, 404);
    session::delete(client, &other, None).await.unwrap();
}

async fn catalog_of_others(client: &ConsulClient) {
    let datacenter = catalog::datacenters(client, None).await.unwrap().response.remove(0);
    let strings = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let mut instance = AgentServiceBuilder::default();
    instance.id("db-1").service("db").port(5432_u64).address("10.0.0.7").meta(strings(&[("shard", "1")]));
    let instance = instance.tags(vec!["primary".to_owned()]).build().unwrap();
    let health = AgentCheck {
        check_id: Some("alive".into()),
        name: Some("alive".into()),
        status: Some("passing".into()),
        service_id: Some("db-1".into()),
        ..AgentCheck::default()
    };
    let mut whole = catalog_requests::RegisterEntityRequest::builder();
    whole.service(instance).check(health).node_meta(strings(&[("rack", "r1")])).datacenter(&*datacenter);
    assert!(catalog::register(client, "host-7", "10.0.0.7", Some(&mut whole)).await.unwrap().response);

    let nodes = catalog::nodes(client, None).await.unwrap().response;
    let node = nodes.iter().find(|node| node.node == "host-7").unwrap_or_else(|| panic!("{nodes:?}"));
    assert_eq!((node.address.as_str(), node.datacenter.as_str()), ("10.0.0.7", datacenter.as_str()));
    assert_eq!(node.meta.as_ref().unwrap()["rack"], "r1");
    assert!(node.create_index > 0 && node.modify_index >= node.create_index);
    let services = catalog::services(client, None).await.unwrap().response;
    assert_eq!(services["db"], ["primary"]);
    let found = catalog::nodes_with_service(client, "db", None).await.unwrap().response;
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!((one.service_id.as_deref(), one.service_port, one.node.as_deref()), (Some("db-1"), Some(5432), Some("host-7")));
    assert_eq!((one.service_address.as_deref(), one.address.as_deref()), (Some("10.0.0.7"), Some("10.0.0.7")));
    assert_eq!(one.service_weights.as_ref().unwrap().passing, Some(1));
    let of_node = catalog::node(client, "host-7", None).await.unwrap().response;
    assert_eq!((of_node.node.node.as_str(), of_node.services.len()), ("host-7", 1));
    assert_eq!(of_node.services[0].meta.as_ref().unwrap()["shard"], "1");
    assert!(catalog::nodes_with_connect_service(client, "db", None).await.unwrap().response.is_empty());

    let mut gone = catalog_requests::DeregisterEntityRequest::builder();
    assert!(catalog::deregister(client, "host-7", Some(gone.service_id("db-1"))).await.unwrap().response);
    assert!(catalog::nodes_with_service(client, "db", None).await.unwrap().response.is_empty());
    assert!(catalog::deregister(client, "host-7", None).await.unwrap().response);
    assert!(catalog::nodes(client, None).await.unwrap().response.iter().all(|node| node.node != "host-7"));
}

async fn services_of_the_agent(client: &ConsulClient) {
    let health =
        AgentServiceCheckBuilder::default().check_id("pulse").name("pulse").ttl("60s").status("passing").build().unwrap();
    let mut wanted = service_requests::RegisterServiceRequest::builder();
    // With an IP address it would have tagged addresses, which the library takes for strings.
    wanted.id("cart-1").port(8080_u64).tags(vec!["v1".to_owned()]).check(health);
    service::register(client, "cart", Some(&mut wanted)).await.unwrap();
    service::register(client, "plain", None).await.unwrap();
    let listed = service::list(client, None).await.unwrap().response;
    assert_eq!(listed["cart-1"].service.as_deref(), Some("cart"));
    assert_eq!(listed["plain"].port, Some(0));
    let one = service::read(client, "cart-1", None).await.unwrap().response;
    assert_eq!((one.service.as_deref(), one.port, one.address.as_deref()), (Some("cart"), Some(8080), Some("")));
    assert!(one.content_hash.is_some_and(|hash| !hash.is_empty()));
    assert_eq!(one.weights.unwrap().warning, Some(1));
    is_status(service::read(client, "nobody", None).await, 404);
    let health = service::health(client, "cart", None).await.unwrap().response.remove(0);
    assert_eq!((health.aggregated_status.as_str(), health.checks.len()), ("passing", 1));
    assert_eq!(health.checks[0].check_id.as_deref(), Some("pulse"));
    service::maintenance(client, "cart-1", true, None).await.unwrap();
    is_status(service::health(client, "cart", None).await, 503);
    service::maintenance(client, "cart-1", false, None).await.unwrap();
    service::health(client, "cart", None).await.unwrap();
    for id in ["cart-1", "plain"] {
        service::deregister(client, id, None).await.unwrap();
    }
    assert!(!service::list(client, None).await.unwrap().response.contains_key("cart-1"));
}

async fn checks_of_the_agent(client: &ConsulClient) {
    service::register(client, "cart", None).await.unwrap();
    let mut wanted = check_requests::RegisterCheckRequest::builder();
    wanted.id("beat").ttl("60s").service_id("cart").notes("by hand");
    check::register(client, "beat", Some(&mut wanted)).await.unwrap();
    let status = async || {
        let mut all = check::list(client, None).await.unwrap().response;
        let one = all.remove("beat").unwrap_or_else(|| panic!("{all:?}"));
        assert_eq!((one.service_id.as_deref(), one.service_name.as_deref()), (Some("cart"), Some("cart")));
        assert_eq!((one.ty.as_deref(), one.notes.as_deref()), (Some("ttl"), Some("by hand")));
        one.status.unwrap()
    };
    assert_eq!(status().await, "critical");
    check::pass(client, "beat", None).await.unwrap();
    assert_eq!(status().await, "passing");
    check::warn(client, "beat", None).await.unwrap();
    assert_eq!(status().await, "warning");
    check::fail(client, "beat", None).await.unwrap();
    assert_eq!(status().await, "critical");
    check::set_status(client, "beat", "passing", None).await.unwrap();
    assert_eq!(status().await, "passing");
    check::deregister(client, "beat", None).await.unwrap();
    assert!(check::list(client, None).await.unwrap().response.is_empty());
    service::deregister(client, "cart", None).await.unwrap();
}
