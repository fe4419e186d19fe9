//! Enrolment tokens.

use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use postern_api::http::{CreateTokenRequest, CreatedToken, Token, TokenRevoked};
use serde::Deserialize;

use super::auth::refusal;
use super::error::ApiError;
use super::input::{Input, Name, Query};
use super::{Shared, rfc3339};
use crate::acl::{Access, Authority, Resource};
use crate::identity::NewToken;
use crate::policy::Author;
use crate::records::TokenRecord;

/// The lifetime of a token unless given.
const TTL: u64 = 900;
/// The longest lifetime of a token.
const MAX_TTL: u64 = 86_400;
/// How often a token may be spent at most.
const MAX_USES: u32 = 10_000;

/// `POST /v1/tokens`
pub(super) async fn create(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    Input(request): Input<CreateTokenRequest>,
) -> Result<impl IntoResponse, ApiError> {
    may_write(&authority, request.service.as_str())?;
    let uses = request.uses.unwrap_or(1);
    if uses == 0 || uses > MAX_USES {
        return Err(ApiError::bad_request(format!("uses is {uses}; a token can be spent 1 to {MAX_USES} times")));
    }
    let ttl = request.ttl_s.unwrap_or(TTL);
    if ttl == 0 || ttl > MAX_TTL {
        return Err(ApiError::bad_request(format!("ttl_s is {ttl}; a token lasts 1 to {MAX_TTL} seconds")));
    }
    let wanted = NewToken { service: request.service, uses, ttl: Duration::from_secs(ttl), by: author.who, from: author.from };
    let (token, record) = api.identity.create_token(wanted).await?;
    let created = CreatedToken {
        id: record.id,
        token: token.reveal(),
        service: record.service,
        uses: record.uses,
        expires_at: rfc3339(record.not_after),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// `GET /v1/tokens`
pub(super) async fn list(State(api): Shared, Extension(authority): Extension<Authority>) -> Json<Vec<Token>> {
    let now = SystemTime::now();
    let may_read = |record: &&TokenRecord| authority.may(Access::Read, Resource::Service(record.service.as_str()));
    let mut records: Vec<TokenRecord> = api.mirror.read(|view| view.tokens.values().filter(may_read).cloned().collect());
    records.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    Json(records.into_iter().map(|record| listed(record, now)).collect())
}

fn listed(record: TokenRecord, now: SystemTime) -> Token {
    Token {
        state: state(&record, now).into(),
        expires_at: rfc3339(record.not_after),
        id: record.id,
        service: record.service,
        uses: record.uses,
        uses_left: record.uses_left,
        created_by: record.created_by,
    }
}

fn state(record: &TokenRecord, now: SystemTime) -> &'static str {
    match record {
        _ if record.revoked => "revoked",
        _ if record.uses_left == 0 => "spent",
        _ if record.not_after <= now => "expired",
        _ => "active",
    }
}

/// What a revocation says in its query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RevokeQuery {
    svids: bool,
}

/// `DELETE /v1/tokens/{id}`
pub(super) async fn revoke(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    Name(id): Name<String>,
    Query(query): Query<RevokeQuery>,
) -> Result<Json<TokenRevoked>, ApiError> {
    let services: Vec<String> = api
        .mirror
        .read(|view| view.tokens.values().filter(|record| record.id == id).map(|record| record.service.to_string()).collect());
    for service in &services {
        may_write(&authority, service)?;
    }
    Ok(Json(api.identity.revoke_token(&id, query.svids, &author).await?))
}

/// Whoever may write a service may become it.
fn may_write(authority: &Authority, service: &str) -> Result<(), ApiError> {
    authority.require(Access::Write, Resource::Service(service)).map_err(|denied| refusal(authority, denied))
}
