//! Which caller may make which call.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use postern_api::v1::identity_server::{Identity, IdentityServer};
use postern_api::v1::mesh_server::MeshServer;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::identity::CallerInfo;
use crate::mirror::Mirror;
use crate::push::{MeshService, Shared};

/// Messages of sidecars are small; this is far above the largest.
const MAX_MESSAGE: usize = 1 << 20;

const ENROLL: &str = "/postern.v1.Identity/Enroll";
const RENEW: &str = "/postern.v1.Identity/Renew";
const CONNECT: &str = "/postern.v1.Mesh/Connect";

/// The services of the port.
pub(super) struct Calls<I> {
    identity: IdentityServer<I>,
    mesh: MeshServer<Shared>,
    mirror: Arc<Mirror>,
}

/// The services as one connection sees them.
pub(super) struct CallsOf<I> {
    identity: IdentityServer<I>,
    mesh: MeshServer<Shared>,
    mirror: Arc<Mirror>,
    caller: CallerInfo,
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<I: Identity> Calls<I> {
    pub(super) fn new(identity: Arc<I>, mesh: Arc<MeshService>, mirror: Arc<Mirror>) -> Self {
        Self {
            identity: IdentityServer::from_arc(identity).max_decoding_message_size(MAX_MESSAGE),
            mesh: MeshServer::new(Shared(mesh)).max_decoding_message_size(MAX_MESSAGE),
            mirror,
        }
    }

    /// The services for one caller.
    pub(super) fn of(&self, caller: CallerInfo) -> CallsOf<I> {
        CallsOf { identity: self.identity.clone(), mesh: self.mesh.clone(), mirror: Arc::clone(&self.mirror), caller }
    }
}

impl<I: Identity> hyper::service::Service<http::Request<Incoming>> for CallsOf<I> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: http::Request<Incoming>) -> Answer {
        let is_revoked = self.caller.peer.as_ref().is_some_and(|peer| self.mirror.read(|view| view.is_revoked(&peer.serial)));
        if let Err(status) = may_call(request.uri().path(), &self.caller, is_revoked, SystemTime::now()) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        request.extensions_mut().insert(self.caller.clone());
        // The generated services are always ready.
        if request.uri().path() == CONNECT { self.mesh.clone().call(request) } else { self.identity.clone().call(request) }
    }
}

/// Enrolment needs no certificate, renewal one that may have expired, the rest a valid one.
fn may_call(path: &str, caller: &CallerInfo, is_revoked: bool, now: SystemTime) -> Result<(), Status> {
    match (path, &caller.peer) {
        (ENROLL, _) => Ok(()),
        (RENEW | CONNECT, None) => Err(Status::unauthenticated("this call needs the SVID of a service as client certificate")),
        (RENEW | CONNECT, Some(_)) if is_revoked => {
            Err(Status::permission_denied("the SVID was revoked; enrol with a new token"))
        }
        (CONNECT, Some(peer)) if peer.is_expired(now) => {
            Err(Status::unauthenticated("the SVID expired; renew it, or enrol with a new token"))
        }
        (RENEW | CONNECT, Some(_)) => Ok(()),
        _ => Err(Status::unimplemented("this control plane has no such call")),
    }
}
