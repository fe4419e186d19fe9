//! TLS records of application data by size, sealed and opened in place and by rustls.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use postern_ca::{Expected, SvidVerifier, client_config, server_config};
use postern_proxy::settings::RecordLayerKind;
use postern_proxy::transport::bare::{AFTER, BEFORE, MOST_CONTENT, Record, Records, shake};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use crate::authority::Mesh;

const SIZES: [usize; 3] = [64, 1_024, MOST_CONTENT];
/// Records that are sealed beforehand, so that opening is timed alone: 1 MiB of the longest.
const SEALED: u64 = 64;

/// Configurations that hand out their secrets, as those of the sidecar do.
pub fn configs(mesh: &Mesh) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let verifier = || SvidVerifier::new(mesh.trust.clone(), Expected::AnyService);
    let mut client = (*client_config(mesh.source("web"), verifier(), &[])).clone();
    client.enable_secret_extraction = true;
    let mut server = (*server_config(mesh.source("api"), verifier(), &[])).clone();
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

/// Both ends after their handshake.
pub fn ends((client, server): (Arc<ClientConfig>, Arc<ServerConfig>), kind: RecordLayerKind) -> (Records, Records) {
    let name = ServerName::try_from("api.example.com").expect("a server name");
    let (client, server) = shake(client, server, name).expect("a handshake");
    (Records::of_client(client, kind).expect("a client"), Records::of_server(server, kind).expect("a server"))
}

pub fn bench(criterion: &mut Criterion) {
    let mesh = Mesh::new();
    let mut group = criterion.benchmark_group("records");
    for kind in [RecordLayerKind::InPlace, RecordLayerKind::Rustls] {
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            let (mut from, _) = ends(configs(&mesh), kind);
            let mut record = vec![0; BEFORE + size + AFTER];
            group.bench_function(format!("seal {size} bytes/{kind}"), |bencher| bencher.iter(|| seal(&mut from, &mut record)));
            let (mut from, mut to) = ends(configs(&mesh), kind);
            group.bench_function(format!("open {size} bytes/{kind}"), |bencher| {
                bencher.iter_batched_ref(
                    || sealed(&mut from, size),
                    |(urgent, record)| {
                        if let Some(urgent) = urgent {
                            assert_eq!(to.open(urgent), Ok(Record::Nothing), "a key update");
                        }
                        assert_eq!(to.open(record), Ok(Record::Data(BEFORE..BEFORE + size)));
                    },
                    BatchSize::NumIterations(SEALED),
                );
            });
        }
    }
    group.finish();
}

/// Seals one record, after the key update that is due before it.
fn seal(from: &mut Records, record: &mut [u8]) -> Option<Vec<u8>> {
    let urgent = from.urgent();
    from.seal(record).expect("sealed");
    urgent
}

fn sealed(from: &mut Records, size: usize) -> (Option<Vec<u8>>, Vec<u8>) {
    let mut record = vec![0; BEFORE + size + AFTER];
    (seal(from, &mut record), record)
}
