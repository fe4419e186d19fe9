//! `meshctl kv`: keys and their values.

mod pair;
mod transfer;
mod watch;

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::json;

use self::pair::Pair;
use super::done;
use crate::cli::Format;
use crate::cli::kv::{KvArgs, KvCommand};
use crate::client::{Client, encode};
use crate::outcome::{Answer, Failure, Outcome};
use crate::output::{Output, plain};
use crate::terminal;

/// Bytes of a value.
const VALUE_LIMIT: u64 = 512 << 10;

/// Reads, changes and follows keys.
pub async fn kv(args: KvArgs) -> Outcome {
    let output = Output::new(args.output.output);
    let mut client = Client::find().await?;
    match args.command {
        KvCommand::Get { key, recurse: true } => get_tree(&mut client, &output, &key).await,
        KvCommand::Get { key, recurse: false } => get(&mut client, &output, &key).await,
        KvCommand::Put { key, value, flags, cas } => {
            let condition = cas.map(|index| format!("&cas={index}")).unwrap_or_default();
            let value = value_of(value)?;
            let path = format!("{}?flags={flags}{condition}", path_of(&key)?);
            change(&mut client, Method::PUT, &path, Some(value), &key).await
        }
        KvCommand::Delete { key, recurse: true, .. } => {
            change(&mut client, Method::DELETE, &format!("{}?recurse", tree_path(&key)), None, &key).await
        }
        KvCommand::Delete { key, cas, recurse: false } => {
            let condition = cas.map(|index| format!("?cas={index}")).unwrap_or_default();
            change(&mut client, Method::DELETE, &format!("{}{condition}", path_of(&key)?), None, &key).await
        }
        KvCommand::List { prefix, separator } => list(&mut client, &output, &prefix, separator.as_deref()).await,
        KvCommand::Watch { key, recurse, command } => {
            let path = if recurse { format!("{}?recurse&", tree_path(&key)) } else { format!("{}?", path_of(&key)?) };
            watch::watch(client, &path, &command).await
        }
        KvCommand::Export { prefix } => transfer::export(&mut client, &prefix).await,
        KvCommand::Import { file, prefix } => transfer::import(&mut client, &file, &prefix).await,
    }
}

async fn get(client: &mut Client, output: &Output, key: &str) -> Outcome {
    let Some(pairs) = pairs(client, &path_of(key)?).await? else { return missing(key) };
    let Some(pair) = pairs.first() else { return missing(key) };
    match output.format() {
        Format::Table => print_value(&pair.value()?)?,
        _ => output.show(&pair.shown()?, |_| String::new())?,
    }
    done()
}

async fn get_tree(client: &mut Client, output: &Output, prefix: &str) -> Outcome {
    let pairs = pairs(client, &format!("{}?recurse", tree_path(prefix))).await?.unwrap_or_default();
    let shown = pairs.iter().map(Pair::shown).collect::<Result<Vec<_>, _>>()?;
    let text = |pair: &Pair| Ok::<_, Failure>(vec![plain(&pair.key), plain(String::from_utf8_lossy(&pair.value()?))]);
    let rows = pairs.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    output.show(&shown, |output| output.table(&["key", "value"], rows))?;
    if pairs.is_empty() { Ok(Answer::No) } else { done() }
}

async fn list(client: &mut Client, output: &Output, prefix: &str, separator: Option<&str>) -> Outcome {
    let separator = separator.map(|text| format!("&separator={}", encode(text))).unwrap_or_default();
    let path = format!("{}?keys{separator}", tree_path(prefix));
    let reply = client.ask(Method::GET, &path, None, Duration::ZERO).await?;
    let keys: Vec<String> = if reply.status == StatusCode::NOT_FOUND { Vec::new() } else { client.document(&reply)? };
    output.show(&keys, |_| keys.iter().map(|key| format!("{key}\n")).collect())?;
    if keys.is_empty() { Ok(Answer::No) } else { done() }
}

/// No where the key was in another state than the change wanted.
async fn change(client: &mut Client, method: Method, path: &str, value: Option<Vec<u8>>, key: &str) -> Outcome {
    let reply = client.ask(method, path, value, Duration::ZERO).await?;
    if client.document::<bool>(&reply)? {
        return done();
    }
    terminal::note(&format!("meshctl: {key} was changed by somebody else; nothing is done"));
    Ok(Answer::No)
}

/// The pairs behind a path; `None` where there are none.
async fn pairs(client: &mut Client, path: &str) -> Result<Option<Vec<Pair>>, Failure> {
    let reply = client.ask(Method::GET, path, None, Duration::ZERO).await?;
    if reply.status == StatusCode::NOT_FOUND { Ok(None) } else { client.document(&reply).map(Some) }
}

fn missing(key: &str) -> Outcome {
    terminal::note(&format!("meshctl: there is no key {key}"));
    Ok(Answer::No)
}

/// Prints the bytes of a value; a line of their own on a terminal.
fn print_value(value: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let end: &[u8] = if stdout.is_terminal() && !value.ends_with(b"\n") { b"\n" } else { b"" };
    match stdout.write_all(value).and_then(|()| stdout.write_all(end)).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// What is to be put: the argument itself, a file, or stdin.
fn value_of(argument: Option<OsString>) -> Result<Vec<u8>, Failure> {
    let Some(argument) = argument else { return Ok(Vec::new()) };
    let (name, read): (String, std::io::Result<Vec<u8>>) = match argument.as_bytes() {
        b"-" => ("stdin".into(), limited(std::io::stdin().lock())),
        [b'@', file @ ..] => {
            let file = Path::new(std::ffi::OsStr::from_bytes(file));
            (file.display().to_string(), std::fs::File::open(file).and_then(limited))
        }
        text => ("the value".into(), Ok(text.to_vec())),
    };
    let value = read.map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    if value.len() as u64 > VALUE_LIMIT {
        return Err(Failure::new(format!("{name} is larger than 512 KiB")).cure("a key holds configuration, not files"));
    }
    Ok(value)
}

fn limited(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(VALUE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The path of one key.
fn path_of(key: &str) -> Result<String, Failure> {
    if key.trim_start_matches('/').is_empty() {
        return Err(Failure::new("a key is not empty").cure("give --recurse for all keys"));
    }
    Ok(tree_path(key))
}

/// The path of all keys that begin so.
fn tree_path(prefix: &str) -> String {
    format!("/v1/kv/{}", encode(prefix))
}

/// One operation of a transaction that sets a key.
fn set_op(key: &str, flags: u64, value: &str) -> serde_json::Value {
    json!({ "KV": { "Verb": "set", "Key": key, "Flags": flags, "Value": value } })
}
