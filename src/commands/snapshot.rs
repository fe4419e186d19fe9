//! `meshctl snapshot`: the whole store in a file.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use postern_control::snapshot::{Header, LONGEST, decode};
use serde_json::{Value, json};

use super::done;
use crate::cli::snapshot::{SnapshotArgs, SnapshotCommand};
use crate::client::Client;
use crate::outcome::{Answer, Failure, Outcome};
use crate::output::Output;
use crate::terminal;

/// For reading or writing everything.
const PATIENCE: Duration = Duration::from_secs(300);
/// For the control plane to start anew.
const RESTART: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Saves, shows and restores.
pub async fn snapshot(args: SnapshotArgs) -> Outcome {
    let output = Output::new(args.output.output);
    match args.command {
        SnapshotCommand::Save { file } => save(&file, output).await,
        SnapshotCommand::Inspect { file } => inspect(&file, output),
        SnapshotCommand::Restore { file, replace_mesh, yes } => restore(&file, replace_mesh, yes, output).await,
    }
}

async fn save(file: &Path, output: Output) -> Outcome {
    let mut client = Client::find().await?;
    let answer = client.ask(Method::GET, "/v1/snapshot", None, PATIENCE).await?;
    if !answer.status.is_success() {
        return Err(client.refusal(&answer));
    }
    // What was cut off on the way is no backup.
    let snapshot = decode(&answer.body).map_err(|error| Failure::new(error.to_string()))?;
    write_new(file, &answer.body)?;
    let shown = json!({ "file": file, "bytes": answer.body.len(), "snapshot": snapshot.header });
    output.show(&shown, |output| {
        format!(
            "{}\nThe seal key is not in it: keep a copy of it apart, or nobody opens the keys and values in this file.",
            header_text(output, &snapshot.header, answer.body.len()).trim_end()
        )
    })?;
    done()
}

fn write_new(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let failure = Failure::new(format!("cannot write {}: {error}", file.display()));
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            failure.cure("choose a new name: a backup is never overwritten")
        } else {
            failure
        }
    };
    let mut made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    let written = made.write_all(bytes).and_then(|()| made.sync_all());
    written.map_err(|error| {
        let _ = std::fs::remove_file(file);
        failed(error)
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |why: String| Failure::new(format!("cannot read {}: {why}", file.display()));
    let open = std::fs::File::open(file).map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    open.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() > LONGEST {
        return Err(failed(format!("it is longer than {} MiB", LONGEST >> 20)));
    }
    Ok(bytes)
}

fn inspect(file: &Path, output: Output) -> Outcome {
    let bytes = read(file)?;
    let snapshot = decode(&bytes).map_err(|error| Failure::new(format!("{}: {}", file.display(), error.0)))?;
    let shown = json!({ "file": file, "bytes": bytes.len(), "snapshot": snapshot.header });
    output.show(&shown, |output| header_text(output, &snapshot.header, bytes.len()))?;
    done()
}

fn header_text(output: &Output, header: &Header, bytes: usize) -> String {
    let counts: Vec<String> = header.counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    output.pairs(&[
        ("mesh", format!("{} ({}, {})", header.cluster_id, header.trust_domain, header.datacenter)),
        ("saved", format!("{} by version {}", header.saved_at, header.version)),
        ("position", format!("epoch {}, revision {}", header.epoch, header.revision)),
        ("records", counts.join(", ")),
        ("size", format!("{bytes} bytes, and whole")),
    ])
}

async fn restore(file: &Path, replace_mesh: bool, yes: bool, output: Output) -> Outcome {
    let bytes = read(file)?;
    let header = decode(&bytes).map_err(|error| Failure::new(format!("{}: {}", file.display(), error.0)))?.header;
    let mut client = Client::find().await?;
    let question = format!(
        "The control plane at {} goes back to {} (revision {}). What was issued and revoked since stays so. Go on?",
        client.place(),
        header.saved_at,
        header.revision
    );
    if !yes {
        if !terminal::can_ask() {
            return Err(Failure::new("nothing was changed: there is no terminal to ask on").cure("give --yes to restore"));
        }
        if !terminal::ask(&question)? {
            return Ok(Answer::No);
        }
    }
    let path = if replace_mesh { "/v1/snapshot?replace-mesh" } else { "/v1/snapshot" };
    let answer = client.ask(Method::PUT, path, Some(bytes), PATIENCE).await?;
    let accepted: Value = client.document(&answer)?;
    let epoch = accepted["epoch"].as_u64().unwrap_or_default();
    until(epoch).await?;
    output.show(&accepted, |_| format!("restored to {}; sidecars take it with epoch {epoch}", header.saved_at))?;
    done()
}

/// The control plane starts anew; it has done so when it tells the new epoch.
async fn until(epoch: u64) -> Result<(), Failure> {
    let end = Instant::now() + RESTART;
    loop {
        let failure = match Client::find().await {
            Ok(client) if client.mesh().epoch >= epoch => return Ok(()),
            Ok(_) => Failure::new("the control plane still has the state of before")
                .cure("see its log: it may have refused the snapshot at the last moment, and nothing has changed then"),
            Err(failure) => failure,
        };
        if Instant::now() >= end {
            return Err(failure);
        }
        tokio::time::sleep(LOOK).await;
    }
}
