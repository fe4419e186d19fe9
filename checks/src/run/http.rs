//! An HTTP request over a connection of its own: 2xx is passing, 429 a warning, all else critical.

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, USER_AGENT};
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
    let failed = |error: hyper::Error| format!("{} {}: {error}", probe.method, shown(probe));
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
    let (user, host) = split(probe);
    let mut request = Request::builder()
        .method(&probe.method)
        .uri(target)
        .body(Full::new(Bytes::from(probe.body.clone())))
        .map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| error.to_string())?);
    headers.insert(USER_AGENT, HeaderValue::from_static("Postern health check"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(user) = user {
        let mut basic =
            HeaderValue::from_str(&format!("Basic {}", BASE64.encode(&unescaped(user)))).map_err(|error| error.to_string())?;
        basic.set_sensitive(true);
        headers.insert(AUTHORIZATION, basic);
    }
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

/// The user with their password, and the host with its port.
fn split(probe: &HttpProbe) -> (Option<&str>, &str) {
    let authority = probe.url.authority().map_or("", |authority| authority.as_str());
    authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host))
}

/// The URL as everybody may read it: without user and password.
fn shown(probe: &HttpProbe) -> String {
    let scheme = probe.url.scheme_str().unwrap_or("http");
    format!("{scheme}://{}{}", split(probe).1, probe.url.path_and_query().map_or("/", |target| target.as_str()))
}

/// Percent-encoding undone (RFC 3986 §2.1); what is none stands for itself.
fn unescaped(text: &str) -> Vec<u8> {
    let hex = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut plain, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [byte, after @ ..] = rest {
        rest = after;
        match after {
            [high, low, behind @ ..] if *byte == b'%' => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => {
                    plain.push(high << 4 | low);
                    rest = behind;
                }
                _ => plain.push(*byte),
            },
            _ => plain.push(*byte),
        }
    }
    plain
}

fn answer(probe: &HttpProbe, code: StatusCode, body: &[u8]) -> Answer {
    let status = match code {
        code if code.is_success() => Status::Passing,
        StatusCode::TOO_MANY_REQUESTS => Status::Warning,
        _ => Status::Critical,
    };
    let mut output = format!("HTTP {} {}: {code} Output: ", probe.method, shown(probe)).into_bytes();
    output.extend_from_slice(body);
    Answer { status, output: shortened(&output) }
}
