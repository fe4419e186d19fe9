//! The state directory: what is kept comes back, only its owner reads it, and one sidecar has it at a time.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_api::v1;
use postern_ca::{Authority, PrivateKey, Request, Subject, Svid};
use postern_names::{InstanceId, ServiceName};
use postern_proxy::state::{Enrolment, StateDir, StateError, StoredLane, StoredSnapshot};

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn enrolment() -> Enrolment {
    let now = SystemTime::now();
    let service: ServiceName = "web".parse().unwrap();
    let authority = Authority::create(&"example.com".parse().unwrap(), &"dc1".parse().unwrap(), now).unwrap();
    let key = PrivateKey::generate().unwrap();
    let csr = key.csr_der();
    let request =
        Request { csr_der: &csr, id: Subject::Service(service.clone()), ports: &[], ttl: Duration::from_secs(3_600), now };
    let issued = authority.issue(request).unwrap();
    Enrolment {
        instance: id("web-1"),
        service,
        cluster_id: "cluster".into(),
        lineage: "lineage".into(),
        svid: Arc::new(Svid::new(issued.chain, key).unwrap()),
        bundle: authority.bundle(),
    }
}

#[test]
fn what_is_kept_comes_back_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy/web-1");
    let kept = enrolment();
    let lane = StoredLane {
        position: Some(v1::Position { epoch: 1, revision: 9 }),
        resources: vec![v1::Resource { key: "default".into(), revision: 1, body: vec![8, 1].into() }],
    };
    let snapshot = StoredSnapshot { cluster_id: "cluster".into(), authority: Some(lane), reachability: None, server_time_ms: 5 };
    {
        let state = StateDir::open(&path, &id("web-1")).unwrap();
        assert!(state.enrolment().unwrap().is_none() && state.snapshot().unwrap().is_none() && state.port().is_none());
        assert!(!StateDir::is_enrolled(&path));
        state.keep_enrolment(&kept).unwrap();
        state.keep_snapshot(&snapshot).unwrap();
        state.keep_port(21_003).unwrap();
    }

    let state = StateDir::open(&path, &id("web-1")).unwrap();

    let found = state.enrolment().unwrap().unwrap();
    assert!(StateDir::is_enrolled(&path));
    assert_eq!(found.svid.serial(), kept.svid.serial());
    assert_eq!(found.svid.key().public_key_hash(), kept.svid.key().public_key_hash());
    assert_eq!((found.cluster_id, found.lineage, found.instance), (kept.cluster_id, kept.lineage, kept.instance));
    assert_eq!(found.bundle.roots(), kept.bundle.roots());
    assert_eq!(state.snapshot().unwrap().unwrap(), snapshot);
    assert_eq!(state.port(), Some(21_003));
}

#[test]
fn only_the_owner_can_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();

    let state = StateDir::open(&path, &id("web-1")).unwrap();
    state.keep_next_key(&PrivateKey::generate().unwrap()).unwrap();
    state.keep_enrolment(&enrolment()).unwrap();
    state.keep_snapshot(&StoredSnapshot::default()).unwrap();

    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
    }
}

#[test]
fn a_second_sidecar_is_told_who_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::open(directory.path(), &id("web-host1")).unwrap();

    let refused = StateDir::open(directory.path(), &id("web-host1")).unwrap_err();

    let expected = format!("web-host1 already runs here, pid {}; give --id", std::process::id());
    assert!(matches!(refused, StateError::InUse { .. }) && refused.to_string().starts_with(&expected), "{refused}");
    drop(state);
    StateDir::open(directory.path(), &id("web-host1")).unwrap();
}

#[test]
fn the_key_of_an_unanswered_request_is_used_again_until_it_has_its_svid() {
    let directory = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate().unwrap();
    let state = StateDir::open(directory.path(), &id("web-1")).unwrap();
    state.keep_next_key(&key).unwrap();
    assert_eq!(state.next_key().unwrap().unwrap().public_key_hash(), key.public_key_hash());

    state.keep_enrolment(&enrolment()).unwrap();

    assert!(state.next_key().unwrap().is_none());
}

#[test]
fn a_damaged_file_is_named_and_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::open(directory.path(), &id("web-1")).unwrap();
    std::fs::write(directory.path().join("svid"), b"\xff\xff\xff").unwrap();

    let refused = state.enrolment().unwrap_err();

    assert!(refused.to_string().contains("svid is damaged"), "{refused}");
}
