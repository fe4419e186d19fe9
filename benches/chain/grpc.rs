//! As much of a gRPC client as the proof needs.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::service::grpc::message;

/// Makes one unary call over a stream that is open; the `grpc-status` that came back.
///
/// # Errors
/// If no answer of gRPC came.
pub async fn call<S>(stream: S, method: &str) -> anyhow::Result<u8>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let call = Request::post(format!("http://api{method}")).header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
    let answer = sender.send_request(call.body(Full::new(Bytes::from(message())))?).await?;
    ensure!(answer.status() == 200, "the status of HTTP is {}", answer.status());
    // An answer without a message has it in its only head.
    let status = match status_in(answer.headers()) {
        Some(status) => Some(status),
        None => answer.into_body().collect().await?.trailers().and_then(status_in),
    };
    driver.abort();
    status.context("the answer has no grpc-status")
}

fn status_in(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
