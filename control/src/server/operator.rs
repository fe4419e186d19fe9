//! The operator's token: in a file of the data directory, its hash in the store.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use postern_ca::OperatorToken;
use serde_json::json;

use super::ControlError;
use crate::audit::AuditEntry;
use crate::http::auth::{Operators, read_token, write_token};
use crate::store::{Op, Store, Txn};

/// The keys are `operator/` and the hash of a token.
const PREFIX: &str = "operator/";

/// Reads the token of the file, or writes a new one where there is none: so deleting the file and starting again ends the
/// old one. The store then holds the hash of this token alone.
pub(super) async fn ensure(store: &Arc<dyn Store>, path: &Path) -> Result<Operators, ControlError> {
    let token = match read_token(path).map_err(ControlError::OperatorToken)? {
        Some(token) => token,
        None => {
            let token = OperatorToken::generate().map_err(|error| ControlError::OperatorToken(error.to_string()))?;
            write_token(path, &token).map_err(ControlError::OperatorToken)?;
            tracing::info!(path = %path.display(), "wrote a new operator token");
            token
        }
    };
    let hash = token.hash();
    let stored = store.range(PREFIX.as_bytes(), 0).await?;
    let key = format!("{PREFIX}{hash}");
    let is_current = matches!(stored.kvs.as_slice(), [only] if only.key == key.as_bytes());
    if !is_current {
        replace(store, stored.kvs.into_iter().map(|kv| kv.key).filter(|old| *old != key.as_bytes()).collect(), &key, &hash)
            .await?;
    }
    Ok(Operators::new(vec![hash]))
}

async fn replace(store: &Arc<dyn Store>, old: Vec<Bytes>, key: &str, hash: &str) -> Result<(), ControlError> {
    let entry = AuditEntry {
        at: SystemTime::now(),
        who: "control-plane".into(),
        from: "local".into(),
        what: "operator.create".into(),
        details: json!({ "token": hash.get(..8), "replaces": old.len() }),
        reason: None,
    };
    let mut txn = Txn::new().then(Op::put(key.to_owned(), Bytes::new())).then(entry.op());
    txn.then.extend(old.into_iter().map(Op::delete));
    store.txn(txn).await?;
    Ok(())
}
