//! Snapshots of the whole store, in a form of our own.

use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::super::Shared;
use super::answer::Answer;
use super::body;
use super::call::Call;
use super::error::ConsulError;
use crate::acl::{Access, Resource};
use crate::snapshot::{LONGEST, SnapshotError};

/// `GET /v1/snapshot`: whoever has it has every name and hash, and with the seal key everything.
pub(super) async fn save(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let bytes = api.snapshots.save(SystemTime::now()).await?;
    let attachment = HeaderValue::from_static("attachment; filename=\"postern.snapshot\"");
    Ok(Answer::bytes(&call, "application/octet-stream", bytes).with(header::CONTENT_DISPOSITION, attachment))
}

/// `PUT /v1/snapshot`: checked whole before anything changes. `?replace-mesh`: it may be of another mesh.
pub(super) async fn restore(State(api): Shared, call: Call, request: Request) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Acl)?;
    let bytes = body::read(request.into_body(), LONGEST).await?;
    let accepted = api.snapshots.restore(&bytes, call.has("replace-mesh"), &call.author).await?;
    Answer::json(&call, &json!({ "restored": accepted.header, "epoch": accepted.epoch }))
}

impl From<SnapshotError> for ConsulError {
    fn from(error: SnapshotError) -> Self {
        let text = error.to_string();
        match error {
            SnapshotError::Damaged(_) | SnapshotError::Sealed(_) => Self::bad_request(text),
            SnapshotError::OtherMesh { .. } | SnapshotError::Busy => Self::new(StatusCode::CONFLICT, text),
            SnapshotError::Store(error) => Self::from(error),
            SnapshotError::Disk(error) => Self::internal(error),
        }
    }
}
