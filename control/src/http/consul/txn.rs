//! `/v1/txn`: up to 128 operations, all or none.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use bytes::Bytes;
use data_encoding::BASE64;
use serde::Serialize;
use serde_json::Value;

use super::super::Shared;
use super::answer::Answer;
use super::body;
use super::call::Call;
use super::error::ConsulError;
use super::fields::Fields;
use super::kv::{KvPair, check_key};
use crate::acl::{Access, Resource};
use crate::kv::{KvOp, MAX_OPS, MAX_VALUE_BYTES, Outcome};

/// Bytes of a body: 128 keys, or a value of 512 KiB in base64.
const BODY_LIMIT: usize = 2 << 20;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TxnAnswer {
    results: Option<Vec<TxnResult>>,
    errors: Option<Vec<TxnError>>,
}

#[derive(Debug, Serialize)]
struct TxnResult {
    #[serde(rename = "KV")]
    kv: KvPair,
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
    let denied: Vec<TxnError> = ops.iter().enumerate().filter_map(|(index, op)| denial(&call, index, op)).collect();
    if !denied.is_empty() {
        return Answer::json(&call, &TxnAnswer { results: None, errors: Some(denied) })
            .map(|it| it.status(StatusCode::FORBIDDEN));
    }
    let reads_only = ops.iter().all(KvOp::only_reads);
    match api.keys.apply(&ops).await? {
        Outcome::Refused(errors) => {
            let errors = errors.into_iter().map(|error| TxnError { op_index: error.op, what: error.what }).collect();
            Ok(Answer::json(&call, &TxnAnswer { results: None, errors: Some(errors) })?.status(StatusCode::CONFLICT))
        }
        Outcome::Done { revision, results } => {
            let results = results.iter().map(|it| TxnResult { kv: KvPair::new(&it.key, &it.entry, it.value.as_deref()) });
            let answer = Answer::json(&call, &TxnAnswer { results: Some(results.collect()), errors: None })?;
            Ok(if reads_only { answer.at(revision) } else { answer })
        }
    }
}

/// The operations that a body asks for, at most 128, with keys and values that may be stored.
///
/// # Errors
/// 400, 413 and 501 for what is not understood, too large or not there.
pub fn operations(body: &[u8]) -> Result<Vec<KvOp>, ConsulError> {
    let ops: Vec<Value> =
        serde_json::from_slice(body).map_err(|error| ConsulError::bad_request(format!("Failed to parse body: {error}")))?;
    if ops.len() > MAX_OPS {
        let text = format!("Transaction contains too many operations ({} > {MAX_OPS})", ops.len());
        return Err(ConsulError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    ops.into_iter().map(op_of).collect()
}

fn op_of(value: Value) -> Result<KvOp, ConsulError> {
    let fields = Fields::of(value)?;
    for kind in ["Node", "Service", "Check", "Session"] {
        if fields.get(kind).is_some() {
            return Err(ConsulError::absent(format!("{kind} operations in a transaction are not built; use its own endpoint.")));
        }
    }
    let kv = fields.object("KV")?;
    let key: Bytes = kv.text("Key")?.into_bytes().into();
    let key = key.slice(key.iter().take_while(|byte| **byte == b'/').count()..);
    check_key(&key)?;
    let verb = kv.text("Verb")?;
    let is_tree = matches!(verb.as_str(), "get-tree" | "delete-tree");
    if key.is_empty() && !is_tree {
        return Err(ConsulError::bad_request("Missing key name"));
    }
    let value = || value_of(&kv, &key);
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

fn denial(call: &Call, op_index: usize, op: &KvOp) -> Option<TxnError> {
    let key = op.key();
    let resource = if op.is_about_a_tree() { Resource::KeyPrefix(key) } else { Resource::Key(key) };
    // What is read of a tree is given whole.
    let access = match op {
        _ if op.only_reads() => Access::Read,
        _ => Access::Write,
    };
    call.authority.require(access, resource).err().map(|denied| TxnError { op_index, what: denied.to_string() })
}
