//! TLS records that are sealed and opened in place.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_ca::{
    Authority, Expected, PrivateKey, Request, Subject, Svid, SvidSlot, SvidVerifier, Trust, client_config, server_config,
};
use postern_names::{Datacenter, TrustDomain};
use postern_proxy::settings::RecordLayerKind;
use postern_proxy::transport::bare::{AFTER, BEFORE, Record, Records, shake};
use rustls::pki_types::ServerName;

/// Both ends of a connection of the mesh, after their handshake.
fn ends() -> (Records, Records) {
    let trust_domain: TrustDomain = "example.com".parse().expect("a trust domain");
    let datacenter: Datacenter = "dc1".parse().expect("a datacenter");
    let now = SystemTime::now();
    let authority = Authority::create(&trust_domain, &datacenter, now).expect("an authority");
    let key = PrivateKey::generate().expect("a key");
    let id = Subject::Service("web".parse().expect("a service name"));
    let request = Request { csr_der: &key.csr_der(), id, ports: &[], ttl: Duration::from_secs(3_600), now };
    let svid = Svid::new(authority.issue(request).expect("a certificate").chain, key).expect("an SVID");
    let source = Arc::new(SvidSlot::new(Arc::new(svid)));
    let trust = Trust { bundle: authority.bundle(), datacenter, revoked: HashSet::new() };
    let verifier = SvidVerifier::new(Arc::new(Arc::new(trust).into()), Expected::AnyService);
    let mut client = (*client_config(source.clone(), verifier.clone(), &[])).clone();
    client.enable_secret_extraction = true;
    let mut server = (*server_config(source, verifier, &[])).clone();
    server.enable_secret_extraction = true;
    let name = ServerName::try_from("web.example.com").expect("a server name");
    let (client, server) = shake(Arc::new(client), Arc::new(server), name).expect("a handshake");
    let kind = RecordLayerKind::InPlace;
    (Records::of_client(client, kind).expect("a client"), Records::of_server(server, kind).expect("a server"))
}

/// A record is sealed.
pub fn seal(size: usize, times: u32) {
    let (mut from, _) = ends();
    let mut record = vec![0; BEFORE + size + AFTER];
    for _ in 0..times {
        black_box(from.urgent());
        from.seal(black_box(&mut record)).expect("sealed");
    }
}

/// A record is opened. As many are sealed, whatever the number is.
pub fn open(size: usize, times: u32, most: u32) {
    let (mut from, mut to) = ends();
    let mut records = vec![vec![0; BEFORE + size + AFTER]; most as usize];
    records.iter_mut().for_each(|record| from.seal(record).expect("sealed"));
    for record in &mut records[..times as usize] {
        assert_eq!(to.open(black_box(record)), Ok(Record::Data(BEFORE..BEFORE + size)));
    }
}
