//! `/metrics` and `/ready` for Prometheus and people, and `/snapshot` on a socket that only the owner can open.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use postern_ca::SvidSource;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::control_client::Known;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::snapshot::ResolvedProvider;
use crate::status::Status;

/// Connections served at once on one listener; more wait in the backlog.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and an idle connection may stay.
const HEAD: Duration = Duration::from_secs(5);
/// After an error of accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin listeners show.
#[derive(Debug)]
pub struct Admin {
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Whether traffic can be served.
    pub status: Status,
    /// The time that expiry is judged by.
    pub clock: Arc<Clock>,
    /// Names that a request may give as its host beside IP literals and `localhost`.
    pub names: Vec<String>,
    /// The service and the instance, for `/snapshot`.
    pub who: (String, String),
    /// Set once there is an SVID and a snapshot.
    pub inside: watch::Receiver<Option<Inside>>,
}

/// What `/snapshot` shows.
#[derive(Debug, Clone)]
pub struct Inside {
    /// The current SVID; its key is never shown.
    pub svid: SvidSource,
    /// What was pushed.
    pub known: watch::Receiver<Arc<Known>>,
}

impl Admin {
    /// What this sidecar shows; hosts other than these are refused, since a web page could have been made to ask.
    pub fn names_of(settings: &Settings, host_name: &str) -> Vec<String> {
        let mut names = vec!["localhost".to_owned(), host_name.to_ascii_lowercase()];
        for address in [&settings.admin, &settings.metrics].into_iter().flatten() {
            if let crate::settings::Address::Tcp { host, .. } = address {
                names.push(host.to_ascii_lowercase());
            }
        }
        if let Some(advertise) = &settings.advertise {
            names.push(advertise.host.to_ascii_lowercase());
        }
        names
    }

    /// Serves `/metrics` and `/ready`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((socket, _)) => {
                    let admin = self.clone();
                    connections.spawn(async move {
                        serve_connection(socket, move |request| admin.answer(&request)).await;
                        drop(place);
                    });
                }
                Err(error) => pause_after(&error).await,
            }
            while connections.try_join_next().is_some() {}
        }
    }

    /// Serves these and `/snapshot` on the socket in the state directory. Its permissions are the guard; where somebody has
    /// opened those, the kernel still says who asks.
    pub async fn serve_private(self: Arc<Self>, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((socket, _)) if !is_ours(&socket) => {
                    tracing::warn!("a connection of another user to the admin socket was refused");
                }
                Ok((socket, _)) => {
                    let admin = self.clone();
                    connections.spawn(async move {
                        serve_connection(socket, move |request| admin.answer_private(&request)).await;
                        drop(place);
                    });
                }
                Err(error) => pause_after(&error).await,
            }
            while connections.try_join_next().is_some() {}
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !host_is_known(request, &self.names) {
            return text(StatusCode::MISDIRECTED_REQUEST, "unknown host: ask by IP address or as localhost\n");
        }
        self.public(request)
    }

    fn answer_private(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/snapshot") => self.snapshot(),
            _ => self.public(request),
        }
    }

    fn public(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        }
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/ready" => self.ready(),
            "/snapshot" => text(StatusCode::FORBIDDEN, "/snapshot is served only on admin.sock in the state directory\n"),
            _ => text(StatusCode::NOT_FOUND, "here are /metrics and /ready\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.metrics.snapshot_age.set(self.status.age(self.clock.now()).as_secs_f64());
        match self.metrics.encode() {
            Ok(body) => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics cannot be written: {error}\n")),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        match self.status.facts().readiness(self.clock.now()) {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}\n")),
        }
    }

    fn snapshot(&self) -> Response<Full<Bytes>> {
        match self.inside.borrow().clone() {
            Some(inside) => answer(StatusCode::OK, "application/json", format!("{:#}\n", self.known(&inside))),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "not enrolled yet\n"),
        }
    }

    fn known(&self, inside: &Inside) -> serde_json::Value {
        let known = inside.known.borrow().clone();
        let snapshot = &known.snapshot;
        let facts = self.status.facts();
        let svid = inside.svid.load();
        let pins: Vec<String> = snapshot.trust.bundle.spki_pins().iter().map(|pin| data_encoding::HEXLOWER.encode(pin)).collect();
        json!({
            "service": self.who.0,
            "instance": self.who.1,
            "ready": facts.readiness(self.clock.now()).err().map_or_else(|| json!(true), |why| json!(why)),
            "control": {"connected": facts.connected, "problem": facts.control_problem},
            "svid": svid.map(|svid| json!({
                "id": svid.id().to_string(),
                "serial": svid.serial().to_string(),
                "not_before": rfc3339(svid.not_before()),
                "not_after": rfc3339(svid.not_after()),
                "problem": facts.identity_problem,
            })),
            "cluster_id": known.cluster_id,
            "sequence": snapshot.sequence,
            "position": snapshot.position,
            "age_seconds": self.status.age(self.clock.now()).as_secs_f64(),
            "bundle": {
                "trust_domain": snapshot.trust.bundle.trust_domain.to_string(),
                "sequence": snapshot.trust.bundle.sequence,
                "roots_spki_sha256": pins,
            },
            "revoked": snapshot.trust.revoked.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "protocol": snapshot.protocol,
            "settings": &*snapshot.own_settings,
            "jwt": snapshot.jwt.iter().map(provider).collect::<Vec<_>>(),
            "default": snapshot.rules.default_policy().to_string(),
            "intentions": known.intentions.iter().map(|(revision, intention)| json!({
                "revision": revision,
                "intention": &**intention,
            })).collect::<Vec<_>>(),
            "not_understood": known.not_understood.iter().map(|(key, why)| json!({"key": key, "why": why})).collect::<Vec<_>>(),
            "upstreams": snapshot.upstreams.iter().map(|(name, upstream)| (name.to_string(), json!({
                "protocol": upstream.protocol,
                "allowed": upstream.verdict.allowed,
                "would_deny": upstream.verdict.would_deny,
                "because": upstream.verdict.because,
                "until": upstream.verdict.until.map(rfc3339),
                "settings": &*upstream.settings,
                "endpoints": upstream.endpoints,
            }))).collect::<serde_json::Map<_, _>>(),
        })
    }
}

fn provider(resolved: &ResolvedProvider) -> serde_json::Value {
    let keys = postern_traffic::settings::check_jwks(&resolved.jwks).unwrap_or(0);
    json!({"name": resolved.provider.name, "issuer": resolved.provider.issuer, "keys": keys})
}

fn rfc3339(time: std::time::SystemTime) -> String {
    time::OffsetDateTime::from(time)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|_| "out of range".into())
}

/// Our own user, or root.
fn is_ours(socket: &UnixStream) -> bool {
    socket.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw())
}

async fn serve_connection<S, F>(socket: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> Response<Full<Bytes>>,
{
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(request))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an admin connection ended badly");
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "the admin listener cannot accept; pausing");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// DNS rebinding: a page of a foreign name that was made to resolve to this host must not read the answer.
fn host_is_known<B>(request: &Request<B>, names: &[String]) -> bool {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let Some(host) = authority.or(header) else {
        return !request.headers().contains_key(header::HOST);
    };
    if host.parse::<SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_ascii_lowercase();
    names.contains(&name)
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body.to_owned())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str) -> bool {
        let request = Request::builder().uri("/metrics").header(header::HOST, host).body(()).unwrap();
        host_is_known(&request, &["localhost".into(), "web-1.example".into()])
    }

    #[test]
    fn a_foreign_host_name_is_refused() {
        for good in ["localhost", "localhost:19000", "127.0.0.1:19000", "[::1]:19000", "10.0.0.1", "Web-1.example:9000"] {
            assert!(asked(good), "{good}");
        }
        for bad in ["evil.example", "evil.example:19000", "localhost.evil.example", "127.0.0.1.evil.example:1"] {
            assert!(!asked(bad), "{bad}");
        }
    }
}
