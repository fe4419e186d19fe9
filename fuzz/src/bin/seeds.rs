//! Writes the first files of `corpus/`, and `root.der`, which their certificates lead to. Keys are made for the moment
//! and forgotten, so running it again replaces both.
//!
//! `cargo run --bin seeds` in this folder.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use postern_api::{convert, v1};
use postern_ca::{Authority, CertificateDer, EnrolmentToken, PrivateKey, Request, Serial, Subject, TrustBundle};
use postern_fuzz::{NOW, datacenter, trust_domain};
use postern_intentions::{DefaultPolicy, Intention, file};
use postern_proxy::state::{StoredLane, StoredSnapshot};
use prost::Message;

const INTENTIONS: &str = r#"default: deny
intentions:
- {source: web, destination: api, action: allow}
- {source: "*", destination: db, action: deny, mode: audit, description: "who still calls?"}
- source: shop
  destination: api
  otherwise: deny
  permissions:
  - {action: deny, path_exact: /admin}
  - {action: allow, methods: [GET, HEAD], path_prefix: /v1/}
  - {action: allow, path_regex: "/items/[0-9]+", headers: [{name: x-team, exact: green}]}
"#;

fn seed(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the corpus can be made");
    fs::write(folder.join(name), bytes).expect("the corpus can be written");
}

/// Each part with its length before it, two bytes.
fn with_lengths<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        let part = part.as_ref();
        bytes.extend(u16::try_from(part.len()).expect("a short part").to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

fn main() {
    let now = SystemTime::UNIX_EPOCH + NOW;
    let intentions = intentions();
    let authority = Authority::create(&trust_domain(), &datacenter(), now).expect("an authority");
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("root.der"), authority.root()).expect("written");
    certificates(&authority, now);
    intention_texts(&intentions);
    resources(&authority.bundle(), &intentions);
    texts();
    registrations();
    http_bodies(&intentions);
    audit_logs();
}

fn intentions() -> Vec<Intention> {
    let read = file::parse(INTENTIONS, "seed.yaml").unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut intentions = read.intentions;
    let mut temporary = intentions[0].clone();
    temporary.expires_at = Some(SystemTime::UNIX_EPOCH + NOW + Duration::from_secs(60));
    intentions.push(temporary);
    intentions
}

fn certificates(authority: &Authority, now: SystemTime) {
    let of = |id: Subject, ports: &[&str]| {
        let csr = PrivateKey::generate().expect("a key").csr_der();
        let ports: Vec<_> = ports.iter().map(|port| port.parse().expect("a port")).collect();
        let ttl = Duration::from_secs(3_600);
        authority.issue(Request { csr_der: &csr, id, ports: &ports, ttl, now }).expect("an SVID").chain
    };
    let web = of(Subject::Service("web".parse().expect("a name")), &["http"]);
    let control = of(Subject::ControlPlane, &[]);
    let foreign = Authority::create(&trust_domain(), &datacenter(), now).expect("another authority");
    let chains: [(&str, Vec<CertificateDer<'static>>); 6] = [
        ("service", web.clone()),
        ("control-plane", control),
        ("leaf-alone", web[..1].to_vec()),
        ("leaf-signed-by-a-leaf", vec![web[0].clone(), web[0].clone(), web[1].clone()]),
        ("foreign-intermediate", vec![web[0].clone(), foreign.intermediate().clone()]),
        ("an-authority-as-leaf", vec![web[1].clone(), authority.root().clone()]),
    ];
    for (name, chain) in chains {
        seed("certificate_chain", name, with_lengths(&chain));
    }
    let csr = PrivateKey::generate().expect("a key").csr_der();
    seed("csr", "p256", &csr);
    seed("csr", "bytes-after-the-end", [csr.as_slice(), &[0]].concat());
    for other in ["p521", "rsa1024"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../ca/tests/data/{other}.csr.der"));
        seed("csr", other, fs::read(path).expect("a request of the tests"));
    }
}

fn intention_texts(intentions: &[Intention]) {
    seed("intentions_file", "every-form.yaml", INTENTIONS);
    let permanent: Vec<_> = intentions.iter().filter(|one| !one.is_temporary()).collect();
    let json = serde_json::json!({"default": "allow", "intentions": permanent});
    seed("intentions_file", "every-form.json", json.to_string());
    seed("intentions_file", "wrong-words.yaml", "default: maybe\nintentions:\n- {source: Web, destination: api, acton: allow}\n");
    seed("intentions_file", "anchors.yaml", "x: &a [1]\nintentions: *a\n");
    seed("intentions_file", "doubled.yaml", "intentions: []\nintentions: []\n");
    for (number, intention) in intentions.iter().enumerate() {
        seed("intention_wire", &format!("intention-{number}"), convert::intention_to_body(intention).encode_to_vec());
    }
}

fn resources(bundle: &TrustBundle, intentions: &[Intention]) {
    let resource = |key: String, body: Vec<u8>| v1::Resource { key, revision: 7, body: body.into() };
    let wire = convert::bundle_to_wire(bundle).encode_to_vec();
    seed("intention_wire", "bundle", &wire);
    let mut authority = vec![
        resource("default".into(), convert::default_to_body(DefaultPolicy::Deny).encode_to_vec()),
        resource("bundle".into(), wire),
        resource("intention/a/b".into(), vec![0xff]),
        resource("tomorrow/x".into(), Vec::new()),
    ];
    let serial = Serial::from_bytes(&[0x11; 20]).expect("a serial");
    authority.push(resource(format!("revoked/{serial}"), v1::RevokedBody::default().encode_to_vec()));
    for intention in intentions {
        let key = postern_api::key::ResourceKey::Intention(intention.key());
        authority.push(resource(key.to_string(), convert::intention_to_body(intention).encode_to_vec()));
    }
    let endpoint = v1::EndpointBody { address: "192.0.2.1:21000".into(), ..Default::default() };
    let reachability = vec![
        resource("service/api".into(), v1::ServiceBody { protocol: "http".into(), ..Default::default() }.encode_to_vec()),
        resource("endpoint/api/api-1".into(), endpoint.encode_to_vec()),
    ];
    for (number, one) in authority.iter().chain(&reachability).enumerate() {
        seed("resource_key", &format!("key-{number}"), &one.key);
    }
    seed("resource_key", "serial", serial.to_string());
    let position = Some(v1::Position { epoch: 1, revision: 7 });
    let lane = |resources: &[v1::Resource]| Some(StoredLane { position, resources: resources.to_vec() });
    let stored = StoredSnapshot {
        cluster_id: "cluster".into(),
        authority: lane(&authority),
        reachability: lane(&reachability),
        server_time_ms: 1_767_227_400_000,
    };
    seed("snapshot_file", "both-lanes", stored.encode_to_vec());
    seed("snapshot_file", "cut", &stored.encode_to_vec()[..200]);
    seed("snapshot_file", "port", "21000\n");
    let delta = |lane: v1::Lane, upserts: &[v1::Resource], revision, last| v1::Delta {
        lane: lane.into(),
        to: Some(v1::Position { epoch: 1, revision }),
        complete: revision == 7,
        upserts: upserts.to_vec(),
        deletes: if revision == 7 { Vec::new() } else { vec!["intention/a/b".into()] },
        last,
    };
    let messages = [
        delta(v1::Lane::Authority, &authority[..3], 7, false),
        delta(v1::Lane::Authority, &authority[3..], 7, true),
        delta(v1::Lane::Reachability, &reachability, 7, true),
        delta(v1::Lane::Authority, &[], 8, true),
        delta(v1::Lane::Authority, &[], 6, true),
    ];
    seed("delta", "a-session", with_lengths(messages.iter().map(Message::encode_to_vec)));
    seed("delta", "one", with_lengths([messages[2].encode_to_vec()]));
}

fn texts() {
    let service = postern_ca::SpiffeId::service(&trust_domain(), &datacenter(), &"web".parse().expect("a name"));
    seed("spiffe_id", "service", service.as_str());
    seed("spiffe_id", "control-plane", postern_ca::SpiffeId::control_plane(&trust_domain(), &datacenter()).as_str());
    seed("spiffe_id", "other-namespace", "spiffe://example.com/ns/other/dc/dc1/svc/web");
    seed("spiffe_id", "dots", "spiffe://example.com/./../a");
    // Of zeros and ones: they open nothing.
    let token = EnrolmentToken { pin: [0; 32], secret: [1; 32] };
    seed("token", "enrolment", token.reveal());
    seed("token", "operator", format!("postern-op1.{}", data_encoding::BASE64URL_NOPAD.encode(&[1; 32])));
    seed("token", "cut", &token.reveal()[..40]);
    for (number, text) in
        ["127.0.0.1:80", "[::1]:443", ":8500", "8500", "unix:/run/a.sock", "db.example.com:5432", "web-1", "[::1"]
            .iter()
            .enumerate()
    {
        seed("address", &format!("text-{number}"), text);
    }
}

fn registrations() {
    let registration = v1::Registration {
        instance_id: "web-1".into(),
        advertise: "192.0.2.1:21000".into(),
        protocol: "http".into(),
        ports: vec!["main".into(), "admin".into()],
        meta: vec![v1::Label { key: "team".into(), value: "green".into() }],
        locality: "eu/a".into(),
        transports: vec!["direct".into()],
        node: "host-1".into(),
        metrics: "192.0.2.1:19000".into(),
        healthy: true,
        warnings: vec!["bypass: :8080 listens beyond loopback".into()],
    };
    seed("registration", "whole", registration.encode_to_vec());
    let v6 = v1::Registration { advertise: "[2001:db8::1]:21000".into(), ..registration.clone() };
    seed("registration", "v6", v6.encode_to_vec());
    let unspecified = v1::Registration { advertise: "[::]:21000".into(), ..registration };
    seed("registration", "undialable", unspecified.encode_to_vec());
}

fn http_bodies(intentions: &[Intention]) {
    for (name, body) in [
        ("set", serde_json::json!({"verb": "audit", "expires_in_s": 60, "reason": "a try", "wait_ms": 5000})),
        ("default", serde_json::json!({"policy": "allow", "wait_ms": 0})),
        ("apply", serde_json::json!({"default": "deny", "intentions": intentions, "merge": true, "expected_revision": 3})),
        (
            "decide",
            serde_json::json!({"source": "web", "destination": "api", "method": "GET", "path": "/a", "headers": [["a", "b"]]}),
        ),
        ("token", serde_json::json!({"service": "web", "uses": 3, "ttl_s": 60})),
        ("error", serde_json::json!({"error": "no", "hint": "yes"})),
        ("doubled", serde_json::json!({"verb": "allow", "verbs": "deny"})),
    ] {
        seed("http_body", name, body.to_string());
    }
}

fn audit_logs() {
    let mut last = "0".repeat(64);
    let mut number = 0;
    let mut segment = |header: u64, entries: usize| {
        let mut text = String::new();
        for entry in 0..=entries {
            number += 1;
            let line = if entry == 0 {
                serde_json::json!({"n": number, "segment": header, "at": "2026-01-01T00:00:00Z", "prev": last})
            } else {
                serde_json::json!({"n": number, "id": format!("id-{number}"), "revision": number, "at": "2026-01-01T00:00:00Z",
                    "who": "uid 0", "from": "socket", "what": "intention.set", "details": {"pair": "web -> api"}, "prev": last})
            };
            let line = line.to_string();
            last = HEXLOWER.encode(digest(&SHA256, line.as_bytes()).as_ref());
            text.push_str(&line);
            text.push('\n');
        }
        text
    };
    let (first, second) = (segment(1, 2), segment(2, 1));
    seed("audit_log", "one-segment", &first);
    seed("audit_log", "two-segments", [first.as_str(), "\0", &second].concat());
    seed("audit_log", "unfinished", &first[..first.len() - 20]);
    seed("audit_log", "changed", first.replacen("web", "shop", 1));
}
