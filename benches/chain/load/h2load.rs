//! Requests over HTTP/2 by h2load: as many as `streams` at once, over one connection.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::Cost;
use crate::pair::Pair;
use crate::permission::{ITEMS, UNARY};
use crate::service::http2::{GRPC, message};

/// What the requests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// GET of [`ITEMS`].
    Items,
    /// Unary calls of gRPC.
    Calls,
}

/// Ends after `length`, in whole seconds; requests that are then not answered are not counted.
pub async fn h2load(pair: &Pair, asked: Asked, streams: usize, length: Duration) -> anyhow::Result<Cost> {
    let entry = pair.entries.first().context("a pair has an entry")?;
    let mut body = tempfile::NamedTempFile::new()?;
    body.write_all(&message())?;
    let mut command = Command::new("h2load");
    command.args(["--threads=1", "--clients=1"]).arg(format!("--max-concurrent-streams={streams}"));
    command.arg(format!("--duration={:.0}", length.as_secs_f64().ceil()));
    if asked == Asked::Calls {
        command.arg(format!("--header=content-type: {GRPC}")).arg("--header=te: trailers").arg("--data").arg(body.path());
        command.arg(format!("http://{entry}{UNARY}"));
    } else {
        command.arg(format!("http://{entry}{ITEMS}"));
    }
    let cpu = pair.cpu()?;
    let output = command.kill_on_drop(true).output().await.context("cannot start h2load")?;
    let cpu = pair.cpu()?.saturating_sub(cpu);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let (units, rate) = counted(&text).with_context(|| format!("h2load says something else than expected:\n{text}"))?;
    Ok(Cost { units, cpu, wall: Duration::from_secs_f64(units / rate) })
}

/// Requests that were answered with a body, and those a second.
///
/// # Errors
/// If some of them failed. A refusal of gRPC has the status 200 too, but no message: the bytes tell.
fn counted(text: &str) -> anyhow::Result<(f64, f64)> {
    let (succeeded, failed) = (number(text, "requests:", " succeeded")?, number(text, "requests:", " failed")?);
    ensure!(succeeded > 0.0 && failed == 0.0, "{failed} requests failed, {succeeded} did not");
    ensure!(number(text, "status codes:", " 2xx")? >= succeeded, "not every status is 2xx");
    let data = number(text, "traffic:", " data")?;
    ensure!(data >= succeeded * BODY, "answers without a body: {data} bytes in {succeeded}");
    Ok((succeeded, number(text, "finished in", " req/s")?))
}

/// What every answer has at least.
const BODY: f64 = 200.0;

/// The number before a word, in the line that begins with another; it may stand in parentheses.
fn number(text: &str, line: &str, word: &str) -> anyhow::Result<f64> {
    let line = text.lines().find(|candidate| candidate.starts_with(line)).with_context(|| format!("no «{line}»"))?;
    let end = line.find(word).with_context(|| format!("no «{word}» in {line}"))?;
    let digits = line[..end].trim_end_matches(['(', ')', ' ']).rsplit([' ', '(']).next().unwrap_or_default();
    digits.parse().with_context(|| format!("no number before «{word}» in {line}"))
}
