//! What the agent says of itself.

use axum::extract::State;
use serde_json::{Value, json};

use super::super::super::{Api, Shared};
use super::super::answer::Answer;
use super::super::call::Call;
use super::super::catalog::{catalog, datacenter};
use super::super::error::ConsulError;
use crate::acl::{Access, Resource};
use crate::mirror::View;

/// The version of Postern; Consul's own means nothing here.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) async fn own(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let home = api.registry.home();
    call.require(Access::Read, Resource::Agent(&home.node))?;
    let written = api.mirror.read(|view| {
        let node = catalog(&api, view).node(&home.node);
        let id = node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
        let meta = node.map(|node| node.meta).unwrap_or_default();
        json!({
            "Config": {
                "Datacenter": datacenter(view),
                "PrimaryDatacenter": datacenter(view),
                "NodeName": home.node,
                "NodeID": id,
                "Server": true,
                "Revision": "",
                "Version": VERSION,
                "BuildDate": "0001-01-01T00:00:00Z",
            },
            "DebugConfig": {},
            "Coord": Value::Null,
            "Member": member(&api, view),
            "Stats": {
                "agent": { "check_monitors": "0", "services": view.catalog.services().count().to_string() },
                "build": { "version": VERSION },
                "consul": { "leader": "true", "leader_addr": api.grpc_address, "server": "true" },
            },
            "Meta": meta,
        })
    });
    Answer::json(&call, &written)
}

/// There is no gossip: the control plane is the only member.
pub(super) async fn members(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::Node(""))?;
    let member = api.mirror.read(|view| member(&api, view));
    Answer::json(&call, &[member])
}

fn member(api: &Api, view: &View) -> Value {
    let home = api.registry.home();
    let port = api.grpc_address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(0);
    json!({
        "Name": home.node,
        "Addr": home.address,
        "Port": port,
        "Tags": { "role": "consul", "dc": datacenter(view), "build": VERSION },
        "Status": 1,
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 4,
    })
}
