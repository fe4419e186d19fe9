//! A control plane that runs in this process, on ports of its own, and a client of its HTTP API.
#![allow(dead_code, reason = "each test file uses another part of it")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use postern_control::settings::{Address, DnsListen};
use postern_control::{Addresses, ControlError, Settings, run};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct Control {
    pub directory: TempDir,
    pub addresses: Addresses,
    pub stop: oneshot::Sender<()>,
    pub task: JoinHandle<Result<(), ControlError>>,
}

pub struct Answer {
    pub status: StatusCode,
    pub server: String,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text);
        self.json()
    }

    #[track_caller]
    pub fn refused(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

pub fn settings(directory: &Path) -> Settings {
    Settings {
        data_dir: directory.join("data"),
        http: Address::loopback(0),
        grpc: Address::loopback(0),
        seal_key_file: Some(directory.join("seal.key")),
        dns: DnsListen::Off,
        drain: Duration::from_secs(1),
        ..Settings::default()
    }
}

impl Control {
    pub async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let settings = settings(directory.path());
        Self::start_in(directory, settings).await
    }

    pub async fn start_in(directory: TempDir, settings: Settings) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, ready) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(run(settings, shutdown, move |addresses| tell.send(addresses.clone()).unwrap()));
        let addresses = match ready.await {
            Ok(addresses) => addresses,
            Err(_) => panic!("it did not start: {:?}", task.await),
        };
        Self { directory, addresses, stop, task }
    }

    pub async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        self.directory
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("data/operator.token")).unwrap().trim().to_owned()
    }

    pub async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let stream = TcpStream::connect(&self.addresses.http).await.unwrap();
        send(stream, method, path, headers, body).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {}", self.token());
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, path, &[("host", &self.addresses.http), ("authorization", &bearer)], &body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, body).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Value::Null).await
    }
}

pub async fn send<S>(stream: S, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let server = response.headers().get("server").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    driver.abort();
    Answer { status, server, headers, text: String::from_utf8_lossy(&body).into_owned() }
}
