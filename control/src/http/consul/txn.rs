//! `/v1/txn`: up to 128 operations, all or none.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use bytes::Bytes;
use data_encoding::BASE64;
use postern_checks::CheckForm;
use postern_checks::loose::{Unknown, from_value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{Api, Shared};
use super::agent::definition::{ServiceForm, audited, check_record};
use super::answer::Answer;
use super::body;
use super::call::Call;
use super::catalog::catalog;
use super::error::ConsulError;
use super::fields::Fields;
use super::kv::{KvPair, check_key};
use super::shape;
use crate::acl::{Access, Resource};
use crate::kv::{KvOp, KvResult, MAX_OPS, MAX_VALUE_BYTES, Outcome};
use crate::records::{NodeRecord, RegisteredRecord};
use crate::registry::catalog::operations::{CatalogOp, Found, Subject, Verb, evaluate};

/// Bytes of a body: 128 keys, or a value of 512 KiB in base64.
const BODY_LIMIT: usize = 2 << 20;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TxnAnswer {
    results: Option<Vec<TxnResult>>,
    errors: Option<Vec<TxnError>>,
}

#[derive(Debug, Serialize)]
enum TxnResult {
    #[serde(rename = "KV")]
    Kv(KvPair),
    Node(Value),
    Service(Value),
    Check(Value),
}

/// An operation of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum TxnOp {
    /// On keys.
    Kv(KvOp),
    /// On nodes, instances and checks.
    Catalog(Box<CatalogOp>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TxnError {
    op_index: usize,
    what: String,
}

/// `PUT /v1/txn`
pub(super) async fn apply(State(api): Shared, call: Call, request: Request) -> Result<Answer, ConsulError> {
    let body = body::read(request.into_body(), BODY_LIMIT).await?;
    let ops = operations(&body)?;
    let denied: Vec<TxnError> = ops.iter().enumerate().filter_map(|(index, op)| denial(&api, &call, index, op, &ops)).collect();
    if !denied.is_empty() {
        return Answer::json(&call, &TxnAnswer { results: None, errors: Some(denied) })
            .map(|it| it.status(StatusCode::FORBIDDEN));
    }
    let sorted = Sorted::of(ops);
    let reads_only = sorted.keys.iter().all(KvOp::only_reads) && sorted.catalog.iter().all(|op| op.verb == Verb::Get);
    let (outcome, found) = sorted.carry_out(&api, &call).await?;
    match outcome {
        Outcome::Refused(errors) => {
            let errors = errors.into_iter().map(|error| TxnError { op_index: sorted.place(error.op), what: error.what });
            let errors = Some(errors.collect());
            Ok(Answer::json(&call, &TxnAnswer { results: None, errors })?.status(StatusCode::CONFLICT))
        }
        Outcome::Done { revision, results } => {
            let results = Some(sorted.results(&api, revision, &results, found));
            let answer = Answer::json(&call, &TxnAnswer { results, errors: None })?;
            Ok(if reads_only { answer.at(revision) } else { answer })
        }
    }
}

/// Operations by what they are about, with their places in the request.
struct Sorted {
    keys: Vec<KvOp>,
    places_of_keys: Vec<usize>,
    catalog: Vec<CatalogOp>,
    places_of_catalog: Vec<usize>,
}

impl Sorted {
    fn of(ops: Vec<TxnOp>) -> Self {
        let mut sorted =
            Self { keys: Vec::new(), places_of_keys: Vec::new(), catalog: Vec::new(), places_of_catalog: Vec::new() };
        for (place, op) in ops.into_iter().enumerate() {
            match op {
                TxnOp::Kv(op) => {
                    sorted.keys.push(op);
                    sorted.places_of_keys.push(place);
                }
                TxnOp::Catalog(op) => {
                    sorted.catalog.push(*op);
                    sorted.places_of_catalog.push(place);
                }
            }
        }
        sorted
    }

    /// The place in the request of a number that the evaluation counts.
    fn place(&self, number: usize) -> usize {
        let after = number.checked_sub(self.keys.len());
        let place = match after {
            None => self.places_of_keys.get(number),
            Some(after) => self.places_of_catalog.get(after),
        };
        place.copied().unwrap_or(number)
    }

    async fn carry_out(&self, api: &Api, call: &Call) -> Result<(Outcome, Vec<(usize, Found)>), ConsulError> {
        if self.catalog.is_empty() {
            return Ok((api.keys.apply(&self.keys).await?, Vec::new()));
        }
        let home = api.registry.home();
        let written: Vec<String> = self.catalog.iter().filter(|op| op.verb != Verb::Get).map(|op| op.subject.shown()).collect();
        let (outcome, found) = api
            .keys
            .apply_beside(&self.keys, |view| {
                let mut beside = evaluate(view, home, &self.catalog)?;
                if !beside.ops.is_empty() {
                    beside.ops.push(audited(call, "catalog.txn", json!({ "written": written })).op());
                }
                Ok(beside)
            })
            .await?;
        Ok((outcome, found.unwrap_or_default()))
    }

    /// What the operations give, in the order of the request.
    fn results(&self, api: &Api, revision: u64, keys: &[KvResult], found: Vec<(usize, Found)>) -> Vec<TxnResult> {
        let of_keys =
            keys.iter().map(|it| (self.place(it.op), TxnResult::Kv(KvPair::new(&it.key, &it.entry, it.value.as_deref()))));
        let own = api.mirror.read(|view| view.cluster.datacenter.to_string());
        let of_catalog = found.into_iter().map(|(number, mut found)| {
            found.commit(revision);
            let result = match found {
                Found::Node(node) => TxnResult::Node(shape::node(&node, &own)),
                Found::Service(entry) => TxnResult::Service(shape::node_service(&entry)),
                Found::Check(check) => TxnResult::Check(shape::check(&check)),
            };
            (self.place(number + self.keys.len()), result)
        });
        let mut placed: Vec<(usize, TxnResult)> = of_keys.chain(of_catalog).collect();
        placed.sort_by_key(|(place, _)| *place);
        placed.into_iter().map(|(_, result)| result).collect()
    }
}

/// The operations that a body asks for, at most 128, with keys and values that may be stored.
///
/// # Errors
/// 400, 413 and 501 for what is not understood, too large or not there.
pub fn operations(body: &[u8]) -> Result<Vec<TxnOp>, ConsulError> {
    let ops: Vec<Value> =
        serde_json::from_slice(body).map_err(|error| ConsulError::bad_request(format!("Failed to parse body: {error}")))?;
    if ops.len() > MAX_OPS {
        let text = format!("Transaction contains too many operations ({} > {MAX_OPS})", ops.len());
        return Err(ConsulError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    ops.into_iter().map(op_of).collect()
}

fn op_of(value: Value) -> Result<TxnOp, ConsulError> {
    let fields = Fields::of(value)?;
    if fields.get("Session").is_some() {
        return Err(ConsulError::absent("Session operations are no part of a transaction; use session/destroy."));
    }
    for (kind, subject) in [("Node", node_of as SubjectOf), ("Service", service_of), ("Check", check_of)] {
        if fields.get(kind).is_some() {
            let op = fields.object(kind)?;
            let inner = op.object(kind)?;
            let verb = verb_of(kind, &op.text("Verb")?, inner.number("ModifyIndex")?)?;
            return Ok(TxnOp::Catalog(Box::new(CatalogOp { verb, subject: subject(&op, inner, verb)? })));
        }
    }
    kv_op_of(&fields.object("KV")?).map(TxnOp::Kv)
}

/// Reads what an operation is about, from the operation and the object in it.
type SubjectOf = fn(&Fields, Fields, Verb) -> Result<Subject, ConsulError>;

fn verb_of(kind: &str, word: &str, index: u64) -> Result<Verb, ConsulError> {
    match word {
        "get" => Ok(Verb::Get),
        "set" => Ok(Verb::Set),
        "cas" => Ok(Verb::Cas(index)),
        "delete" => Ok(Verb::Delete),
        "delete-cas" => Ok(Verb::DeleteCas(index)),
        other => {
            let other: String = other.chars().take(40).collect();
            Err(ConsulError::bad_request(format!("unknown {kind} verb {other:?}")))
        }
    }
}

fn is_write(verb: Verb) -> bool {
    matches!(verb, Verb::Set | Verb::Cas(_))
}

fn node_of(_: &Fields, node: Fields, verb: Verb) -> Result<Subject, ConsulError> {
    let form: NodeForm = form_of(node)?;
    if form.node.is_empty() || (is_write(verb) && form.address.is_empty()) {
        return Err(ConsulError::bad_request("Must provide node and address"));
    }
    let NodeForm { id, node, address, tagged_addresses, meta } = form;
    Ok(Subject::Node(NodeRecord { node, id, address, tagged_addresses, meta, created_in: None }))
}

fn service_of(op: &Fields, service: Fields, verb: Verb) -> Result<Subject, ConsulError> {
    let node = op.text("Node")?;
    if node.is_empty() {
        return Err(ConsulError::bad_request("Must provide node"));
    }
    let (id, name) = (service.text("ID")?, service.text("Service")?);
    let form: ServiceForm = form_of(service)?;
    if is_write(verb) {
        return Ok(Subject::Service(form.validate(&node)?.record));
    }
    let id = if id.is_empty() { name } else { id };
    if id.is_empty() {
        return Err(ConsulError::bad_request("Missing service ID"));
    }
    // Only its names are looked at: what service it is of plays no part.
    let named = ServiceForm::named("any").validate(&node)?.record;
    Ok(Subject::Service(RegisteredRecord { id, ..named }))
}

fn check_of(_: &Fields, check: Fields, _: Verb) -> Result<Subject, ConsulError> {
    let (node, output, service) = (check.text("Node")?, check.text("Output")?, check.text("ServiceID")?);
    let form = CheckForm {
        check_id: check.text("CheckID")?,
        name: check.text("Name")?,
        status: check.text("Status")?,
        notes: check.text("Notes")?,
        ..CheckForm::default()
    };
    if node.is_empty() || (form.check_id.is_empty() && form.name.is_empty()) {
        return Err(ConsulError::bad_request("Must provide node and check ID"));
    }
    let mut record = check_record(&form, &node, &service, None)?;
    record.output = postern_checks::shortened(output.as_bytes());
    Ok(Subject::Check(Box::new(record)))
}

/// A node as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NodeForm {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    tagged_addresses: BTreeMap<String, String>,
    meta: BTreeMap<String, String>,
}

fn form_of<T: DeserializeOwned>(fields: Fields) -> Result<T, ConsulError> {
    let refuse = |why: String| ConsulError::bad_request(format!("Request decode failed: {why}"));
    from_value(fields.into_value(), Unknown::Ignored).map_err(refuse)
}

fn kv_op_of(kv: &Fields) -> Result<KvOp, ConsulError> {
    let key: Bytes = kv.text("Key")?.into_bytes().into();
    let key = key.slice(key.iter().take_while(|byte| **byte == b'/').count()..);
    check_key(&key)?;
    let verb = kv.text("Verb")?;
    let is_tree = matches!(verb.as_str(), "get-tree" | "delete-tree");
    if key.is_empty() && !is_tree {
        return Err(ConsulError::bad_request("Missing key name"));
    }
    let value = || value_of(kv, &key);
    let (flags, index, session) = (kv.number("Flags")?, kv.number("Index")?, kv.text("Session")?);
    Ok(match verb.as_str() {
        "set" => KvOp::Set { value: value()?, key, flags },
        "cas" => KvOp::Cas { value: value()?, key, flags, index },
        "lock" => KvOp::Lock { value: value()?, key, flags, session },
        "unlock" => KvOp::Unlock { value: value()?, key, flags, session },
        "get" => KvOp::Get(key),
        "get-or-empty" => KvOp::GetOrEmpty(key),
        "get-tree" => KvOp::GetTree(key),
        "check-index" => KvOp::CheckIndex { key, index },
        "check-session" => KvOp::CheckSession { key, session },
        "check-not-exists" => KvOp::CheckNotExists(key),
        "delete" => KvOp::Delete(key),
        "delete-tree" => KvOp::DeleteTree(key),
        "delete-cas" => KvOp::DeleteCas { key, index },
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(ConsulError::bad_request(format!("unknown KV verb {other:?}")));
        }
    })
}

fn value_of(kv: &Fields, key: &Bytes) -> Result<Bytes, ConsulError> {
    let shown = String::from_utf8_lossy(key);
    let value = BASE64.decode(kv.text("Value")?.as_bytes());
    let value = value.map_err(|error| ConsulError::bad_request(format!("Value for key {shown:?} is not base64: {error}")))?;
    if value.len() > MAX_VALUE_BYTES {
        let text = format!("Value for key {shown:?} is too large ({} > {MAX_VALUE_BYTES} bytes)", value.len());
        return Err(ConsulError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(value.into())
}

fn denial(api: &Api, call: &Call, op_index: usize, op: &TxnOp, all: &[TxnOp]) -> Option<TxnError> {
    let allowed = match op {
        TxnOp::Kv(op) => may_touch_key(call, op),
        TxnOp::Catalog(op) => may_touch(api, call, op, all),
    };
    allowed.err().map(|denied| TxnError { op_index, what: denied.text().to_owned() })
}

fn may_touch_key(call: &Call, op: &KvOp) -> Result<(), ConsulError> {
    let key = op.key();
    let resource = if op.is_about_a_tree() { Resource::KeyPrefix(key) } else { Resource::Key(key) };
    // What is read of a tree is given whole.
    call.require(if op.only_reads() { Access::Read } else { Access::Write }, resource)
}

/// Whoever takes over an id must be allowed to write what had it, too.
fn may_touch(api: &Api, call: &Call, op: &CatalogOp, all: &[TxnOp]) -> Result<(), ConsulError> {
    let access = if op.verb == Verb::Get { Access::Read } else { Access::Write };
    let (node, id, service) = match &op.subject {
        Subject::Node(record) => return call.require(access, Resource::Node(&record.node)),
        Subject::Service(record) => (&record.node, record.id.clone(), is_write(op.verb).then(|| record.service.to_string())),
        Subject::Check(record) => {
            let before =
                api.mirror.read(|view| Some(view.catalog.node(&record.node)?.checks.get(&record.id)?.0.service_id.clone()));
            let id = if is_write(op.verb) { record.service_id.clone() } else { before.unwrap_or_default() };
            if id.is_empty() {
                return call.require(access, Resource::Node(&record.node));
            }
            (&record.node, id, None)
        }
    };
    if let Some(service) = &service {
        call.require(access, Resource::Service(service))?;
    }
    let before = api.mirror.read(|view| catalog(api, view).entry(node, &id).map(|entry| entry.service));
    match (before, service) {
        (Some(before), _) => call.require(access, Resource::Service(before.as_str())),
        (None, Some(_)) => Ok(()),
        (None, None) => {
            let made = all.iter().find_map(|op| match op {
                TxnOp::Catalog(op) if is_write(op.verb) => match &op.subject {
                    Subject::Service(record) if record.node == *node && record.id == id => Some(record.service.as_str()),
                    _ => None,
                },
                _ => None,
            });
            match made {
                Some(service) => call.require(access, Resource::Service(service)),
                // There is nothing to touch; whoever may not see that is told nothing.
                None => call.require(access, Resource::Node(node)),
            }
        }
    }
}
