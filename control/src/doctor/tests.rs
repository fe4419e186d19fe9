use std::collections::BTreeMap;

use postern_api::convert::time;
use postern_api::http::CertificateStatus;
use postern_ca::Serial;

use super::*;
use crate::records::{ClusterRecord, IssuanceRecord, LineageRecord};

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 24 * 3600 * 1000;

fn serial() -> Serial {
    "000102030405060708090a0b0c0d0e0f".parse().unwrap()
}

fn instance() -> InstanceRecord {
    InstanceRecord {
        id: "web-1".parse().unwrap(),
        service: "web".parse().unwrap(),
        address: Some("10.0.0.1:21000".into()),
        ports: Vec::new(),
        transports: Vec::new(),
        meta: BTreeMap::new(),
        locality: String::new(),
        node: "host-1".into(),
        metrics: String::new(),
        lineage: "l".into(),
        healthy: true,
        state_since: time(NOW - DAY),
        left: false,
        silent: false,
        tags: Vec::new(),
        weights: Default::default(),
        checks: Vec::new(),
    }
}

/// A mesh with one healthy, connected instance whose SVID has 20 of its 24 hours left.
struct Mesh {
    view: View,
    sidecars: Vec<SidecarStatus>,
    keys: BTreeMap<PortName, KeyStatus>,
    authority: AuthorityStatus,
    audit: Result<(), String>,
    store: Result<(), String>,
    surroundings: Surroundings,
}

impl Mesh {
    fn new() -> Self {
        let mut view = View::empty(ClusterRecord {
            cluster_id: "c".into(),
            trust_domain: "example.test".parse().unwrap(),
            datacenter: "dc1".parse().unwrap(),
            epoch: 1,
            created_at: time(NOW),
        });
        view.instances.insert("web-1".parse().unwrap(), (instance(), 1));
        let lineage = LineageRecord {
            lineage: "l".into(),
            service: "web".parse().unwrap(),
            instance: "web-1".parse().unwrap(),
            token_id: "t".into(),
            newest: serial(),
            revoked: false,
            forked: false,
        };
        view.lineages.insert("l".into(), lineage);
        let mut mesh = Self {
            view,
            sidecars: vec![sidecar()],
            keys: BTreeMap::new(),
            authority: authority(),
            audit: Ok(()),
            store: Ok(()),
            surroundings: surroundings(),
        };
        mesh.svid_ends(NOW + DAY * 20 / 24);
        mesh
    }

    fn svid_ends(&mut self, at: u64) {
        let issuance = IssuanceRecord {
            serial: serial(),
            id: "spiffe://example.test/ns/default/dc/dc1/svc/web".into(),
            service: "web".parse().unwrap(),
            instance: "web-1".parse().unwrap(),
            lineage: "l".into(),
            replaces: None,
            not_after: time(at),
            key_hash: String::new(),
            used: true,
            chain: Vec::new(),
        };
        self.view.issuances.insert(serial(), issuance);
    }

    fn record(&mut self) -> &mut InstanceRecord {
        &mut self.view.instances.values_mut().next().unwrap().0
    }

    fn codes(&self) -> Vec<String> {
        let findings = examine(&Evidence {
            view: &self.view,
            sidecars: &self.sidecars,
            keys: &self.keys,
            authority: &self.authority,
            audit: &self.audit,
            store: &self.store,
            surroundings: &self.surroundings,
            svid_ttl: Duration::from_millis(DAY),
            now: time(NOW),
        });
        assert!(findings.iter().all(|finding| !finding.cure.is_empty()));
        findings.into_iter().map(|finding| finding.code).collect()
    }
}

fn sidecar() -> SidecarStatus {
    SidecarStatus {
        instance: "web-1".parse().unwrap(),
        service: "web".parse().unwrap(),
        version: "0.1.0".into(),
        address: "10.0.0.1:1".parse().unwrap(),
        since: time(NOW),
        serial: serial(),
        lineage: "l".into(),
        upstreams: Vec::new(),
        authority: 1,
        reachability: 1,
        is_current: true,
        enforces_all: true,
        acknowledged_ago: None,
        nacks: Vec::new(),
        understands: Vec::new(),
        warnings: Vec::new(),
        active_connections: 0,
        clock_ahead_ms: 0,
    }
}

fn authority() -> AuthorityStatus {
    let certificate = |at: u64| CertificateStatus {
        pin: String::new(),
        not_before: rfc3339(time(NOW - DAY)),
        not_after: rfc3339(time(at)),
        origin: "built-in".into(),
    };
    AuthorityStatus {
        trust_domain: "example.test".parse().unwrap(),
        roots: vec![certificate(NOW + 3650 * DAY)],
        intermediate: certificate(NOW + 20 * DAY),
        svid_ttl_s: 86_400,
        active_svids: 1,
        revoked_svids: 0,
    }
}

fn surroundings() -> Surroundings {
    Surroundings { host: "control".into(), file_limit: 65_536, audit_dir: "/audit".into(), dns_problem: None }
}

#[test]
fn a_healthy_mesh_has_no_finding() {
    assert_eq!(Mesh::new().codes(), Vec::<String>::new());
}

#[test]
fn an_svid_that_ended_or_was_not_renewed_is_found() {
    let mut mesh = Mesh::new();
    mesh.svid_ends(NOW + DAY / 5);
    assert_eq!(mesh.codes(), ["svid_expires_soon"]);
    mesh.svid_ends(NOW - 1000);
    assert_eq!(mesh.codes(), ["svid_expired"]);
    mesh.record().left = true;
    assert_eq!(mesh.codes(), Vec::<String>::new(), "an instance that left needs none");
}

#[test]
fn a_copied_state_directory_is_found() {
    let mut mesh = Mesh::new();
    mesh.view.lineages.get_mut("l").unwrap().forked = true;
    assert_eq!(mesh.codes(), ["lineage_forked"]);
}

#[test]
fn what_a_sidecar_does_not_hold_or_understand_is_found() {
    let mut mesh = Mesh::new();
    mesh.sidecars[0].is_current = false;
    mesh.sidecars[0].nacks = vec![("intention/web/api".into(), "unknown field".into())];
    mesh.sidecars[0].warnings = vec!["port 5432 listens beyond loopback: the sidecar can be bypassed".into()];
    assert_eq!(mesh.codes(), ["not_understood", "sidecar_behind", "sidecar_can_be_bypassed"]);
}

#[test]
fn an_instance_without_stream_or_answer_is_found() {
    let mut mesh = Mesh::new();
    mesh.record().healthy = false;
    assert_eq!(mesh.codes(), ["instance_critical"]);
    mesh.sidecars.clear();
    assert_eq!(mesh.codes(), ["not_connected"]);
}

#[test]
fn metrics_on_the_loopback_of_another_host_are_found() {
    let mut mesh = Mesh::new();
    mesh.record().metrics = "127.0.0.1:19000".into();
    assert_eq!(mesh.codes(), ["metrics_unreachable"]);
    mesh.record().node = "control".into();
    assert_eq!(mesh.codes(), Vec::<String>::new());
}

#[test]
fn a_certificate_of_the_authority_that_ends_is_found() {
    let mut mesh = Mesh::new();
    mesh.authority.intermediate.not_after = rfc3339(time(NOW + DAY));
    mesh.authority.roots[0].not_after = rfc3339(time(NOW - DAY));
    assert_eq!(mesh.codes(), ["ca_expired", "ca_expires_soon"]);
}

#[test]
fn a_store_that_takes_no_changes_is_found() {
    let mut mesh = Mesh::new();
    mesh.store = Err("no space left".into());
    assert_eq!(mesh.codes(), ["store_takes_no_changes"]);
}

#[test]
fn a_broken_audit_chain_and_a_low_file_limit_are_found() {
    let mut mesh = Mesh::new();
    mesh.audit = Err("line 3".into());
    mesh.surroundings.file_limit = 1024;
    assert_eq!(mesh.codes(), ["audit_chain_broken", "file_limit_low"]);
}

#[test]
fn a_clock_that_differs_is_found() {
    let mut mesh = Mesh::new();
    mesh.sidecars[0].clock_ahead_ms = -29_000;
    assert_eq!(mesh.codes(), Vec::<String>::new());
    mesh.sidecars[0].clock_ahead_ms = -31_000;
    assert_eq!(mesh.codes(), ["clock_skew"]);
}

#[test]
fn keys_that_cannot_be_read_are_found_and_worse_where_there_are_none() {
    let mut mesh = Mesh::new();
    let problem = Some("id.example.com:443 answered 503".to_owned());
    mesh.keys.insert("corp".parse().unwrap(), KeyStatus { read_at: None, problem });
    assert_eq!(mesh.codes(), ["jwks_stale"]);
    mesh.keys.insert("corp".parse().unwrap(), KeyStatus { read_at: Some(time(NOW)), problem: None });
    assert!(mesh.codes().is_empty());
}
