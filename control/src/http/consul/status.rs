//! Who leads: this control plane, the only one.

use axum::extract::State;

use super::super::Shared;
use super::answer::Answer;
use super::call::Call;
use super::error::ConsulError;
use crate::acl::{Access, Resource};

/// `GET /v1/status/leader`
pub(super) async fn leader(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Operator)?;
    Answer::json(&call, &api.grpc_address)
}

/// `GET /v1/status/peers`
pub(super) async fn peers(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Operator)?;
    Answer::json(&call, &[&api.grpc_address])
}
