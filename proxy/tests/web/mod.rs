//! HTTP services and callers around the data planes of a mesh.
#![allow(dead_code)] // each test program uses a part of it

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub type Body = BoxBody<Bytes, Infallible>;

/// What a service has seen of a request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

/// An HTTP service that remembers its requests. It speaks HTTP/1 and HTTP/2.
pub struct Web {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    /// What the next requests are answered with, before `200 OK` again.
    pub answers: Arc<Mutex<VecDeque<StatusCode>>>,
    /// What `GET /stream` sends, for as long as the sender lives.
    pub stream: Arc<Mutex<Option<mpsc::Sender<Bytes>>>>,
}

impl Web {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let web =
            Self { address, seen: Arc::default(), connections: Arc::default(), answers: Arc::default(), stream: Arc::default() };
        let (seen, connections, answers, stream) =
            (web.seen.clone(), web.connections.clone(), web.answers.clone(), web.stream.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (seen, answers, stream) = (seen.clone(), answers.clone(), stream.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, seen.clone(), answers.clone(), stream.clone()));
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(socket), service).await;
                });
            }
        });
        web
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().len()
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().last().expect("a request").clone()
    }

    /// The sender of a stream that has begun.
    pub fn sender(&self) -> Option<mpsc::Sender<Bytes>> {
        self.stream.lock().clone()
    }
}

async fn answer(
    mut request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<VecDeque<StatusCode>>>,
    stream: Arc<Mutex<Option<mpsc::Sender<Bytes>>>>,
) -> Result<Response<Body>, Infallible> {
    if request.headers().contains_key(http::header::UPGRADE) {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgraded.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let mut answer = Response::new(body(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert(http::header::CONNECTION, "upgrade".parse().expect("value"));
        answer.headers_mut().insert(http::header::UPGRADE, "echo".parse().expect("value"));
        return Ok(answer);
    }
    let (head, sent) = request.into_parts();
    let target = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let is_stream = head.uri.path() == "/stream";
    let is_slow = head.uri.path() == "/slow";
    let Ok(sent) = sent.collect().await else { return Ok(Response::new(body(Bytes::new()))) };
    let sent = sent.to_bytes();
    seen.lock().push(Seen { method: head.method.to_string(), target, headers: head.headers, body: sent.clone() });
    if is_slow {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    if is_stream {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(16);
        *stream.lock() = Some(sender);
        let frames = futures_util::stream::poll_fn(move |cx| {
            receiver.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))
        });
        return Ok(Response::new(BoxBody::new(StreamBody::new(frames))));
    }
    let mut answer = Response::new(body(if sent.is_empty() { Bytes::from_static(b"hello") } else { sent }));
    answer.headers_mut().insert("x-postern-spoof", "by the service".parse().expect("value"));
    if let Some(status) = answers.lock().pop_front() {
        *answer.status_mut() = status;
    }
    Ok(answer)
}

pub fn body(bytes: Bytes) -> Body {
    BoxBody::new(Full::new(bytes))
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "api").body(body(Bytes::new())).expect("request")
}

pub fn post(path: &str, sent: &'static str) -> Request<Body> {
    Request::post(path).header("host", "api").body(body(Bytes::from_static(sent.as_bytes()))).expect("request")
}

/// A connection of a caller.
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub async fn http1(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("connect");
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("handshake");
        tokio::spawn(connection.with_upgrades());
        Self::Http1(sender)
    }

    pub async fn http2(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("connect");
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.expect("handshake");
        tokio::spawn(connection);
        Self::Http2(sender)
    }

    pub async fn send(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                let uri = format!("http://api{}", request.uri());
                *request.uri_mut() = uri.parse().expect("uri");
                request.headers_mut().remove("host");
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Status and body of an answer.
    pub async fn ask(&mut self, request: Request<Body>) -> (u16, String) {
        let answer = self.send(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }
}
