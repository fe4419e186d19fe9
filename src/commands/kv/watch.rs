//! Follows a key: each change runs a command or is printed. The control plane answers when there is something new, so
//! nothing is asked in vain.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Reply};
use crate::outcome::{Failure, Outcome};
use crate::terminal;

/// How long one question waits for a change.
const WAIT: Duration = Duration::from_secs(300);
/// Up to a sixteenth more is jitter of the control plane.
const PATIENCE: Duration = Duration::from_secs(320);
/// Pause before a control plane that does not answer is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Follows what is behind `path`, which ends so that parameters can be added, for ever.
pub async fn watch(mut client: Client, path: &str, command: &[OsString]) -> Outcome {
    let mut index = 0;
    let mut told: Option<Vec<u8>> = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let question = format!("{path}index={index}&wait={}s", WAIT.as_secs());
        let reply = match client.ask(Method::GET, &question, None, PATIENCE).await {
            Ok(reply) if !reply.status.is_server_error() => reply,
            // The first question shows whether it can be asked at all.
            Err(failure) if told.is_none() => return Err(failure),
            failed => {
                let why = failed.map_or_else(|failure| failure.to_string(), |reply| client.refusal(&reply).to_string());
                terminal::note(&format!("meshctl: {why}; asking again"));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
                continue;
            }
        };
        pause = FIRST_PAUSE;
        let newest = index_of(&reply)?;
        // A lower one is that of another store: all may be different.
        index = if newest < index { 0 } else { newest };
        let found = state(&client, reply)?;
        if told.as_ref() != Some(&found) {
            tell(command, &found).await?;
            told = Some(found);
        }
    }
}

/// The keys as JSON; none is an empty list.
fn state(client: &Client, reply: Reply) -> Result<Vec<u8>, Failure> {
    match reply.status {
        StatusCode::NOT_FOUND => Ok(b"[]".to_vec()),
        status if status.is_success() => Ok(reply.body.to_vec()),
        _ => Err(client.refusal(&reply)),
    }
}

fn index_of(reply: &Reply) -> Result<u64, Failure> {
    let index = reply.headers.get("x-consul-index").and_then(|value| value.to_str().ok()?.parse().ok());
    match index {
        Some(index) => Ok(index),
        // A refusal has none, and ends the watch by its own words.
        None if !reply.status.is_success() => Ok(0),
        None => Err(Failure::new("the answer has no index to wait from")),
    }
}

async fn tell(command: &[OsString], state: &[u8]) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else {
        let mut line = state.to_vec();
        line.push(b'\n');
        return terminal::print(&String::from_utf8_lossy(&line));
    };
    let name = program.to_string_lossy().into_owned();
    let failed = |error: std::io::Error| Failure::new(format!("cannot run {name}: {error}"));
    let mut child =
        tokio::process::Command::new(program).args(arguments).stdin(Stdio::piped()).kill_on_drop(true).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read it does not want it.
        let _ = stdin.write_all(state).await;
    }
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        terminal::note(&format!("meshctl: {name} ended with {status}; still watching"));
    }
    Ok(())
}
