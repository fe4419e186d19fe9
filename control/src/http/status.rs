//! The mesh, its authority, its health and its metrics.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use postern_api::http::{AuthorityStatus, Finding, MeshInfo, NotUnderstoodBy, Status};

use super::error::ApiError;
use super::services::{instance, streams};
use super::{Api, Shared, rfc3339};
use crate::audit::{AuditHead, verify_chain_to};
use crate::doctor::{self, Evidence};
use crate::mirror::View;

/// Which mesh this is.
pub fn mesh_info(view: &View, now: SystemTime) -> MeshInfo {
    MeshInfo {
        product: "postern".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        cluster_id: view.cluster.cluster_id.clone(),
        trust_domain: view.cluster.trust_domain.clone(),
        datacenter: view.cluster.datacenter.clone(),
        epoch: view.cluster.epoch,
        server_time_ms: postern_api::convert::millis(now),
    }
}

/// `GET /v1/mesh`
pub(super) async fn mesh(State(api): Shared) -> Json<MeshInfo> {
    Json(api.mirror.read(|view| mesh_info(view, SystemTime::now())))
}

/// `GET /v1/overview`
pub(super) async fn status(State(api): Shared) -> Json<Status> {
    let now = SystemTime::now();
    let streams = streams(&api);
    let mut behind: Vec<_> = streams.values().filter(|stream| !stream.is_current).map(|stream| stream.instance.clone()).collect();
    behind.sort();
    let mut not_understood: Vec<NotUnderstoodBy> = Vec::new();
    for stream in streams.values() {
        for (key, why) in &stream.nacks {
            not_understood.push(NotUnderstoodBy { instance: stream.instance.clone(), key: key.clone(), why: why.clone() });
        }
    }
    not_understood.sort_by(|a, b| (&a.instance, &a.key).cmp(&(&b.instance, &b.key)));
    Json(api.mirror.read(|view| {
        Status {
            mesh: mesh_info(view, now),
            started_at: rfc3339(api.started_at),
            revision: view.revision,
            default: view.default.0,
            intentions: view.intentions.values().filter(|(record, _)| record.intention.is_live(now)).count(),
            services: view.service_names().len(),
            instances: view
                .instances
                .values()
                .filter(|(record, _)| !record.left)
                .map(|(record, _)| instance(&api, view, &streams, record))
                .collect(),
            behind,
            not_understood,
        }
    }))
}

/// `GET /v1/authority`
pub(super) async fn authority(State(api): Shared) -> Json<AuthorityStatus> {
    Json(api.identity.authority_status())
}

/// `GET /v1/authority/bundle`
pub(super) async fn bundle(State(api): Shared) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], api.identity.bundle().to_pem())
}

/// `GET /v1/doctor`
pub(super) async fn doctor(State(api): Shared) -> Result<Json<Vec<Finding>>, ApiError> {
    let store = api.store.failing().map_or(Ok(()), |error| Err(error.to_string()));
    // What cannot be read is told of as the store's.
    let audit = match audit_report(&api).await {
        Err(_) if store.is_err() => Ok(()),
        report => report?,
    };
    let sidecars = api.sidecars.list();
    let authority = api.identity.authority_status();
    let keys = api.jwks.statuses();
    let now = SystemTime::now();
    Ok(Json(api.mirror.read(|view| {
        doctor::examine(&Evidence {
            view,
            sidecars: &sidecars,
            keys: &keys,
            authority: &authority,
            audit: &audit,
            store: &store,
            surroundings: &api.surroundings,
            svid_ttl: api.svid_ttl,
            now,
        })
    })))
}

/// Reading the whole log takes a while: not on the runtime.
async fn audit_report(api: &Arc<Api>) -> Result<Result<(), String>, ApiError> {
    let directory = api.surroundings.audit_dir.clone();
    let head = AuditHead::load(api.store.as_ref()).await?;
    let checked = tokio::task::spawn_blocking(move || verify_chain_to(&directory, head.as_ref()));
    let report = checked.await.map_err(ApiError::internal)?;
    Ok(report.map(|_| ()).map_err(|error| error.to_string()))
}

/// `GET /metrics`
pub(super) async fn metrics(State(api): Shared) -> Result<impl IntoResponse, ApiError> {
    let authority = api.identity.authority_status();
    api.metrics.observe(api.mirror.revision(), api.sidecars.len(), &api.push, (&api.identity.counts(), &authority));
    api.metrics.observe_keys(&api.jwks.statuses(), SystemTime::now());
    api.metrics.observe_traffic(&api.traffic.counts());
    let text = api.metrics.render().map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
