//! The HTTP API: the routes of `postern_api::http`, on TCP and on the UNIX socket of the data directory.
//!
//! A request passes, in this order: is it addressed to us and not sent by a foreign page (`host`), may it (`auth`), which
//! route, what does it say (`input`), what is done. Every answer names the product in `server`, every failure is an
//! `ErrorBody` (`error`).
//!
//! | module | what it holds |
//! |---|---|
//! | `serve` | listeners, TLS, connections and their limits |
//! | `certificate` | the certificate that they show, where nobody brought one |
//! | `host`, `auth`, `demand`, `input`, `error` | what every request passes |
//! | `consul` | the routes of Consul's API |
//! | `intentions`, `effects`, `history`, `edges`, `live`, `suggest`, `tokens`, `services`, `service_config`, `status` | the routes |
//! | `openapi` | what describes them |

pub mod auth;
pub mod certificate;
pub mod consul;
pub mod demand;
mod edges;
mod effects;
mod error;
mod history;
pub mod host;
mod input;
mod intentions;
mod live;
mod openapi;
pub mod serve;
mod service_config;
mod services;
mod status;
mod suggest;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use tokio_util::sync::CancellationToken;

use self::auth::{Connection, Operators, Origin};
use self::consul::error::ConsulError;
use self::consul::renderings::Renderings;
pub use self::error::ApiError;
use self::host::HostNames;
pub(crate) use self::services::is_loopback_elsewhere;
pub use self::status::mesh_info;
use crate::acl::Accounts;
use crate::doctor::Surroundings;
use crate::edges::Traffic;
use crate::events::Events;
use crate::identity::IdentityService;
use crate::kv::KeyValues;
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::policy::Policy;
use crate::push::{PushStats, Sidecars};
use crate::queries::Queries;
use crate::registry::Registry;
use crate::service_config::ServiceConfigs;
use crate::service_config::jwks::JwksKeeper;
use crate::sessions::Sessions;
use crate::snapshot::Snapshots;
use crate::store::Store;

/// `server:` of every answer; by it a client knows that no other product listens here.
const SERVER: &str = concat!("postern/", env!("CARGO_PKG_VERSION"));

const DEFAULT_ACL_POLICY: HeaderName = HeaderName::from_static("x-consul-default-acl-policy");

/// What the routes work with.
pub struct Api {
    /// For what the view does not hold.
    pub store: Arc<dyn Store>,
    /// Reads.
    pub mirror: Arc<Mirror>,
    /// Changes of intentions.
    pub policy: Arc<Policy>,
    /// Changes of settings and JWT providers.
    pub service_configs: Arc<ServiceConfigs>,
    /// The keys of JWT providers that come from files and URLs.
    pub jwks: Arc<JwksKeeper>,
    /// Tokens, authority, revocation.
    pub identity: Arc<IdentityService>,
    /// Keys and values.
    pub keys: Arc<KeyValues>,
    /// What the sidecars see of calls.
    pub traffic: Arc<Traffic>,
    /// Who holds their locks.
    pub sessions: Arc<Sessions>,
    /// Prepared queries.
    pub queries: Arc<Queries>,
    /// Answers that many wait for.
    pub renderings: Renderings,
    /// User events.
    pub events: Events,
    /// Open streams.
    pub sidecars: Arc<Sidecars>,
    /// Instances.
    pub registry: Arc<Registry>,
    /// Counters of the push.
    pub push: Arc<PushStats>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Changes of tokens, policies and roles.
    pub accounts: Arc<Accounts>,
    /// Saves and restores the store.
    pub snapshots: Arc<Snapshots>,
    /// Who may call.
    pub operators: Operators,
    /// Under which names.
    pub host_names: HostNames,
    /// Start of this process.
    pub started_at: SystemTime,
    /// Lifetime of an SVID.
    pub svid_ttl: Duration,
    /// Where sidecars connect, HOST:PORT.
    pub grpc_address: String,
    /// Ends whatever waits.
    pub stop: CancellationToken,
    /// What `doctor` looks at beside the store.
    pub surroundings: Surroundings,
}

type Shared = State<Arc<Api>>;

/// All routes, with what every request passes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/mesh", get(status::mesh))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/v1/intentions", get(intentions::list).put(intentions::apply))
        .route("/v1/intentions/{source}/{destination}", get(intentions::get).put(intentions::set).delete(intentions::delete))
        .route("/v1/default-policy", put(intentions::set_default))
        .route("/v1/history", get(history::list))
        .route("/v1/rollback", post(history::rollback))
        .route("/v1/decide", post(intentions::decide))
        .route("/v1/edges", get(edges::list))
        .route("/v1/live", get(live::follow))
        .route("/v1/suggest", post(suggest::suggest))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/v1/services", get(services::list))
        .route("/v1/services/{name}", get(services::show))
        .route("/v1/service-config", get(service_config::list).put(service_config::apply))
        .route("/v1/service-config/{service}", get(service_config::get).put(service_config::set).delete(service_config::delete))
        .route("/v1/jwt-providers/{name}", get(service_config::get_provider).delete(service_config::delete_provider))
        .route("/v1/instances/{id}", delete(services::deregister))
        .route("/v1/authority", get(status::authority))
        .route("/v1/authority/bundle", get(status::bundle))
        .route("/v1/overview", get(status::status))
        .route("/v1/doctor", get(status::doctor))
        .route("/v1/prometheus/targets", get(services::prometheus_targets))
        .route("/metrics", get(status::metrics))
        .merge(consul::routes())
        .merge(crate::ui::routes())
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), pass))
        .with_state(api)
}

pub(crate) async fn unknown_route(request: Request) -> Response {
    if consul::owns(request.uri().path()) {
        return consul::unknown_route().into_response();
    }
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::not_found(format!("there is no route {path}"))
        .hint("this is Postern; its routes are under /v1/, and `meshctl --help` uses them all")
        .into_response()
}

async fn wrong_method(request: Request) -> Response {
    if consul::owns(request.uri().path()) {
        return consul::wrong_method(&request).into_response();
    }
    let path: String = request.uri().path().chars().take(200).collect();
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} is not a method of {path}", request.method()))
        .hint("the header `allow` of this answer names those that are")
        .into_response()
}

/// What every request passes before its route, and every answer after it.
async fn pass(State(api): Shared, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let is_consul = consul::owns(request.uri().path());
    let mut response = match admit(&api, request) {
        Ok(request) => next.run(request).await,
        Err(error) if is_consul => ConsulError::from(error).into_response(),
        Err(error) => error.into_response(),
    };
    api.metrics.http_request(&route, response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_consul {
        headers.insert(DEFAULT_ACL_POLICY, HeaderValue::from_static("deny"));
    }
    response
}

fn admit(api: &Api, request: Request) -> Result<Request, ApiError> {
    let (mut parts, body) = request.into_parts();
    let connection = parts.extensions.get::<Connection>().cloned();
    let connection = connection.ok_or_else(|| ApiError::internal("a request came without its connection"))?;
    match connection.origin {
        Origin::Tcp(_) => api.host_names.check(&parts)?,
        Origin::Unix { .. } => host::check_origin(&parts.headers, None)?,
    }
    let (author, authority) =
        auth::admit(&api.operators, api.mirror.as_ref(), &connection, &parts.method, &parts.uri, &parts.headers)?;
    parts.extensions.insert(author);
    parts.extensions.insert(authority);
    Ok(Request::from_parts(parts, body))
}

/// A time as the API writes it: RFC 3339, UTC, whole seconds or milliseconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let time = time::OffsetDateTime::from(time);
    let time = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
