//! Settings of services, and JWT providers.

use axum::extract::State;
use axum::{Extension, Json};
use postern_api::http::{
    AppliedServiceConfig, ApplyServiceConfigRequest, ProviderKeys, ServiceConfig, StoredProvider, StoredSettings, Written,
};
use postern_names::{PortName, ServiceName};
use postern_traffic::settings::check_jwks;
use serde::Deserialize;

use super::auth::refusal;
use super::error::ApiError;
use super::input::{Input, LargeInput, Name, Query};
use super::{Shared, rfc3339};
use crate::acl::{Access, Authority, Resource};
use crate::mirror::View;
use crate::policy::Author;
use crate::records::{ProviderRecord, SettingsRecord};
use crate::service_config::jwks::JwksKeeper;

/// `GET /v1/service-config`
pub(super) async fn list(State(api): Shared, Extension(authority): Extension<Authority>) -> Json<ServiceConfig> {
    let may_read = |name: &ServiceName| authority.may(Access::Read, Resource::Service(name.as_str()));
    let sees_providers = authority.may(Access::Read, Resource::Operator);
    Json(api.mirror.read(|view| {
        ServiceConfig {
            revision: view.revision,
            services: view
                .settings
                .services
                .iter()
                .filter(|(name, _)| may_read(name))
                .map(|(_, stored)| stored)
                .map(|(record, revision)| stored(record, *revision))
                .collect(),
            jwt_providers: view
                .settings
                .providers
                .values()
                .filter(|_| sees_providers)
                .map(|entry| provider(view, &api.jwks, entry))
                .collect(),
        }
    }))
}

/// `PUT /v1/service-config`
pub(super) async fn apply(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    LargeInput(request): LargeInput<ApplyServiceConfigRequest>,
) -> Result<Json<AppliedServiceConfig>, ApiError> {
    if !request.file.jwt_providers.is_empty() || request.replace {
        // Providers decide whose tokens count, and a replacement deletes those that are not named.
        authority.require(Access::Write, Resource::Operator).map_err(|denied| refusal(&authority, denied))?;
    }
    Ok(Json(api.service_configs.apply(request, &author).await?))
}

/// `GET /v1/service-config/{service}`
pub(super) async fn get(State(api): Shared, Name(service): Name<ServiceName>) -> Result<Json<StoredSettings>, ApiError> {
    let found = api.mirror.read(|view| of_service(view, &service));
    found.map(Json).ok_or_else(|| {
        ApiError::not_found(format!("{service} has no settings: the defaults hold"))
            .hint("`meshctl service config show` shows those that there are")
    })
}

/// `PUT /v1/service-config/{service}`: one service alone; `wait_ms` and the rest as for the whole.
pub(super) async fn set(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Name(service): Name<ServiceName>,
    Input(request): Input<ApplyServiceConfigRequest>,
) -> Result<Json<AppliedServiceConfig>, ApiError> {
    let is_of_one = matches!(request.file.services.as_slice(), [only] if only.service == service);
    if !is_of_one || !request.file.jwt_providers.is_empty() || request.replace {
        return Err(ApiError::bad_request(format!("this route sets {service} alone"))
            .hint("send file.services with its settings and nothing else, or use PUT /v1/service-config"));
    }
    Ok(Json(api.service_configs.apply(request, &author).await?))
}

/// What a deletion says in its query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeleteQuery {
    reason: Option<String>,
    wait_ms: u64,
}

/// `DELETE /v1/service-config/{service}`
pub(super) async fn delete(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Name(service): Name<ServiceName>,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Written>, ApiError> {
    Ok(Json(api.service_configs.delete_settings(service, query.reason, query.wait_ms, &author).await?))
}

/// `GET /v1/jwt-providers/{name}`
pub(super) async fn get_provider(State(api): Shared, Name(name): Name<PortName>) -> Result<Json<StoredProvider>, ApiError> {
    let found = api.mirror.read(|view| view.settings.providers.get(&name).map(|entry| provider(view, &api.jwks, entry)));
    found.map(Json).ok_or_else(|| {
        ApiError::not_found(format!("there is no JWT provider {name}"))
            .hint("`meshctl service config show` shows those that there are")
    })
}

/// `DELETE /v1/jwt-providers/{name}`
pub(super) async fn delete_provider(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Name(name): Name<PortName>,
    Query(query): Query<DeleteQuery>,
) -> Result<Json<Written>, ApiError> {
    Ok(Json(api.service_configs.delete_provider(name, query.reason, query.wait_ms, &author).await?))
}

/// The settings of a service, where some are stored.
pub(super) fn of_service(view: &View, service: &ServiceName) -> Option<StoredSettings> {
    view.settings.services.get(service).map(|(record, revision)| stored(record, *revision))
}

fn stored(record: &SettingsRecord, revision: u64) -> StoredSettings {
    StoredSettings {
        settings: record.settings.clone(),
        revision,
        created_at: rfc3339(record.created_at),
        created_by: record.created_by.clone(),
        reason: record.reason.clone(),
    }
}

fn provider(view: &View, keeper: &JwksKeeper, (record, revision): &(ProviderRecord, u64)) -> StoredProvider {
    let name = &record.provider.name;
    let status = keeper.status(name).unwrap_or_default();
    StoredProvider {
        provider: record.provider.clone(),
        revision: *revision,
        created_at: rfc3339(record.created_at),
        created_by: record.created_by.clone(),
        reason: record.reason.clone(),
        keys: ProviderKeys {
            count: view.settings.keys_of(name).and_then(|keys| check_jwks(keys).ok()).unwrap_or(0),
            read_at: status.read_at.map(rfc3339),
            problem: status.problem,
        },
    }
}
