//! `/v1/kv/…`: keys and values.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use bytes::Bytes;
use data_encoding::BASE64;
use serde::Serialize;

use super::super::{Api, Shared};
use super::answer::Answer;
use super::blocking::by_index;
use super::body;
use super::call::Call;
use super::error::ConsulError;
use crate::acl::{Access, Resource};
use crate::kv::{Entry, KvError, KvOp, MAX_KEY_BYTES, MAX_VALUE_BYTES, Outcome};
use crate::mirror::Topic;

const PREFIX: &str = "/v1/kv/";

/// A key as Consul's API writes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KvPair {
    lock_index: u64,
    key: String,
    flags: u64,
    /// Base64, null where it is empty or left out.
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    create_index: u64,
    modify_index: u64,
}

impl KvPair {
    /// What is no text in the key is replaced, as Consul does.
    pub(super) fn new(key: &[u8], entry: &Entry, value: Option<&[u8]>) -> Self {
        Self {
            lock_index: entry.stored.lock_index,
            key: String::from_utf8_lossy(key).into_owned(),
            flags: entry.stored.flags,
            value: value.filter(|value| !value.is_empty()).map(|value| BASE64.encode(value)),
            session: entry.stored.session.clone(),
            create_index: entry.create_index,
            modify_index: entry.modify_index,
        }
    }
}

/// `GET /v1/kv/…`
pub(super) async fn get(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let key = key_of(&call)?;
    if call.has("keys") {
        return keys(&api, &call, key).await;
    }
    if call.has("recurse") {
        return tree(&api, &call, key).await;
    }
    if key.is_empty() {
        return Err(missing_key());
    }
    call.require(Access::Read, Resource::Key(&key))?;
    let topic = Topic::Key(key.clone());
    let (index, entry) = by_index(&api, &call, &[topic], |view| (view.kv.index_of(&key), view.kv.get(&key).cloned())).await;
    let Some(entry) = entry else { return Ok(Answer::nothing(&call, StatusCode::NOT_FOUND).at(index)) };
    let value = api.keys.open(&key, &entry.stored).map_err(ConsulError::internal)?;
    if call.has("raw") {
        let sandbox = HeaderValue::from_static("sandbox");
        return Ok(Answer::bytes(&call, "text/plain", value).with(header::CONTENT_SECURITY_POLICY, sandbox).at(index));
    }
    Ok(Answer::json(&call, &[KvPair::new(&key, &entry, Some(&value))])?.at(index))
}

async fn tree(api: &Api, call: &Call, prefix: Bytes) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::KeyPrefix(&prefix))?;
    let topic = Topic::KeysUnder(prefix.clone());
    let (index, entries) = by_index(api, call, &[topic], |view| {
        let entries: Vec<(Bytes, Entry)> = view.kv.under(&prefix).map(|(key, entry)| (key.clone(), entry.clone())).collect();
        (view.kv.index_under(&prefix), entries)
    })
    .await;
    let may_read = |key: &Bytes| call.authority.may(Access::Read, Resource::Key(key));
    let mut pairs = Vec::with_capacity(entries.len());
    for (key, entry) in entries.iter().filter(|(key, _)| may_read(key)) {
        let value = api.keys.open(key, &entry.stored).map_err(ConsulError::internal)?;
        pairs.push(KvPair::new(key, entry, Some(&value)));
    }
    if pairs.is_empty() {
        return Ok(Answer::nothing(call, StatusCode::NOT_FOUND).at(index));
    }
    Ok(Answer::json(call, &pairs)?.at(index))
}

async fn keys(api: &Api, call: &Call, prefix: Bytes) -> Result<Answer, ConsulError> {
    call.require(Access::List, Resource::KeyPrefix(&prefix))?;
    // Consul takes both spellings.
    let separator = call.params().bytes("separator").or_else(|| call.params().bytes("seperator")).unwrap_or_default();
    let may_read = |key: &[u8]| call.authority.may(Access::Read, Resource::Key(key));
    let topic = Topic::KeysUnder(prefix.clone());
    let (index, names) = by_index(api, call, &[topic], |view| {
        let names = view.kv.under(&prefix).map(|(key, _)| key).filter(|key| may_read(key));
        let mut names: Vec<Bytes> = names.map(|key| key.slice(..up_to(key, prefix.len(), separator))).collect();
        names.dedup();
        (view.kv.index_under(&prefix), names)
    })
    .await;
    if names.is_empty() && !prefix.is_empty() {
        return Ok(Answer::nothing(call, StatusCode::NOT_FOUND).at(index));
    }
    let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
    Ok(Answer::json(call, &names)?.at(index))
}

/// The length of a key up to the first separator after the prefix, the separator included.
fn up_to(key: &[u8], prefix: usize, separator: &[u8]) -> usize {
    let rest = key.get(prefix..).unwrap_or_default();
    if separator.is_empty() {
        return key.len();
    }
    let at = rest.windows(separator.len()).position(|window| window == separator);
    at.map_or(key.len(), |at| prefix + at + separator.len())
}

/// `PUT /v1/kv/…`
pub(super) async fn put(State(api): Shared, call: Call, request: Request) -> Result<Answer, ConsulError> {
    let key = key_of(&call)?;
    if key.is_empty() {
        return Err(missing_key());
    }
    one_of(&call, &["cas", "acquire", "release"])?;
    let flags = call.number("flags")?.unwrap_or(0);
    let cas = call.number("cas")?;
    call.require(Access::Write, Resource::Key(&key))?;
    let session = |name: &str| call.text(name).map(ToOwned::to_owned);
    let value = value_of(request).await?;
    let op = match (cas, session("acquire"), session("release")) {
        (Some(index), _, _) => KvOp::Cas { key, value, flags, index },
        (None, Some(session), _) => KvOp::Lock { key, value, flags, session },
        (None, None, Some(session)) => KvOp::Unlock { key, value, flags, session },
        (None, None, None) => KvOp::Set { key, value, flags },
    };
    apply(&api, &call, op).await
}

/// `DELETE /v1/kv/…`
pub(super) async fn delete(State(api): Shared, call: Call) -> Result<Answer, ConsulError> {
    let key = key_of(&call)?;
    one_of(&call, &["recurse", "cas"])?;
    let op = if call.has("recurse") {
        call.require(Access::Write, Resource::KeyPrefix(&key))?;
        KvOp::DeleteTree(key)
    } else {
        if key.is_empty() {
            return Err(missing_key());
        }
        let cas = call.number("cas")?;
        call.require(Access::Write, Resource::Key(&key))?;
        match cas {
            Some(index) => KvOp::DeleteCas { key, index },
            None => KvOp::Delete(key),
        }
    };
    apply(&api, &call, op).await
}

/// True, or false where the key was in another state than the change wanted.
async fn apply(api: &Api, call: &Call, op: KvOp) -> Result<Answer, ConsulError> {
    match api.keys.apply(&[op]).await? {
        Outcome::Done { .. } => Answer::json(call, &true),
        Outcome::Refused(errors) => match errors.into_iter().find(|error| !error.is_state) {
            Some(error) => Err(ConsulError::refused(error.what)),
            None => Answer::json(call, &false),
        },
    }
}

fn key_of(call: &Call) -> Result<Bytes, ConsulError> {
    let key = call.rest_of_path(PREFIX);
    check_key(&key)?;
    Ok(key.into())
}

/// Refuses a key that is too long.
pub(super) fn check_key(key: &[u8]) -> Result<(), ConsulError> {
    if key.len() > MAX_KEY_BYTES {
        let text = format!("Key is too long ({} bytes), a key has at most {MAX_KEY_BYTES} bytes", key.len());
        return Err(ConsulError::bad_request(text));
    }
    Ok(())
}

async fn value_of(request: Request) -> Result<Bytes, ConsulError> {
    let declared = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = declared.filter(|length| *length > MAX_VALUE_BYTES as u64) {
        let text = format!("Request body({length} bytes) too large, max size: {MAX_VALUE_BYTES} bytes.");
        return Err(ConsulError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    body::read(request.into_body(), MAX_VALUE_BYTES).await
}

fn one_of(call: &Call, names: &[&str]) -> Result<(), ConsulError> {
    let given: Vec<&str> = names.iter().copied().filter(|name| call.has(name)).collect();
    if given.len() > 1 {
        return Err(ConsulError::bad_request(format!("Conflicting flags: {}", given.join(", "))));
    }
    Ok(())
}

fn missing_key() -> ConsulError {
    ConsulError::bad_request("Missing key name")
}

impl From<KvError> for ConsulError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Store(error) => Self::from(error),
            KvError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            KvError::Seal(error) => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_cut_after_the_first_separator_behind_the_prefix() {
        let cut = |key: &str, prefix: &str, separator: &str| {
            key[..up_to(key.as_bytes(), prefix.len(), separator.as_bytes())].to_owned()
        };
        assert_eq!(cut("app/db/host", "", "/"), "app/");
        assert_eq!(cut("app/db/host", "app/", "/"), "app/db/");
        assert_eq!(cut("app/db/host", "app", "/"), "app/");
        assert_eq!(cut("app/db", "app/", "/"), "app/db");
        assert_eq!(cut("a--b--c", "", "--"), "a--");
        assert_eq!(cut("a/b", "", ""), "a/b");
    }
}
