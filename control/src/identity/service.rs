//! The calls of sidecars.

use std::time::SystemTime;

use postern_api::convert;
use postern_api::v1::identity_server::Identity;
use postern_api::v1::{EnrollRequest, IdentityGrant, RenewRequest};
use postern_names::PortName;
use tonic::{Code, Request, Response, Status};

use super::enrolment::{Granted, NotGranted, Wanted};
use super::{CallerInfo, IdentityService};

/// Named ports of one instance.
const MAX_PORTS: usize = 64;

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<IdentityGrant>, Status> {
        let caller = caller_of(&request)?;
        let body = request.into_inner();
        let wanted = wanted(&body.csr, &body.instance_id, &body.ports, &caller)?;
        let now = SystemTime::now();
        let granted = IdentityService::enroll(self, &body.token, &wanted, now).await;
        granted.map(|granted| self.grant(granted, now)).map_err(status_of)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<IdentityGrant>, Status> {
        let caller = caller_of(&request)?;
        let peer = caller.peer.clone().ok_or_else(|| Status::unauthenticated("a renewal needs the SVID that it replaces"))?;
        let body = request.into_inner();
        let wanted = wanted(&body.csr, &body.instance_id, &body.ports, &caller)?;
        let now = SystemTime::now();
        let granted = IdentityService::renew(self, &peer, &wanted, now).await;
        granted.map(|granted| self.grant(granted, now)).map_err(status_of)
    }
}

impl IdentityService {
    fn grant(&self, granted: Granted, now: SystemTime) -> Response<IdentityGrant> {
        Response::new(IdentityGrant {
            chain: granted.chain.iter().map(|der| der.to_vec().into()).collect(),
            bundle: Some(convert::bundle_to_wire(&self.bundle())),
            lineage: granted.lineage,
            cluster_id: self.mirror.read(|view| view.cluster.cluster_id.clone()),
            server_time_ms: convert::millis(now),
        })
    }
}

fn caller_of<T>(request: &Request<T>) -> Result<CallerInfo, Status> {
    request.extensions().get::<CallerInfo>().cloned().ok_or_else(|| Status::internal("the connection of this call is not known"))
}

fn wanted(csr: &[u8], instance: &str, ports: &[String], caller: &CallerInfo) -> Result<Wanted, Status> {
    let instance = instance.parse().map_err(|error: postern_names::NameError| Status::invalid_argument(error.to_string()))?;
    if ports.len() > MAX_PORTS {
        return Err(Status::invalid_argument(format!("{} named ports; an instance has at most {MAX_PORTS}", ports.len())));
    }
    let parsed: Result<Vec<PortName>, _> = ports.iter().map(|name| name.parse()).collect();
    let mut ports = parsed.map_err(|error: postern_names::NameError| Status::invalid_argument(error.to_string()))?;
    // The service's own name stands for `main`.
    ports.retain(|name| *name != PortName::main());
    ports.sort();
    ports.dedup();
    Ok(Wanted { csr: csr.to_vec(), instance, ports, address: caller.address })
}

fn status_of(refused: NotGranted) -> Status {
    let code = match &refused {
        NotGranted::TooManyTries => Code::ResourceExhausted,
        NotGranted::Token(_) | NotGranted::Refused(_) => Code::PermissionDenied,
        NotGranted::Invalid(_) => Code::InvalidArgument,
        NotGranted::Failed(error) => {
            tracing::error!(%error, "an SVID was not issued");
            return Status::unavailable("the control plane cannot issue now; try again");
        }
    };
    Status::new(code, refused.to_string())
}
