//! One function for each parser of outside bytes. None may panic, hang or grow without bound, whatever it is given, and
//! what it reads must survive being written and read again.
//!
//! The fuzz targets call these; `tests/corpora.rs` of the root package includes this file and calls them with every
//! file of `corpus/`, so that each `cargo test` replays what fuzzing has found.

mod access;
mod consul;
mod dns;
mod frames;
mod framing;
mod hello;
pub mod jwt;
mod path;
pub mod proof;
mod records;
mod script;
mod settings;
mod snapshot;
mod tunnel;

use std::collections::HashSet;
use std::fmt::{Debug, Display};
use std::fs;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use postern_api::configuration::ConfigurationKey;
use postern_api::convert::{self, decode_exact};
use postern_api::key::ResourceKey;
use postern_api::{http, v1};
use postern_ca::{
    Authority, CertificateDer, EnrolmentToken, Expected, OperatorToken, Peer, Request, Serial, SpiffeId, Subject, SvidVerifier,
    Trust, TrustBundle, public_key_hash_of_csr,
};
use postern_control::audit::verify_chain;
use postern_control::registry::Registration;
use postern_intentions::{Call, DefaultPolicy, Protocol, decide, explain, file};
use postern_names::{Address, Datacenter, InstanceId, PortName, ServiceName, TrustDomain};
use postern_proxy::control_client::Resources;
use postern_proxy::state::StateDir;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub use access::access_policy;
pub use consul::{consul_request, stored_key};
pub use dns::dns_message;
pub use frames::http2_frames;
pub use framing::http1_framing;
pub use hello::client_hello;
pub use jwt::jwt;
pub use path::path;
pub use proof::{judge_proof, proof};
pub use records::{record, record_conversation};
pub use settings::{settings_file, settings_wire};
pub use snapshot::control_snapshot;
pub use tunnel::tunnel_frames;

/// What is given some bytes and must stand them.
pub type Parser = fn(&[u8]);

/// Each parser, by the name of its fuzz target and of its folder in `corpus/`.
pub const PARSERS: &[(&str, Parser)] = &[
    ("intentions_file", intentions_file),
    ("consul_request", consul_request),
    ("stored_key", stored_key),
    ("intention_wire", intention_wire),
    ("settings_file", settings_file),
    ("settings_wire", settings_wire),
    ("resource_key", resource_key),
    ("spiffe_id", spiffe_id),
    ("certificate_chain", certificate_chain),
    ("csr", csr),
    ("token", token),
    ("address", address),
    ("snapshot_file", snapshot_file),
    ("delta", delta),
    ("registration", registration),
    ("http_body", http_body),
    ("audit_log", audit_log),
    ("tunnel_frames", tunnel_frames),
    ("client_hello", client_hello),
    ("proof", proof),
    ("record", record),
    ("record_conversation", record_conversation),
    ("path", path),
    ("http1_framing", http1_framing),
    ("http2_frames", http2_frames),
    ("jwt", jwt),
    ("dns_message", dns_message),
    ("access_policy", access_policy),
    ("control_snapshot", control_snapshot),
];

/// The moment at which the certificates of the corpus are judged: 2026-01-01T00:30:00Z.
pub const NOW: Duration = Duration::from_secs(1_767_227_400);

/// The root that the certificates of the corpus lead to. Its key was thrown away when they were made.
const ROOT: &[u8] = include_bytes!("../root.der");

/// The trust domain of everything in the corpus.
pub fn trust_domain() -> TrustDomain {
    name("example.com")
}

/// The datacenter of everything in the corpus.
pub fn datacenter() -> Datacenter {
    name("dc1")
}

fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a name of our own")
}

/// An intentions file, YAML and JSON: `meshctl intention apply`.
pub fn intentions_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for file_name in ["intentions.yaml", "intentions.json"] {
        match file::parse(text, file_name) {
            Ok(read) => {
                let again = file::parse(&file::render(&read), "rendered.yaml").expect("what we write, we read");
                let wanted: HashSet<String> = read.intentions.iter().map(|one| format!("{one:?}")).collect();
                let got: HashSet<String> = again.intentions.iter().map(|one| format!("{one:?}")).collect();
                assert_eq!((read.default, wanted), (again.default, got));
            }
            Err(errors) => {
                assert!(!errors.is_empty(), "a refusal says why");
                assert!(errors.iter().all(|error| error.line > 0 && error.column > 0), "and where: {errors:?}");
            }
        }
    }
}

/// An intention as it is pushed to a sidecar.
pub fn intention_wire(data: &[u8]) {
    if let Ok(intention) = convert::intention_from_bytes(data) {
        intention.validate().expect("what was understood is valid");
        let written = convert::intention_to_body(&intention).encode_to_vec();
        assert_eq!(convert::intention_from_bytes(&written).as_ref(), Ok(&intention));
        let _ = (intention.summary(), intention.opens(), intention.pair());
    }
    let _ = convert::default_from_bytes(data);
    if let Ok(bundle) = decode_exact::<v1::Bundle>(data) {
        let _ = convert::bundle_from_wire(&bundle);
    }
}

/// The key of a pushed resource.
pub fn resource_key(data: &[u8]) {
    text_survives::<ResourceKey>(data);
    text_survives::<ConfigurationKey>(data);
    text_survives::<Serial>(data);
}

/// A SPIFFE ID, as a certificate carries it.
pub fn spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(id) = text.parse::<SpiffeId>() else { return };
    assert_eq!(id.as_str(), text, "an ID is taken as it is or not at all");
    assert!(text.starts_with(&format!("spiffe://{}", id.trust_domain())) && text.ends_with(id.path()));
    if let Ok(service) = id.service_in(&trust_domain(), &datacenter()) {
        assert_eq!(SpiffeId::service(&trust_domain(), &datacenter(), &service), id, "one ID names one service");
    }
}

/// The certificates that a peer shows: each with its length before it, two bytes, as in TLS.
pub fn certificate_chain(data: &[u8]) {
    static TRUST: LazyLock<Trust> = LazyLock::new(|| {
        let bundle = TrustBundle::new(trust_domain(), vec![CertificateDer::from(ROOT)], 1);
        Trust { bundle, datacenter: datacenter(), revoked: HashSet::new() }
    });
    let chain = certificates(data);
    let now = SystemTime::UNIX_EPOCH + NOW;
    let _ = Peer::of(&chain, &TRUST);
    let Some((leaf, intermediates)) = chain.split_first() else { return };
    for expected in [Expected::AnyService, Expected::ControlPlane] {
        let verifier = SvidVerifier::new(Arc::new(Arc::new(TRUST.clone()).into()), expected);
        match verifier.verify(leaf, intermediates, now) {
            // Nobody has the root's key: only what was issued to these two can be accepted.
            Ok(peer) => {
                assert!(peer.service.as_ref().is_none_or(|service| service.as_str() == "web"), "{} was never issued", peer.id)
            }
            Err(refusal) => assert!(!refusal.word().is_empty() && !refusal.to_string().is_empty()),
        }
    }
}

fn certificates(mut data: &[u8]) -> Vec<CertificateDer<'_>> {
    let mut chain = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (der, rest) = rest.split_at(length);
        chain.push(CertificateDer::from(der));
        data = rest;
    }
    chain
}

/// A certificate request, as an enrolment carries it.
pub fn csr(data: &[u8]) {
    static NOW: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);
    static AUTHORITY: LazyLock<Authority> =
        LazyLock::new(|| Authority::create(&trust_domain(), &datacenter(), *NOW).expect("an authority"));
    let service: ServiceName = name("web");
    let request =
        Request { csr_der: data, id: Subject::Service(service.clone()), ports: &[], ttl: Duration::from_secs(3_600), now: *NOW };
    let hash = public_key_hash_of_csr(data);
    match AUTHORITY.issue(request) {
        Err(error) => {
            assert!(hash.is_err(), "both judge the request alike");
            assert!(!error.to_string().is_empty());
        }
        Ok(issued) => {
            assert_eq!(hash.ok(), Some(issued.public_key_hash));
            let trust = Trust { bundle: AUTHORITY.bundle(), datacenter: datacenter(), revoked: HashSet::new() };
            let verifier = SvidVerifier::new(Arc::new(Arc::new(trust).into()), Expected::Service(service));
            verifier.verify(&issued.chain[0], &issued.chain[1..], *NOW).expect("what is issued is an SVID of `web`");
        }
    }
}

/// A token, of an enrolment or of an operator.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<EnrolmentToken>() {
        Ok(token) => assert_eq!(token.reveal().parse::<EnrolmentToken>().as_ref(), Ok(&token)),
        Err(error) => {
            let token = text.trim();
            // What has a `<` is no token, and may be the message itself.
            let is_like_a_token = token.len() >= 32 && !token.contains('<') && token.starts_with("postern");
            assert!(!is_like_a_token || !error.to_string().contains(token), "an error shows no token");
        }
    }
    if let Ok(token) = text.parse::<OperatorToken>() {
        assert_eq!(token.reveal().parse::<OperatorToken>().as_ref(), Ok(&token));
    }
}

/// An address, and every kind of name.
pub fn address(data: &[u8]) {
    text_survives::<Address>(data);
    text_survives::<ServiceName>(data);
    text_survives::<PortName>(data);
    text_survives::<InstanceId>(data);
    text_survives::<Datacenter>(data);
    text_survives::<TrustDomain>(data);
}

/// What parses is written in a form that parses to the same.
fn text_survives<T: FromStr<Err: Display> + Display + PartialEq + Debug>(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<T>() {
        Ok(value) => {
            let again = value.to_string().parse::<T>();
            assert!(again.as_ref().is_ok_and(|again| *again == value), "{text:?} is written as {value}");
        }
        Err(error) => assert!(error.to_string().len() < 4_000, "an error shows a part of its input at most"),
    }
}

/// The files of a sidecar's state directory.
pub fn snapshot_file(data: &[u8]) {
    static DIRECTORY: LazyLock<(TempDir, StateDir)> = LazyLock::new(|| {
        let directory = TempDir::new().expect("a directory");
        let state = StateDir::open(directory.path(), &name("web-1")).expect("a state directory");
        (directory, state)
    });
    let state = &DIRECTORY.1;
    for file in ["snapshot", "svid", "next-key", "port"] {
        fs::write(state.path().join(file), data).expect("written");
    }
    let _ = (state.enrolment(), state.next_key(), state.port());
    let Ok(Some(stored)) = state.snapshot() else { return };
    let resources = Resources::from_stored(stored.clone());
    let kept = resources.to_stored(stored.server_time_ms);
    let again = Resources::from_stored(kept.clone()).to_stored(stored.server_time_ms);
    assert_eq!(kept, again, "a second restart reads what the first one did");
    judge(&resources);
}

/// Messages of the control plane, each with its length before it, two bytes.
pub fn delta(mut data: &[u8]) {
    let mut resources = Resources::new("cluster");
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let (message, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        data = rest;
        let before = resources.positions();
        let Ok(delta) = v1::Delta::decode(message) else { continue };
        match resources.apply(delta) {
            Ok(_) => {
                let after = resources.positions();
                assert!(after.authority >= before.authority && after.reachability >= before.reachability, "never back");
            }
            Err(_) => assert_eq!(resources.positions(), before, "a refused message changes nothing"),
        }
    }
    judge(&resources);
}

/// Everything that a sidecar makes of its resources.
fn judge(resources: &Resources) {
    let rules = resources.rules();
    let (source, destination): (ServiceName, ServiceName) = (name("web"), name("api"));
    let port = PortName::main();
    for protocol in [Protocol::Tcp, Protocol::Http] {
        let call = Call { source: &source, destination: &destination, port: &port, protocol, request: None };
        let decision = decide(&rules, &call, SystemTime::UNIX_EPOCH + NOW);
        let _ = (decision.because.label(), explain(&rules, &call, SystemTime::UNIX_EPOCH + NOW));
        let nothing_allows = rules.is_empty() && rules.default_policy() == DefaultPolicy::Deny;
        assert!(!(nothing_allows && decision.allowed()));
    }
    let bundle = TrustBundle::new(trust_domain(), Vec::new(), 1);
    let _ = resources.trust(&Trust { bundle, datacenter: datacenter(), revoked: HashSet::new() });
    let before = resources.upstreams(&Default::default());
    assert!(resources.upstreams(&before) == before, "what did not change stays");
    let _ = (resources.own_settings(&destination, None), resources.jwt(None));
}

/// What a sidecar says of itself, with the messages around it.
pub fn registration(data: &[u8]) {
    if let Ok(wire) = v1::Registration::decode(data)
        && let Err(error) = Registration::from_wire(&wire)
    {
        assert!(error.to_string().len() < 4_000, "an error shows a part of its input at most");
    }
    let _ = v1::SidecarMessage::decode(data);
    let _ = v1::ControlMessage::decode(data);
}

/// A body of the HTTP API: what the control plane takes, and what the command line reads.
pub fn http_body(data: &[u8]) {
    json_survives::<http::SetRequest>(data);
    json_survives::<http::DefaultRequest>(data);
    json_survives::<http::ApplyRequest>(data);
    json_survives::<http::DecideRequest>(data);
    json_survives::<http::CreateTokenRequest>(data);
    json_survives::<http::MeshInfo>(data);
    json_survives::<http::Intentions>(data);
    json_survives::<http::Written>(data);
    json_survives::<http::Decided>(data);
    json_survives::<http::ApplyServiceConfigRequest>(data);
    json_survives::<http::ServiceConfig>(data);
    json_survives::<http::ErrorBody>(data);
}

/// What is read is written in a form that is read as the same.
fn json_survives<T: DeserializeOwned + Serialize>(data: &[u8]) {
    let Ok(body) = serde_json::from_slice::<T>(data) else { return };
    let written = serde_json::to_value(&body).expect("what was read can be written");
    let again: T = serde_json::from_value(written.clone()).expect("what was written can be read");
    assert_eq!(serde_json::to_value(&again).expect("written again"), written);
}

/// The audit log: the segments of a directory, with a zero byte between them.
pub fn audit_log(data: &[u8]) {
    static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a directory"));
    let segments: Vec<&[u8]> = data.split(|byte| *byte == 0).take(4).collect();
    for number in 1..=4 {
        let path = DIRECTORY.path().join(format!("audit-{number:08}.jsonl"));
        match segments.get(number - 1) {
            Some(segment) => fs::write(path, segment).expect("written"),
            None => {
                let _ = fs::remove_file(path);
            }
        }
    }
    match verify_chain(DIRECTORY.path()) {
        Ok(report) => assert_eq!(report.segments, segments.len() as u64),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
