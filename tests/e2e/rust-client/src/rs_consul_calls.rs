//! rs-consul: keys, locks, the catalog, the health of services, and access control.

use std::time::Duration;

use rs_consul::*;

pub async fn make_all(address: &str, token: &str) {
    let consul = of(address, token);
    keys(&consul).await;
    locks(&consul).await;
    catalog_and_health(&consul).await;
    access_control(&consul, address).await;
}

fn of(address: &str, token: &str) -> Consul {
    Consul::new(Config { address: address.into(), token: Some(token.into()), ..Config::default() })
}

fn is_status<T: std::fmt::Debug>(result: std::result::Result<T, ConsulError>, wanted: u16) {
    match result {
        Err(ConsulError::UnexpectedResponseCode(code, _)) => assert_eq!(code.as_u16(), wanted),
        other => panic!("not the status {wanted}: {other:?}"),
    }
}

async fn keys(consul: &Consul) {
    let put = |key: &'static str| CreateOrUpdateKeyRequest { key, check_and_set: None, ..Default::default() };
    let read = |key: &'static str| ReadKeyRequest { key, ..Default::default() };
    is_status(consul.read_key(read("rs/none")).await, 404);
    let (done, _) =
        consul.create_or_update_key(CreateOrUpdateKeyRequest { flags: 9, ..put("rs/a") }, b"one".to_vec()).await.unwrap();
    assert!(done);
    let found = consul.read_key(read("rs/a")).await.unwrap();
    let [pair] = &found.response[..] else { panic!("{found:?}") };
    assert_eq!((pair.key.as_str(), pair.flags, pair.value.as_deref()), ("rs/a", 9, Some("one")));
    let only_new = CreateOrUpdateKeyRequest { check_and_set: Some(0), ..put("rs/a") };
    assert!(!consul.create_or_update_key(only_new, b"two".to_vec()).await.unwrap().0);
    let as_seen = CreateOrUpdateKeyRequest { check_and_set: Some(pair.modify_index), ..put("rs/a") };
    assert!(consul.create_or_update_key(as_seen, b"two".to_vec()).await.unwrap().0);

    let waiting = ReadKeyRequest { index: Some(found.index), wait: Duration::from_secs(60), ..read("rs/a") };
    assert_eq!(consul.read_key(waiting).await.unwrap().response[0].value.as_deref(), Some("two"), "it is newer already");
    let index = consul.read_key(read("rs/a")).await.unwrap().index;
    let waiting = ReadKeyRequest { index: Some(index), wait: Duration::from_secs(60), ..read("rs/a") };
    let change = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        consul.create_or_update_key(put("rs/a"), b"three".to_vec()).await.unwrap();
    };
    let (seen, ()) = tokio::join!(consul.read_key(waiting), change);
    assert_eq!(seen.unwrap().response[0].value.as_deref(), Some("three"));

    consul.create_or_update_key(put("rs/b"), Vec::new()).await.unwrap();
    let all = consul.read_key(ReadKeyRequest { recurse: true, ..read("rs/") }).await.unwrap().response;
    assert_eq!(all.iter().map(|pair| pair.key.as_str()).collect::<Vec<_>>(), ["rs/a", "rs/b"]);
    assert_eq!(all[1].value, None);
    let delete = DeleteKeyRequest { key: "rs/", recurse: true, ..Default::default() };
    assert!(consul.delete_key(delete).await.unwrap());
    is_status(consul.read_key(read("rs/a")).await, 404);
}

async fn locks(consul: &Consul) {
    let wanted = LockRequest {
        key: "rs-lock",
        behavior: LockExpirationBehavior::Delete,
        lock_delay: Duration::ZERO,
        ..Default::default()
    };
    let held = consul.get_lock(wanted, b"first").await.unwrap();
    let refused = consul.get_lock(wanted, b"second").await;
    let Err(ConsulError::LockAcquisitionFailure(index)) = refused else { panic!("{:?}", refused.map(|_| ())) };
    let watch = LockWatchRequest { key: "rs-lock", index: Some(index), wait: Duration::from_secs(60), ..Default::default() };
    let released = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // It is released when it is dropped, by a call that blocks.
        tokio::task::block_in_place(|| drop(held));
    };
    let (seen, ()) = tokio::join!(consul.watch_lock(watch), released);
    assert_eq!(seen.unwrap().response[0].session, None);
    let again = consul.get_lock(wanted, b"third").await.unwrap();
    let found = consul.read_key(ReadKeyRequest { key: "rs-lock", ..Default::default() }).await.unwrap().response.remove(0);
    assert_eq!((found.session, found.lock_index), (Some(again.session_id.clone()), 2));
    tokio::task::block_in_place(|| drop(again));
}

async fn catalog_and_health(consul: &Consul) {
    let check = |id: &str, status: &str| {
        RegisterEntityCheck::builder().CheckID(id.into()).Name(id.into()).Status(status.into()).ServiceID("web-1".into()).build()
    };
    let service =
        RegisterEntityService::builder().ID("web-1".into()).Service("web".into()).Tags(vec!["v2".into()]).Port(80).build();
    let register = async |status: &str| {
        let builder = RegisterEntityPayload::builder().Node("host-9".into()).Address("10.0.0.9".into());
        consul.register_entity(&builder.Service(service.clone()).Checks(vec![check("alive", status)]).build()).await.unwrap();
    };
    register("passing").await;
    let nodes = consul.get_nodes(GetNodesRequest::default(), None).await.unwrap().response;
    assert!(nodes.iter().any(|node| node.node == "host-9" && node.address == "10.0.0.9"), "{nodes:?}");
    let named = GetNodesRequest { filter: Some("Node%3D%3D%22host-9%22"), ..Default::default() };
    assert_eq!(consul.get_nodes(named, None).await.unwrap().response.len(), 1);
    let names = consul.get_all_registered_service_names(None).await.unwrap();
    assert!(names.response.contains(&"web".to_owned()), "{names:?}");
    let of_web = |passing: bool| GetServiceNodesRequest { service: "web", passing, ..Default::default() };
    let found = consul.get_service_nodes(of_web(true), None).await.unwrap();
    let [one] = &found.response[..] else { panic!("{found:?}") };
    assert_eq!((one.service.id.as_str(), one.service.port, one.service.tags.as_slice()), ("web-1", 80, &["v2".to_owned()][..]));
    assert_eq!((one.node.node.as_str(), one.service.address.as_str()), ("host-9", ""));
    let addresses = consul.get_service_addresses_and_ports("web", None).await.unwrap();
    assert_eq!(addresses, [("10.0.0.9".to_owned(), 80)]);

    let options =
        QueryOptions { index: Some(found.index), wait: Some(Duration::from_secs(60)), timeout: None, ..Default::default() };
    let change = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        register("critical").await;
    };
    let (seen, ()) = tokio::join!(consul.get_service_nodes(of_web(true), Some(options)), change);
    assert!(seen.unwrap().response.is_empty(), "a critical check takes it out");
    assert_eq!(consul.get_service_nodes(of_web(false), None).await.unwrap().response.len(), 1);
    let gone = DeregisterEntityPayload::builder().Node("host-9".into()).build();
    consul.deregister_entity(&gone).await.unwrap();
    assert!(consul.get_service_nodes(of_web(false), None).await.unwrap().response.is_empty());
}

async fn access_control(consul: &Consul, address: &str) {
    let rules = "key_prefix \"rs/\" { policy = \"write\" }";
    let wanted = CreateACLPolicyRequest { name: "rs".into(), description: Some("of a test".into()), rules: Some(rules.into()) };
    let policy = consul.create_acl_policy(&wanted).await.unwrap();
    assert_eq!((policy.name.as_str(), policy.description.as_str()), ("rs", "of a test"));
    assert!(!policy.hash.is_empty() && policy.create_index > 0);
    let policies = consul.get_acl_policies().await.unwrap();
    assert!(policies.iter().any(|found| found.id == policy.id), "{policies:?}");
    let link = ACLTokenPolicyLink { id: Some(policy.id.clone()), name: None };
    let payload = CreateACLTokenPayload { description: Some("rs".into()), policies: vec![link], ..Default::default() };
    let token = consul.create_acl_token(&payload).await.unwrap();
    assert_eq!((token.description.as_str(), token.policies[0].name.as_deref()), ("rs", Some("rs")));
    let holder = of(address, &token.secret_id);
    let put = |key: &'static str| CreateOrUpdateKeyRequest { key, ..Default::default() };
    assert!(holder.create_or_update_key(put("rs/allowed"), Vec::new()).await.unwrap().0);
    is_status(holder.create_or_update_key(put("other"), Vec::new()).await, 403);
    let read = consul.read_acl_token(token.accessor_id.clone()).await.unwrap();
    assert_eq!((read.accessor_id.as_str(), read.hash.as_str()), (token.accessor_id.as_str(), token.hash.as_str()));
    let tokens = consul.get_acl_tokens().await.unwrap();
    assert!(tokens.iter().any(|found| found.accessor_id == token.accessor_id));
    consul.delete_acl_token(token.accessor_id.clone()).await.unwrap();
    is_status(holder.create_or_update_key(put("rs/allowed"), Vec::new()).await, 403);
    consul.delete_acl_policy(policy.id.clone()).await.unwrap();
    assert!(consul.get_acl_policies().await.unwrap().iter().all(|found| found.id != policy.id));
}
