//! What an apply means to the sidecars that hear of it.

use super::*;

#[tokio::test]
async fn a_large_apply_reaches_a_sidecar_as_the_delta_of_one_revision_in_short_chunks() {
    use crate::policy::{Author, Policy};
    use postern_api::http::ApplyRequest;
    use prost::Message;

    let rig = rig_with(PushSettings { ack_timeout: DAY, ..push_settings() }, GrpcSettings::default()).await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    let mut db = rig.sidecar("db", "db-1", &[]).await;
    api.settle().await;
    db.settle().await;
    let policy = Policy::new(Arc::clone(&rig.store), Arc::clone(&rig.mirror), rig.mesh.sidecars());
    let to_api = |n| Intention::new(format!("service-{n}").parse().unwrap(), "api".parse().unwrap(), Action::Allow);
    let request = ApplyRequest { intentions: (0..6000).map(to_api).collect(), wait_ms: 30_000, ..ApplyRequest::default() };
    let author = Author { who: "uid:0".into(), from: "unix".into() };
    let applying = tokio::spawn(async move { policy.apply(request, &author).await.unwrap().written.unwrap() });
    let (mut chunks, mut pairs) = (Vec::new(), BTreeSet::new());
    let revision = loop {
        let Some(Down::Delta(delta)) = api.next().await else { panic!("no delta") };
        pairs.extend(delta.upserts.iter().filter(|one| one.key.starts_with("intention/")).map(|one| one.key.clone()));
        if !pairs.is_empty() {
            assert!(delta.encoded_len() <= (256 << 10) + 1024, "{} bytes", delta.encoded_len());
            chunks.push(delta.to.unwrap().revision);
        }
        if delta.last {
            api.acknowledge(&delta).await;
            if !pairs.is_empty() {
                break delta.to.unwrap().revision;
            }
        }
    };
    assert!(chunks.len() > 1 && chunks.iter().all(|of| *of == revision), "{chunks:?}");
    assert_eq!(pairs.len(), 6000, "never split");
    let written = applying.await.unwrap();
    assert!(revision >= written.revision);
    let in_force = written.in_force.unwrap();
    assert_eq!((in_force.concerned, in_force.acknowledged), (1, 1), "db is not concerned");
    // What comes next is what changes next: moving the set to its place is nothing to a sidecar.
    let set_is_moved = async {
        while !rig.store.range(b"change-set", 0).await.unwrap().kvs.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), set_is_moved).await.unwrap();
    rig.intend("web", "api", Action::Deny).await;
    assert_eq!(api.take().await.upserts.len(), 1);
}

#[tokio::test]
async fn sidecars_that_would_not_understand_are_named_before_an_apply() {
    use crate::policy::{Author, Policy};
    use postern_api::http::ApplyRequest;

    let rig = rig_with(PushSettings { ack_timeout: DAY, ..push_settings() }, GrpcSettings::default()).await;
    let mut told_less = hello("api-1", &[]);
    told_less.understands = vec!["permissions".into(), "methods".into()];
    let svid = rig.service_svid("api");
    rig.record(&svid, "api", "api-1", "api-1").await;
    let mut old = open(rig.connect(Some(svid)).await.unwrap(), told_less).await;
    assert!(matches!(old.next().await, Some(Down::Welcome(_))));
    old.settle().await;
    let mut untold = rig.sidecar("api", "api-2", &[]).await;
    let mut other = rig.sidecar("db", "db-1", &[]).await;
    untold.settle().await;
    other.settle().await;
    let policy = Policy::new(Arc::clone(&rig.store), Arc::clone(&rig.mirror), rig.mesh.sidecars());
    let with = |permission: serde_json::Value| -> Intention {
        let intention =
            serde_json::json!({ "source": "web", "destination": "api", "otherwise": "deny", "permissions": [permission] });
        serde_json::from_value(intention).unwrap()
    };
    let plan = async |intention: Intention| {
        let request = ApplyRequest { intentions: vec![intention], dry_run: true, ..ApplyRequest::default() };
        policy.apply(request, &Author { who: "uid:0".into(), from: "unix".into() }).await.unwrap().not_understood_by
    };
    let understood = with(serde_json::json!({ "action": "allow", "methods": ["GET"] }));
    assert!(plan(understood.clone()).await.is_empty());
    let newer = with(serde_json::json!({ "action": "allow", "path_regex": "/a" }));
    let named = plan(newer.clone()).await;
    assert_eq!(named, ["api-1 (version 0.1.0): web -> api needs path, path-regex"]);

    // One that has refused it is named whatever it told.
    let record = IntentionRecord {
        intention: newer.clone(),
        created_at: SystemTime::now(),
        created_by: "uid:0".into(),
        reason: None,
        changed_in: None,
    };
    rig.write([Op::put(records::intention_key(&newer.key()), records::encode(&record).unwrap())]).await;
    let delta = untold.take().await;
    let nacks = vec![v1::Nack { key: "intention/web/api".into(), why: "from the future".into() }];
    untold.send(Up::Ack(v1::Ack { lane: delta.lane, position: delta.to, nacks, ..v1::Ack::default() })).await;
    let refused = async {
        while plan(newer.clone()).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap();
    assert_eq!(plan(newer).await, ["api-2 (version 0.1.0): web -> api was not understood: from the future"]);
    assert!(plan(understood).await.is_empty(), "it becomes simpler");
}
