//! Requests of Consul's API: the query on the first line, the body after it. And keys as they are stored.

use postern_api::consul::duration;
use postern_control::http::consul::call::{Params, Plus, decode};
use postern_control::http::consul::fields::Fields;
use postern_control::http::consul::txn;
use postern_control::kv::{MAX_KEY_BYTES, MAX_OPS, MAX_VALUE_BYTES, StoredEntry};

/// `?query`, a line break, and a body.
pub fn consul_request(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (query, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let query = String::from_utf8_lossy(query);
    let params = Params::parse(&query);
    for name in ["index", "wait", "recurse", "cas", "separator"] {
        assert!(params.has(name) || params.text(name).is_none());
        if let Some(wait) = params.text(name).and_then(duration::parse) {
            assert_eq!(duration::parse(&duration::format(wait)), Some(wait), "{query}");
        }
    }
    assert!(decode(&query, Plus::IsPlus).len() <= query.len());
    if let Ok(fields) = Fields::read(body) {
        for (name, _) in fields.entries() {
            let _ = (fields.text(name), fields.number(name), fields.flag(name));
            let _ = (fields.texts(name), fields.object(name), fields.duration(name));
        }
    }
    if let Ok(ops) = txn::operations(body) {
        assert!(ops.len() <= MAX_OPS);
        for op in ops {
            let txn::TxnOp::Kv(op) = op else { continue };
            assert!(op.key().len() <= MAX_KEY_BYTES && op.value().is_none_or(|value| value.len() <= MAX_VALUE_BYTES));
        }
    }
}

/// A key of the store: what is read is written again byte for byte.
pub fn stored_key(data: &[u8]) {
    let bytes = prost::bytes::Bytes::copy_from_slice(data);
    if let Ok(entry) = StoredEntry::decode(b"key", &bytes) {
        assert_eq!(entry.encode(), bytes);
    }
}
