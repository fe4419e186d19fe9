//! The certificate authority in Consul's form, and whether a connection is authorised.

use axum::extract::State;
use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use postern_ca::{CertificateDer, SpiffeId, TrustBundle};
use postern_names::ServiceName;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::{Api, Shared};
use super::answer::Answer;
use super::blocking::for_nothing_new;
use super::body::Json;
use super::call::Call;
use super::error::ConsulError;
use super::intentions::is_allowed;
use crate::acl::{Access, Resource};

/// `GET /v1/connect/ca/roots` and `GET /v1/agent/connect/ca/roots`: public, as certificates are.
pub(super) async fn roots(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let bundle = api.identity.bundle();
    if call.text("pem").is_some_and(|pem| pem != "false") {
        return Ok(Answer::bytes(&call, "application/pem-certificate-chain", bundle.to_pem()));
    }
    let index = for_nothing_new(&api, &call).await;
    let trust_domain = api.mirror.read(|view| view.cluster.trust_domain.clone());
    let roots: Vec<Value> =
        bundle.roots().iter().enumerate().filter_map(|(number, der)| root(&trust_domain, der, number == 0)).collect();
    let active = roots.first().and_then(|root| root["ID"].as_str()).unwrap_or_default().to_owned();
    let answer = json!({ "ActiveRootID": active, "TrustDomain": trust_domain.to_string(), "Roots": roots });
    Ok(Answer::json(&call, &answer)?.at(index))
}

fn root(trust_domain: &postern_names::TrustDomain, der: &CertificateDer<'static>, is_active: bool) -> Option<Value> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let fingerprint = HEXLOWER.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref());
    let colons: Vec<&str> = (0..fingerprint.len() / 2).filter_map(|at| fingerprint.get(2 * at..2 * at + 2)).collect();
    let time = |time: x509_parser::time::ASN1Time| super::super::rfc3339(time.to_datetime().into());
    Some(json!({
        "ID": colons.join(":"),
        "Name": "Postern CA Root Cert",
        "SerialNumber": parsed.tbs_certificate.serial.iter_u64_digits().next().unwrap_or_default(),
        "SigningKeyID": "",
        "ExternalTrustDomain": trust_domain.to_string(),
        "NotBefore": time(parsed.validity().not_before),
        "NotAfter": time(parsed.validity().not_after),
        "RootCert": TrustBundle::new(trust_domain.clone(), vec![der.clone()], 0).to_pem(),
        "IntermediateCerts": null,
        "Active": is_active,
        "PrivateKeyType": "ec",
        "PrivateKeyBits": 256,
        "CreateIndex": 1,
        "ModifyIndex": 1,
    }))
}

/// `GET /v1/connect/ca/configuration`: what there is to know; it is set when the control plane starts.
pub(super) async fn configuration(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Read, Resource::Operator)?;
    let answer = json!({
        "Provider": "postern",
        "Config": { "LeafCertTTL": format!("{}s", api.svid_ttl.as_secs()) },
        "ForceWithoutCrossSigning": false,
        "CreateIndex": 1,
        "ModifyIndex": 1,
    });
    Answer::json(&call, &answer)
}

/// `PUT /v1/connect/ca/configuration`
pub(super) async fn set_configuration(call: Call) -> Result<Answer, ConsulError> {
    call.require(Access::Write, Resource::Operator)?;
    Err(ConsulError::absent("The authority is set when the control plane starts: --ca-cert, --ca-key and --svid-ttl."))
}

/// `GET /v1/agent/connect/ca/leaf/{service}`
pub(super) async fn leaf(call: Call) -> Result<Answer, ConsulError> {
    let service = call.name_after("/v1/agent/connect/ca/leaf/", "service")?;
    call.require(Access::Write, Resource::Service(&service))?;
    Err(ConsulError::absent(
        "The key of a certificate never leaves the process that made it: enrol with `meshctl token create` and `meshctl proxy`.",
    ))
}

/// `POST /v1/agent/connect/authorize`
pub(super) async fn authorize(State(api): Shared, call: Call, Json(body): Json) -> Result<Answer, ConsulError> {
    let target = body.text("Target")?;
    call.require(Access::Write, Resource::Service(&target))?;
    let target: ServiceName = target.parse().map_err(|error| ConsulError::bad_request(format!("Target: {error}")))?;
    let uri = body.text("ClientCertURI")?;
    let id: SpiffeId = uri.parse().map_err(|_| ConsulError::bad_request("ClientCertURI not a valid Connect identifier"))?;
    let (authorized, reason) = match caller(&api, &id) {
        Ok(source) => is_allowed(&api, source, target),
        Err(reason) => (false, reason),
    };
    Ok(Answer::json(&call, &json!({ "Authorized": authorized, "Reason": reason }))?.status(StatusCode::OK))
}

fn caller(api: &Api, id: &SpiffeId) -> Result<ServiceName, String> {
    let (trust_domain, datacenter) = api.mirror.read(|view| (view.cluster.trust_domain.clone(), view.cluster.datacenter.clone()));
    id.service_in(&trust_domain, &datacenter).map_err(|refusal| format!("not one of this mesh: {refusal}"))
}
