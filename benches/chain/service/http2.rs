//! The service of the lines over HTTP/2: without TLS, 200 bytes for whatever is asked, and for a call of gRPC one message and the
//! trailers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::process::Process;

const VARIABLE: &str = "CHAIN_HTTP2_SERVICE";

/// The type of calls and their answers.
pub const GRPC: &str = "application/grpc";

/// Bytes of the message in the answer, and in the call.
const MESSAGE: usize = 200;

/// A message as it goes over the wire: not compressed, its length, and its bytes.
pub fn message() -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(MESSAGE as u32).to_be_bytes());
    message.resize(message.len() + MESSAGE, b'x');
    message
}

/// A process of this program, told by its environment what to do.
pub fn start(log: &Path) -> anyhow::Result<(SocketAddr, Process)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(VARIABLE, "yes");
    let (process, announced) = Process::start_announcing(&mut command, log)?;
    let address = announced.as_str().context("the HTTP/2 service does not say where it listens")?.parse()?;
    Ok((address, process))
}

/// Whether this process was started as the service.
pub fn is_requested() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Serves for ever.
pub fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", serde_json::Value::from(listener.local_addr()?.to_string()));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.max_concurrent_streams(1_000);
            let connection = server.serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
            // A caller that goes away ends its connection and nothing else.
            tokio::spawn(async move { drop(connection.await) });
        }
    })
}

/// Every path and method is known, the forbidden ones too.
async fn answer(request: Request<Incoming>) -> hyper::Result<Response<impl Body<Data = Bytes, Error = Infallible>>> {
    let is_call = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == GRPC);
    request.into_body().collect().await?;
    let (kind, body) = if is_call { (GRPC, message()) } else { ("text/plain", vec![b'x'; MESSAGE]) };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(body)).with_trailers(std::future::ready(is_call.then_some(Ok(trailers))));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
