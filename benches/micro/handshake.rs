//! A whole TLS handshake of the mesh, both ends, in memory: what a connection between two sidecars costs when it is not
//! carried by another.

use std::sync::Arc;

use criterion::Criterion;
use postern_ca::{Expected, SvidVerifier, client_config, server_config};
use postern_proxy::settings::RecordLayerKind;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};

use crate::authority::Mesh;
use crate::records::{configs, ends};

pub fn bench(criterion: &mut Criterion) {
    let mesh = Mesh::new();
    let verifier = |expected| SvidVerifier::new(mesh.trust.clone(), expected);
    let server = server_config(mesh.source("api"), verifier(Expected::AnyService), &[]);
    let api = Expected::Service("api".parse().expect("a service name"));
    let client = client_config(mesh.source("web"), verifier(api), &[]);
    let name = ServerName::try_from("api.example.com").expect("a server name");
    criterion.bench_function("handshake/both ends, known certificates", |bencher| {
        bencher.iter(|| {
            let client = ClientConnection::new(Arc::clone(&client), name.clone()).expect("a client");
            shake(client, ServerConnection::new(Arc::clone(&server)).expect("a server"))
        });
    });
    let configs = configs(&mesh);
    criterion.bench_function("handshake/both ends, to records in place", |bencher| {
        bencher.iter(|| ends(configs.clone(), RecordLayerKind::InPlace));
    });
}

/// Carries bytes until neither end has more to say.
fn shake(mut client: ClientConnection, mut server: ServerConnection) -> (ClientConnection, ServerConnection) {
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory takes all");
        }
        receive(&mut server, &mut wire);
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory takes all");
        }
        receive(&mut client, &mut wire);
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    (client, server)
}

fn receive<Data>(end: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<Data>>, wire: &mut Vec<u8>) {
    let mut input = &wire[..];
    while !input.is_empty() {
        end.read_tls(&mut input).expect("memory gives all");
        end.process_new_packets().expect("both ends agree");
    }
    wire.clear();
}
