//! The HTTP API beyond loopback, by a certificate that the mesh's own authority issues.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postern_control::settings::Address;
use postern_control::{Settings, run};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

/// What the API answers over the UNIX socket.
async fn over_the_socket(directory: &TempDir, path: &str) -> String {
    let mut stream = UnixStream::connect(directory.path().join("data/http.sock")).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn shake_hands(to: SocketAddr, name: &str, roots: rustls::RootCertStore) -> std::io::Result<Vec<CertificateDer<'static>>> {
    let config = rustls::ClientConfig::builder_with_provider(postern_ca::crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, to.port())).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap().iter().map(|der| der.clone().into_owned()).collect())
}

#[tokio::test]
async fn beyond_loopback_the_api_shows_a_certificate_of_the_mesh() {
    let directory = TempDir::new().unwrap();
    let settings = Settings {
        data_dir: directory.path().join("data"),
        http: Address::Tcp { host: "0.0.0.0".into(), port: 0 },
        grpc: Address::loopback(0),
        seal_key_file: Some(directory.path().join("seal.key")),
        drain: Duration::from_secs(1),
        ..Settings::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, ready) = oneshot::channel();
    let shutdown = async { drop(stopped.await) };
    let task = tokio::spawn(run(settings, shutdown, move |addresses| tell.send(addresses.http.parse().unwrap()).unwrap()));
    let http: SocketAddr = ready.await.unwrap();
    let bundle = over_the_socket(&directory, "/v1/authority/bundle").await;
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }

    for name in ["127.0.0.1", "localhost", "::1"] {
        let result = shake_hands(http, name, roots.clone()).await;
        // The port is IPv4 here: its certificate names nothing else.
        assert_eq!(result.is_ok(), name != "::1", "{name}: {result:?}");
    }
    assert!(shake_hands(http, "web.example.com", roots).await.is_err());
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
}
