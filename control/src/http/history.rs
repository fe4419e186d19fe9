//! What was changed in intentions and default, and the way back.

use axum::extract::State;
use axum::{Extension, Json};
use postern_api::http::{Applied, Change, RollbackRequest};
use postern_intentions::Party;
use serde::Deserialize;

use super::Shared;
use super::effects;
use super::error::ApiError;
use super::input::{Input, Query};
use crate::acl::{Access, Authority, Resource};
use crate::policy::{Author, Filter};

/// Changes in an answer, unless it is asked for another number.
const SHOWN: usize = 50;
/// Changes in an answer, at most.
const MOST_SHOWN: usize = 1_000;

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HistoryQuery {
    source: Option<Party>,
    destination: Option<Party>,
    limit: Option<usize>,
    before: Option<u64>,
}

/// `GET /v1/history`
pub(super) async fn list(
    State(api): Shared,
    Extension(authority): Extension<Authority>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<Vec<Change>>, ApiError> {
    let HistoryQuery { source, destination, limit, before } = query;
    let limit = limit.unwrap_or(SHOWN);
    if !(1..=MOST_SHOWN).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit is {limit}; it is 1 to {MOST_SHOWN}")));
    }
    let filter = Filter { source, destination, before, limit };
    let may_read = |destination: &Party| authority.may(Access::Read, Resource::Intentions(&destination.to_string()));
    Ok(Json(api.policy.history().list(&filter, may_read).await?))
}

/// `POST /v1/rollback`
pub(super) async fn rollback(
    State(api): Shared,
    Extension(author): Extension<Author>,
    Extension(authority): Extension<Authority>,
    Input(request): Input<RollbackRequest>,
) -> Result<Json<Applied>, ApiError> {
    let dry_run = request.dry_run;
    let applied = api.policy.rollback(request, &author).await?;
    Ok(Json(if dry_run { effects::told(api, authority, applied, None).await? } else { applied }))
}
