//! A sidecar that leaves, and a bundle that changes.

use postern_ca::TrustBundle;

use super::*;

#[tokio::test]
async fn a_sidecar_that_said_goodbye_still_hears_a_deny() {
    let rig = rig().await;
    rig.intend("web", "api", Action::Allow).await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.settle().await;
    api.send(Up::Goodbye(v1::Goodbye { reason: "drains".into() })).await;
    loop {
        match api.next().await {
            Some(Down::Left(_)) => break,
            Some(Down::Delta(delta)) => api.acknowledge(&delta).await,
            other => panic!("{other:?}"),
        }
    }
    let is_gone = rig.mirror.read(|view| view.instances.values().all(|(record, _)| record.left));
    assert!(is_gone, "nobody is sent there any more");

    let revision = rig.intend("web", "api", Action::Deny).await;
    let sidecars = rig.mesh.sidecars();
    let to_api = [Party::Service("api".parse().unwrap())];
    let waiting = tokio::spawn(async move { sidecars.wait_in_force(revision, &to_api, Duration::from_secs(20)).await });
    let mut heard = false;
    while !heard {
        let delta = api.take().await;
        heard = delta.upserts.iter().any(|resource| resource.key == "intention/web/api");
        api.acknowledge(&delta).await;
    }
    let in_force = waiting.await.unwrap();
    assert_eq!((in_force.concerned, in_force.acknowledged), (1, 1), "--wait waits for what is drained, too");

    api.send(Up::Beat(v1::Beat { healthy: true, ..v1::Beat::default() })).await;
    api.send(Up::Registration(hello("api-1", &[]).registration.unwrap())).await;
    assert!(api.refused().await.reason.contains("goodbye"));
    assert!(rig.mirror.read(|view| view.instances.values().all(|(record, _)| record.left)), "a beat brings nobody back");
}

#[tokio::test]
async fn a_new_bundle_is_pushed_without_waiting_for_anything_else() {
    // Nothing else wakes a stream in this test.
    let rig = rig_with(
        PushSettings { heartbeat: Duration::from_secs(300), silence: Duration::from_secs(600), ..push_settings() },
        GrpcSettings::default(),
    )
    .await;
    let (changes, followed) = tokio::sync::watch::channel(1);
    rig.mesh.follow_bundle(followed);
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.settle().await;

    let mut trust = Trust::clone(&rig.trust.load());
    let second = Authority::create(&trust.bundle.trust_domain, &trust.datacenter, SystemTime::now()).unwrap();
    let mut roots = trust.bundle.roots().to_vec();
    roots.push(second.root().clone());
    trust.bundle = TrustBundle::new(trust.bundle.trust_domain, roots, trust.bundle.sequence + 1);
    let expected = Bytes::from(prost::Message::encode_to_vec(&convert::bundle_to_wire(&trust.bundle)));
    rig.trust.store(Arc::new(trust));
    changes.send_replace(2);

    let authority: i32 = v1::Lane::Authority.into();
    api.until(|api| api.known.get(&(authority, "bundle".to_owned())) == Some(&expected)).await;
}
