//! As much of a client of HTTP/2 and of gRPC as the proof needs.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper::http::response::Parts;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::service::http2::{GRPC, message};

/// Makes one unary call over a stream that is open; the `grpc-status` that came back.
///
/// # Errors
/// If no answer of gRPC came.
pub async fn call<S>(stream: S, method: &str) -> anyhow::Result<u8>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let call = Request::post(format!("http://api{method}")).header(CONTENT_TYPE, GRPC).header(TE, "trailers");
    let (head, trailers) = ask(stream, call.body(Full::new(Bytes::from(message())))?).await?;
    ensure!(head.status == 200, "the status of HTTP is {}", head.status);
    // An answer without a message has it in its only head.
    status_in(&head.headers).or_else(|| status_in(&trailers)).context("the answer has no grpc-status")
}

/// The status of the answer to a request over a stream that is open.
///
/// # Errors
/// If no answer came.
pub async fn status_of<S>(stream: S, method: &str, path: &str) -> anyhow::Result<u16>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::builder().method(method).uri(format!("http://api{path}"));
    let (head, _) = ask(stream, request.body(Full::default())?).await?;
    Ok(head.status.as_u16())
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<(Parts, HeaderMap)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let trailers = body.collect().await?.trailers().cloned().unwrap_or_default();
    driver.abort();
    Ok((head, trailers))
}

fn status_in(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
