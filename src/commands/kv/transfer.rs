//! Keys and values to and from a file.

use std::path::Path;
use std::time::Duration;

use data_encoding::BASE64;
use hyper::Method;
use serde_json::Value;

use super::super::{done, input_file};
use super::pair::Exported;
use super::{VALUE_LIMIT, pairs, set_op, tree_path};
use crate::client::Client;
use crate::outcome::{Failure, Outcome};
use crate::terminal;

/// Bytes of a file: more than an export of all that there can be, in base64.
const FILE_LIMIT: u64 = 512 << 20;
/// Operations of a transaction, and the bytes of their values in base64.
const AT_ONCE: usize = 128;
const BYTES_AT_ONCE: usize = 700 << 10;

/// Prints every key under a prefix.
pub async fn export(client: &mut Client, prefix: &str) -> Outcome {
    let pairs = pairs(client, &format!("{}?recurse", tree_path(prefix))).await?.unwrap_or_default();
    let exported: Vec<Exported> = pairs.into_iter().map(super::Pair::exported).collect();
    let text = serde_json::to_string_pretty(&exported).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
    terminal::print(&(text + "\n"))?;
    done()
}

/// Sets every key of a file, in transactions of many.
pub async fn import(client: &mut Client, file: &Path, prefix: &str) -> Outcome {
    let (text, name) = input_file::text_of(file, FILE_LIMIT)?;
    let entries: Vec<Exported> = serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("{name} is not an export: {error}"))
            .cure("it is a list of {\"key\", \"flags\", \"value\" in base64}")
    })?;
    for entry in &entries {
        check(&name, entry)?;
    }
    let count = entries.len();
    for chunk in chunks(entries, prefix) {
        let body = serde_json::to_vec(&chunk).map_err(|error| Failure::new(format!("cannot write the request: {error}")))?;
        let reply = client.ask(Method::PUT, "/v1/txn", Some(body), Duration::ZERO).await?;
        client.document::<Value>(&reply)?;
    }
    terminal::print(&format!("{count} keys are set\n"))?;
    done()
}

fn check(name: &str, entry: &Exported) -> Result<(), Failure> {
    if entry.key.trim_start_matches('/').is_empty() {
        return Err(Failure::new(format!("{name} has an entry without a key")));
    }
    let value = BASE64.decode(entry.value.as_bytes());
    let value = value.map_err(|error| Failure::new(format!("{name}: the value of {} is not base64: {error}", entry.key)))?;
    if value.len() as u64 > VALUE_LIMIT {
        return Err(Failure::new(format!("{name}: the value of {} is larger than 512 KiB", entry.key)));
    }
    Ok(())
}

fn chunks(entries: Vec<Exported>, prefix: &str) -> Vec<Vec<Value>> {
    let mut chunks: Vec<Vec<Value>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let size = entry.key.len() + entry.value.len();
        bytes += size;
        if chunks.last().is_none_or(|chunk| chunk.len() == AT_ONCE || bytes > BYTES_AT_ONCE) {
            chunks.push(Vec::new());
            bytes = size;
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(set_op(&format!("{prefix}{}", entry.key), entry.flags, &entry.value));
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, bytes: usize) -> Exported {
        Exported { key: key.into(), flags: 0, value: "A".repeat(bytes) }
    }

    #[test]
    fn a_file_is_cut_into_transactions_that_fit() {
        let sizes = |entries| chunks(entries, "").iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![]), Vec::<usize>::new());
        assert_eq!(sizes((0..300).map(|n| entry(&n.to_string(), 4)).collect()), [128, 128, 44]);
        let large = || entry("large", 699_050);
        assert_eq!(sizes(vec![large(), large(), entry("a", 4), entry("b", 4)]), [1, 3]);
        assert_eq!(chunks(vec![entry("a", 4)], "team/")[0][0]["KV"]["Key"], "team/a");
    }
}
