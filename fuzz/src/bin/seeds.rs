//! Writes the first files of `corpus/`, and `root.der`, which their certificates lead to. Keys are made for the moment
//! and forgotten, so running it again replaces both.
//!
//! `cargo run --bin seeds` in this folder.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use postern_api::{convert, v1};
use postern_ca::{Authority, CertificateDer, EnrolmentToken, PrivateKey, Request, Serial, Subject, Svid, TrustBundle};
use postern_fuzz::proof::{CHALLENGE, CLIENT_LEAF, SERVER_LEAF};
use postern_fuzz::{NOW, datacenter, jwt, trust_domain};
use postern_intentions::{DefaultPolicy, Intention, file};
use postern_proxy::state::{StoredLane, StoredSnapshot};
use postern_proxy::transport::bare::{Bound, End, prove};
use prost::Message;
use serde_json::json;
use smuggling::Verdict;

#[path = "../../../proxy/tests/smuggling/mod.rs"]
mod smuggling;

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
    proofs(&authority, now);
    intention_texts(&intentions);
    resources(&authority.bundle(), &intentions);
    texts();
    paths();
    registrations();
    http_bodies(&intentions);
    audit_logs();
    client_hellos();
    tunnels();
    records();
    framings();
    http2_frames();
    signed_tokens();
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

fn proofs(authority: &Authority, now: SystemTime) {
    let key = PrivateKey::generate().expect("a key");
    let id = Subject::Service("web".parse().expect("a name"));
    let request = Request { csr_der: &key.csr_der(), id, ports: &[], ttl: Duration::from_secs(3_600), now };
    let svid = Svid::new(authority.issue(request).expect("an SVID").chain, key).expect("an SVID");
    let (client_leaf, server_leaf) = (CertificateDer::from(CLIENT_LEAF), CertificateDer::from(SERVER_LEAF));
    let bound = Bound { signer: End::Dialler, challenge: &CHALLENGE, client_leaf: &client_leaf, server_leaf: &server_leaf };
    let renewed = prove(&svid, &bound).expect("a proof");
    seed("proof", "renewed", &renewed);
    seed("proof", "cut", &renewed[..renewed.len() - 1]);
    seed("proof", "bytes-after-the-end", [&renewed[..], &[0]].concat());
    seed("proof", "other-role", prove(&svid, &Bound { signer: End::Acceptor, ..bound }).expect("a proof"));
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
        watch: 0,
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

fn paths() {
    // The first byte: 0 GET, 1 OPTIONS, 2 CONNECT; 4 keeps %2F, 8 keeps //.
    for (name, flags, target) in [
        ("plain", 0, "/v1/invoices?page=2"),
        ("dots-and-slashes", 0, "//a/./b/%2e%2E//../c/."),
        ("parameters", 0, "/p/q/..;x/../;y/admin;a=b"),
        ("escapes", 0, "/%61%2d/%c3%a4/\u{e4}/%3a%3B%25"),
        ("refused", 0, "/a%2Fb%5c%00"),
        ("climbs", 0, "/a/..;/.."),
        ("kept", 12, "/api//queues/%2f/..%2F..%2Fx;y%2F.."),
        ("absolute", 0, "HTTP://api.example?q#f"),
        ("star", 1, "*"),
        ("connect", 2, "api.example:443"),
    ] {
        seed("path", name, [&[flags], target.as_bytes()].concat());
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
        tags: vec!["canary".into()],
        weights: Some(v1::Weights { passing: 10, warning: 1 }),
        checks: vec![v1::Check {
            id: "http".into(),
            name: "health".into(),
            kind: "http".into(),
            status: "passing".into(),
            ..v1::Check::default()
        }],
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

/// A ClientHello of this length in records of at most `record` bytes.
fn hello(length: usize, record: usize) -> Vec<u8> {
    let mut message = vec![1, (length >> 16) as u8, (length >> 8) as u8, length as u8];
    message.resize(4 + length, 0xaa);
    let records = message.chunks(record).map(|part| {
        let header = [22, 3, 1, (part.len() >> 8) as u8, part.len() as u8];
        [&header, part].concat()
    });
    records.collect::<Vec<_>>().concat()
}

fn client_hellos() {
    let client = rustls::ClientConfig::builder_with_provider(postern_ca::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a suite of TLS 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("web.example.com").expect("a name");
    let mut real = Vec::new();
    let mut client = rustls::ClientConnection::new(client.into(), name).expect("a client");
    client.write_tls(&mut real).expect("written");
    seed("client_hello", "real", &real);
    seed("client_hello", "real-cut", &real[..real.len() / 2]);
    seed("client_hello", "in-two-records", hello(300, 200));
    seed("client_hello", "a-byte-a-record", hello(20, 1));
    seed("client_hello", "too-long", &hello(20_000, 16_000)[..100]);
    seed("client_hello", "plain-http", "GET / HTTP/1.1\r\n\r\n");
    seed("client_hello", "an-alert-cut", [21, 3, 3, 0, 2]);
    seed("client_hello", "a-server-hello-cut", [22, 3, 3, 0, 9, 2, 0]);
    seed("client_hello", "an-empty-record", [22, 3, 1, 0, 0]);
}

/// A frame of a tunnel.
fn frame(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &stream.to_be_bytes(), &[kind], payload].concat()
}

/// The acts of `tunnel_frames` in which these bytes come.
fn comes(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(0x5f).flat_map(|piece| [&[u8::try_from(piece.len()).expect("a short piece")], piece].concat()).collect()
}

fn tunnels() {
    let open = |stream| frame(stream, 0, b"\0\x01\0\0\x04main\x0700-aa-b");
    let (data, fin, reset) =
        (|stream| frame(stream, 1, b"some data"), |stream| frame(stream, 2, b""), |stream| frame(stream, 3, &[8]));
    let credit = |stream, increment: u32| frame(stream, 4, &increment.to_be_bytes());
    let (ask, challenge) = (frame(0, 5, b"\0question"), frame(0, 6, &[3; 32]));
    // The acts by number: 0x80 take control, 0x81 accept, 0x82 refuse, 0x83 finish, 0x84 reset, 0x85 consume, 0x86 send, 0x87 open.
    let accepted = [
        &[6][..],
        &comes(&open(1)),
        &[0x81, 1, 0x80],
        &comes(&[data(1), ask.clone(), fin(1)].concat()),
        &[0x85, 1, 1, 0x86, 1, 9, 0x83, 1, 0x80],
    ];
    seed("tunnel_frames", "accepted-stream", accepted.concat());
    let many: Vec<u8> = (1..=12).flat_map(|stream| [open(stream), data(stream)].concat()).collect();
    seed("tunnel_frames", "more-streams-than-may-be", [&[0][..], &comes(&many), &[0x82, 1, 0x81, 2, 0x80, 0x84, 3]].concat());
    let dialled = [
        &[9, 0x87, 0x87, 0x80, 0x86, 1, 255][..],
        &comes(&[credit(1, 65_536), data(1), reset(2), credit(1, 1), fin(1)].concat()),
        &[0x85, 1, 1, 0x83, 1, 0x80],
    ];
    seed("tunnel_frames", "dialled-streams", dialled.concat());
    let bulk = [&[14][..], &comes(&open(1)), &[0x81, 1, 0x80], &comes(&[0, 0x80, 0, 0, 0, 0, 1, 1]), &[0x7f, 0x85, 1, 255, 0x80]];
    seed("tunnel_frames", "bulk", bulk.concat());
    let proof = [&[8, 0x8a, 0x80][..], &comes(&challenge), &[0x8b, 40, 0x80], &comes(&[0, 4, 0, 0, 0, 0, 0, 7]), &[0x60]];
    seed("tunnel_frames", "challenge-and-proof", proof.concat());
    let crossing =
        [&[2][..], &comes(&open(1)), &[0x84, 1, 0x88, 0x80], &comes(&[data(1), fin(1), data(1)].concat()), &[0x89, 0x8d]];
    seed("tunnel_frames", "frames-that-cross-a-reset", crossing.concat());
    seed("tunnel_frames", "unknown-kinds", [&[4][..], &comes(&[frame(9, 200, b"skipped"), frame(1, 9, b"")].concat())].concat());
}

fn records() {
    let ticket = [&[4, 0, 0, 30][..], &[0, 0, 0, 60, 1, 2, 3, 4, 1, 9, 0, 16], &[5; 16], &[0, 0]].concat();
    // The acts by number: 0 data, 3 data with padding, 4 key update, 6 messages, 8 alert, 9 inner, 10 raw, 11 tampered, 14 answer.
    let conversations: [(&str, &[&[u8]]); 8] = [
        ("data-and-answers", &[&[0, 0, 5], b"hello", &[14, 0, 99, 3, 63, 255, 1, 0, 14, 63, 255, 15]]),
        ("key-updates-whole-and-split", &[&[1, 4, 1, 0, 14, 0, 1, 5, 1, 2, 5, 0, 3, 0, 1], b"x", &[14, 0, 1]]),
        ("a-ticket", &[&[2, 6, 34], &ticket, &[0, 1], b"x"]),
        ("close-notify", &[&[0, 0, 1], b"x", &[8, 1, 0, 0, 1], b"y"]),
        ("padding-alone", &[&[1, 9, 4, 0, 0, 0, 0]]),
        ("tampered", &[&[2, 11, 0, 20, 3]]),
        ("unprotected-alert", &[&[0, 10, 7, 21, 3, 3, 0, 2, 2, 40]]),
        ("empty-records", &[&[0], &[0, 0].repeat(31), &[0, 1], b"x", &[0, 0].repeat(33)]),
    ];
    for (name, parts) in conversations {
        for target in ["record", "record_conversation"] {
            seed(target, name, parts.concat());
        }
    }
}

/// One case of the corpus for each verdict, and every case that passes.
fn framings() {
    let mut seen = std::collections::HashSet::new();
    for (name, bytes, verdict) in smuggling::CASES {
        if !matches!(verdict, Verdict::Refused(word, _) if !seen.insert(*word)) {
            seed("http1_framing", &name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-"), [&[7], *bytes].concat());
        }
    }
}

/// A preface, then frames by kind, flags and length.
fn http2_frames() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame =
        |kind: u8, flags: u8, length: u8| [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], &vec![b'x'; length.into()]].concat();
    let request = [frame(4, 0, 6), frame(1, 4, 9), frame(0, 0, 5), frame(8, 0, 4), frame(0, 1, 0)].concat();
    for (name, size, frames) in [
        ("a-request", 255, request.clone()),
        ("a-request-byte-by-byte", 1, request),
        ("empty-data", 7, frame(0, 0, 0).repeat(12)),
        ("padding-alone", 64, frame(0, 8, 200).repeat(12)),
        ("pings", 5, frame(6, 0, 8).repeat(12)),
        ("pings-between-data", 9, [frame(6, 0, 8), frame(0, 0, 3)].concat().repeat(20)),
        ("a-head-cut", 3, vec![0, 0, 4, 6]),
    ] {
        seed("http2_frames", name, [&[size, PREFACE.len() as u8][..], PREFACE, &frames].concat());
    }
}

fn signed_tokens() {
    let key = Ed25519KeyPair::generate().expect("a key");
    let base64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let point = base64(key.public_key().as_ref());
    let jwks =
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "a", "use": "sig"}, {"kty": "oct", "k": "AA"}]});
    let until = NOW.as_secs() + 600;
    let claims = json!({"iss": jwt::ISSUER, "aud": [jwt::AUDIENCE], "exp": until, "nbf": 1, "iat": 1.5, "x": {"y": [null]}});
    for (name, header) in
        [("good", r#"{"alg":"EdDSA","kid":"a"}"#), ("none", r#"{"alg":"none"}"#), ("twice", r#"{"alg":"none","alg":"EdDSA"}"#)]
    {
        let message = format!("{}.{}", base64(header.as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = base64(key.sign(message.as_bytes()).as_ref());
        seed("jwt", name, format!("{message}.{signature}\n{jwks}"));
    }
    let rsa = json!({"keys": [{"kty": "RSA", "n": base64(&[0xff; 256]), "e": "AQAB", "alg": "PS256"}]});
    seed("jwt", "rsa", format!("eyJhbGciOiJQUzI1NiJ9.e30.AA\n{rsa}"));
}
