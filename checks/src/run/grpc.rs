//! `grpc.health.v1.Health/Check` (gRPC Health Checking Protocol).

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, TE};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, tcp, tls};
use crate::GrpcProbe;

/// Bytes of an answer.
const ANSWER_LIMIT: usize = 64 << 10;
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn ask(probe: &GrpcProbe) -> Result<Answer, String> {
    match &probe.tls {
        None => send(probe, "http", TokioIo::new(tcp::connect(&probe.address).await?)).await,
        Some(settings) => send(probe, "https", TokioIo::new(tls::connect(&probe.address, settings, &[b"h2"]).await?)).await,
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    probe: &GrpcProbe,
    scheme: &str,
    stream: TokioIo<S>,
) -> Result<Answer, String> {
    let failed = |error: hyper::Error| format!("gRPC {}: {error}", probe.address);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.map_err(failed)?;
    let request = request(probe, scheme)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        if head.status != 200 {
            return Err(format!("gRPC {}: HTTP status {}", probe.address, head.status));
        }
        let whole = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|error| error.to_string())?;
        let trailers = whole.trailers().cloned().unwrap_or_default();
        judge(probe, &head.headers, &trailers, &whole.to_bytes())
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(failed(error)),
        },
    }
}

fn request(probe: &GrpcProbe, scheme: &str) -> Result<Request<Full<Bytes>>, String> {
    let message = HealthCheckRequest { service: probe.service.clone() }.encode_to_vec();
    let mut body = BytesMut::with_capacity(5 + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).map_err(|error| error.to_string())?);
    body.put_slice(&message);
    Request::builder()
        .method(Method::POST)
        .uri(format!("{scheme}://{}/grpc.health.v1.Health/Check", probe.address))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(body.freeze()))
        .map_err(|error| error.to_string())
}

fn judge(probe: &GrpcProbe, headers: &HeaderMap, trailers: &HeaderMap, body: &[u8]) -> Result<Answer, String> {
    let told = |name: &str| trailers.get(name).or_else(|| headers.get(name)).and_then(|value| value.to_str().ok());
    match told("grpc-status") {
        Some("0") => {}
        code => {
            let code = code.unwrap_or("none");
            return Err(format!("gRPC {}: status {code} {}", probe.address, told("grpc-message").unwrap_or_default()));
        }
    }
    let message = body.get(5..).ok_or_else(|| format!("gRPC {}: the answer is empty", probe.address))?;
    let response = HealthCheckResponse::decode(message).map_err(|error| format!("gRPC {}: {error}", probe.address))?;
    match response.status {
        SERVING => Ok(Answer::passing(format!("gRPC check {}: success", probe.address))),
        2 => Err(format!("gRPC {}: NOT_SERVING", probe.address)),
        3 => Err(format!("gRPC {}: SERVICE_UNKNOWN", probe.address)),
        other => Err(format!("gRPC {}: health {other}", probe.address)),
    }
}
