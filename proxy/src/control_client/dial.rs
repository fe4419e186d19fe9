//! One connection to the control plane: TCP, TLS, HTTP/2, ready for gRPC.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use postern_ca::Refusal;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::settings::Address;

/// What one stream may hold of what was not read yet.
const WINDOW: u32 = 64 << 10;

/// Dials the addresses of the control plane in turn, the one that answered last first.
#[derive(Debug)]
pub struct ControlDialler {
    addresses: Vec<Address>,
    timeout: Duration,
    first: AtomicUsize,
}

/// An open connection. Dropping it ends it.
#[derive(Debug)]
pub struct ControlConnection {
    /// For gRPC clients.
    pub channel: Channel,
    /// What `HOST:PORT` answered.
    pub address: String,
    /// The address of this end.
    pub local: SocketAddr,
    driver: JoinHandle<()>,
}

impl Drop for ControlConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// No address of the control plane answered as it should.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct DialError {
    /// Each address with what went wrong there.
    pub tried: Vec<(String, io::Error)>,
}

impl DialError {
    fn text(&self) -> String {
        let tried: Vec<_> = self.tried.iter().map(|(address, error)| format!("{address}: {error}")).collect();
        format!("the control plane cannot be reached ({})", tried.join("; "))
    }

    /// Whether every address was answered by somebody whose certificate is not the control plane's.
    pub fn is_someone_else(&self) -> bool {
        !self.tried.is_empty() && self.tried.iter().all(|(_, error)| Refusal::of_io(error).is_some_and(is_foreign))
    }
}

fn is_foreign(refusal: &Refusal) -> bool {
    !matches!(refusal, Refusal::Expired { .. } | Refusal::NotYetValid { .. })
}

impl ControlDialler {
    /// Dials these addresses; each may take `timeout` from name to handshake.
    pub fn new(addresses: Vec<Address>, timeout: Duration) -> Self {
        Self { addresses, timeout, first: AtomicUsize::new(0) }
    }

    /// The first connection that stands. Names are resolved again.
    ///
    /// # Errors
    /// [`DialError`] with what went wrong at each address.
    pub async fn dial(&self, tls: &Arc<ClientConfig>) -> Result<ControlConnection, DialError> {
        let count = self.addresses.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut tried = Vec::new();
        for index in (0..count).map(|offset| (first + offset) % count) {
            let address = &self.addresses[index];
            let connecting = tokio::time::timeout(self.timeout, connect(address, tls.clone()));
            match connecting.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))) {
                Ok(connection) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => tried.push((address.to_string(), error)),
            }
        }
        Err(DialError { tried })
    }

    /// After a connection that stood but did not serve: the next address is tried first.
    pub fn prefer_another(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connect(address: &Address, tls: Arc<ClientConfig>) -> io::Result<ControlConnection> {
    let Address::Tcp { host, port } = address else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the control plane is dialled over TCP; give HOST:PORT"));
    };
    let host = if host == "::" { "127.0.0.1" } else { host };
    let socket = TcpStream::connect((host, *port)).await?;
    socket.set_nodelay(true)?;
    let local = socket.local_addr()?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = TlsConnector::from(tls).connect(name, socket).await?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2; is this the --grpc address?"));
    }
    let (requests, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the control plane ended");
        }
    });
    Ok(ControlConnection { channel: Channel { requests }, address: address.to_string(), local, driver })
}

/// Sends gRPC requests over one connection.
#[derive(Clone, Debug)]
pub struct Channel {
    requests: http2::SendRequest<tonic::body::Body>,
}

impl tower_service::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.requests.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.requests.send_request(request))
    }
}

/// The scheme and authority of requests: who is meant is settled by the certificate.
pub fn origin() -> http::Uri {
    http::Uri::from_static("https://control.postern")
}
