//! The real HTTP/1.1 server behind a guarded socket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use postern_proxy::http::framing::{FramingError, Guarded, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::naive;

/// What became of a connection.
pub struct Seen {
    /// The requests that the service read whole.
    pub whole: Vec<naive::Request>,
    /// Why the guard refused.
    pub refusal: Option<FramingError>,
    /// Whether the server ended the connection for a reason of its own.
    pub closed_by_server: bool,
    /// Everything that the client was told.
    pub answers: String,
}

type Log = Arc<Mutex<Vec<naive::Request>>>;

async fn service(request: Request<Incoming>, log: Log) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if let Ok(body) = body.collect().await {
        let target = naive::as_server(&head.uri.to_string());
        let whole = naive::Request { method: head.method.to_string(), target, body: body.to_bytes().to_vec() };
        log.lock().push(whole);
    }
    Ok(Response::new(Full::default()))
}

/// Serves one connection and answers a refusal, as a sidecar does.
async fn serve_connection(socket: DuplexStream, log: Log) -> (Option<FramingError>, bool) {
    let (guarded, guard) = Guarded::new(socket, Limits::default());
    let service = service_fn(move |request| {
        let log = log.clone();
        Box::pin(service(request, log)) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    let mut connection = http1::Builder::new()
        .half_close(true)
        .max_headers(128)
        .max_buf_size(128 * 1024)
        .serve_connection(TokioIo::new(guarded), service);
    let outcome = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let mut socket = connection.into_parts().io.into_inner().into_parts().0;
    if let Some(error) = guard.refusal() {
        let _ = socket.write_all(error.answer().as_bytes()).await;
    }
    let _ = socket.shutdown().await;
    (guard.refusal(), outcome.is_err() && guard.refusal().is_none())
}

/// A client sends these pieces, waits between them until the server has had its turn, and ends its side.
pub async fn serve(pieces: &[&[u8]]) -> Seen {
    let (client, socket) = tokio::io::duplex(256 * 1024);
    let (mut reader, mut writer) = tokio::io::split(client);
    let log = Log::default();
    let send = async {
        for piece in pieces {
            if writer.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = writer.shutdown().await;
    };
    let receive = async {
        let mut answers = Vec::new();
        let _ = reader.read_to_end(&mut answers).await;
        String::from_utf8_lossy(&answers).into_owned()
    };
    let together = pin!(async { tokio::join!(serve_connection(socket, log.clone()), send, receive) });
    let ((refusal, closed_by_server), (), answers) =
        tokio::time::timeout(Duration::from_secs(20), together).await.expect("the connection ends");
    let whole = std::mem::take(&mut *log.lock());
    Seen { whole, refusal, closed_by_server, answers }
}
