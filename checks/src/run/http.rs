//! An HTTP request over a connection of its own: 2xx is passing, 429 a warning, all else critical.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, tcp, tls};
use crate::{HttpProbe, OUTPUT_LIMIT, Status, shortened};

pub(super) async fn ask(probe: &HttpProbe) -> Result<Answer, String> {
    let is_tls = probe.url.scheme_str() == Some("https");
    let host = probe.url.host().ok_or("the URL has no host")?;
    let address = format!("{host}:{}", probe.url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }));
    match is_tls {
        true => send(probe, TokioIo::new(tls::connect(&address, &probe.tls, &[b"http/1.1"]).await?)).await,
        false => send(probe, TokioIo::new(tcp::connect(&address).await?)).await,
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    probe: &HttpProbe,
    stream: TokioIo<S>,
) -> Result<Answer, String> {
    let failed = |error: hyper::Error| format!("{} {}: {error}", probe.method, probe.url);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
    let request = request(probe)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let mut body = response.into_body();
        let mut said = Vec::new();
        while said.len() < OUTPUT_LIMIT
            && let Some(Ok(frame)) = body.frame().await
        {
            if let Some(data) = frame.data_ref() {
                said.extend_from_slice(data.get(..OUTPUT_LIMIT - said.len()).unwrap_or(data));
            }
        }
        Ok(answer(probe, status, &said))
    };
    // The connection is driven here, and dropped with the answer.
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

fn request(probe: &HttpProbe) -> Result<Request<Full<Bytes>>, String> {
    let target = probe.url.path_and_query().map_or("/", |target| target.as_str());
    let authority = probe.url.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    let mut request = Request::builder()
        .method(&probe.method)
        .uri(target)
        .body(Full::new(Bytes::from(probe.body.clone())))
        .map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority.unwrap_or_default()).map_err(|error| error.to_string())?);
    headers.insert(USER_AGENT, HeaderValue::from_static("Postern health check"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for (at, (name, value)) in probe.headers.iter().enumerate() {
        // The first of a name takes the place of ours, the others stand beside it.
        let is_first = probe.headers.iter().take(at).all(|(other, _)| other != name);
        match is_first {
            true => drop(headers.insert(name, value.clone())),
            false => drop(headers.append(name, value.clone())),
        }
    }
    Ok(request)
}

fn answer(probe: &HttpProbe, code: StatusCode, body: &[u8]) -> Answer {
    let status = match code {
        code if code.is_success() => Status::Passing,
        StatusCode::TOO_MANY_REQUESTS => Status::Warning,
        _ => Status::Critical,
    };
    let mut output = format!("HTTP {} {}: {code} Output: ", probe.method, probe.url).into_bytes();
    output.extend_from_slice(body);
    Answer { status, output: shortened(&output) }
}
