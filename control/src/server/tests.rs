//! A whole control plane, which is told by hand what sidecars see, and asked by HTTP.

mod seen;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use postern_api::v1;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::*;
use crate::edges::{Allowance, Teller};

struct Rig {
    control: Control,
    directory: TempDir,
}

impl Rig {
    async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap()).await
    }

    async fn start_in(directory: TempDir) -> Self {
        let settings = Settings {
            data_dir: directory.path().join("data"),
            http: Address::loopback(0),
            grpc: Address::loopback(0),
            seal_key_file: Some(directory.path().join("seal.key")),
            dns: DnsListen::Off,
            ..Settings::default()
        };
        let data_dir = DataDir::open(&settings.data_dir).unwrap();
        let control = Control::start(&settings, &data_dir, None).await.unwrap();
        Self { control, directory }
    }

    async fn stop(self) -> TempDir {
        self.control.stop(Duration::from_secs(1)).await;
        self.directory
    }

    /// What a sidecar of `service` tells.
    fn tell(&self, service: &str, seen: v1::Seen) {
        let teller = Teller { stream: 1, service: service.parse().unwrap(), instance: format!("{service}-1").parse().unwrap() };
        let mut allowance = Allowance::full(tokio::time::Instant::now());
        self.control.mesh.traffic().take(&teller, &mut allowance, seen, SystemTime::now());
    }

    fn operator(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("data/operator.token")).unwrap().trim().to_owned()
    }

    async fn ask(&self, path: &str, secret: &str) -> hyper::Response<Incoming> {
        let stream = TcpStream::connect(&self.control.addresses.http).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get(path).header("host", "localhost").header("authorization", format!("Bearer {secret}"));
        sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
    }

    /// The answer to the operator.
    async fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let stream = TcpStream::connect(&self.control.addresses.http).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let bearer = format!("Bearer {}", self.operator());
        let request = hyper::Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("authorization", bearer).header("content-type", "application/json");
        let request = request.body(http_body_util::Full::new(Bytes::from(body.to_string()))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{path}: {status} {answer:?}");
        serde_json::from_slice(&answer).unwrap()
    }

    async fn get_as(&self, path: &str, secret: &str) -> Value {
        let response = self.ask(path, secret).await;
        assert_eq!(response.status(), 200, "{path}");
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        self.get_as(path, &self.operator()).await
    }
}
