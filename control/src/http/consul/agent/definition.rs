//! What registers: instances and checks as they are written.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::body::Body;
use postern_checks::loose::{Unknown, from_value};
use postern_checks::{CheckForm, Definition, loose};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::body;
use super::super::call::Call;
use super::super::error::ConsulError;
use crate::audit::AuditEntry;
use crate::records::{CheckRecord, RegisteredRecord, TaggedAddress, Weights};
use crate::registry::MAX_WEIGHT;
use crate::registry::catalog::RegisteringService;

/// Bytes of a body.
const LIMIT: usize = 1 << 20;

/// An instance as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceForm {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    /// As `catalog/register` calls the name.
    service: String,
    #[serde(deserialize_with = "loose::list")]
    tags: Vec<String>,
    address: String,
    tagged_addresses: BTreeMap<String, AddressForm>,
    meta: BTreeMap<String, String>,
    port: u16,
    socket_path: String,
    kind: String,
    weights: Option<WeightsForm>,
    enable_tag_override: bool,
    proxy: Option<Value>,
    connect: Option<ConnectForm>,
    locality: Option<LocalityForm>,
    check: Option<CheckForm>,
    #[serde(deserialize_with = "loose::list")]
    checks: Vec<CheckForm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AddressForm {
    address: String,
    port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WeightsForm {
    passing: Option<u32>,
    warning: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectForm {
    native: bool,
    sidecar_service: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LocalityForm {
    region: String,
    zone: String,
}

impl ServiceForm {
    /// An instance of which only the service is said.
    pub fn named(service: &str) -> Self {
        Self { service: service.to_owned(), ..Self::default() }
    }

    /// The name of the service.
    pub fn name(&self) -> &str {
        if self.name.is_empty() { &self.service } else { &self.name }
    }

    /// Its id; its name where none is given.
    pub fn id(&self) -> &str {
        if self.id.is_empty() { self.name() } else { &self.id }
    }

    /// The instance that it describes, on a node.
    ///
    /// # Errors
    /// 400 says what is wrong, 501 what has no counterpart.
    pub fn validate(&self, node: &str) -> Result<RegisteringService, ConsulError> {
        let connects = self.connect.as_ref().is_some_and(|connect| connect.native || connect.sidecar_service.is_some());
        if connects || !self.kind.is_empty() {
            return Err(ConsulError::absent(
                "A sidecar registers itself, with the identity that it proves: start it with `meshctl proxy` or `meshctl run`, and leave Connect and Kind out.",
            ));
        }
        if !self.socket_path.is_empty() {
            return Err(ConsulError::absent("An instance is found at an address and a port, not at a socket."));
        }
        let _ = &self.proxy;
        let name = self.name();
        if name.is_empty() {
            return Err(ConsulError::bad_request("Missing service name"));
        }
        let service = name.parse().map_err(|error| ConsulError::bad_request(format!("Invalid service name: {error}")))?;
        if ["0.0.0.0", "::", "[::]"].contains(&self.address.as_str()) {
            return Err(ConsulError::bad_request(format!("Invalid service address: {:?} cannot be dialled", self.address)));
        }
        let weights = self.weights.as_ref();
        let weight = |given: Option<u32>, least: u32| match given {
            Some(weight) if weight < least || weight > MAX_WEIGHT => {
                Err(ConsulError::bad_request(format!("Invalid Weights: {weight} is not from {least} to {MAX_WEIGHT}")))
            }
            weight => Ok(weight.unwrap_or(1)),
        };
        let tagged = self.tagged_addresses.iter();
        let tagged = tagged.map(|(tag, place)| (tag.clone(), TaggedAddress { address: place.address.clone(), port: place.port }));
        let record = RegisteredRecord {
            node: node.to_owned(),
            id: self.id().to_owned(),
            service,
            tags: self.tags.clone(),
            address: self.address.clone(),
            port: self.port,
            tagged_addresses: tagged.collect(),
            meta: self.meta.clone(),
            weights: Weights {
                passing: weight(weights.and_then(|weights| weights.passing), 1)?,
                warning: weight(weights.and_then(|weights| weights.warning), 0)?,
            },
            enable_tag_override: self.enable_tag_override,
            locality: self.locality.as_ref().map(LocalityForm::text).unwrap_or_default(),
            created_in: None,
        };
        Ok(RegisteringService { record, replaces_checks: false })
    }

    /// The checks that it describes, which the control plane is to run.
    ///
    /// # Errors
    /// 400 says what is wrong.
    pub fn checks(&self, service: &RegisteredRecord, allows_scripts: bool) -> Result<Vec<CheckRecord>, ConsulError> {
        // An empty check is as if there were none.
        let forms: Vec<&CheckForm> =
            self.check.iter().chain(&self.checks).filter(|form| **form != CheckForm::default()).collect();
        let several = forms.len() > 1;
        let records = forms.iter().enumerate().map(|(at, form)| {
            let mut form = (*form).clone();
            if form.check_id.is_empty() {
                form.check_id = std::mem::take(&mut form.id);
            }
            if form.check_id.is_empty() {
                let number = if several { format!(":{}", at + 1) } else { String::new() };
                form.check_id = format!("service:{}{number}", service.id);
            }
            if form.name.is_empty() {
                form.name = format!("Service '{}' check", service.service);
            }
            let definition = runnable(&form, allows_scripts)?;
            check_record(&form, &service.node, &service.id, Some(definition))
        });
        records.collect()
    }
}

impl LocalityForm {
    fn text(&self) -> String {
        if self.zone.is_empty() { self.region.clone() } else { format!("{}/{}", self.region, self.zone) }
    }
}

/// A check that the control plane can run.
///
/// # Errors
/// 400 says what is wrong, or that programs are not run.
pub fn runnable(form: &CheckForm, allows_scripts: bool) -> Result<Definition, ConsulError> {
    let definition = form.validate().map_err(|error| ConsulError::bad_request(format!("Invalid check: {error}")))?;
    if definition.is_script() && !allows_scripts {
        return Err(ConsulError::bad_request(
            "Scripts are disabled on this agent; to enable, start the control plane with --enable-script-checks",
        ));
    }
    Ok(definition)
}

/// The record of a check; without a definition somebody else runs it.
///
/// # Errors
/// 400 where its status is none.
pub fn check_record(
    form: &CheckForm,
    node: &str,
    service_id: &str,
    definition: Option<Definition>,
) -> Result<CheckRecord, ConsulError> {
    let status = match form.status.as_str() {
        "" => postern_checks::Status::Critical,
        word => word.parse().map_err(|_| ConsulError::bad_request(format!("Invalid check status: '{word}'")))?,
    };
    let id = if form.check_id.is_empty() { &form.id } else { &form.check_id };
    Ok(CheckRecord {
        node: node.to_owned(),
        id: if id.is_empty() { form.name.clone() } else { id.clone() },
        name: form.name.clone(),
        notes: form.notes.clone(),
        status,
        output: String::new(),
        service_id: service_id.to_owned(),
        kind: definition.as_ref().map(|definition| definition.type_name().to_owned()).unwrap_or_default(),
        definition,
        status_since: SystemTime::now(),
        created_in: None,
    })
}

/// Reads a JSON body as leniently as Consul does.
///
/// # Errors
/// 400 names what cannot be read.
pub async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, ConsulError> {
    let bytes = body::read(body, LIMIT).await?;
    let refuse = |why: String| ConsulError::bad_request(format!("Request decode failed: {why}"));
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    from_value(value, Unknown::Ignored).map_err(refuse)
}

/// Who did what, for the audit log.
pub fn audited(call: &Call, what: &str, details: Value) -> AuditEntry {
    AuditEntry {
        at: SystemTime::now(),
        who: call.author.who.clone(),
        from: call.author.from.clone(),
        what: what.to_owned(),
        details,
        reason: None,
    }
}
