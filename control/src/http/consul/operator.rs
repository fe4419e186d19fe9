//! `/v1/operator/raft/configuration` and `/v1/coordinate/nodes`: the truth about one control plane.

use axum::extract::State;
use serde_json::json;

use super::super::Shared;
use super::answer::Answer;
use super::blocking::for_nothing_new;
use super::call::Call;
use super::error::ConsulError;
use crate::acl::{Access, Resource};

/// `GET /v1/operator/raft/configuration`: one server, which leads and votes.
pub(super) async fn raft_configuration(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Operator)?;
    let (id, index) = api.mirror.read(|view| (view.cluster.cluster_id.clone(), view.revision));
    let server = json!({
        "ID": id,
        "Node": api.registry.home().node,
        "Address": api.grpc_address,
        "Leader": true,
        "ProtocolVersion": "3",
        "Voter": true,
        "LastIndex": index,
    });
    Answer::json(&call, &json!({ "Servers": [server], "Index": index }))
}

/// `GET /v1/coordinate/nodes`: no distances are measured.
pub(super) async fn coordinates(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Node(""))?;
    let index = for_nothing_new(&api, &call).await;
    Ok(Answer::json(&call, &json!([]))?.at(index))
}

/// `GET /v1/coordinate/datacenters`: one, without distances.
pub(super) async fn datacenters(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Node(""))?;
    let datacenter = api.mirror.read(|view| view.cluster.datacenter.to_string());
    Answer::json(&call, &json!([{ "Datacenter": datacenter, "AreaID": "wan", "Coordinates": [] }]))
}
